"""Processes are killed in the middle of preprocessing: the next run finishes, nothing is done twice or lost."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil

from tests.command_line import CommandLine
from tests.flows.test_study import snapshot

PATIENCE_S = 240


def wait_for_prepared(store: Path, count: int) -> None:
    """Wait until so many scans are done."""
    deadline = time.monotonic() + PATIENCE_S
    while len(list(store.glob("prepared/*/*.json"))) < count:
        assert time.monotonic() < deadline, "preprocessing made no progress"
        time.sleep(0.05)


def finished_scans(store: Path) -> dict[str, tuple[int, int]]:
    """The scans that are done, and marks that change when one is done again."""
    marks = snapshot(store)
    done = {name.removesuffix(".json") for name in marks if name.startswith("prepared/") and name.endswith(".json")}
    return {
        name: marks[name] for name in marks if any(name == f"{scan}.{end}" for scan in done for end in ("json", "npy"))
    }


def counts(padflow: CommandLine, study: Path) -> list[tuple[int, int, int]]:
    cohorts = json.loads(padflow("status", str(study), "--json"))["cohorts"]
    return [(c["indexed"], c["prepared"], c["missing"]) for c in cohorts]


def test_killed_flow_is_continued(study_file: Path, phantoms: Path, tmp_path: Path) -> None:
    padflow = CommandLine(tmp_path / "home", str(phantoms))
    store = tmp_path / "home" / "store"
    flow = padflow.start("preprocess", str(study_file))
    wait_for_prepared(store, 4)
    os.killpg(flow.pid, signal.SIGKILL)
    flow.wait()
    before = finished_scans(store)
    assert 4 <= len(before) // 2 < 33
    result = json.loads(padflow("preprocess", str(study_file), "--json"))
    after = finished_scans(store)
    assert {name: after[name] for name in before} == before
    assert result["prepared"] == 33 - len(before) // 2
    assert counts(padflow, study_file) == [(16, 16, 0), (5, 5, 0), (12, 12, 0)]


def test_killed_worker_loses_nothing(study_file: Path, phantoms: Path, tmp_path: Path) -> None:
    padflow = CommandLine(tmp_path / "home", str(phantoms))
    store = tmp_path / "home" / "store"
    flow = padflow.start("preprocess", str(study_file), "--json")
    wait_for_prepared(store, 3)
    before = finished_scans(store)
    # A nanny's child runs the worker; its command line is multiprocessing's.
    workers = [p for p in psutil.Process(flow.pid).children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
    workers[0].send_signal(signal.SIGKILL)
    stdout = padflow.finish(flow)
    after = finished_scans(store)
    assert {name: after[name] for name in before} == before
    assert json.loads(stdout) == {"prepared": 33, "excluded": 0}
    assert counts(padflow, study_file) == [(16, 16, 0), (5, 5, 0), (12, 12, 0)]
