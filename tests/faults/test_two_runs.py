"""Two runs of one study on one store at the same time: both end well, and every object is published once."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from tests.command_line import CommandLine
from tests.faults.conftest import Audit, local_objects, remarks, sha256s, whole_scans
from tests.flows.test_study import snapshot


def test_two_runs_at_the_same_time_publish_each_scan_once(study: Path, cohort: Path, tmp_path: Path) -> None:
    audit = Audit(tmp_path, str(cohort), embedded=True, empty=True, PADFLOW_WORKERS="1")
    first = audit.padflow
    # The same home, so the same cache, scratch and Prefect database (empty); only what they print is kept apart.
    second = CommandLine(tmp_path / "second", str(cohort))
    second.environment = first.environment
    runs = [(padflow, padflow.start("preprocess", str(study), "--json")) for padflow in (first, second)]
    seen: dict[str, set[tuple[int, int]]] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            for name, mark in snapshot_or_less(audit.store).items():
                seen.setdefault(name, set()).add(mark)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        printed = [json.loads(padflow.finish(process)) for padflow, process in runs]
    finally:
        done.set()
        watcher.join()
    scans = sha256s(cohort)
    assert whole_scans(local_objects(audit.store)) == scans
    assert audit.counts("finished") == dict.fromkeys(scans, 1)
    assert set(audit.counts("computed").values()) <= {1, 2}
    assert {name: len(marks) for name, marks in seen.items()} == dict.fromkeys(seen, 1)
    assert remarks(first.stderr + second.stderr) == []
    assert [result["excluded"] for result in printed] == [0, 0]
    assert max(result["prepared"] for result in printed) == len(scans)


def snapshot_or_less(store: Path) -> dict[str, tuple[int, int]]:
    """The prepared objects, unless one of the drafts beside them went away in the middle."""
    try:
        return {
            name: mark
            for name, mark in snapshot(store).items()
            if name.startswith("prepared/") and ".writing-" not in name
        }
    except FileNotFoundError:
        return {}
