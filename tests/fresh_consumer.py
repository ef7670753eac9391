"""`make test-consumer`: a registered model in a fresh environment of its own requirements, far from padflow.

It downloads torch, so it is no part of `make test`. The environment is made, the model's own requirements are
installed, and the model is loaded and asked by the same scans there and here: the numbers must be equal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

from infra import tracking
from infra.model_table import COLUMNS, FIGURES
from infra.settings import load_settings
from tasks.science.imaging.grid import grid_shape
from tests.conftest import SHARED_DATA
from tests.small_champion import RECIPE, URI, one_scan, register_small

CONSUMER = """
import importlib.util, json, sys
import mlflow, pandas as pd
names = ("flows", "tasks", "infra", "lightning_modules", "prefect", "dask", "pytorch_lightning")
assert not [name for name in names if importlib.util.find_spec(name)], "padflow must be absent here"
model = mlflow.pyfunc.load_model(sys.argv[1])
print(model.predict(pd.read_json(sys.argv[2], orient="records", dtype=False)).to_json(orient="records"))
"""


def main() -> None:
    """Measure and compare; an error says what differs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = load_settings(folder / "home")
        register_small(tracking.connect(settings), settings, (str(folder), str(SHARED_DATA)))
        np.save(folder / "scan.npy", np.random.default_rng(0).normal(size=(1, *grid_shape(RECIPE))).astype(np.float16))
        scan = one_scan(SHARED_DATA, folder / "phantom")
        rows = [
            {"image": str(scan), "age_years": 40.0},
            {"prepared": str(folder / "scan.npy")},
            {"image": "/etc/hosts"},
        ]
        (folder / "rows.json").write_text(json.dumps(rows))
        expected = mlflow.pyfunc.load_model(URI).predict(pd.DataFrame(rows))
        model = Path(mlflow.artifacts.download_artifacts(URI, dst_path=str(folder / "model")))
        found, took_s = _elsewhere(folder, model)
    pd.testing.assert_frame_equal(found[list(COLUMNS)], expected, check_dtype=False)
    assert expected["status"].tolist() == ["ok", "ok", "refused"]
    numbers = int(expected[list(FIGURES)].notna().sum().sum())
    print(f"equal: {len(found)} rows, {numbers} numbers; " + ", ".join(f"{k} {v:.0f} s" for k, v in took_s.items()))


def _elsewhere(folder: Path, model: Path) -> tuple[pd.DataFrame, dict[str, float]]:
    """Install the model's requirements into an environment of its own and predict there."""
    python = folder / "venv" / "bin" / "python"
    requirements = model / "requirements.txt"
    print(requirements.read_text(), flush=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    consume = [str(python), "-c", CONSUMER, str(model), str(folder / "rows.json")]
    commands = {
        "environment": [sys.executable, "-m", "venv", str(python.parents[1])],
        "install": [str(python), "-m", "pip", "install", "-q", "--no-cache-dir", "-r", str(requirements)],
        "load and predict": consume,
    }
    took_s, printed = {}, ""
    for what, command in commands.items():
        start = time.monotonic()
        printed = subprocess.run(
            command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        took_s[what] = time.monotonic() - start
        print(f"{what}: {took_s[what]:.0f} s", flush=True)
    answer = pd.DataFrame(json.loads(printed.strip().splitlines()[-1]))
    return answer.astype(dict.fromkeys(FIGURES, float)), took_s


if __name__ == "__main__":
    main()
