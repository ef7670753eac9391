"""A training step by padflow's settings against plain fp32 Lightning, on a GPU, and whether both learn alike.

padflow's side is a real fit: bf16, channels last in memory, TF32 where single floats are left, half floats to the GPU,
changes of the scans there. The plain side is the same network in a module of ten lines with Lightning's defaults, which
let cuDNN use TF32 in convolutions; once more without that, in true single precision.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any
from unittest.mock import patch

import pytorch_lightning as pl
import torch
from pydantic import TypeAdapter
from torch.utils.data import DataLoader

from lightning_modules import fit as fit_module
from lightning_modules.brain_age_module import BrainAgeModule
from lightning_modules.data import PreparedScans, RankBatches
from lightning_modules.epoch_log import EpochLog
from tasks.records import AugmentationSpec, NetworkSpec, TrainingJob, TrainingRow, TrainingSpec, as_json
from tests.benchmarks.prepared_scans import write_prepared
from tests.benchmarks.rows import NO_GPU, Row

SCANS, EPOCHS, BATCH = 64, 12, 8
BAR = 3.0
# Flips and shifts would differ between the two sides.
UNCHANGED = AugmentationSpec(flip_probability=0.0, shift_voxels=0)
TRAINING = TrainingSpec(
    epochs=EPOCHS, batch_size=BATCH, patience=EPOCHS, processes=1, precision="bf16", augmentation=UNCHANGED
)
NETWORKS = {
    "SFCN, 160×192×160": NetworkSpec(),
    # The crop of the study that published it (doi:10.1002/hbm.70425).
    "Inception-ResNet-V2, 118×142×118": NetworkSpec(
        name="inception_resnet_v2", head="regression", dropout=0.2, crop_voxels=(118, 142, 118), scaling="unit"
    ),
}


@dataclass(frozen=True)
class Side:
    """One fit: seconds of its steps, and its mean training loss per epoch."""

    step_s: float
    losses: tuple[float, ...]


def rows() -> list[Row]:
    """One row per network."""
    return [_row(name, network) for name, network in NETWORKS.items()]


def _row(name: str, network: NetworkSpec) -> Row:
    what, bar = f"training step, {name}, batch {BATCH}: padflow against plain fp32 Lightning", f"≥ {BAR:.0f} ×"
    if not torch.cuda.is_available():
        return Row(what, bar, NO_GPU)
    with tempfile.TemporaryDirectory() as folder:
        scans = tuple(write_prepared(Path(folder), SCANS))
        sides = {}
        for side, seed in (("padflow", 1), ("plain", 1), ("plain", 2), ("strict", 1)):
            job = TrainingJob(network, TRAINING, seed, scans, f"{folder}/{side}-{seed}", resolution_mm=1.0)
            sides[side, seed] = _in_a_process(side, job)
    ours, plain, other, strict = sides.values()
    ratio = plain.step_s / ours.step_s
    apart, noise = distance(ours, plain), distance(plain, other)
    alike = "within" if apart <= noise else "outside"
    return Row(
        what,
        bar,
        f"{ratio:.1f} × ({1000 * ours.step_s:.0f} ms, plain {1000 * plain.step_s:.0f} ms)",
        ratio >= BAR and apart <= noise,
        f"Without TF32 the plain step takes {1000 * strict.step_s:.0f} ms ({strict.step_s / ours.step_s:.1f} ×). Loss "
        f"curves of {EPOCHS} epochs differ by {apart:.1%} on average, {alike} the noise: two seeds of the plain side "
        f"differ by {noise:.1%}. On {torch.cuda.get_device_name()}.",
    )


def distance(one: Side, other: Side) -> float:
    """Mean relative distance of two loss curves after the first epoch."""
    pairs = list(zip(one.losses, other.losses, strict=True))[1:]
    return mean(abs(a - b) for a, b in pairs) / mean((a + b) / 2 for a, b in pairs)


def _in_a_process(side: str, job: TrainingJob) -> Side:
    path = Path(f"{job.output_folder}.json")
    path.write_text(as_json(job))
    command = [sys.executable, "-m", "tests.benchmarks.training_step", side, str(path)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(printed.splitlines()[-1])
    return Side(found["step_s"], tuple(found["losses"]))


STEPS_S: list[float] = []
"""Of the fit that this process runs."""


def _now_s() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class StepClock(pl.Callback):
    """Seconds of each step, to its end on the GPU, where kernels run on after Lightning's call has returned."""

    def on_train_batch_start(self, *arguments: Any) -> None:
        super().on_train_batch_start(*arguments)
        self._start_s = _now_s()

    def on_train_batch_end(self, *arguments: Any) -> None:
        STEPS_S.append(_now_s() - self._start_s)
        super().on_train_batch_end(*arguments)


