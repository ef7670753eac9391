"""DDP on a CPU: two gloo processes against one with the same global batch, in gradient and in throughput.

The gradient is that of a fit's first step in double precision, with group norm and without dropout, whose outcome does
not depend on how a batch is shared.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from infra.launch import run_training
from lightning_modules import fit as fit_module
from tasks.records import NetworkSpec, TrainingJob, TrainingRow, TrainingSpec, as_json
from tests.benchmarks.rows import Row

GRID = (80, 96, 80)
SCANS, BATCH, EPOCHS = 24, 8, 3
TOLERANCE = 1e-12
NETWORK = NetworkSpec(channels=(16, 32, 64, 64, 64, 32), norm="group", dropout=0.0)


def rows() -> list[Row]:
    """One row for the gradient, one for the throughput."""
    with tempfile.TemporaryDirectory() as name:
        one = _job(Path(name), 1)
        two = _job(Path(name), 2)
        whole, shared = _first_gradient(one), _first_gradient(two)
        largest = max(float(gradient.abs().max()) for gradient in whole.values())
        apart = max(float((shared[name] - whole[name]).abs().max()) for name in whole) / largest
        alone_rate, shared_rate = _scans_per_s(one), _scans_per_s(two)
    setting = f"SFCN at 2 mm, global batch {BATCH}"
    return [
        Row(
            f"first gradient of 2 gloo processes against 1, {setting}",
            f"equal: ≤ {TOLERANCE:.0e} of the largest",
            f"{apart:.0e}",
            apart <= TOLERANCE,
        ),
        Row(
            f"training throughput of 2 gloo processes against 1, {setting}",
            "",
            f"{shared_rate / alone_rate:.2f} × ({shared_rate:.2f} scans/s, one process {alone_rate:.2f})",
            None,
            f"One thread each on {len(os.sched_getaffinity(0))} cores, which a GPU's machine would not train on.",
        ),
    ]


def _job(folder: Path, processes: int) -> TrainingJob:
    """A job over noise whose mean tells the age."""
    random, rows_ = np.random.default_rng(0), []
    for number in range(SCANS):
        path, age_years = folder / f"{number}.npy", float(random.uniform(20, 80))
        np.save(path, random.normal(age_years / 50 - 1, 1, (1, *GRID)).astype(np.float16))
        split: Any = "validation" if number % 3 == 2 else "train"
        rows_.append(TrainingRow(path.stem, path.stem, str(path), age_years, split))
    training = TrainingSpec(epochs=EPOCHS, batch_size=BATCH, processes=processes)
    return TrainingJob(NETWORK, training, 1, tuple(rows_), str(folder / f"output-{processes}"), resolution_mm=2.0)


def _scans_per_s(job: TrainingJob) -> float:
    epochs: list[dict[str, Any]] = []
    run_training(_written(job), job.training.processes, epochs.append)
    return median(epoch["scans_per_s"] for epoch in epochs)


def _first_gradient(job: TrainingJob) -> dict[str, torch.Tensor]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(job.training.processes)]
    command = [sys.executable, *launcher, "-m", "tests.benchmarks.ddp", str(_written(job))]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return load_file(f"{job.output_folder}.safetensors")


def _written(job: TrainingJob) -> Path:
    path = Path(f"{job.output_folder}.json")
    path.write_text(as_json(job))
    return path


class FirstGradient(pl.Callback):
    """Keeps the gradient that the optimiser sees first; in DDP the ranks' gradients are averaged by then."""

    def __init__(self) -> None:
        self.gradient: dict[str, torch.Tensor] = {}

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Any) -> None:
        self.gradient = {name: p.grad.contiguous() for name, p in module.named_parameters() if p.grad is not None}


def main(job_path: Path) -> None:
    """One step of a fit in double precision; rank zero keeps its gradient."""
    job = TypeAdapter(TrainingJob).validate_json(job_path.read_bytes())
    ranks = fit_module.Ranks.of_environment()
    pl.seed_everything(job.seed, verbose=False)
    train, _, calibration = fit_module.loaders(job, ranks)
    module = fit_module._module(job, ranks, train, calibration)
    # A fit makes its inputs in single precision, whatever the trainer's.
    module.network.register_forward_pre_hook(lambda _, volumes: tuple(each.double() for each in volumes))
    kept = FirstGradient()
    one_step = {"precision": "64-true", "max_steps": 1, "limit_val_batches": 0, "enable_checkpointing": False}
    with fit_module.known_warnings():
        trainer = pl.Trainer(callbacks=[kept], **{**fit_module._setup(ranks, job.training), **one_step, "plugins": []})
        trainer.fit(module, train)
    if ranks.rank == 0:
        save_file(kept.gradient, f"{job.output_folder}.safetensors")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
