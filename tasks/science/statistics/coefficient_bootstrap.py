"""Percentile intervals of coefficients that resample subjects with all of their sessions."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .categorical_outcome import newton_logit
from .design import NotEstimable
from .profiled_deviance import Profile

Array = NDArray[np.float64]


def resampled_counts(n_subjects: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """How often each subject is drawn, shape (resamples, n_subjects)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_subjects, np.full(n_subjects, 1 / n_subjects), size=resamples)


def resampled_least_squares(x: Array, y: Array, subject: NDArray[np.intp], counts: NDArray[np.int64]) -> Array:
    """Coefficients of every draw, from per-subject sums of products; NaN where a draw leaves a column without spread.

    Args:
        x: Design, shape (n, p).
        y: Response, shape (n,).
        subject: Each row's subject as 0 … k−1, shape (n,).
        counts: From `resampled_counts`.

    Returns:
        Shape (resamples, p).
    """
    # Orthonormal columns, so that what a draw makes of them says at once whether it is still of full rank.
    q, r = np.linalg.qr(x)
    both = np.column_stack([q, y])
    products = np.zeros((counts.shape[1], both.shape[1], both.shape[1]))
    np.add.at(products, subject, both[:, :, None] * both[:, None, :])
    sums = np.tensordot(counts.astype(np.float64), products, axes=1)
    grams, sides = sums[:, :-1, :-1], sums[:, :-1, -1]
    sound = np.linalg.eigvalsh(grams)[:, 0] > 1e-8
    draws = np.full((len(counts), x.shape[1]), np.nan)
    draws[sound] = np.linalg.solve(grams[sound], sides[sound][:, :, None])[:, :, 0] @ np.linalg.inv(r).T
    return draws


def resampled_logistic(x: Array, y: Array, subject: NDArray[np.intp], counts: NDArray[np.int64]) -> Array:
    """Coefficients of every draw, shape (resamples, p); NaN where a draw separates the outcomes."""
    draws = np.full((len(counts), x.shape[1]), np.nan)
    for k, count in enumerate(counts):
        try:
            beta = newton_logit(x, y, count[subject].astype(np.float64))[0]
        except NotEstimable:
            continue
        if np.abs(x @ beta).max() < 30:
            draws[k] = beta
    return draws


def resampled_mixed(profile: Profile, theta: Array, counts: NDArray[np.int64]) -> Array:
    """Fixed effects of every draw of whole groups, shape (resamples, p), at the variances of the whole sample.

    Generalised least squares at a slightly other covariance is as unbiased, so that a draw costs one solution.

    Args:
        profile: The deviance of the whole sample.
        theta: Where it is smallest.
        counts: How often each group is drawn.

    Returns:
        Coefficients in the units of response and design; NaN where a draw leaves a column without spread.
    """
    draws = np.full((len(counts), profile.p), np.nan)
    for k, count in enumerate(counts):
        drawn = copy.copy(profile)
        chosen = np.repeat(np.arange(len(count)), count)
        drawn.zz, drawn.zb = profile.zz[chosen], profile.zb[chosen]
        drawn.total = np.tensordot(count.astype(np.float64), profile.totals, axes=1)
        try:
            beta = drawn.solve(theta)[1]
        except np.linalg.LinAlgError:
            continue
        draws[k] = (profile.start + beta * profile.y_scale) / profile.x_scale
    return draws


def percentile_intervals(draws: Array, names: pd.Index) -> tuple[pd.DataFrame, int]:
    """The middle 95% of the draws, and how many draws gave nothing.

    Returns:
        `bootstrap_ci_low, bootstrap_ci_high` by parameter, and the number of draws that are left out.
    """
    sound = np.isfinite(draws).all(axis=1)
    low, high = (
        np.quantile(draws[sound], [0.025, 0.975], axis=0) if sound.any() else np.full((2, draws.shape[1]), np.nan)
    )
    return pd.DataFrame({"bootstrap_ci_low": low, "bootstrap_ci_high": high}, index=names), int((~sound).sum())
