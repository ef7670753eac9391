"""Linear mixed models with a random intercept, and where asked a random slope, per group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize, minimize_scalar

from .degrees_of_freedom import between_within_df, satterthwaite_df
from .design import NotEstimable
from .profiled_deviance import Array, Method, Profile

THETA_GRID = np.concatenate([[0.0], np.geomspace(1e-3, 1e3, 37)])
SINGULAR_THETA = 1e-4
INTERIOR_THETA = 1e-2
NEWTON_STEPS = 8
FEW_GROUPS = 6
STARTS = ([1.0, 0.0, 1.0], [0.3, 0.0, 0.1], [1.0, 0.0, 0.0])


@dataclass(frozen=True)
class MixedFit:
    """A fitted mixed model.

    Attributes:
        fixed: Fixed effects, by column of the design.
        covariance: Their covariance, `σ² (XᵀV⁻¹X)⁻¹` at the estimated variances.
        df: Degrees of freedom by column: Satterthwaite's, at most those of subjects (columns constant within every
            group) or sessions (the others).
        random_covariance: Covariance of the random effects, in squared units of the response.
        residual_variance: Variance within groups.
        deviance: −2 log likelihood (ML) or −2 log restricted likelihood (REML).
        n_rows: Rows.
        n_groups: Groups.
        problems: Plain sentences: singular fits, failed convergence.
        random_values: Predicted random effects (BLUPs) by group, one column per effect.
        profile: The deviance that was minimised.
        theta: Where it is smallest.
        df_of: Degrees of freedom of sums of the fixed effects: weights of shape (m, p) → shape (m,).
    """

    fixed: pd.Series
    covariance: pd.DataFrame
    df: pd.Series
    random_covariance: pd.DataFrame
    residual_variance: float
    deviance: float
    n_rows: int
    n_groups: int
    problems: tuple[str, ...]
    random_values: pd.DataFrame
    profile: Profile
    theta: Array
    df_of: Callable[[Array], Array]


def fit_mixed(
    response: pd.Series,
    matrix: pd.DataFrame,
    groups: pd.Series,
    random_slope: str | None = None,
    method: Method = "REML",
    correlated: bool = True,
) -> MixedFit:
    """Fit `response = matrix × fixed + random intercept [+ random slope] + noise`.

    Sessions of one subject are alike; ordinary least squares would count each as new evidence.

    Args:
        response: Values, shape (n,).
        matrix: Design of the fixed effects, full rank, shape (n, p), on the same index.
        groups: Group of each row (the participant), shape (n,).
        random_slope: Column of `matrix` whose slope varies by group.
        method: REML for reported variances and standard errors, ML to compare fixed effects by likelihood.
        correlated: Whether the slope is correlated with the intercept.

    Returns:
        The fit; `problems` says when a variance is zero or the search failed.

    Raises:
        NotEstimable: Too few groups or repeated rows for the number of fixed effects.
        ValueError: The random slope is no column of the design.

    Reference: Bates et al. 2015, doi:10.18637/jss.v067.i01.
    """
    if random_slope is not None and random_slope not in matrix:
        raise ValueError(f"The random slope {random_slope!r} is no column of the design {list(matrix.columns)}.")
    if groups.nunique() < 2:
        raise NotEstimable(
            f"Not fitted: all rows are of one {groups.name}, so nothing tells how much its levels differ; leave groups "
            "out."
        )
    most = between_within_df(matrix, groups)
    profile = Profile(response, matrix, groups, random_slope, method, correlated)
    theta, converged = _search_intercept(profile) if random_slope is None else _search_slope(profile, correlated)
    deviance, beta, information, variance = profile.solve(theta)
    factor = (profile.y_scale / profile.z_scale)[:, None] * profile.factor(theta)
    # Scaling y and X moved the (restricted) likelihood by a constant, put back here.
    deviance += 2 * profile.divisor * np.log(profile.y_scale)
    deviance += 2 * float(np.log(profile.x_scale).sum()) if method == "REML" else 0.0
    names, effects = profile.columns, profile.effects
    return MixedFit(
        fixed=pd.Series(profile.start / profile.x_scale + beta * profile.y_scale / profile.x_scale, index=names),
        covariance=pd.DataFrame(profile.covariance(information, variance), index=names, columns=names),
        df=most.clip(upper=satterthwaite_df(profile, theta, np.eye(profile.p))),
        random_covariance=pd.DataFrame(variance * factor @ factor.T, index=effects, columns=effects),
        residual_variance=variance * profile.y_scale**2,
        deviance=deviance,
        n_rows=profile.n,
        n_groups=profile.n_groups,
        problems=tuple(_problems(profile, theta, converged)),
        random_values=profile.random_values(theta, beta),
        profile=profile,
        theta=theta,
        df_of=lambda weights: np.minimum(
            np.where(np.abs(weights) > 1e-12, most.to_numpy(), np.inf).min(axis=1),
            satterthwaite_df(profile, theta, weights),
        ),
    )


def _problems(profile: Profile, theta: Array, converged: bool) -> list[str]:
    problems = [] if converged else ["The mixed model did not converge; read its figures with caution."]
    if profile.n_groups < FEW_GROUPS:
        problems.append(f"{profile.n_groups} groups hardly tell how much groups differ: their variance is uncertain.")
    smallest = float(np.linalg.svd(profile.factor(theta), compute_uv=False)[-1])
    if smallest < SINGULAR_THETA:
        what = (
            "the random intercept's variance is zero"
            if profile.q == 1
            else "the random slope adds no variance of its own"
        )
        problems.append(f"Singular fit: {what}.")
    if float(np.abs(theta).max()) >= THETA_GRID[-1]:
        problems.append("Sessions of one subject hardly differ: the residual variance is next to zero.")
    return problems


def _search_intercept(profile: Profile) -> tuple[Array, bool]:
    values = [profile.deviance(np.array([theta])) for theta in THETA_GRID]
    best = int(np.argmin(values))
    low, high = THETA_GRID[max(best - 1, 0)], THETA_GRID[min(best + 1, len(THETA_GRID) - 1)]
    found = minimize_scalar(
        lambda theta: profile.deviance(np.array([theta])),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-9 * high},
    )
    theta = float(found.x) if found.fun < values[best] else float(THETA_GRID[best])
    return np.array([theta]), bool(found.success)


def _search_slope(profile: Profile, correlated: bool) -> tuple[Array, bool]:
    """A rough search and Newton's method; where that ends at a variance of zero, the best of several, by a simplex."""
    starts = STARTS if correlated else [[start[0], start[2]] for start in STARTS]
    bounds = [(0.0, None), (None, None), (0.0, None)] if correlated else [(0.0, None), (0.0, None)]
    rough = []
    for start in starts:
        rough.append(minimize(profile.deviance, start, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-7}))
        here = np.asarray(rough[-1].x)
        if here[[0, -1]].min() > INTERIOR_THETA:
            theta, converged = _newton(profile, here)
            if converged:
                return theta, True
    best = np.asarray(min(rough, key=lambda result: float(result.fun)).x)
    options = {"xatol": 1e-8, "fatol": 1e-9, "maxiter": 2000}
    found = minimize(profile.deviance, best, method="Nelder-Mead", bounds=bounds, options=options)
    return np.asarray(found.x), bool(found.success)


def _newton(profile: Profile, theta: Array) -> tuple[Array, bool]:
    width = 1e-4
    units = np.eye(len(theta)) * width
    for _ in range(NEWTON_STEPS):
        here = profile.deviance(theta)
        ahead = np.array([profile.deviance(theta + unit) for unit in units])
        behind = np.array([profile.deviance(theta - unit) for unit in units])
        gradient = (ahead - behind) / (2 * width)
        hessian = np.diag((ahead + behind - 2 * here) / width**2)
        for i in range(len(theta)):
            for j in range(i):
                corners = [profile.deviance(theta + a * units[i] + b * units[j]) for a in (1, -1) for b in (1, -1)]
                mixed = corners[0] - corners[1] - corners[2] + corners[3]
                hessian[i, j] = hessian[j, i] = mixed / (4 * width**2)
        if not np.all(np.linalg.eigvalsh(hessian) > 0):
            return theta, False
        step = np.linalg.solve(hessian, gradient)
        after = theta - step
        if after[[0, -1]].min() < INTERIOR_THETA / 2 or profile.deviance(after) > here + 1e-8:
            return theta, False
        theta = after
        if np.abs(step).max() < 1e-7:
            return theta, True
    return theta, False
