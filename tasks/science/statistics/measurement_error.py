"""A predictor that is itself measured with error pulls its slope towards zero; regression calibration puts it back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

SMALLEST_RELIABILITY = 0.1


class Calibration(NamedTuple):
    """How much of a predictor's spread, given the covariates, is true.

    Attributes:
        reliability: Share of true variance given the other terms, 0–1; NaN where nothing is known or left.
        note: A plain sentence.
    """

    reliability: float
    note: str


def calibration(
    values: pd.Series, others: np.ndarray, name: str, measurement_sd: float, reliability: float, source: str
) -> Calibration:
    """Say by how much a noisy predictor's slope is to be divided.

    With x = truth + error, least squares of y on x and z gives `λ β`, where
    `λ = (Var(x | z) − σ²) / Var(x | z)`. Covariates take away true spread but no error, so that λ is smaller than the
    reliability of x alone.

    Args:
        values: The measured predictor, shape (n,).
        others: The other terms' columns, intercept included, shape (n, k).
        name: Of the predictor.
        measurement_sd: Standard deviation σ of its error; 0 where `reliability` says it.
        reliability: Var(truth) / Var(x).
        source: Where σ comes from, in words.

    Returns:
        The calibration.

    Reference: Rosner, Willett & Spiegelman 1989, doi:10.1002/sim.4780080905; Carroll et al. 2006, Measurement Error in
    Nonlinear Models, chapter 4.
    """
    x = values.to_numpy(dtype=np.float64)
    error = measurement_sd**2 if measurement_sd > 0 else (1 - reliability) * float(np.var(x, ddof=1))
    left = x - others @ np.linalg.lstsq(others, x, rcond=None)[0]
    spread = float(left @ left) / (len(x) - others.shape[1])
    share = (spread - error) / spread if spread > 0 else 0.0
    if share < SMALLEST_RELIABILITY:
        said = (
            f"{name}: its own error ({source}, SD {np.sqrt(error):.3g}) is about as large as its whole spread given "
            "the "
            f"covariates (SD {np.sqrt(spread):.3g}), so its slope cannot be corrected for it."
        )
        return Calibration(float("nan"), said)
    said = (
        f"{name} is measured with error ({source}, SD {np.sqrt(error):.3g}): {share:.0%} of its spread given the "
        f"covariates is true, so the naive slope is too small; the corrected one (÷ {share:.2f}) stands beside it."
    )
    return Calibration(share, said)
