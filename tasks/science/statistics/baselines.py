"""What a network has to beat: the mean age, the median age, and a line on brain volume.

Baselines are fitted on training subjects only, then scored on the same scans as the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

VOLUME_COLUMNS = ("brain_volume_ml", "brain_fraction")


@dataclass(frozen=True)
class ConstantBaseline:
    """One age for everybody."""

    name: Literal["mean_age", "median_age"]
    age_years: float
    n_scans: int


@dataclass(frozen=True)
class VolumeBaseline:
    """`age = intercept + years_per_ml × brain_volume_ml + years_per_fraction × brain_fraction`."""

    intercept_years: float
    years_per_ml: float
    years_per_fraction: float
    n_scans: int


def fit_mean_age(train_age_years: ArrayLike) -> ConstantBaseline:
    """Predict the mean training age: the R² of 0 on training data, and the least squared error of any constant."""
    ages = _finite(train_age_years)
    return ConstantBaseline("mean_age", float(ages.mean()), len(ages))


def fit_median_age(train_age_years: ArrayLike) -> ConstantBaseline:
    """Predict the median training age: the least absolute error of any constant, so the fair rival of an MAE."""
    ages = _finite(train_age_years)
    return ConstantBaseline("median_age", float(np.median(ages)), len(ages))


def predict_constant(baseline: ConstantBaseline, n_scans: int) -> NDArray[np.float64]:
    """Give each of `n_scans` the baseline's age, in years, shape (n_scans,)."""
    return np.full(n_scans, baseline.age_years)


def fit_volume_baseline(train: pd.DataFrame) -> VolumeBaseline:
    """Predict age by a line on whole-brain volume, which published packages have failed to beat.

    Plain least squares on standardised columns. A column that does not vary gets the coefficient 0, and columns that
    are copies of each other (a fraction of a fixed grid is a volume) share theirs: the solution of least norm.

    Args:
        train: One row per training scan: `age_years`, `brain_volume_ml`, `brain_fraction` (0–1).

    Returns:
        The fitted line.

    Raises:
        ValueError: A column is absent, holds a value that is not finite, or there are fewer than three rows.

    Reference: a preregistered ADNI comparison found six packages no better than grey-matter volume, PMC12805294.
    """
    ages, volumes = _finite(_column(train, "age_years")), _volumes(train)
    if len(ages) < 3:
        raise ValueError(f"The volume baseline needs at least 3 training scans; found {len(ages)}.")
    centre, spread = volumes.mean(axis=0), volumes.std(axis=0)
    varies = spread > 1e-12 * np.abs(centre)
    scaled = np.where(varies, (volumes - centre) / np.where(varies, spread, 1.0), 0.0)
    slopes = np.linalg.lstsq(scaled, ages - ages.mean(), rcond=1e-10)[0] / np.where(varies, spread, 1.0)
    intercept = float(ages.mean() - slopes @ centre)
    return VolumeBaseline(intercept, float(slopes[0]), float(slopes[1]), len(ages))


def predict_volume(baseline: VolumeBaseline, table: pd.DataFrame) -> NDArray[np.float64]:
    """Predict ages from `brain_volume_ml` and `brain_fraction`.

    Returns:
        Years, shape (n,), in the order of `table`.

    Raises:
        ValueError: A column is absent or holds a value that is not finite.
    """
    slopes = np.array([baseline.years_per_ml, baseline.years_per_fraction])
    return baseline.intercept_years + _volumes(table) @ slopes


def _volumes(table: pd.DataFrame) -> NDArray[np.float64]:
    return np.column_stack([_finite(_column(table, name)) for name in VOLUME_COLUMNS])


def _column(table: pd.DataFrame, name: str) -> pd.Series:
    if name not in table:
        raise ValueError(f"The baseline needs a column {name}; the columns are {list(table.columns)}.")
    return table[name]


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad or array.size == 0:
        name = getattr(values, "name", None) or "the column"
        raise ValueError(f"{name} holds {bad} of {array.size} values that are not finite; drop these rows first.")
    return array
