"""A second run over a finished cohort: `padflow preprocess` as a user starts it, from the shell's prompt to the next.

The cohort is made up of files of a few bytes, each of them real: 10,000 scans, their 19,800 prepared objects and 100
exclusions, on a local disk and on an S3 server in its own process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import psutil

from infra.storage import Store
from tasks.steps.index import index_cohort
from tests.benchmarks import simulated
from tests.benchmarks.rows import Row
from tests.benchmarks.s3_server import BUCKET, s3_server

SCANS = 10_000
LOCAL_BAR_S, S3_BAR_S = 5.0, 20.0
REPEATS = 3


def rows() -> list[Row]:
    """One row for each kind of store."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = simulated.write_study(folder)
        simulated.write_bids(folder / "bids", SCANS)
        store = Store(str(folder / "store"), folder / "cache")
        simulated.finish(store, study, index_cohort(store, "healthy", str(folder / "bids")))
        local = {**os.environ, **_settings(folder, str(folder))}
        return [_local(study, local), _on_s3(study, folder)]


def _local(study: Path, environment: Mapping[str, str]) -> Row:
    times = [preprocess_s(study, environment) for _ in range(REPEATS)]
    status = command_s("status", study, environment)
    return Row(
        f"second run over a finished cohort of {SCANS:,}, local store",
        f"≤ {LOCAL_BAR_S:.0f} s",
        f"{median(times):.1f} s (the median of {REPEATS} whole processes)",
        median(times) <= LOCAL_BAR_S,
        f"`padflow status` of the same cohort takes {status:.1f} s.",
    )


def _on_s3(study: Path, folder: Path) -> Row:
    # Where the index lies depends on the root's address, so it is made anew; what is prepared is named by bytes alone.
    shutil.rmtree(folder / "store" / "cohorts")
    with s3_server(folder) as environment:
        server = psutil.Process(int(environment["SERVER"]))
        where = _settings(folder, f"s3://{BUCKET}")
        first = preprocess_s(study, {**environment, **where})
        before = sum(server.cpu_times()[:2])
        second = preprocess_s(study, {**environment, **where})
        of_server = sum(server.cpu_times()[:2]) - before
    return Row(
        f"second run over a finished cohort of {SCANS:,}, S3",
        f"≤ {S3_BAR_S:.0f} s",
        f"{second:.1f} s",
        second <= S3_BAR_S,
        f"{of_server:.1f} s of it are the processor time of the S3 server (moto), which lists 30,000 keys in 30 pages. "
        f"The first index of this root, which reads and hashes every scan, took {first:.0f} s.",
    )


def _settings(folder: Path, data: str) -> dict[str, str]:
    return {"PADFLOW_STORE": f"{data}/store", "PADFLOW_DATA": data, "PADFLOW_HOME": str(folder / "home")}


def preprocess_s(study: Path, environment: Mapping[str, str]) -> float:
    """Seconds of one `padflow preprocess` that finds nothing to do."""
    return command_s("preprocess", study, environment, "prepared 0, excluded 0 scans")


def command_s(command: str, study: Path, environment: Mapping[str, str], expected: str = "") -> float:
    """Seconds of one command, as a process of its own."""
    given = [sys.executable, "-m", "flows.cli", command, str(study)]
    start = time.perf_counter()
    ended = subprocess.run(given, check=False, env=dict(environment), stdout=subprocess.PIPE, text=True)
    took = time.perf_counter() - start
    if expected not in ended.stdout:
        raise RuntimeError(f"`padflow {command}` printed {ended.stdout!r}, expected {expected!r} in it")
    return took


if __name__ == "__main__":
    print(*rows(), sep="\n")
