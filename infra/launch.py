"""Start training jobs as process groups of their own, since Lightning's DDP would re-run the flow that calls it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

import psutil

from tasks.records import TrainingSpec

LAST_LINES = 40
# Within the time that a command has to end after Ctrl-C (`flows/interruption.py`). Nothing is lost by a kill: a member
# goes on from its last whole checkpoint.
END_WITHIN_S = 2.0
CPU = "cpu"

Placement = Literal["side_by_side", "ddp"]
OnEpoch = Callable[[dict[str, Any]], None]


class TrainingFailed(RuntimeError):
    """A job ended without a model; the message holds the end of its output."""


@dataclass(frozen=True)
class MemberJob:
    """One member of an ensemble, ready to be trained.

    Attributes:
        name: How it is called in messages.
        file: JSON of its `TrainingJob`.
        processes: Ranks that share its batches, as `member_processes` gives them and as its job says.
    """

    name: str
    file: Path
    processes: int = 1


def run_members(
    jobs: Sequence[MemberJob],
    placement: Placement,
    devices: Sequence[str],
    on_epoch: Callable[[str, dict[str, Any]], None],
    on_end: Callable[[str], None] = lambda name: None,
) -> None:
    """Train the members of an ensemble: at the same time, each on a device of its own, or one by one over all devices.

    A member that fails leaves the others to their work. An interrupt (Ctrl-C, SIGTERM as an exception) ends them all.

    Args:
        jobs: The members, each with an output folder of its own.
        placement: `side_by_side` or `ddp`; a member of several processes has all devices in either case.
        devices: As `training_devices` gives them.
        on_epoch: Called with a member's name and each epoch's figures, in the thread of the caller.
        on_end: Called with a member's name when it has been trained, so that its files can be kept while others run.

    Raises:
        TrainingFailed: Members failed; the others have been trained.
    """
    together = placement == "side_by_side" and all(job.processes == 1 for job in jobs)
    free = deque([(device,) for device in devices] if together else [tuple(devices)])
    waiting, running = deque(jobs), dict[str, tuple[_Process, tuple[str, ...]]]()
    told: SimpleQueue[tuple[str, dict[str, Any] | None]] = SimpleQueue()
    failed: dict[str, Exception] = {}
    try:
        while waiting or running:
            while waiting and free:
                job, place = waiting.popleft(), free.popleft()
                running[job.name] = _Process(job.file, job.processes, place), place
                running[job.name][0].follow(job.name, told)
            name, figures = told.get()
            if figures is not None:
                on_epoch(name, figures)
                continue
            process, place = running.pop(name)
            free.append(place)
            try:
                process.check()
                on_end(name)
            except Exception as error:
                failed[name] = error
    except BaseException:
        _end(process for process, _ in running.values())
        raise
    _refuse_failed(failed, len(jobs))


def run_training(job_file: Path, processes: int, on_epoch: OnEpoch) -> None:
    """Run `lightning_modules` on one job, on all devices, and follow it.

    Args:
        job_file: JSON of a `TrainingJob`.
        processes: Ranks on this machine: one per GPU, or that many gloo processes on a CPU.
        on_epoch: Called with each epoch's figures as the job prints them.

    Raises:
        TrainingFailed: The job ended with an error.
    """
    process = _Process(job_file, processes)
    try:
        for figures in process.epochs():
            on_epoch(figures)
    except BaseException:
        _end([process])
        raise
    process.check()


def training_devices(cpu_processes: int | None = None) -> tuple[str, ...]:
    """Where members may run: one entry per GPU that this process may use, else `cpu` as often as fit side by side.

    Args:
        cpu_processes: How many on a machine without a GPU; none: one per core.
    """
    import torch

    count = torch.cuda.device_count()
    if not count:
        return (CPU,) * (cpu_processes or len(os.sched_getaffinity(0)))
    # A scheduler names the GPUs of a job here, by number or by UUID.
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(named[:count]) if len(named) >= count else tuple(str(number) for number in range(count))


def member_processes(training: TrainingSpec, n_scans: int, placement: Placement, members: int) -> int:
    """How many ranks a member gets: one beside others, all that its batch can be dealt out to where it is alone.

    Args:
        training: Batch size, and how many processes share it on a CPU.
        n_scans: Scans that every rank must get two of.
        placement: The study's.
        members: How many members the ensemble has in all, whether or not some are trained already.
    """
    return 1 if placement == "side_by_side" and members > 1 else training_processes(training, n_scans)


def training_processes(training: TrainingSpec, n_scans: int) -> int:
    """How many ranks share the fit: one per GPU where there are some, else the study's number of CPU processes.

    Fewer where the global batch cannot be dealt out evenly, or where a rank would get fewer than the two scans that
    batch norm needs.
    """
    import torch

    wanted = torch.cuda.device_count() or training.processes
    batch = min(training.batch_size, n_scans)
    even = (n for n in range(wanted, 1, -1) if training.batch_size % n == 0 and batch >= 2 * n)
    return next(even, 1)


class _Process:
    """One job under torchrun, whose rendezvous takes a free port of its own."""

    def __init__(self, job_file: Path, processes: int, devices: Sequence[str] = ()) -> None:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command += ["-m", "lightning_modules", str(job_file)]
        self._tail: deque[str] = deque(maxlen=LAST_LINES)
        self.process = subprocess.Popen(
            command,
            env=_environment(devices),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def epochs(self) -> Iterable[dict[str, Any]]:
        """Figures of each epoch as they are printed; ends with the job."""
        assert self.process.stdout is not None  # noqa: S101 (for the type checker)
        with self.process.stdout as lines:
            for line in lines:
                figures = _epoch_figures(line)
                if figures is not None:
                    yield figures
                else:
                    self._tail.append(line.rstrip())
        self.process.wait()

    def follow(self, name: str, told: SimpleQueue[tuple[str, dict[str, Any] | None]]) -> None:
        """Tell each epoch's figures under a name, and None at the job's end, from a thread of its own."""

        def read() -> None:
            try:
                for figures in self.epochs():
                    told.put((name, figures))
            finally:
                told.put((name, None))

        threading.Thread(target=read, name=f"follow-{name}", daemon=True).start()

    def check(self) -> None:
        """Raise `TrainingFailed` where the job ended with an error."""
        if self.process.wait():
            said = "\n".join(self._tail)
            raise TrainingFailed(f"the training job ended with code {self.process.returncode}:\n{said}")


def _environment(devices: Sequence[str]) -> dict[str, str]:
    environment = {**os.environ, "PADFLOW_PARENT_PID": str(os.getpid()), "PYTHONUNBUFFERED": "1"}
    environment.setdefault("OMP_NUM_THREADS", "1")
    # The job is found wherever padflow is installed, whatever folder the user stands in.
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [_install_folder(), environment.get("PYTHONPATH")]))
    if devices and CPU not in devices:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    return environment


def _end(processes: Iterable[_Process]) -> None:
    """End jobs with all their ranks: politely, then not."""
    roots = [each.process for each in processes]
    trees = []
    for root in roots:
        with suppress(psutil.NoSuchProcess):
            trees += [psutil.Process(root.pid), *psutil.Process(root.pid).children(recursive=True)]
        root.terminate()
    deadline_s = time.monotonic() + END_WITHIN_S
    for root in roots:
        with suppress(subprocess.TimeoutExpired):
            root.wait(timeout=max(deadline_s - time.monotonic(), 0))
    # Also where a launcher ended before its ranks did.
    for process in trees:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    for root in roots:
        root.wait()


def _refuse_failed(failed: dict[str, Exception], members: int) -> None:
    others = [error for error in failed.values() if not isinstance(error, TrainingFailed)]
    if others:
        raise others[0]
    if failed:
        first = next(iter(failed))
        kept = f"; the other {members - len(failed)} trained well" if len(failed) < members else ""
        raise TrainingFailed(
            f"{len(failed)} of {members} members failed: {', '.join(failed)}{kept}. {first}: {failed[first]}"
        )


def _install_folder() -> str:
    spec = importlib.util.find_spec("lightning_modules")
    locations = list(spec.submodule_search_locations or []) if spec else []
    return str(Path(locations[0]).parent) if locations else ""


def _epoch_figures(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        figures = json.loads(line)
    except json.JSONDecodeError:
        return None
    return figures if isinstance(figures, dict) and "epoch" in figures else None
