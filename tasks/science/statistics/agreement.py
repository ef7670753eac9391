"""Predicted age beside age as two ways to measure the same thing: bias, limits of agreement, calibration by age."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .bootstrap import MIN_SUBJECTS_FOR_INTERVAL, chunks_of_counts, subject_keys
from .comparison import bootstrap_means
from .metrics import checked_ages

NORMAL_95 = 1.959963984540054
# Fewer subjects in a bin make its mean say little.
SUBJECTS_PER_BIN = 8
MOST_BINS = 10
NAN = float("nan")
LIMITS_COLUMNS = ["cohort", "figure", "n_subjects", "n_scans", "estimate", "ci_low", "ci_high", "note"]
BIN_COLUMNS = [
    "cohort", "bin", "age_from_years", "age_to_years", "n_subjects", "n_scans", "age_mean_years",
    "predicted_mean_years", "ci_low", "ci_high", "note",
]  # fmt: skip


def limits_of_agreement(predictions: pd.DataFrame, resamples: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Say within which differences most predictions lie, after Bland & Altman, per cohort.

    Args:
        predictions: One row per scan: `cohort, participant_id, age_years` (the target), `predicted_age_years`.
        resamples: Draws of subjects, each with all of its scans, so that repeated sessions do not narrow an interval.
        seed: Of the draws.

    Returns:
        Per cohort `bias` (mean of predicted minus age, years), `sd`, `lower limit` and `upper limit` (bias ± 1.96 SD)
        and `slope` (years of difference per year of the mean of both: not 0 where regression to the mean remains), with
        95% percentile intervals (`LIMITS_COLUMNS`); none below three subjects.

    Reference: Bland & Altman 1999, doi:10.1177/096228029900800204.
    """
    rows: list[dict[str, Any]] = []
    for cohort, table in predictions.groupby("cohort", sort=False):
        age, predicted = checked_ages(table["age_years"], table["predicted_age_years"])
        subject, names = pd.factorize(subject_keys(table))
        facts = {"cohort": str(cohort), "n_subjects": len(names), "n_scans": len(age)}
        sums = _sums(age, predicted, subject)
        estimates = _limits(sums.sum(axis=0, keepdims=True))
        enough = len(names) >= MIN_SUBJECTS_FOR_INTERVAL
        chunks = chunks_of_counts(len(names), len(names), resamples if enough else 0, np.random.default_rng(seed))
        draws = _limits(np.concatenate([counts @ sums for counts in chunks])) if enough else {}
        for figure, (estimate,) in estimates.items():
            low, high = np.nanpercentile(draws[figure], [2.5, 97.5]) if enough and np.isfinite(estimate) else (NAN, NAN)
            note = "" if enough else f"fewer than {MIN_SUBJECTS_FOR_INTERVAL} subjects: no interval"
            found = {"figure": figure, "estimate": estimate, "ci_low": low, "ci_high": high, "note": note}
            rows.append(facts | found)
    return pd.DataFrame(rows, columns=LIMITS_COLUMNS)


def _sums(age: NDArray[np.float64], predicted: NDArray[np.float64], subject: NDArray[np.intp]) -> NDArray[np.float64]:
    difference, middle = predicted - age, (predicted + age) / 2
    middle = middle - middle.mean()
    columns = (np.ones_like(age), difference, difference**2, middle, middle**2, difference * middle)
    return np.column_stack([np.bincount(subject, weights=column) for column in columns])


def _limits(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    n, d, dd, m, mm, dm = sums.T
    bias = d / n
    sd = np.sqrt(np.maximum(dd - d * bias, 0) / np.where(n > 1, n - 1, np.nan))
    spread = mm - m * m / n
    slope = (dm - d * m / n) / np.where(spread > 1e-12 * np.maximum(mm, 1e-300), spread, np.nan)
    return {
        "bias": bias,
        "sd": sd,
        "lower limit": bias - NORMAL_95 * sd,
        "upper limit": bias + NORMAL_95 * sd,
        "slope": slope,
    }


def calibration_bins(predictions: pd.DataFrame, resamples: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Set the mean prediction against the mean age, bin by bin of age, where a line would hide a bend.

    Bins hold about equally many scans, so that none rests on a few; there are at most ten, of eight subjects and more.

    Args:
        predictions: As for `limits_of_agreement`.
        resamples: Draws of a bin's subjects.
        seed: Of the draws.

    Returns:
        One row per cohort and bin (`BIN_COLUMNS`), `ci_low` and `ci_high` of the mean prediction; no interval below
        three subjects.
    """
    rows: list[dict[str, Any]] = []
    for cohort, table in predictions.groupby("cohort", sort=False):
        age, predicted = checked_ages(table["age_years"], table["predicted_age_years"])
        subject, names = pd.factorize(subject_keys(table))
        bins = int(np.clip(len(names) // SUBJECTS_PER_BIN, 1, MOST_BINS))
        edges = np.unique(np.quantile(age, np.linspace(0, 1, bins + 1)))
        which = np.clip(np.searchsorted(edges, age, side="right") - 1, 0, max(len(edges) - 2, 0))
        for number, place in enumerate(np.unique(which)):
            inside = which == place
            facts = {"cohort": str(cohort), "bin": number + 1, "n_scans": int(inside.sum())}
            facts |= {"age_from_years": age[inside].min(), "age_to_years": age[inside].max()}
            facts |= {"age_mean_years": age[inside].mean(), "predicted_mean_years": predicted[inside].mean()}
            rows.append(facts | _mean_interval(predicted[inside], subject[inside], resamples, seed))
    return pd.DataFrame(rows, columns=BIN_COLUMNS)


def _mean_interval(values: NDArray[np.float64], subject: NDArray[np.intp], resamples: int, seed: int) -> dict[str, Any]:
    codes, names = pd.factorize(subject)
    if len(names) < MIN_SUBJECTS_FOR_INTERVAL:
        note = f"fewer than {MIN_SUBJECTS_FOR_INTERVAL} subjects: no interval"
        return {"n_subjects": len(names), "ci_low": NAN, "ci_high": NAN, "note": note}
    low, high = np.percentile(bootstrap_means(values, codes, resamples, seed), [2.5, 97.5])
    return {"n_subjects": len(names), "ci_low": float(low), "ci_high": float(high), "note": ""}
