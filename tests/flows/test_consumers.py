"""One registered model, consumed by Python, over HTTP and from the command line: equal results, nothing else used."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from infra import tracking
from infra.model_table import COLUMNS, FIGURES, QUALITY_COLUMNS
from infra.settings import Settings, load_settings
from tasks.science.imaging.grid import grid_shape
from tests.command_line import CommandLine
from tests.conftest import SHARED_DATA
from tests.processes import free_port, healthy, running, wait_until
from tests.small_champion import RECIPE, URI, one_scan, register_small


class Champion:
    """A registered model, its home, and a scan that it may read."""

    def __init__(self, folder: Path) -> None:
        (folder / "store").mkdir()
        self.settings: Settings = load_settings(folder / "home")
        client = tracking.connect(self.settings)
        self.version = register_small(client, self.settings, (str(folder / "store"),))
        self.scan = one_scan(SHARED_DATA, folder / "phantom")
        self.prepared = folder / "store" / "scan.npy"
        random = np.random.default_rng(0)
        np.save(self.prepared, random.normal(size=(1, *grid_shape(RECIPE))).astype(np.float16))
        (folder / "secret.nii.gz").write_bytes(self.scan.read_bytes()[:100])
        self.secret = folder / "secret.nii.gz"

    @property
    def environment(self) -> dict[str, str]:
        """For a process that consumes it."""
        roots = {"PADFLOW_IMAGE_ROOTS": str(self.scan.parent), "MLFLOW_TRACKING_URI": self.settings.tracking_uri}
        # MLflow starts its server by name, and the environment need not be activated.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        return {**os.environ, **roots, "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"}

    def table(self) -> pd.DataFrame:
        """Scans that give a number, and some that must not."""
        rows: list[dict[str, Any]] = [
            {"image": str(self.scan), "age_years": 40.0, "sex": "F"},
            {"image": str(self.scan.parent / "absent.nii.gz"), "age_years": 40.0, "sex": "male"},
            {"image": str(self.secret), "age_years": 40.0, "sex": 1},
            {"image": None, "age_years": 40.0, "sex": None},
            {"image": None, "prepared": str(self.prepared), "age_years": None, "sex": None},
            {"image": None, "prepared": str(self.prepared), "age_years": "forty", "sex": None},
            {"image": "http://127.0.0.1:1/a.nii", "age_years": float("nan"), "sex": None},
        ]
        table = pd.DataFrame(rows).astype(object)
        return table.where(table.notna(), None)


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Champion]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "PADFLOW_HOME", "PADFLOW_IMAGE_ROOTS"):
            patch.delenv(name, raising=False)
        yield Champion(tmp_path_factory.mktemp("champion"))


@pytest.fixture
def server(champion: Champion, tmp_path: Path) -> Iterator[str]:
    """`mlflow models serve` in a process of its own."""
    port, log = free_port(), tmp_path / "server.log"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", URI, "-h", "127.0.0.1", "-p", str(port)]
    with running([*command, "--env-manager", "local"], log, champion.environment) as process:
        wait_until("mlflow models serve", lambda: healthy(f"http://127.0.0.1:{port}/ping"), process, log)
        yield f"http://127.0.0.1:{port}/invocations"


def ask(address: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Predictions over HTTP, by a reader that knows no NaN."""
    request = urllib.request.Request(  # noqa: S310
        address, json.dumps(body, allow_nan=False).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=200) as answer:  # noqa: S310
        text = answer.read()
    return list(json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))["predictions"])


