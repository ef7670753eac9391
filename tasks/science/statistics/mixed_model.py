"""Linear mixed models with a random intercept, and where asked a random slope, per group.

The deviance is profiled over fixed effects and residual variance as lme4 does, so that only the random effects'
relative Cholesky factor is searched for. A variance of zero is then an ordinary point of the search, where
statsmodels' MixedLM often fails to converge or reports a boundary that depends on the unit of the response.

Reference: Bates et al. 2015, doi:10.18637/jss.v067.i01, section 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from .design import INTERCEPT, NotEstimable

Array = NDArray[np.float64]
Method = Literal["REML", "ML"]

THETA_GRID = np.concatenate([[0.0], np.geomspace(1e-3, 1e3, 37)])
SINGULAR_THETA = 1e-4


@dataclass(frozen=True)
class MixedFit:
    """A fitted mixed model.

    Attributes:
        fixed: Fixed effects, by column of the design.
        covariance: Their covariance, `σ² (XᵀV⁻¹X)⁻¹` at the estimated variances.
        df: Degrees of freedom by column: between subjects for columns constant within every group, within otherwise.
        random_covariance: Covariance of the random effects, in squared units of the response.
        residual_variance: Variance within groups.
        deviance: −2 log likelihood (ML) or −2 log restricted likelihood (REML).
        n_rows: Rows.
        n_groups: Groups.
        problems: Plain sentences: singular fits, failed convergence.
        random_values: Predicted random effects (BLUPs) by group, one column per effect.
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


