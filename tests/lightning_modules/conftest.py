"""Tiny prepared scans whose brightness tells age, and a way to launch the job that fits them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.records import AugmentationSpec, NetworkSpec, SplitName, TrainingJob, TrainingRow, TrainingSpec, as_json

ROOT = Path(__file__).resolve().parents[2]
GRID = (9, 8, 11)
NETWORK = NetworkSpec(channels=(4, 8, 4), age_range_years=(10.0, 100.0), bin_width_years=5.0, label_sigma_years=5.0)
TRAINING = TrainingSpec(
    epochs=3, batch_size=4, learning_rate=3e-3, patience=50, processes=2, augmentation=AugmentationSpec(shift_voxels=1)
)

JobMaker = Callable[..., TrainingJob]


@pytest.fixture(scope="session")
def job_of(tmp_path_factory: pytest.TempPathFactory) -> JobMaker:
    """Make a job over `train`, `validation` and `test` scans, each with files of its own; more fields by name."""

    def make(train: int = 13, validation: int = 5, test: int = 3, **changes: object) -> TrainingJob:
        folder = tmp_path_factory.mktemp("job")
        rows: list[TrainingRow] = []
        random = np.random.default_rng(5)
        counts: dict[SplitName, int] = {"train": train, "validation": validation, "test": test}
        for split, count in counts.items():
            for number in range(count):
                age_years = float(random.uniform(20, 85))
                volume = random.normal(age_years / 50 - 1, 0.2, (1, *GRID)).astype(np.float16)
                path = folder / f"{split}-{number}.npy"
                np.save(path, volume)
                rows.append(TrainingRow(path.stem, f"sub-{path.stem}", str(path), age_years, split))
        job = TrainingJob(NETWORK, TRAINING, 7, tuple(rows), str(folder / "output"), resolution_mm=1.0)
        return replace(job, **changes)  # type: ignore[arg-type]

    return make


def command_of(job: TrainingJob, *target: str) -> list[str]:
    """The command that fits a job, as a flow would run it."""
    path = Path(job.output_folder).parent / "job.json"
    path.write_text(as_json(job))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(job.training.processes)]
    return [sys.executable, *launcher, *(target or ("-m", "lightning_modules")), str(path)]


def environment() -> dict[str, str]:
    """One thread per rank, and every warning visible."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}


def launch(job: TrainingJob, *target: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Fit a job in processes of its own and wait."""
    return subprocess.run(
        command_of(job, *target), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=timeout_s
    )
