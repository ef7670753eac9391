"""Ordinary least squares with standard errors that do not ask the groups to share a variance.

Everything follows from one QR factorisation, so that a screen of a thousand models stays a matter of seconds.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...records import Covariance
from .design import NotEstimable
from .model_estimates import Estimates

Array = NDArray[np.float64]

# Measured (tests/benchmarks/association_coverage.py): the t of n − p covers 97% at 12 rows and 96% at 40.
FEW_ROWS_FOR_HC3 = 50
FEW_ROWS_FOR_HC2 = 30
FEW_ROWS = (
    "{n} rows are few for HC3: its 95% intervals are a little too wide (97% at 12 rows, 96% at 40), so that it finds "
    'too little rather than too much; covariance = "HC2" takes Bell-McCaffrey degrees of freedom, which come nearer.'
)
# Residual variance below this share of the response's is rounding.
EXACT = 1e-20
EXACT_FIT = "Not fitted: {response} follows exactly from the predictors; one was computed from another."
LEVERAGE_OF_ONE = 1 - 1e-9
FEW_CLUSTERS = 30
# The power of 1 − leverage that a squared residual is divided by.
DISCOUNT = {"HC0": 0, "HC1": 0, "HC2": 1, "HC3": 2}


def least_squares(
    response: pd.Series, matrix: pd.DataFrame, covariance: Covariance, subjects: pd.Series, groups: pd.Series | None
) -> Estimates:
    """Fit by ordinary least squares.

    HC3 is the default since clinical groups rarely share a variance, and cohorts are small (Long & Ervin 2000).

    Args:
        response: Values, shape (n,).
        matrix: Design, full rank, shape (n, p), on the same index.
        covariance: `HC0` … `HC3` (MacKinnon & White 1985), `nonrobust`, or `cluster`.
        subjects: Names of the rows' subjects, for what is said of one of them.
        groups: Clusters, shape (n,); needed for `cluster` alone.

    Returns:
        Estimates with t references: n − p degrees of freedom; for HC2 Bell and McCaffrey's; for clusters their number
        less one. The partial R² is that of plain least squares, whatever the covariance.

    Raises:
        NotEstimable: One row alone determines a coefficient, or there is one cluster.

    Reference: MacKinnon & White 1985, doi:10.1016/0304-4076(85)90158-7; Long & Ervin 2000,
    doi:10.1080/00031305.2000.10474549; Cameron & Miller 2015, doi:10.3368/jhr.50.2.317 (clusters).
    """
    x, y = matrix.to_numpy(dtype=np.float64), response.to_numpy(dtype=np.float64)
    n, p = x.shape
    q, r = np.linalg.qr(x)
    leverage = np.einsum("ij,ij->i", q, q)
    if covariance in ("HC2", "HC3") and leverage.max() > LEVERAGE_OF_ONE:
        alone = subjects.iloc[int(leverage.argmax())]
        raise NotEstimable(
            f"Not fitted: {alone} alone determines a coefficient, so it has no {covariance} standard error."
        )
    inverse = np.linalg.inv(r)
    beta = inverse @ (q.T @ y)
    residual = y - x @ beta
    scale = float(residual @ residual) / (n - p)
    if scale <= EXACT * float(np.var(y)):
        raise NotEstimable(EXACT_FIT.format(response=response.name))
    unscaled = np.einsum("ij,ij->i", inverse, inverse)
    meat, df, problems = _meat(q, residual, leverage, covariance, groups, scale)
    dfs = bell_mccaffrey_df(q, inverse, leverage) if covariance == "HC2" else df * np.ones(p)
    if covariance == "HC3" and n < FEW_ROWS_FOR_HC3:
        problems = (*problems, FEW_ROWS.format(n=n))
    if covariance == "HC2" and n < FEW_ROWS_FOR_HC2:
        problems = (*problems, f"{n} rows are few: the 95% intervals of a small, more variable group cover about 94%.")
    plain_t2 = beta**2 / (scale * unscaled)
    names = matrix.columns
    by_row = pd.DataFrame({"fitted": y - residual, "residual": residual, "leverage": leverage}, index=matrix.index)
    by_row["cook"] = residual**2 * leverage / (p * scale * np.maximum(1 - leverage, 1e-12) ** 2)
    return Estimates(
        kind="linear",
        method=f"OLS, {_SHOWN.get(covariance, covariance)}"
        + (f" by {groups.name}" if groups is not None and covariance == "cluster" else ""),
        estimate=pd.Series(beta, index=names),
        covariance=pd.DataFrame(inverse @ meat @ inverse.T, index=names, columns=names),
        df=pd.Series(dfs, index=names),
        df_of=(lambda weights: bell_mccaffrey_df(q, weights @ inverse, leverage)) if covariance == "HC2" else None,
        problems=problems,
        by_row=by_row,
        partial_r2=pd.Series(plain_t2 / (plain_t2 + n - p), index=names),
    )


def bell_mccaffrey_df(q: Array, inverse: Array, leverage: Array) -> Array:
    """Degrees of freedom of each HC2 variance: those of a chi-squared variable of equal mean and variance.

    A coefficient on which few rows bear (a small group) has few, whatever n is.

    Args:
        q: Orthonormal basis of the design, shape (n, p).
        inverse: From that basis to the coefficients, or to sums of them, shape (m, p).
        leverage: Of each row, shape (n,).

    Returns:
        Shape (m,).

    Reference: Bell & McCaffrey 2002, Survey Methodology 28:169–181; Imbens & Kolesár 2016, doi:10.1162/REST_a_00552.
    """
    weights = (q @ inverse.T) ** 2 / (1 - leverage)[:, None]
    mean = (weights * (1 - leverage)[:, None]).sum(axis=0)
    # With residuals M e, M = I − QQᵀ, the sum over all pairs of M² falls apart into these two.
    alone = (weights**2 * (1 - 2 * leverage)[:, None]).sum(axis=0)
    shared = np.array([np.sum(((q.T * weight) @ q) ** 2) for weight in weights.T])
    return np.asarray(mean**2 / (alone + shared))


def one_cluster(groups: pd.Series) -> str:
    """Why a single cluster gives no error."""
    return f"Not fitted: all rows are of one {groups.name}, so there is no cluster-robust error."


def few_clusters(k: int) -> tuple[str, ...]:
    """What is to be known of errors that rest on `k` clusters; nothing where they are many."""
    said = f"{k} clusters are few: cluster-robust intervals are too narrow below about {FEW_CLUSTERS}."
    return (said,) if k < FEW_CLUSTERS else ()


_SHOWN = {
    "HC2": "HC2 (Bell-McCaffrey df)",
    "nonrobust": "classical standard errors",
    "cluster": "cluster-robust standard errors",
}


def _meat(
    q: Array, residual: Array, leverage: Array, covariance: Covariance, groups: pd.Series | None, scale: float
) -> tuple[Array, int, tuple[str, ...]]:
    n, p = q.shape
    if covariance == "nonrobust":
        return scale * np.eye(p), n - p, ()
    if covariance == "cluster" and groups is not None:
        codes = pd.factorize(groups)[0]
        k = int(codes.max()) + 1
        if k < 2:
            raise NotEstimable(one_cluster(groups))
        scores = np.zeros((k, p))
        np.add.at(scores, codes, q * residual[:, None])
        return (k / (k - 1) * (n - 1) / (n - p)) * scores.T @ scores, k - 1, few_clusters(k)
    weights = residual**2 / (1 - leverage) ** DISCOUNT[covariance] * (n / (n - p) if covariance == "HC1" else 1.0)
    return (q.T * weights) @ q, n - p, ()
