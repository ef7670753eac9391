"""What a fit leaves in its folder, each file whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from tasks.records import TrainingJob

from .predict import predict_ages

WEIGHTS_FILE = "weights.safetensors"
REPORT_FILE = "report.json"
CURVES_FILE = "curves.csv"
PREDICTIONS_FILE = "predictions.csv"
CURVES_COLUMNS = (
    "epoch",
    "train_loss",
    "val_loss",
    "val_mae_years",
    "learning_rate",
    "data_wait_share",
    "scans_per_s",
)
PREDICTIONS_COLUMNS = ("scan_id", "split", "target_years", "predicted_age_years")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that readers see whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_weights(folder: Path, best_checkpoint: Path) -> Path:
    """Take the network's tensors out of a checkpoint, without unpickling anything but tensors and plain values."""
    checkpoint = torch.load(best_checkpoint, map_location="cpu", weights_only=True)
    # The moving average, where there is one, is what was chosen.
    prefix = "average." if any(name.startswith("average.") for name in checkpoint["state_dict"]) else "network."
    tensors = {
        name.removeprefix(prefix): tensor.contiguous()
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }
    path = folder / WEIGHTS_FILE
    write_whole(path, save(tensors))
    return path


def write_curves(folder: Path, rows: Sequence[dict[str, float]]) -> None:
    """One row per epoch."""
    write_whole(folder / CURVES_FILE, _csv(CURVES_COLUMNS, ([row[name] for name in CURVES_COLUMNS] for row in rows)))


def write_predictions(folder: Path, job: TrainingJob, weights_path: Path) -> list[float]:
    """Predict every scan of the job by the best weights, on one device, each once.

    Returns:
        Predicted ages in years, in the order of the job's rows.
    """
    paths = [Path(row.path) for row in job.rows]
    predicted: list[float] = predict_ages(
        job.network, weights_path, paths, job.training.batch_size, job.channels
    ).tolist()
    rows = zip(job.rows, predicted, strict=True)
    lines = ([row.scan_id, row.split, row.target_years, age_years] for row, age_years in rows)
    write_whole(folder / PREDICTIONS_FILE, _csv(PREDICTIONS_COLUMNS, lines))
    return predicted


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Written last: a folder with a report is a finished fit."""
    write_whole(folder / REPORT_FILE, json.dumps(report, sort_keys=True, indent=1, allow_nan=False).encode())


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()
