"""How far predicted ages lie from chronological ages.

Calibration is the least-squares line `predicted = slope × age + intercept`: a perfect predictor has slope 1 and
intercept 0, and regression to the mean shows as a slope below 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Ages = NDArray[np.float64]


def checked_ages(age_years: ArrayLike, predicted_age_years: ArrayLike) -> tuple[Ages, Ages]:
    """Refuse what would make a metric a plausible but wrong figure.

    Args:
        age_years: Chronological ages, shape (n,).
        predicted_age_years: Predicted ages of the same scans, shape (n,).

    Returns:
        Both as float64, shape (n,).

    Raises:
        ValueError: The shapes differ, nothing is there, or a value is not finite.
    """
    age = np.asarray(age_years, dtype=np.float64)
    predicted = np.asarray(predicted_age_years, dtype=np.float64)
    if age.ndim != 1 or age.shape != predicted.shape or age.size == 0:
        raise ValueError(
            f"Metrics need two equally long, non-empty columns; found shapes {age.shape} (age_years) and "
            f"{predicted.shape} (predicted_age_years). Pass one row per scan."
        )
    for name, values in (("age_years", age), ("predicted_age_years", predicted)):
        bad = int(np.count_nonzero(~np.isfinite(values)))
        if bad:
            raise ValueError(
                f"{name} holds {bad} of {values.size} values that are not finite. Drop these rows first and count "
                "them as excluded, so that the metric and its n agree."
            )
    return age, predicted


def mae(age_years: ArrayLike, predicted_age_years: ArrayLike) -> float:
    """Mean absolute error in years: the field's headline figure, comparable only between equal age ranges."""
    age, predicted = checked_ages(age_years, predicted_age_years)
    return float(np.mean(np.abs(predicted - age)))


def rmse(age_years: ArrayLike, predicted_age_years: ArrayLike) -> float:
    """Root mean squared error in years: weighs large errors more than the MAE does."""
    age, predicted = checked_ages(age_years, predicted_age_years)
    return float(np.sqrt(np.mean((predicted - age) ** 2)))


def r2(age_years: ArrayLike, predicted_age_years: ArrayLike) -> float:
    """Coefficient of determination, `1 − Σ(age − predicted)² / Σ(age − mean age)²`; not the squared correlation.

    It is negative where the predictor is worse than the sample's mean age.

    Returns:
        Unitless, at most 1; NaN where all ages are equal, since there is no variance to explain.
    """
    age, predicted = checked_ages(age_years, predicted_age_years)
    if np.ptp(age) == 0:
        return float("nan")
    return float(1 - np.sum((age - predicted) ** 2) / np.sum((age - age.mean()) ** 2))


def pearson_r(age_years: ArrayLike, predicted_age_years: ArrayLike) -> float:
    """Linear correlation: blind to offset and scale, so never reported without the calibration line.

    Returns:
        −1 to 1; NaN where either column is constant.
    """
    age, predicted = checked_ages(age_years, predicted_age_years)
    return _correlation(age, predicted)


def spearman_rho(age_years: ArrayLike, predicted_age_years: ArrayLike) -> float:
    """Rank correlation, ties by mid-ranks: whether the order of ages is kept.

    Returns:
        −1 to 1; NaN where either column is constant.
    """
    age, predicted = checked_ages(age_years, predicted_age_years)
    return _correlation(rankdata(age), rankdata(predicted))


def calibration_slope(age_years: ArrayLike, predicted_age_years: ArrayLike) -> float:
    """Slope of `predicted = slope × age + intercept`: predicted years per year of age.

    Returns:
        Unitless, 1 when calibrated; NaN where all ages are equal.
    """
    age, predicted = checked_ages(age_years, predicted_age_years)
    if np.ptp(age) == 0:
        return float("nan")
    centred = age - age.mean()
    return float(centred @ (predicted - predicted.mean()) / (centred @ centred))


def calibration_intercept(age_years: ArrayLike, predicted_age_years: ArrayLike) -> float:
    """Intercept of `predicted = slope × age + intercept`, in years at age 0: far outside most cohorts.

    Returns:
        Years, 0 when calibrated; NaN where all ages are equal.
    """
    age, predicted = checked_ages(age_years, predicted_age_years)
    return float(predicted.mean() - calibration_slope(age, predicted) * age.mean())


METRICS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "mae": mae,
    "rmse": rmse,
    "r2": r2,
    "pearson_r": pearson_r,
    "spearman_rho": spearman_rho,
    "calibration_slope": calibration_slope,
    "calibration_intercept": calibration_intercept,
}


def _correlation(x: Ages, y: Ages) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip((x / np.linalg.norm(x)) @ (y / np.linalg.norm(y)), -1.0, 1.0))
