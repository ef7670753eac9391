"""Metrics of out-of-fold predictions, one row per model, repeat and fold: what comparisons over folds read."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ...records import digest
from .metrics import METRICS

NAMES = {"mae": "mae", "rmse": "rmse", "r2": "r2", "pearson": "pearson_r", "spearman": "spearman_rho"}
COLUMNS = ["model", "repeat", "fold", "n", "n_train", "scans", *NAMES]


def fold_metrics(predictions: pd.DataFrame) -> pd.DataFrame:
    """Measure every fold apart, on the scans that its member never saw.

    Args:
        predictions: One row per model, repeat, fold and scan: `model, repeat, fold, scan, target_years,
            predicted_years`, and `n_train`, the scans that the member was fitted on, where it is known.

    Returns:
        `model, repeat, fold, n, n_train, scans, mae, rmse, r2, pearson, spearman`: errors in years, NaN where a metric
        is undefined (all targets of a fold equal). `scans` is a digest of the fold's scans, by which folds of two
        models are known to hold the same people.

    Raises:
        ValueError: A value is not finite, or a scan occurs twice in a fold.
    """
    keys = ["model", "repeat", "fold"]
    repeated = predictions[predictions.duplicated([*keys, "scan"])]
    if len(repeated):
        first = repeated.iloc[0]
        raise ValueError(f"{first['model']}: scan {first['scan']} occurs twice in fold {first['fold']}; keep one row.")
    rows: list[dict[str, Any]] = []
    for names, part in predictions.groupby(keys, sort=False):
        target, predicted = part["target_years"].to_numpy(float), part["predicted_years"].to_numpy(float)
        found = {name: METRICS[metric](target, predicted) for name, metric in NAMES.items()}
        n_train = float(part["n_train"].iloc[0]) if "n_train" in part else float("nan")
        facts = {"n": len(part), "n_train": n_train, "scans": digest(sorted(map(str, part["scan"])))[:12]}
        rows.append({**dict(zip(keys, tuple(names), strict=True)), **facts, **found})
    return pd.DataFrame(rows, columns=COLUMNS)
