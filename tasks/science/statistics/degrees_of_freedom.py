"""How much evidence stands behind each fixed effect of a mixed model.

Referring an estimate over its error to the normal distribution forgets that variances are estimated too: with twelve
subjects one test in ten is then a false positive.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from .design import INTERCEPT, NotEstimable
from .profiled_deviance import Array, Profile

STEP = 1e-3


def between_within_df(matrix: pd.DataFrame, groups: pd.Series) -> pd.Series:
    """Count the evidence behind each fixed effect: subjects for what differs between them, sessions for the rest.

    Args:
        matrix: Design, shape (n, p).
        groups: Group of each row, shape (n,).

    Returns:
        `G − 1 − p_between` for columns that are constant within every group, `n − G − p_within` for the others and
        the intercept.

    Raises:
        NotEstimable: One of them is below 1.

    Reference: Pinheiro & Bates 2000, section 2.4.2 (R's nlme).
    """
    values = matrix.to_numpy(dtype=np.float64)
    codes, names = pd.factorize(groups)
    first = values[np.unique(codes, return_index=True)[1]]
    varies = (np.abs(values - first[codes]) > 1e-12 * np.abs(values).max(axis=0)).any(axis=0)
    is_intercept = matrix.columns == INTERCEPT
    n, n_groups = len(matrix), len(names)
    between = n_groups - 1 - int((~varies & ~is_intercept).sum())
    within = n - n_groups - int(varies.sum())
    df = pd.Series(np.where(varies | is_intercept, within, between), index=matrix.columns, dtype=float)
    if (df < 1).any():
        raise NotEstimable(
            f"Not fitted: {n_groups} subjects with {n - n_groups} repeated sessions are too few for "
            f"{matrix.shape[1]} parameters ({', '.join(matrix.columns)})."
        )
    return df


def satterthwaite_df(profile: Profile, theta: Array, weights: Array) -> Array:
    """Match the squared error of each sum of fixed effects to a chi-squared variable of equal mean and variance.

    `2 f² / (gᵀ A g)`: f is the squared error, g its gradient in the variance parameters, and A their covariance, twice
    the inverse Hessian of the deviance. Parameters of size zero carry nothing and are left out of g and A.

    Args:
        profile: The deviance.
        theta: Where it is smallest.
        weights: Of the fixed effects, shape (m, p); the unit matrix for each of them by itself.

    Returns:
        Degrees of freedom, shape (m,), at least 1.

    Reference: Satterthwaite 1946, doi:10.2307/3002019; Kuznetsova et al. 2017, doi:10.18637/jss.v082.i13 (lmerTest).
    """
    # The profile's design has columns of its own scale.
    weights = weights / profile.x_scale
    base = _parts(profile, theta, weights)
    free = [k for k in range(len(theta)) if abs(theta[k]) > 10 * STEP]
    scale, rss = base[1] / profile.divisor, base[1]
    n_free = len(free)
    hessian, gradient = np.zeros((n_free + 1, n_free + 1)), np.zeros((n_free + 1, len(weights)))
    # The last parameter is the logarithm of the residual variance, whose derivatives are known.
    hessian[-1, -1], gradient[-1] = rss / scale, base[2]
    steps = np.eye(len(theta))[free] * STEP * np.maximum(1.0, np.abs(theta[free]))[:, None]
    ahead = [_parts(profile, theta + step, weights) for step in steps]
    behind = [_parts(profile, theta - step, weights) for step in steps]
    for i, step in enumerate(steps):
        width = step.sum()
        gradient[i] = (ahead[i][2] - behind[i][2]) / (2 * width)
        hessian[i, -1] = hessian[-1, i] = -(ahead[i][1] - behind[i][1]) / (2 * width * scale)
        second = _at(ahead[i], scale) + _at(behind[i], scale) - 2 * _at(base, scale)
        hessian[i, i] = second / width**2
        for j in range(i):
            both = [_parts(profile, theta + a * step + b * steps[j], weights) for a in (1, -1) for b in (1, -1)]
            mixed = _at(both[0], scale) - _at(both[1], scale) - _at(both[2], scale) + _at(both[3], scale)
            hessian[i, j] = hessian[j, i] = mixed / (4 * width * steps[j].sum())
    spread = np.einsum("ik,ij,jk->k", gradient, 2 * np.linalg.pinv(hessian, hermitian=True), gradient)
    return np.asarray(np.maximum(2 * base[2] ** 2 / np.maximum(spread, np.finfo(float).tiny), 1.0))


def _parts(profile: Profile, theta: Array, weights: Array) -> tuple[float, float, Array]:
    """What of the deviance does not hang on the residual variance, the residual sum, and diag W(XᵀV⁻¹X)⁻¹Wᵀ."""
    deviance, _, information, variance = profile.solve(theta)
    rest = deviance - profile.divisor * (1 + np.log(2 * np.pi * variance))
    return rest, variance * profile.divisor, np.einsum("ij,jk,ik->i", weights, np.linalg.inv(information), weights)


def _at(parts: tuple[float, float, Array], scale: float) -> float:
    return parts[0] + parts[1] / scale
