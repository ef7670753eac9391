"""Age-bias correction: brain ages regress to the training mean, which makes the young look old and the old young.

The line `predicted = alpha × age + beta` comes from held-out healthy predictions: never from training predictions,
whose errors are too small, and never from the cohort being corrected, whose disease effect it would absorb.
Corrected accuracy is inflated, since age itself is put back in: raw metrics stand beside corrected ones, and nothing
is promoted on a corrected metric.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...records import AgeBias
from .metrics import calibration_intercept, calibration_slope, checked_ages

MIN_SUBJECTS = 3


def fit_age_bias(age_years: ArrayLike, predicted_age_years: ArrayLike) -> AgeBias:
    """Fit the bias line on held-out healthy subjects, one scan each.

    Args:
        age_years: Chronological ages, shape (n,).
        predicted_age_years: Predictions for scans that the model never saw, shape (n,).

    Returns:
        Slope (unitless), intercept (years) and n.

    Raises:
        ValueError: Fewer than three subjects, equal ages, predictions that do not depend on age (alpha 0: nothing to
            correct by), or a value that is not finite.
    """
    age, predicted = checked_ages(age_years, predicted_age_years)
    if len(age) < MIN_SUBJECTS or np.ptp(age) == 0:
        raise ValueError(
            f"The age-bias line needs at least {MIN_SUBJECTS} held-out healthy subjects of different ages; found "
            f"{len(age)} of {len(np.unique(age))} different ages. Enlarge the calibration split."
        )
    alpha = calibration_slope(age, predicted)
    if abs(alpha) < 1e-9:
        raise ValueError(
            f"Predictions do not depend on age (alpha = {alpha:.3g}), so no correction exists. Check the training run."
        )
    return AgeBias(alpha=alpha, beta_years=calibration_intercept(age, predicted), n_subjects=len(age))


def correct_de_lange(predicted_age_years: ArrayLike, age_years: ArrayLike, bias: AgeBias) -> NDArray[np.float64]:
    """Move predictions by the bias at each subject's own age: `predicted + age − (alpha × age + beta)`.

    Returns:
        Corrected predicted ages in years, shape (n,).

    Reference: de Lange & Cole 2020, doi:10.1016/j.nicl.2020.102229.
    """
    age, predicted = checked_ages(age_years, predicted_age_years)
    return predicted + age - (bias.alpha * age + bias.beta_years)


def correct_beheshti(predicted_age_years: ArrayLike, age_years: ArrayLike, bias: AgeBias) -> NDArray[np.float64]:
    """Subtract the gap that age alone foretells: `predicted − ((alpha − 1) × age + beta)`.

    Algebraically the same as `correct_de_lange`; kept because papers cite either.

    Returns:
        Corrected predicted ages in years, shape (n,).

    Reference: Beheshti et al. 2019, doi:10.1016/j.nicl.2019.102063.
    """
    age, predicted = checked_ages(age_years, predicted_age_years)
    expected_gap = (bias.alpha - 1) * age + bias.beta_years
    return predicted - expected_gap


def correct_cole(predicted_age_years: ArrayLike, bias: AgeBias) -> NDArray[np.float64]:
    """Invert the bias line, `(predicted − beta) / alpha`, which needs no age at prediction time.

    Residual noise is scaled by 1/alpha, so errors grow where the model is weak.

    Returns:
        Corrected predicted ages in years, shape (n,).

    Raises:
        ValueError: The slope is 0 or a prediction is not finite.

    Reference: Cole et al. 2018, doi:10.1038/mp.2017.62.
    """
    predicted, _ = checked_ages(predicted_age_years, predicted_age_years)
    if bias.alpha == 0:
        raise ValueError("The bias line has slope 0 and cannot be inverted; fit it with fit_age_bias.")
    return (predicted - bias.beta_years) / bias.alpha


def corrected_r2_by_construction(r: float) -> float:
    """Squared correlation of corrected age with age that a least-squares predictor gets for nothing.

    At least 0.80 whatever the predictor is worth, 1 for a useless one: why corrected accuracy is no headline.

    Args:
        r: Correlation of raw predicted age with age.

    Returns:
        `1 / (1 + r²(1 − r²))`.

    Reference: Butler et al. 2021, doi:10.1002/hbm.25533.
    """
    if not -1 <= r <= 1:
        raise ValueError(f"A correlation lies between -1 and 1; found {r}.")
    return 1 / (1 + r**2 * (1 - r**2))
