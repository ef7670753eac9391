"""Whether a model's assumptions hold, in figures and in plain sentences."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from .association_fit import DIAGNOSTIC_COLUMNS
from .design import INTERCEPT
from .model_estimates import Estimates, Figure

Array = NDArray[np.float64]

# Shapiro-Wilk's p values hold up to here (Royston 1995); beyond it no departure matters to a mean.
MOST_FOR_SHAPIRO = 5000
SURE = 0.001
LARGE_COOK = 1.0
# Below this many rows the central limit theorem is no excuse.
SMALL_SAMPLE = 50


def diagnose(
    estimates: Estimates, matrix: pd.DataFrame, subjects: pd.Series, robust: bool
) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Look at residuals, leverage, collinearity and random effects.

    Args:
        estimates: The fitted model.
        matrix: Its design, shape (n, p).
        subjects: Name of each row's subject, shape (n,).
        robust: Whether the standard errors allow unequal variances.

    Returns:
        `DIAGNOSTIC_COLUMNS`; sentences about problems; notes about what the model allows for already.
    """
    figures = [*estimates.diagnostics, *_inflation(matrix)]
    said: list[str] = []
    notes: list[str] = []
    if estimates.kind in ("linear", "mixed"):
        residual = estimates.by_row["residual"].to_numpy(dtype=np.float64)
        figures += _of_residuals(residual, matrix.to_numpy(dtype=np.float64), said, notes, robust)
    if "cook" in estimates.by_row:
        figures += _of_influence(estimates.by_row, subjects, said)
    return pd.DataFrame(figures, columns=DIAGNOSTIC_COLUMNS), said, notes


def normality(values: Array) -> tuple[float, float]:
    """Shapiro and Wilk's W and its p value; NaN below 4 values, without spread, or for more than it is known for."""
    if not 4 <= len(values) <= MOST_FOR_SHAPIRO or np.ptp(values) <= 1e-9 * max(np.abs(values).max(), 1e-300):
        return float("nan"), float("nan")
    found = stats.shapiro(values)
    return float(found.statistic), float(found.pvalue)


def breusch_pagan(residual: Array, x: Array) -> tuple[float, float]:
    """Whether squared residuals go with the predictors: n R² of that regression, after Koenker.

    Reference: Breusch & Pagan 1979, doi:10.2307/1911963; Koenker 1981, doi:10.1016/0304-4076(81)90062-2.
    """
    squared = residual**2
    left = squared - x @ np.linalg.lstsq(x, squared, rcond=None)[0]
    total = float(((squared - squared.mean()) ** 2).sum())
    if total <= 0 or x.shape[1] < 2:
        return float("nan"), float("nan")
    value = len(residual) * (1 - float(left @ left) / total)
    return value, float(stats.chi2.sf(value, x.shape[1] - 1))


def _of_residuals(residual: Array, x: Array, said: list[str], notes: list[str], robust: bool) -> list[Figure]:
    w, p_normal = normality(residual)
    lm, p_equal = breusch_pagan(residual, x)
    if p_normal < SURE and len(residual) < SMALL_SAMPLE:
        said.append(
            f"Residuals are not normal (Shapiro-Wilk p = {p_normal:.1g}), and {len(residual)} rows are few: compare "
            "the "
            "robust estimate, or ask for bootstrap intervals."
        )
    if p_equal < SURE:
        sentence = f"The spread of residuals changes with the predictors (Breusch-Pagan p = {p_equal:.1g})"
        if robust:
            notes.append(f"{sentence}; the standard errors allow for it.")
        else:
            said.append(f'{sentence}, which these standard errors do not allow for: take covariance = "HC3".')
    return [("residual normality (Shapiro-Wilk W)", "", w, p_normal), ("Breusch-Pagan", "", lm, p_equal)]


def _of_influence(by_row: pd.DataFrame, subjects: pd.Series, said: list[str]) -> list[Figure]:
    cook, leverage = by_row["cook"].to_numpy(), by_row["leverage"].to_numpy()
    worst = int(cook.argmax())
    if cook[worst] > LARGE_COOK:
        said.append(
            f"{subjects.iloc[worst]} alone moves the estimates much (Cook's distance {cook[worst]:.2g}): look at its "
            "values, and at the robust estimate."
        )
    nan = float("nan")
    return [("largest Cook's distance", "", float(cook[worst]), nan), ("largest leverage", "", leverage.max(), nan)]


def _inflation(matrix: pd.DataFrame) -> list[Figure]:
    names = [name for name in matrix.columns if name != INTERCEPT]
    if len(names) < 2 or INTERCEPT not in matrix:
        return []
    values = matrix[names].to_numpy(dtype=np.float64)
    correlation = np.atleast_2d(np.corrcoef(values, rowvar=False))
    inflation = np.diag(np.linalg.pinv(correlation))
    return [
        ("variance inflation", name, float(value), float("nan")) for name, value in zip(names, inflation, strict=True)
    ]
