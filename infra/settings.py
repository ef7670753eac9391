"""Execution settings: where a study runs. They come from the environment or flags and are never part of a key."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dask.utils import parse_bytes, parse_timedelta

# A batch queue may be full for a while; a job that waits costs nothing.
DEFAULT_WORKER_WAIT = "2h"

# Usage reports to third parties are off unless a user switches them on: a clinical network may not allow them.
QUIET_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
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
        cluster: Where scans are prepared (`PADFLOW_CLUSTER`): `local`, the address of a Dask scheduler, `slurm`,
            `kubernetes`, or a profile (TOML) of one of these two. Dask's own `DASK_SCHEDULER_ADDRESS` is its default.
        asked_workers: How many workers (`PADFLOW_WORKERS`); none: the profile's number, locally one per core.
        worker_memory: Memory limit of each (`PADFLOW_WORKER_MEMORY`, Dask notation); none: the profile's, or 3 GiB.
        worker_wait_s: How long to wait for the first worker, in seconds (`PADFLOW_WORKER_WAIT`, Dask notation).
        tracking_uri: MLflow tracking (`MLFLOW_TRACKING_URI`).
        registry_uri: MLflow registry (`MLFLOW_REGISTRY_URI`); by default the tracking server's.
        cache: Local folder for copies of a remote store's scans (`PADFLOW_CACHE`); none: `cache` in the home. A
            training reads them every epoch, so it belongs on the fastest local disk, and may be shared by jobs.
        cache_bytes: Most bytes of these copies (`PADFLOW_CACHE_GIB`, GiB); none: half of what the disk could give.
    """

    home: Path
    store: str
    data: str
    cluster: str
    asked_workers: int | None
    worker_memory: str | None
    worker_wait_s: float
    tracking_uri: str
    registry_uri: str
    cache: Path
    cache_bytes: int | None = None

    @property
    def workers(self) -> int:
        """How many processes to start on this machine: as asked, or one per core that this process may use."""
        return self.asked_workers or len(os.sched_getaffinity(0))

    @property
    def has_registry(self) -> bool:
        """Whether there is a registry to ask; an embedded one that nobody has made yet is not made for a question."""
        embedded = self.registry_uri.startswith("sqlite:///")
        return not embedded or Path(self.registry_uri.removeprefix("sqlite:///")).exists()

    @property
    def shown_tracking_uri(self) -> str:
        """The tracking server's address as it may be printed: without its password."""
        scheme, separator, rest = self.tracking_uri.partition("://")
        hides = separator and "@" in rest.split("/")[0]
        return f"{scheme}://{rest.rsplit('@', 1)[-1]}" if hides else self.tracking_uri


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
        cluster=env.get("PADFLOW_CLUSTER") or env.get("DASK_SCHEDULER_ADDRESS") or "local",
        asked_workers=_whole_number("PADFLOW_WORKERS"),
        worker_memory=_memory("PADFLOW_WORKER_MEMORY"),
        worker_wait_s=_duration_s("PADFLOW_WORKER_WAIT", DEFAULT_WORKER_WAIT),
        tracking_uri=tracking_uri,
        registry_uri=env.get("MLFLOW_REGISTRY_URI") or tracking_uri,
        cache=Path(env.get("PADFLOW_CACHE") or folder / "cache").absolute(),
        cache_bytes=_gib("PADFLOW_CACHE_GIB"),
    )


def _absolute(url: str) -> str:
    # Workers stand in folders of their own.
    return url if "://" in url else str(Path(url).absolute())


def _whole_number(name: str) -> int | None:
    text = os.environ.get(name, "")
    if not text:
        return None
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{name} is {text!r}; expected a whole number of at least 1. Unset it for the default.")
    return int(text)


def _memory(name: str) -> str | None:
    text = os.environ.get(name) or None
    if text is not None:
        _parsed(name, text, parse_bytes, "an amount of memory such as 3GiB")
    return text


def _gib(name: str) -> int | None:
    text = os.environ.get(name)
    return int(_parsed(name, text, lambda number: parse_bytes(f"{number}GiB"), "GiB such as 50")) if text else None


def _duration_s(name: str, default: str) -> float:
    return _parsed(name, os.environ.get(name) or default, parse_timedelta, "a duration such as 30min or 12h")


def _parsed(name: str, text: str, parse: Callable[[str], float | None], expected: str) -> float:
    try:
        value = parse(text)
    except (ValueError, KeyError):
        value = None
    if value is None or value <= 0:
        raise ValueError(f"{name} is {text!r}; expected {expected}. Unset it for the default.")
    return float(value)
