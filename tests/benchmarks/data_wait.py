"""How long a GPU waits for data while it trains on 1 mm scans: a real fit, as `padflow` starts it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch

from infra.launch import run_training
from tasks.records import NetworkSpec, TrainingJob, TrainingSpec, as_json
from tests.benchmarks.prepared_scans import write_prepared
from tests.benchmarks.rows import NO_GPU, Row

SCANS, EPOCHS, BATCH = 96, 4, 8
BAR = 0.05
WHAT = "time that the GPU waits for data, SFCN 1 mm, batch 8"


def rows() -> list[Row]:
    """One row: the wait's share of training, of the epochs after the first, in which loader workers start."""
    if not torch.cuda.is_available():
        return [Row(WHAT, f"≤ {BAR:.0%}", NO_GPU)]
    with tempfile.TemporaryDirectory() as name:
        training = TrainingSpec(epochs=EPOCHS, batch_size=BATCH, precision="bf16", processes=1)
        epochs = measured(Path(name), SCANS, NetworkSpec(), training)
    share = median(epoch["data_wait_share"] for epoch in epochs[1:])
    rate = median(epoch["scans_per_s"] for epoch in epochs[1:])
    return [
        Row(
            WHAT,
            f"≤ {BAR:.0%}",
            f"{share:.1%} at {rate:.0f} scans/s",
            share <= BAR,
            f"The median of {EPOCHS - 1} epochs; {epochs[0]['data_wait_share']:.0%} in the first, where the loader's "
            f"workers start. Scans come from the page cache and are augmented. On {torch.cuda.get_device_name()}.",
        )
    ]


def measured(folder: Path, scans: int, network: NetworkSpec, training: TrainingSpec) -> list[dict[str, Any]]:
    """Figures of each epoch of a fit in a process of its own."""
    rows_ = tuple(write_prepared(folder, scans))
    job = TrainingJob(network, training, 1, rows_, str(folder / "output"), resolution_mm=1.0)
    (folder / "job.json").write_text(as_json(job))
    epochs: list[dict[str, Any]] = []
    run_training(folder / "job.json", training.processes, epochs.append)
    return epochs
