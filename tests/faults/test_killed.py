"""Processes are killed in the middle of preprocessing: the next run finishes, nothing is done twice or lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from tests.faults.conftest import SUBJECTS, Audit, local_objects, sha256s, wait_until_gone, whole_scans
from tests.flows.test_study import snapshot


def check_once(audit: Audit, cohort: Path, before: dict[str, tuple[int, int]], deaths: int) -> None:
    """Every scan is there, was finished once, and was computed again only where a death had cut it off."""
    scans = sha256s(cohort)
    assert whole_scans(local_objects(audit.store)) == scans
    assert audit.counts("finished") == dict.fromkeys(scans, 1)
    assert audit.computed_after_finish() == []
    # Computed, and killed before the object was written: once for each death at most.
    assert audit.counts("computed").total() <= len(scans) + deaths
    after = snapshot(audit.store)
    kept = {name: mark for name, mark in before.items() if name.startswith("prepared/") and ".writing-" not in name}
    assert {name: after[name] for name in kept} == kept


def test_killed_workers_lose_nothing(study: Path, cohort: Path, tmp_path: Path) -> None:
    audit = Audit(tmp_path, str(cohort), SLOWER_S="0.4")
    flow = audit.padflow.start("preprocess", str(study), "--json")

    def running() -> bool:
        return flow.poll() is None

    audit.wait_for("finished", 2, running)
    before = snapshot(audit.store)
    os.kill(audit.workers()[0], signal.SIGKILL)
    audit.wait_for("finished", 4, running)
    before |= snapshot(audit.store)
    alive = [pid for pid in audit.workers() if psutil.pid_exists(pid)]
    assert len(alive) >= 1
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    assert json.loads(audit.padflow.finish(flow)) == {"prepared": SUBJECTS, "excluded": 0}
    check_once(audit, cohort, before, deaths=1 + len(alive))


def test_killed_flow_leaves_no_process_and_is_continued(study: Path, cohort: Path, tmp_path: Path) -> None:
    audit = Audit(tmp_path, str(cohort), embedded=True, SLOWER_S="0.4")
    flow = audit.padflow.start("preprocess", str(study))
    audit.wait_for("finished", 3, lambda: flow.poll() is None)
    started = psutil.Process(flow.pid).children(recursive=True)
    assert any("prefect.server" in " ".join(process.cmdline()) for process in started)
    # The flow alone, as an out-of-memory killer does it.
    flow.kill()
    flow.wait()
    wait_until_gone(started, seconds=10)
    before = snapshot(audit.store)
    done = len(whole_scans(local_objects(audit.store)))
    assert 3 <= done < SUBJECTS
    # What a run that was killed days ago has left.
    draft = next(audit.store.glob("prepared/*")) / ".writing-days-ago"
    draft.touch()
    os.utime(draft, (time.time() - 2 * 86_400,) * 2)
    result = json.loads(audit.padflow("preprocess", str(study), "--json"))
    assert result == {"prepared": SUBJECTS - done, "excluded": 0}
    assert not draft.exists()
    check_once(audit, cohort, before, deaths=2)
    cohorts = json.loads(audit.padflow("status", str(study), "--json"))["cohorts"]
    assert [(c["indexed"], c["prepared"], c["missing"]) for c in cohorts] == [(SUBJECTS, SUBJECTS, 0)]


@contextmanager
def dask_cluster(folder: Path, environment: dict[str, str]) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A scheduler and two workers in processes of their own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    folder.mkdir()
    listen = ["scheduler", "--host", "127.0.0.1", "--port", address.rsplit(":", 1)[1], "--no-dashboard"]
    work = ["worker", address, "--nthreads", "1", "--no-dashboard", "--memory-limit", "3GiB", "--death-timeout", "15"]
    with ExitStack() as stack:
        processes = []
        for name, arguments in (("scheduler", listen), ("one", work), ("two", work)):
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            command = [sys.executable, "-m", "dask", *arguments]
            processes.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log))
        try:
            yield address, processes[0]
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.wait(timeout=20)
                finally:
                    process.kill()


def test_killed_scheduler_is_said_and_the_run_is_continued(study: Path, cohort: Path, tmp_path: Path) -> None:
    from infra.worker_environment import WORKER_ENVIRONMENT

    audit = Audit(tmp_path, str(cohort), SLOWER_S="0.4")
    environment = {**audit.padflow.environment, **WORKER_ENVIRONMENT}
    with dask_cluster(tmp_path / "dask", environment) as (address, scheduler):
        flow = audit.padflow.start("preprocess", str(study), "--cluster", address)
        audit.wait_for("finished", 2, lambda: flow.poll() is None)
        scheduler.kill()
        audit.padflow.finish(flow, code=1)
    said = audit.padflow.stderr.splitlines()
    assert len(said) == 1, audit.padflow.stderr
    assert f"the Dask scheduler at {address} is gone" in said[0]
    assert "run the same command" in said[0]
    before = snapshot(audit.store)
    done = len(whole_scans(local_objects(audit.store)))
    result = json.loads(audit.padflow("preprocess", str(study), "--json"))
    assert result == {"prepared": SUBJECTS - done, "excluded": 0}
    check_once(audit, cohort, before, deaths=2)


def test_interrupt_stops_within_seconds_and_says_how_to_go_on(study: Path, cohort: Path, tmp_path: Path) -> None:
    audit = Audit(tmp_path, str(cohort), embedded=True, SLOWER_S="3")
    flow = audit.padflow.start("preprocess", str(study))
    audit.wait_for("begun", 2, lambda: flow.poll() is None)
    started = psutil.Process(flow.pid).children(recursive=True)
    start = time.monotonic()
    # A terminal sends Ctrl-C to the command and to all that it has started.
    os.killpg(flow.pid, signal.SIGINT)
    flow.wait(timeout=60)
    assert time.monotonic() - start < 10
    assert flow.returncode == 130
    wait_until_gone(started, seconds=3)
    assert audit.padflow.stderr == (
        f"stopped; what is done is kept in the store. To go on: padflow preprocess {study}\n"
    )
    begun = audit.counts("begun").total()
    time.sleep(1)
    assert audit.counts("begun").total() == begun < SUBJECTS
    whole_scans(local_objects(audit.store))
