"""Start the training job as a process group of its own, since Lightning's DDP would re-run the flow that calls it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.records import TrainingSpec

LAST_LINES = 40


class TrainingFailed(RuntimeError):
    """The job ended without a model; the message holds the end of its output."""


def run_training(job_file: Path, processes: int, on_epoch: Callable[[dict[str, Any]], None]) -> None:
    """Run `lightning_modules` on a job by torchrun and follow it.

    Args:
        job_file: JSON of a `TrainingJob`.
        processes: Ranks on this machine: one per GPU, or that many gloo processes on a CPU.
        on_epoch: Called with each epoch's figures as the job prints them.

    Raises:
        TrainingFailed: The job ended with an error.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", "lightning_modules", str(job_file)]
    environment = {**os.environ, "PADFLOW_PARENT_PID": str(os.getpid()), "PYTHONUNBUFFERED": "1"}
    environment.setdefault("OMP_NUM_THREADS", "1")
    # The job is found wherever padflow is installed, whatever folder the user stands in.
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [_install_folder(), environment.get("PYTHONPATH")]))
    tail: list[str] = []
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None  # noqa: S101 (for the type checker)
        try:
            for line in process.stdout:
                figures = _epoch_figures(line)
                if figures is not None:
                    on_epoch(figures)
                else:
                    tail = [*tail[1 - LAST_LINES :], line.rstrip()]
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise TrainingFailed(f"the training job ended with code {process.returncode}:\n" + "\n".join(tail))


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
