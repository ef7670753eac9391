"""A study's fan-out with nothing to do per scan: what orchestration alone costs, in time and in the flow's memory.

Run in a process of its own, `python -m tests.benchmarks.no_op HOME SCANS [raw]`, which prints one line of JSON.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import mean
from typing import Any

import psutil

from tasks.records import PreparedScan, Recipe, ScanRef

MIB = 2**20


def prepare_nothing(store_url: str, cache: str, scan: ScanRef, recipe: Recipe, recipe_key: str) -> PreparedScan:
    """Stand in for `prepare_one`: the same arguments and result, no work."""
    return PreparedScan(scan.scan_id, scan.sha256, f"prepared/{scan.sha256}.npy", {})


def made_up_scans(count: int) -> list[ScanRef]:
    """Scans that are nowhere."""
    return [
        ScanRef(f"c/sub-{n:06}_T1w", "c", f"sub-{n:06}", "", "", "T1w", f"/none/sub-{n:06}_T1w.nii.gz", 9, f"{n:064x}")
        for n in range(count)
    ]


def measured(home: Path, scans: int, *also: str) -> dict[str, Any]:
    """Run the fan-out in a process of its own, so that no other benchmark's memory counts."""
    (home / "prefect").mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "PADFLOW_HOME": str(home),
        "PADFLOW_WORKERS": "2",
        "PREFECT_HOME": str(home / "prefect"),
    }
    command = [sys.executable, "-m", "tests.benchmarks.no_op", str(home), str(scans), *also]
    printed = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(printed.splitlines()[-1]))


class PeakMemory(threading.Thread):
    """Watches this process's resident memory while a block runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mib = 0.0
        self._ended = threading.Event()

    def __enter__(self) -> PeakMemory:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        """Look ten times a second."""
        process = psutil.Process()
        while not self._ended.wait(0.1):
            self.peak_mib = max(self.peak_mib, process.memory_info().rss / MIB)


def main(home: Path, count: int, with_raw: bool) -> None:
    """Time raw Dask (where asked for) and the flow's slices on one cluster; print what was found."""
    from infra.settings import load_settings

    settings = load_settings(home)
    from prefect import flow

    from flows.preprocess import RUNNER, fan_out
    from infra.clusters import connect
    from infra.storage import Store
    from tasks.steps import preprocess

    preprocess.prepare_one = prepare_nothing  # type: ignore[assignment]
    store = Store(settings.store, home / "cache")
    scans = made_up_scans(count)
    work = functools.partial(prepare_nothing, store.url, str(store.cache), recipe=Recipe(), recipe_key="none")
    found: dict[str, Any] = {"scans": count}

    @flow(name="no-op", task_runner=RUNNER, validate_parameters=False)
    def timed() -> list[dict[str, Any]]:
        found["prefect_start_s"] = time.perf_counter() - begun
        with connect(settings) as client:
            client.wait_for_workers(2)
            client.gather(client.map(work, scans[:200], pure=False))
            raw_s = [_raw(client, work, scans)] if with_raw else []
            start = time.perf_counter()
            with PeakMemory() as memory:
                results = fan_out(client, store, scans, Recipe(), "none", lambda: None)
            found["sliced_s"] = time.perf_counter() - start
            found["peak_mib"] = memory.peak_mib
            if with_raw:
                # Before and after, since a machine's speed drifts within a minute.
                found["raw_s"] = mean([*raw_s, _raw(client, work, scans)])
            return results

    begun = time.perf_counter()
    results = timed()
    assert sum(result["prepared"] for result in results) == count
    print(json.dumps(found))


def _raw(client: Any, work: Any, scans: list[ScanRef]) -> float:
    start = time.perf_counter()
    client.gather(client.map(work, scans, pure=False))
    return time.perf_counter() - start


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), "raw" in sys.argv[3:])