def fit_mixed(
    response: pd.Series,
    matrix: pd.DataFrame,
    groups: pd.Series,
    random_slope: str | None = None,
    method: Method = "REML",
) -> MixedFit:
    """Fit `response = matrix × fixed + random intercept [+ random slope] + noise`.

    Sessions of one subject are alike; ordinary least squares would count each as new evidence.

    Args:
        response: Values, shape (n,).
        matrix: Design of the fixed effects, full rank, shape (n, p), on the same index.
        groups: Group of each row (the participant), shape (n,).
        random_slope: Column of `matrix` whose slope varies by group, correlated with the intercept.
        method: REML for reported variances and standard errors, ML to compare fixed effects by likelihood.

    Returns:
        The fit; `problems` says when a variance is zero or the search failed.

    Raises:
        NotEstimable: Too few groups or repeated rows for the number of fixed effects.
        ValueError: The random slope is no column of the design.

    Reference: degrees of freedom after Pinheiro & Bates 2000, section 2.4.2 (R's nlme).
    """
    if random_slope is not None and random_slope not in matrix:
        raise ValueError(f"The random slope {random_slope!r} is no column of the design {list(matrix.columns)}.")
    df = between_within_df(matrix, groups)
    profile = _Profile(response, matrix, groups, random_slope, method)
    theta, converged = _search_intercept(profile) if random_slope is None else _search_slope(profile)
    return profile.fit(theta, df, converged)


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
    """
    grouped = matrix.groupby(groups.to_numpy())
    varies = (grouped.max() - grouped.min()).max() > 1e-12 * matrix.abs().max()
    n, n_groups = len(matrix), groups.nunique()
    between = n_groups - 1 - int((~varies).drop(labels=INTERCEPT, errors="ignore").sum())
    within = n - n_groups - int(varies.sum())
    df = pd.Series(np.where(varies | (matrix.columns == INTERCEPT), within, between), index=matrix.columns, dtype=float)
    if (df < 1).any():
        raise NotEstimable(
            f"Not fitted: {n_groups} subjects with {n - n_groups} repeated sessions are too few for "
            f"{matrix.shape[1]} parameters ({', '.join(matrix.columns)})."
        )
    return df


class _Profile:
    """The profiled deviance; per-group products are formed once, so that an evaluation does not touch the rows."""

    def __init__(
        self, response: pd.Series, matrix: pd.DataFrame, groups: pd.Series, random_slope: str | None, method: Method
    ) -> None:
        codes, names = pd.factorize(groups)
        order = np.argsort(codes, kind="stable")
        starts = np.flatnonzero(np.append(True, np.diff(codes[order]) > 0))
        x = matrix.to_numpy(dtype=np.float64)[order]
        y = response.to_numpy(dtype=np.float64)[order]
        z = np.ones((len(y), 1))
        if random_slope is not None:
            z = np.column_stack([z, matrix[random_slope].to_numpy()[order]])
        # Unit columns and residuals of least squares keep the cross-products well conditioned.
        self.x_scale, self.z_scale = (np.sqrt(np.mean(block**2, axis=0)) for block in (x, z))
        x, z = x / self.x_scale, z / self.z_scale
        self.start = np.linalg.lstsq(x, y, rcond=None)[0]
        residual = y - x @ self.start
        self.y_scale = float(np.sqrt(np.mean(residual**2))) or 1.0
        both = np.column_stack([x, residual / self.y_scale])
        self.total = both.T @ both
        self.zz = np.add.reduceat(z[:, :, None] * z[:, None, :], starts, axis=0)
        self.zb = np.add.reduceat(z[:, :, None] * both[:, None, :], starts, axis=0)
        self.n, self.p = x.shape
        self.q, self.method = z.shape[1], method
        self.columns, self.n_groups, self.names = matrix.columns, len(names), names
        self.effects = [INTERCEPT] if random_slope is None else [INTERCEPT, random_slope]
        self.divisor = self.n - self.p if method == "REML" else self.n

    def factor(self, theta: Array) -> Array:
        """Relative Cholesky factor Λ, lower triangular, shape (q, q)."""
        factor = np.zeros((self.q, self.q))
        factor[np.tril_indices(self.q)] = theta
        return factor

    def solve(self, theta: Array) -> tuple[float, Array, Array, float]:
        """Deviance, fixed effects, XᵀV⁻¹X and residual variance, all in scaled units."""
        factor = self.factor(theta)
        inner = np.eye(self.q) + factor.T @ self.zz @ factor
        across = factor.T @ self.zb
        reduced = self.total - np.einsum("gqi,gqj->ij", across, np.linalg.solve(inner, across))
        information = reduced[:-1, :-1]
        beta = np.linalg.solve(information, reduced[:-1, -1])
        rss = max(float(reduced[-1, -1] - beta @ reduced[:-1, -1]), np.finfo(float).tiny)
        log_det = float(np.linalg.slogdet(inner)[1].sum())
        variance = rss / self.divisor
        deviance = log_det + self.divisor * (1 + np.log(2 * np.pi * variance))
        if self.method == "REML":
            deviance += float(np.linalg.slogdet(information)[1])
        return deviance, beta, information, variance

    def deviance(self, theta: Array) -> float:
        return self.solve(np.atleast_1d(theta))[0]

    def fit(self, theta: Array, df: pd.Series, converged: bool) -> MixedFit:
        deviance, beta, information, variance = self.solve(theta)
        scale = self.y_scale / self.x_scale
        covariance = variance * np.linalg.inv(information) * np.outer(scale, scale)
        to_units = self.y_scale / self.z_scale
        factor = to_units[:, None] * self.factor(theta)
        # Scaling y and X moved the (restricted) likelihood by a constant, put back here.
        deviance += 2 * self.divisor * np.log(self.y_scale)
        deviance += 2 * float(np.log(self.x_scale).sum()) if self.method == "REML" else 0.0
        return MixedFit(
            fixed=pd.Series(self.start / self.x_scale + beta * scale, index=self.columns),
            covariance=pd.DataFrame(covariance, index=self.columns, columns=self.columns),
            df=df,
            random_covariance=pd.DataFrame(variance * factor @ factor.T, index=self.effects, columns=self.effects),
            residual_variance=variance * self.y_scale**2,
            deviance=deviance,
            n_rows=self.n,
            n_groups=self.n_groups,
            problems=tuple(self.problems(theta, converged)),
            random_values=self.random_values(theta, beta),
        )

    def random_values(self, theta: Array, beta: Array) -> pd.DataFrame:
        """Predicted random effects, shrunk towards zero as their variance says, in units of the response."""
        factor = self.factor(theta)
        remaining = (self.zb[:, :, -1] - self.zb[:, :, :-1] @ beta)[:, :, None]
        inner = np.eye(self.q) + factor.T @ self.zz @ factor
        values = (factor @ np.linalg.solve(inner, factor.T @ remaining))[:, :, 0]
        return pd.DataFrame(values * self.y_scale / self.z_scale, index=self.names, columns=self.effects)

    def problems(self, theta: Array, converged: bool) -> list[str]:
        problems = [] if converged else ["The mixed model did not converge; read its figures with caution."]
        smallest = float(np.linalg.svd(self.factor(theta), compute_uv=False)[-1])
        if smallest < SINGULAR_THETA:
            what = (
                "the random intercept's variance is zero"
                if self.q == 1
                else "the random slope adds no variance of its own"
            )
            problems.append(f"Singular fit: {what}.")
        if float(np.abs(theta).max()) >= THETA_GRID[-1]:
            problems.append("Sessions of one subject hardly differ: the residual variance is next to zero.")
        return problems


def _search_intercept(profile: _Profile) -> tuple[Array, bool]:
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


def _search_slope(profile: _Profile) -> tuple[Array, bool]:
    bounds = [(0.0, None), (None, None), (0.0, None)]
    results = []
    for start in ([1.0, 0.0, 1.0], [0.3, 0.0, 0.1], [1.0, 0.0, 0.0]):
        rough = minimize(profile.deviance, start, method="L-BFGS-B", bounds=bounds)
        polish = {"xatol": 1e-8, "fatol": 1e-9, "maxiter": 2000}
        results.append(minimize(profile.deviance, rough.x, method="Nelder-Mead", bounds=bounds, options=polish))
    best = min(results, key=lambda result: float(result.fun))
    return np.asarray(best.x), bool(best.success)
