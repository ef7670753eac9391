"""Execution settings: where a study runs. They come from the environment or flags and are never part of a key."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

# Usage reports to third parties are off unless a user switches them on: a clinical network may not allow them.
QUIET_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # The command line says what went wrong in words; Prefect would print the whole traceback before that.
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass(frozen=True)
class Settings:
    """Where things run and where bytes live.

    Attributes:
        home: Local folder for what the embedded defaults write: store, MLflow, cache, training scratch.
        store: URL of the object store (`PADFLOW_STORE`); credentials come from `AWS_*`, never from here.
        data: Folder or URL that relative cohort roots are below (`PADFLOW_DATA`).
        workers: Dask workers of a local cluster (`PADFLOW_WORKERS`).
        worker_memory: Memory limit of each (`PADFLOW_WORKER_MEMORY`, Dask notation).
        scheduler: Address of a running Dask cluster (`DASK_SCHEDULER_ADDRESS`); none: a local one is started.
        tracking_uri: MLflow tracking (`MLFLOW_TRACKING_URI`).
        registry_uri: MLflow registry (`MLFLOW_REGISTRY_URI`); by default the tracking server's.
    """

    home: Path
    store: str
    data: str
    workers: int
    worker_memory: str
    scheduler: str | None
    tracking_uri: str
    registry_uri: str


def load_settings(home: Path | None = None) -> Settings:
    """Read the environment once; everything has a default that works on one machine without any server.

    Args:
        home: Overrides `PADFLOW_HOME` (default: `.padflow` in the working folder).
    """
    for name, value in QUIET_DEFAULTS.items():
        os.environ.setdefault(name, value)
    env = os.environ
    folder = (home or Path(env.get("PADFLOW_HOME", ".padflow"))).absolute()
    tracking_uri = env.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
    return Settings(
        home=folder,
        store=_absolute(env.get("PADFLOW_STORE") or str(folder / "store")),
        data=env.get("PADFLOW_DATA") or ".",
        workers=_whole_number("PADFLOW_WORKERS", len(os.sched_getaffinity(0))),
        worker_memory=env.get("PADFLOW_WORKER_MEMORY") or "3GiB",
        scheduler=env.get("DASK_SCHEDULER_ADDRESS") or None,
        tracking_uri=tracking_uri,
        registry_uri=env.get("MLFLOW_REGISTRY_URI") or tracking_uri,
    )


def _absolute(url: str) -> str:
    # Workers stand in folders of their own.
    return url if "://" in url else str(Path(url).absolute())


def _whole_number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{name} is {text!r}; expected a whole number of at least 1. Unset it for {default}.")
    return int(text)
