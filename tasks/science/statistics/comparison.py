"""Two predictors on the same people: is one better, beyond what another draw of people would change?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from .bootstrap import subject_keys

CHUNK_RESAMPLES = 1000


def paired_mae_difference(
    predictions: pd.DataFrame, other_age_years: ArrayLike, resamples: int = 10_000, seed: int = 0
) -> dict[str, Any]:
    """Compare two predictors' absolute errors, pair by pair, so that what makes a scan hard for both cancels.

    Separate intervals of two errors overlap long before the difference is in doubt.

    Args:
        predictions: Columns `participant_id`, `age_years`, `predicted_age_years`; one row per scan.
        other_age_years: The other predictor's ages, in the order of the rows.
        resamples: Draws of subjects, with replacement; a subject's sessions travel together.
        seed: Of the draws.

    Returns:
        `estimate` (MAE of the predictions minus that of the other, years; negative: the predictions are better),
        `ci_low` and `ci_high` (percentile 95%; NaN below 3 subjects), `n_subjects`, `n_scans` and `note`.

    Raises:
        ValueError: A value is not finite.

    Reference: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    age = predictions["age_years"].to_numpy(dtype=float)
    first = np.abs(predictions["predicted_age_years"].to_numpy(dtype=float) - age)
    difference = first - np.abs(np.asarray(other_age_years, dtype=float) - age)
    if not np.isfinite(difference).all():
        raise ValueError("ages and predictions must be finite numbers; leave out scans without a prediction.")
    subject, names = pd.factorize(subject_keys(predictions))
    sums = np.bincount(subject, weights=difference, minlength=len(names))
    scans = np.bincount(subject, minlength=len(names)).astype(float)
    result = {"estimate": float(difference.mean()), "n_subjects": len(names), "n_scans": len(difference)}
    if len(names) < 3:
        return {**result, "ci_low": float("nan"), "ci_high": float("nan"), "note": "fewer than 3 subjects: no interval"}
    rng = np.random.default_rng(seed)
    draws = []
    for start in range(0, resamples, CHUNK_RESAMPLES):
        size = min(CHUNK_RESAMPLES, resamples - start)
        counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size)
        draws.append(counts @ sums / (counts @ scans))
    low, high = np.percentile(np.concatenate(draws), [2.5, 97.5])
    return {**result, "ci_low": float(low), "ci_high": float(high), "note": ""}
