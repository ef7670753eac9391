"""What a network has to beat: the mean age, the median age, and a line on tissue volumes.

Baselines are fitted on training subjects only, then scored on the same scans as the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

VOLUME_COLUMNS = ("grey_ml", "white_ml", "csf_ml", "grey_fraction", "white_fraction", "csf_fraction")
# From hardly any shrinkage to nearly the mean age; standardised columns make it one scale for all.
PENALTIES = tuple(float(penalty) for penalty in np.logspace(-3, 3, 25))


@dataclass(frozen=True)
class ConstantBaseline:
    """One age for everybody."""

    name: Literal["mean_age"]
    age_years: float
    n_scans: int


@dataclass(frozen=True)
class VolumeBaseline:
    """`age = intercept + Σ years_per_unit × column`, over `VOLUME_COLUMNS`.

    Attributes:
        intercept_years: Age at volumes of 0.
        years_per_unit: Years per millilitre, or per whole, of each column.
        penalty: Chosen shrinkage, relative to the number of scans.
        n_scans: Scans that it was fitted on.
    """

    intercept_years: float
    years_per_unit: tuple[float, ...]
    penalty: float
    n_scans: int


def fit_mean_age(train_age_years: ArrayLike) -> ConstantBaseline:
    """Predict the mean training age: the R² of 0 on training data, and the least squared error of any constant."""
    ages = _finite(train_age_years)
    return ConstantBaseline("mean_age", float(ages.mean()), len(ages))


def predict_constant(baseline: ConstantBaseline, n_scans: int) -> NDArray[np.float64]:
    """Give each of `n_scans` the baseline's age, in years, shape (n_scans,)."""
    return np.full(n_scans, baseline.age_years)


def fit_volume_baseline(train: pd.DataFrame) -> VolumeBaseline:
    """Predict age by a line on grey matter, white matter and CSF, which published packages have failed to beat.

    Ridge regression on standardised volumes and fractions, which depend on each other: with few scans plain least
    squares would fit noise and be too easy to beat. The shrinkage is the one of least squared error when each scan is
    left out in turn, which has a closed form. A column that does not vary gets the coefficient 0.

    Args:
        train: One row per training scan: `age_years` and `VOLUME_COLUMNS` (ml, and fractions of the brain).

    Returns:
        The fitted line.

    Raises:
        ValueError: A column is absent, holds a value that is not finite, or there are fewer than three rows.

    Reference: a preregistered ADNI comparison found six packages no better than grey-matter volume, PMC12805294; Allen
    1974, doi:10.1080/00401706.1974.10489157 (leaving one out in closed form).
    """
    ages, volumes = _finite(_column(train, "age_years")), _volumes(train)
    if len(ages) < 3:
        raise ValueError(f"The volume baseline needs at least 3 training scans; found {len(ages)}.")
    centre, spread = volumes.mean(axis=0), volumes.std(axis=0)
    varies = spread > 1e-12 * np.abs(centre)
    scaled = np.where(varies, (volumes - centre) / np.where(varies, spread, 1.0), 0.0)
    left, singular, right = np.linalg.svd(scaled, full_matrices=False)
    away = ages - ages.mean()
    penalty = min(PENALTIES, key=lambda each: _left_out_error(left, singular, away, each * len(ages)))
    shrunk = singular / (singular**2 + penalty * len(ages))
    slopes = (right.T @ (shrunk * (left.T @ away))) / np.where(varies, spread, 1.0)
    intercept = float(ages.mean() - slopes @ centre)
    return VolumeBaseline(intercept, tuple(float(slope) for slope in slopes), penalty, len(ages))


def _left_out_error(
    left: NDArray[np.float64], singular: NDArray[np.float64], away: NDArray[np.float64], penalty: float
) -> float:
    """Mean squared error of each scan by a fit without it; the mean age counts as one coefficient more."""
    kept = singular**2 / (singular**2 + penalty)
    residual = away - left @ (kept * (left.T @ away))
    leverage = (left**2 @ kept) + 1.0 / len(away)
    return float(np.mean((residual / np.maximum(1.0 - leverage, 1e-9)) ** 2))


def predict_volume(baseline: VolumeBaseline, table: pd.DataFrame) -> NDArray[np.float64]:
    """Predict ages from `VOLUME_COLUMNS`.

    Returns:
        Years, shape (n,), in the order of `table`.

    Raises:
        ValueError: A column is absent or holds a value that is not finite.
    """
    return baseline.intercept_years + _volumes(table) @ np.array(baseline.years_per_unit)


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
