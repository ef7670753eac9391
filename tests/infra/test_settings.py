"""Execution settings come from the environment under the ecosystem's own names."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.settings import QUIET_DEFAULTS, load_settings


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PADFLOW_STORE", "PADFLOW_WORKERS", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", *QUIET_DEFAULTS):
        # Setting first makes monkeypatch restore what load_settings puts there.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("PADFLOW_HOME", str(tmp_path))


def test_everything_has_an_embedded_default(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.store == str(tmp_path / "store")
    assert settings.tracking_uri == settings.registry_uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert settings.workers >= 1


def test_the_ecosystems_names_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    monkeypatch.setenv("PADFLOW_STORE", "s3://bucket/x")
    monkeypatch.setenv("PADFLOW_WORKERS", "7")
    settings = load_settings()
    assert (settings.tracking_uri, settings.store, settings.workers) == ("http://127.0.0.1:5000", "s3://bucket/x", 7)
    assert settings.registry_uri == settings.tracking_uri


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_a_wrong_number_of_workers_is_said(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PADFLOW_WORKERS", text)
    with pytest.raises(ValueError, match="PADFLOW_WORKERS"):
        load_settings()