class ClockedLog(StepClock, EpochLog):
    """What a fit logs, and its steps' seconds."""


def by_padflow(job: TrainingJob) -> Side:
    """The job as `lightning_modules` fits it."""
    STEPS_S.clear()
    with patch.object(fit_module, "EpochLog", ClockedLog):
        fit_module.fit(job)
    curves = (Path(job.output_folder) / "curves.csv").read_text().splitlines()
    column = curves[0].split(",").index("train_loss")
    return Side(_of_a_step_s(STEPS_S, job), tuple(float(line.split(",")[column]) for line in curves[1:]))


class Plain(pl.LightningModule):
    """The same network and loss as anybody would put them into Lightning."""

    def __init__(self, job: TrainingJob, steps: int) -> None:
        super().__init__()
        self.fitted = BrainAgeModule(job.network, job.training, job.seed, steps, 1, ())
        self.fitted.to(memory_format=torch.contiguous_format)
        self.fitted.network.checked = lambda volumes: volumes  # type: ignore[union-attr]
        self.inputs = fit_module.NetworkInputs(
            job.network,
            job.channels,
            fit_module.augmentation_of(job),
            [row.scan_id for row in job.rows if row.split == "train"],
        )
        self.losses: list[float] = []
        self._epoch: list[torch.Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        indices, volumes, ages_years = batch
        seen = self.inputs.training(volumes, indices, self.current_epoch)
        loss = self.fitted.loss(self.fitted.network(seen), ages_years)
        self._epoch.append(loss.detach())
        return loss

    def on_train_epoch_end(self) -> None:
        self.losses.append(float(torch.stack(self._epoch).mean()))
        self._epoch.clear()

    def configure_optimizers(self) -> Any:
        return self.fitted.configure_optimizers()


def plainly(job: TrainingJob) -> Side:
    """The job's network, batches and learning rates under Lightning's defaults."""
    STEPS_S.clear()
    pl.seed_everything(job.seed, verbose=False)
    rows_: Sequence[TrainingRow] = [row for row in job.rows if row.split == "train"]
    batches = RankBatches(len(rows_), job.training.batch_size, 0, 1, job.seed)
    workers: dict[str, Any] = {"num_workers": 8, "persistent_workers": True} if torch.cuda.is_available() else {}
    loader = DataLoader(PreparedScans(rows_), batch_sampler=batches, pin_memory=torch.cuda.is_available(), **workers)
    module = Plain(job, job.training.epochs * len(batches))
    with fit_module.known_warnings():
        trainer = pl.Trainer(
            max_epochs=job.training.epochs,
            devices=1,
            callbacks=[StepClock()],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            use_distributed_sampler=False,
        )
        trainer.fit(module, loader)
    return Side(_of_a_step_s(STEPS_S, job), tuple(module.losses))


def _of_a_step_s(steps_s: Sequence[float], job: TrainingJob) -> float:
    # The first epoch holds the choice of kernels.
    return median(steps_s[len(steps_s) // job.training.epochs :])


def main(side: str, job_path: Path) -> None:
    """Fit a job by one of the sides; print what it took and how it learnt."""
    job = TypeAdapter(TrainingJob).validate_json(job_path.read_bytes())
    if side == "strict":
        torch.backends.cudnn.allow_tf32 = False
    found = by_padflow(job) if side == "padflow" else plainly(job)
    print(json.dumps({"step_s": found.step_s, "losses": found.losses}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
