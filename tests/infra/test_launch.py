"""How many ranks a job gets, what is told of a job that fails, and members of an ensemble side by side."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from infra import launch
from infra.launch import (
    MemberJob,
    TrainingFailed,
    member_processes,
    run_members,
    training_devices,
    training_processes,
)
from tasks.records import TrainingSpec, as_json
from tests.lightning_modules.conftest import TRAINING, JobMaker, job_of

__all__ = ["job_of"]
CASES = [(0, 8, 99, 2), (1, 8, 99, 1), (2, 8, 99, 2), (3, 8, 99, 2), (8, 8, 99, 4), (4, 3, 99, 1), (0, 8, 3, 1)]


@pytest.mark.parametrize(("devices", "batch", "scans", "ranks"), CASES)
def test_ranks_deal_the_global_batch_evenly(
    monkeypatch: pytest.MonkeyPatch, devices: int, batch: int, scans: int, ranks: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    spec = TrainingSpec(batch_size=batch, processes=2)
    assert training_processes(spec, scans) == ranks
    assert member_processes(spec, scans, "ddp", 5) == member_processes(spec, scans, "side_by_side", 1) == ranks
    assert member_processes(spec, scans, "side_by_side", 5) == 1


def test_members_have_the_gpus_that_a_scheduler_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert training_devices() == ("0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f, 5")
    assert training_devices() == ("GPU-8f", "5")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert training_devices(3) == ("cpu", "cpu", "cpu")
    assert training_devices() == ("cpu",) * len(os.sched_getaffinity(0))


def test_a_member_that_fails_tells_the_end_of_its_output_and_the_other_is_trained(
    tmp_path: Path, job_of: JobMaker
) -> None:
    job = job_of(training=replace(TRAINING, processes=1))
    (tmp_path / "good.json").write_text(as_json(job))
    (tmp_path / "bad.json").write_text("{}")
    epochs: list[tuple[str, int]] = []
    jobs = [MemberJob(name, tmp_path / f"{name}.json") for name in ("bad", "good")]
    with pytest.raises(
        TrainingFailed, match=r"(?s)1 of 2 members failed: bad; the other 1 trained well.*output_folder"
    ):
        run_members(jobs, "side_by_side", ("cpu", "cpu"), lambda name, figures: epochs.append((name, figures["epoch"])))
    assert epochs == [("good", epoch) for epoch in range(TRAINING.epochs)]
    assert (Path(job.output_folder) / "report.json").exists()


# Stands in for `lightning_modules`, which takes seconds to load: meets whom it is told to meet, or fails.
STAND_IN = """
import json, os, pathlib, sys, time
path = pathlib.Path(sys.argv[1])
job = json.loads(path.read_text())
path.with_suffix(".here").touch()
if job["fails"]:
    sys.exit("the reason stands here")
deadline = time.monotonic() + 60
while job["meets"] and not path.with_name(job["meets"] + ".here").exists():
    if time.monotonic() > deadline:
        sys.exit("nobody came")
    time.sleep(0.05)
others = sorted(other.stem for other in path.parent.glob("*.here"))
if os.environ["RANK"] == "0":
    place = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "WORLD_SIZE")}
    print(json.dumps({"epoch": 0, **place, "here": others}), flush=True)
"""

FAILS = "fails"
Run = Callable[..., tuple[dict[str, dict[str, Any]], list[str]]]


@pytest.fixture
def run_stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run stand-ins by name and whom each meets; returns what each said and who was reported as trained."""
    (tmp_path / "lightning_modules").mkdir()
    (tmp_path / "lightning_modules" / "__init__.py").touch()
    (tmp_path / "lightning_modules" / "__main__.py").write_text(STAND_IN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(launch, "_install_folder", lambda: str(tmp_path))

    def run(
        meets: dict[str, str | None], placement: launch.Placement, devices: tuple[str, ...], processes: int = 1
    ) -> tuple[dict[str, dict[str, Any]], list[str]]:
        said: dict[str, dict[str, Any]] = {}
        ended: list[str] = []
        for name, other in meets.items():
            (tmp_path / f"{name}.json").write_text(json.dumps({"meets": other, "fails": other == FAILS}))
        jobs = [MemberJob(name, tmp_path / f"{name}.json", processes) for name in meets]
        try:
            run_members(jobs, placement, devices, said.__setitem__, ended.append)
        except TrainingFailed as error:
            said["failure"] = {"text": str(error)}
        return said, ended

    return run


def test_members_side_by_side_have_a_gpu_each_and_a_failure_stops_no_other(run_stand_ins: Run) -> None:
    said, ended = run_stand_ins({"bad": FAILS, "b": "c", "c": "b"}, "side_by_side", ("7", "GPU-3"))
    assert set(ended) == {"b", "c"}, said
    assert {said[name]["CUDA_VISIBLE_DEVICES"] for name in "bc"} == {"7", "GPU-3"}
    assert said["b"]["OMP_NUM_THREADS"] == "1"
    assert said["failure"]["text"].startswith("1 of 3 members failed: bad; the other 2 trained well. bad: ")
    assert "the reason stands here" in said["failure"]["text"]


def test_members_by_ddp_have_all_gpus_one_after_the_other(run_stand_ins: Run) -> None:
    said, ended = run_stand_ins({"a": None, "b": None}, "ddp", ("0", "1"), processes=2)
    assert ended == ["a", "b"], said
    assert [said[name]["here"] for name in "ab"] == [["a"], ["a", "b"]]
    assert [(said[n]["CUDA_VISIBLE_DEVICES"], said[n]["WORLD_SIZE"]) for n in "ab"] == [("0,1", "2")] * 2


def launchers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "torch.distributed.run" in child.cmdline()]


@pytest.mark.usefixtures("run_stand_ins")
def test_an_interrupt_ends_all_members_and_their_ranks(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.json").write_text(json.dumps({"meets": "nobody", "fails": False}))
    seen: list[psutil.Process] = []

    def interrupt() -> None:
        deadline_s = time.monotonic() + 60
        while time.monotonic() < deadline_s:
            ranks = [child for one in launchers() for child in one.children()]
            if len(ranks) == 2:
                seen.extend([*launchers(), *ranks])
                break
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR1)

    def unwind(*_: object) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGUSR1, unwind)
    watcher = threading.Thread(target=interrupt)
    watcher.start()
    try:
        jobs = [MemberJob(name, tmp_path / f"{name}.json") for name in "ab"]
        with pytest.raises(SystemExit):
            run_members(jobs, "side_by_side", ("cpu", "cpu"), lambda name, figures: None)
    finally:
        watcher.join()
        signal.signal(signal.SIGUSR1, before)
    assert len(seen) == 4
    assert not [process for process in seen if process.is_running()]