def test_python_http_and_the_command_line_give_equal_results(
    champion: Champion, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = champion.table()
    monkeypatch.setenv("PADFLOW_IMAGE_ROOTS", str(champion.scan.parent))
    found = mlflow.pyfunc.load_model(URI).predict(table)
    assert found["status"].tolist() == ["ok", "unreadable", "refused", "rejected", "ok", "rejected", "refused"]
    assert found.columns.tolist() == list(COLUMNS)
    assert (
        found.loc[[0, 4], ["predicted_age_years", "interval_low_years", "ensemble_spread_years"]].notna().all(axis=None)
    )
    assert found.loc[0, "brain_pad_years"] == found.loc[0, "predicted_age_years"] - 40.0
    assert found.loc[0, list(QUALITY_COLUMNS)].notna().all()
    assert found.drop([0, 4])[list(FIGURES)].isna().all(axis=None)
    assert (found.drop([0])["reason"] != "").all()

    split = ask(server, {"dataframe_split": table.to_dict("split")})
    # Without the columns that a row does not need.
    some = [{name: value for name, value in row.items() if value is not None} for row in table.to_dict("records")[1:]]
    for answer in (split, split[:1] + ask(server, {"dataframe_records": some})):
        pd.testing.assert_frame_equal(pd.DataFrame(answer)[list(FIGURES)].astype(float), found[list(FIGURES)])
        for name in ("status", "reason", "quality_flags", "fit_key"):
            assert [row[name] for row in answer] == found[name].tolist()
    assert all(row["predicted_age_years"] is None for row in (split[1], split[2], split[3]))
    alone = ask(server, {"dataframe_records": [{"prepared": str(champion.prepared)}]})
    assert alone[0]["predicted_age_years"] == found["predicted_age_years"][4]

    padflow = CommandLine(champion.settings.home, str(tmp_path))
    out = tmp_path / "ages.csv"
    absent = str(champion.scan.parent / "absent.nii.gz")
    padflow("predict", URI, str(champion.scan), absent, "--age", "40", "--out", str(out), code=3)
    told = pd.read_csv(out, keep_default_na=False, na_values=[""])
    pd.testing.assert_frame_equal(told[list(FIGURES)], found.loc[[0, 1], list(FIGURES)].reset_index(drop=True))
    assert told["status"].tolist() == ["ok", "unreadable"]
    assert told["model_version"].tolist() == [champion.version.uri] * 2
    assert told["fit_key"].tolist() == ["small-fit"] * 2


def test_a_consumers_own_modules_are_left_alone(champion: Champion, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("mine = 1\n")
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra" / "__init__.py").write_text("mine = 2\n")
    (tmp_path / "infra" / "image_roots.py").write_text("mine = 3\n")
    code = (
        "import sys, tasks\n"
        "import mlflow, pandas as pd\n"
        f"model = mlflow.pyfunc.load_model({URI!r})\n"
        f"table = model.predict(pd.DataFrame({{'prepared': [{str(champion.prepared)!r}]}}))\n"
        "import infra, infra.image_roots, tasks as again\n"
        "assert (tasks.mine, infra.mine, infra.image_roots.mine, again) == (1, 2, 3, tasks)\n"
        "names = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not names & {'flows', 'lightning_modules', 'prefect', 'dask', 'pytorch_lightning'}, names\n"
        "print(table['status'][0])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=champion.environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert result.stdout.strip().endswith("ok"), result.stderr[-3000:]


class Payload:
    """A pickle that acts when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


def test_nothing_in_the_logged_model_is_executed_but_its_code(champion: Champion, tmp_path: Path) -> None:
    logged = Path(mlflow.artifacts.download_artifacts(URI, dst_path=str(tmp_path / "model")))
    files = {path: path.read_bytes() for path in logged.rglob("*") if path.is_file()}
    assert {path.suffix for path in files} <= {".py", ".json", ".safetensors", ".txt", ".yaml", ""}
    for path, content in files.items():
        # Every pickle of protocol 2 and later, and torch's zip files, begin so.
        assert not content.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")), path
    model = mlflow.pyfunc.load_model(str(logged))
    # What a consumer must know stands where it can be read without running anything.
    assert model.metadata.metadata["unit_of_ages"].startswith("years")
    assert model.metadata.metadata["target_unit"] == "years"
    assert model.metadata.metadata["image_roots"] == [str(champion.prepared.parent)]
    acted = tmp_path / "acted"
    weights = next(logged.rglob("member-0.safetensors"))
    weights.write_bytes(pickle.dumps(Payload(acted)))
    with pytest.raises(Exception, match=r"(?i)safetensor|header"):
        mlflow.pyfunc.load_model(str(logged))
    assert not acted.exists()
    shutil.rmtree(logged)
