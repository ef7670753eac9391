"""Execution settings come from the environment under the ecosystem's own names."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.settings import QUIET_DEFAULTS, load_settings


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        *("PADFLOW_STORE", "PADFLOW_WORKERS", "PADFLOW_WORKER_MEMORY", "PADFLOW_WORKER_WAIT", "PADFLOW_CLUSTER"),
        *("PADFLOW_CACHE", "PADFLOW_CACHE_GIB", "DASK_SCHEDULER_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"),
        *QUIET_DEFAULTS,
    ):
        # Setting first makes monkeypatch restore what load_settings puts there.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("PADFLOW_HOME", str(tmp_path))


def test_everything_has_an_embedded_default(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.store == str(tmp_path / "store")
    assert settings.tracking_uri == settings.registry_uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert (settings.cluster, settings.asked_workers) == ("local", None)
    assert settings.workers >= 1
    assert settings.worker_wait_s == 7200
    assert (settings.cache, settings.cache_bytes) == (tmp_path / "cache", None)


def test_the_ecosystems_names_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    monkeypatch.setenv("PADFLOW_STORE", "s3://bucket/x")
    monkeypatch.setenv("PADFLOW_WORKERS", "7")
    settings = load_settings()
    assert (settings.tracking_uri, settings.store, settings.workers) == ("http://127.0.0.1:5000", "s3://bucket/x", 7)
    assert settings.registry_uri == settings.tracking_uri


def test_the_cache_may_lie_on_another_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PADFLOW_CACHE", str(tmp_path / "nvme"))
    monkeypatch.setenv("PADFLOW_CACHE_GIB", "1.5")
    settings = load_settings()
    assert (settings.cache, settings.cache_bytes) == (tmp_path / "nvme", 3 * 2**29)


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_a_wrong_number_of_workers_is_said(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PADFLOW_WORKERS", text)
    with pytest.raises(ValueError, match="PADFLOW_WORKERS"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("PADFLOW_WORKER_MEMORY", "three"), ("PADFLOW_WORKER_WAIT", "soon"), ("PADFLOW_WORKER_WAIT", "0s")),
        *(("PADFLOW_CACHE_GIB", text) for text in ("0", "-1", "inf", "nan", "50 apples")),
    ],
)
def test_an_amount_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(ValueError, match=f"{name} is '{text}'; expected"):
        load_settings()


def test_dasks_own_address_is_the_default_of_the_one_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tls://site:8786")
    assert load_settings().cluster == "tls://site:8786"
    monkeypatch.setenv("PADFLOW_CLUSTER", "local")
    assert load_settings().cluster == "local"
