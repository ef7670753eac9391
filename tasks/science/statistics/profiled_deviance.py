"""The deviance of a linear mixed model as a function of its random effects' relative covariance alone.

Fixed effects and residual variance are profiled out as lme4 does, so that only the relative Cholesky factor θ is
searched for. A variance of zero is then an ordinary point of the search, where statsmodels' MixedLM often fails to
converge or reports a boundary that depends on the unit of the response.

Reference: Bates et al. 2015, doi:10.18637/jss.v067.i01, section 3.4.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .design import INTERCEPT

Array = NDArray[np.float64]
Method = Literal["REML", "ML"]


class Profile:
    """The profiled deviance; per-group products are formed once, so that an evaluation does not touch the rows."""

    def __init__(
        self,
        response: pd.Series,
        matrix: pd.DataFrame,
        groups: pd.Series,
        random_slope: str | None,
        method: Method,
        correlated: bool = True,
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
        self.totals = np.add.reduceat(both[:, :, None] * both[:, None, :], starts, axis=0)
        self.total = self.totals.sum(axis=0)
        self.zz = np.add.reduceat(z[:, :, None] * z[:, None, :], starts, axis=0)
        self.zb = np.add.reduceat(z[:, :, None] * both[:, None, :], starts, axis=0)
        self.n, self.p = x.shape
        self.q, self.method = z.shape[1], method
        self.columns, self.n_groups, self.names = matrix.columns, len(names), names
        self.effects = [INTERCEPT] if random_slope is None else [INTERCEPT, random_slope]
        self.divisor = self.n - self.p if method == "REML" else self.n
        self.places = np.tril_indices(self.q) if correlated else np.diag_indices(self.q)

    def factor(self, theta: Array) -> Array:
        """Relative Cholesky factor Λ, lower triangular (diagonal where effects are uncorrelated), shape (q, q)."""
        factor = np.zeros((self.q, self.q))
        factor[self.places] = theta
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

    def covariance(self, information: Array, variance: float) -> Array:
        """Of the fixed effects, in the units of the response and the design."""
        scale = self.y_scale / self.x_scale
        return np.asarray(variance * np.linalg.inv(information) * np.outer(scale, scale))

    def random_values(self, theta: Array, beta: Array) -> pd.DataFrame:
        """Predicted random effects, shrunk towards zero as their variance says, in units of the response."""
        factor = self.factor(theta)
        remaining = (self.zb[:, :, -1] - self.zb[:, :, :-1] @ beta)[:, :, None]
        inner = np.eye(self.q) + factor.T @ self.zz @ factor
        values = (factor @ np.linalg.solve(inner, factor.T @ remaining))[:, :, 0]
        return pd.DataFrame(values * self.y_scale / self.z_scale, index=self.names, columns=self.effects)
