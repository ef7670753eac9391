"""What a linear finding leans on: outliers, the scale of the variables, confounders that nobody measured, chance."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq
from statsmodels.robust.norms import HuberT
from statsmodels.robust.robust_linear_model import RLM
from statsmodels.tools.sm_exceptions import ConvergenceWarning

Array = NDArray[np.float64]

LEVEL = 0.05
POWER = 0.8
LARGE_DF = 500.0
# Above this share of events an odds or hazard ratio overstates the risk ratio.
COMMON_OUTCOME = 0.15


def huber(response: pd.Series, matrix: pd.DataFrame) -> pd.DataFrame:
    """Fit by Huber's M estimator, which gives residuals beyond 1.345 robust SDs less say.

    Args:
        response: Values, shape (n,).
        matrix: Design, shape (n, p).

    Returns:
        `robust_estimate, robust_se, robust_p_value` (t with n − p degrees of freedom) by parameter; NaN where residuals
        are all but zero.

    Reference: Huber 1964, doi:10.1214/aoms/1177703732.
    """
    names = ["robust_estimate", "robust_se", "robust_p_value"]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        # On columns of unit length at right angles, or predictors far from zero end the search too early.
        q, r = np.linalg.qr(matrix.to_numpy(dtype=np.float64))
        fit = RLM(response.to_numpy(), q, M=HuberT()).fit()
        back = np.linalg.inv(r)
        estimate, se = back @ fit.params, np.sqrt(np.diag(back @ fit.bcov_scaled @ back.T))
        p_values = 2 * stats.t.sf(np.abs(estimate / se), len(matrix) - matrix.shape[1])
    values = np.column_stack([estimate, se, p_values])
    return pd.DataFrame(values if np.isfinite(values).all() else np.nan, index=matrix.columns, columns=names)


def partial_spearman(response: pd.Series, matrix: pd.DataFrame, column: str, controls: list[str]) -> Array:
    """Correlate ranks, given the ranks of covariates: for scales that are ordered but not measured in equal steps.

    Args:
        response: Values, shape (n,).
        matrix: Design, shape (n, p).
        column: The predictor.
        controls: Columns that are held, without the intercept.

    Returns:
        ρ, its 95% interval (Fisher's z with Bonett and Wright's variance), and p (t with n − 2 − k degrees of freedom);
        NaN where the ranks leave nothing.

    Reference: Bonett & Wright 2000, doi:10.1007/BF02294183; Conover 1999, section 5.4.
    """
    ranks = np.column_stack([stats.rankdata(v) for v in (response, matrix[column])])
    held = np.column_stack([np.ones(len(ranks)), *(stats.rankdata(matrix[name]) for name in controls)])
    left = ranks - held @ np.linalg.lstsq(held, ranks, rcond=None)[0]
    norms = np.linalg.norm(left, axis=0)
    df = len(ranks) - 2 - len(controls)
    if df < 2 or norms.min() <= 1e-9 * len(ranks):
        return np.full(4, np.nan)
    rho = float(np.clip(left[:, 0] @ left[:, 1] / norms.prod(), -1, 1))
    reach = stats.norm.ppf(0.975) * np.sqrt((1 + rho**2 / 2) / (df - 1))
    bounded = np.clip(rho, -1 + 1e-12, 1 - 1e-12)
    low, high = np.tanh(np.arctanh(bounded) + np.array([-reach, reach]))
    t = bounded * np.sqrt(df / (1 - bounded**2))
    return np.array([rho, low, high, 2 * stats.t.sf(abs(t), df)])


def power_of(statistic: Array, df: Array) -> Array:
    """Chance that a study of this size finds an effect as large as the one that it found, by a 5% test.

    It says nothing that the p value does not say (Hoenig & Heisey 2001, doi:10.1198/000313001300339897); beside it
    stands what effect the study could have found: `detectable`.
    """
    shift, df = np.abs(statistic), np.minimum(df, 1e6)
    critical = stats.t.ppf(1 - LEVEL / 2, df)
    # scipy gives NaN for the far tail of a large shift, where nothing is left.
    wrong_side = np.nan_to_num(stats.nct.cdf(-critical, df, shift))
    return np.asarray(np.clip(stats.nct.sf(critical, df, shift) + wrong_side, 0, 1))


def detectable(se: Array, df: Array) -> Array:
    """The smallest effect that a 5% test on this many rows finds with 80% power, in the estimate's unit."""
    return np.array([error * _noncentrality(min(float(freedom), 1e6)) for error, freedom in zip(se, df, strict=True)])


_KNOWN: dict[float, float] = {}


def _noncentrality(df: float) -> float:
    if df > LARGE_DF:
        # The noncentral t is then a shifted one, to a thousandth.
        return float(stats.t.ppf(1 - LEVEL / 2, df) + stats.t.ppf(POWER, df))
    if df not in _KNOWN:
        critical = stats.t.ppf(1 - LEVEL / 2, df)
        _KNOWN[df] = float(brentq(lambda shift: stats.nct.sf(critical, df, shift) - POWER, 0.5, 60.0))
    return _KNOWN[df]


def e_values(ratio: Array, ratio_low: Array, ratio_high: Array) -> tuple[Array, Array]:
    """How strongly an unmeasured confounder would have to go with both sides to explain an association away.

    Args:
        ratio: Risk ratios, shape (m,).
        ratio_low: Lower ends of their intervals.
        ratio_high: Upper ends.

    Returns:
        E-values of the estimates and of the interval's end nearest to no effect (1 where the interval holds it).

    Reference: VanderWeele & Ding 2017, doi:10.7326/M16-2607.
    """
    nearest = np.where(ratio >= 1, np.maximum(ratio_low, 1.0), np.minimum(ratio_high, 1.0))
    return _e_value(ratio), _e_value(nearest)


def risk_ratios(estimate: Array, kind: str, share: float) -> Array:
    """Read estimates as risk ratios: standardised differences by exp(0.91 d), odds and hazards by their own rules.

    Args:
        estimate: Standardised coefficients (linear models), log odds or log hazards, shape (m,).
        kind: Of the model.
        share: Share of rows with the event; of no matter for linear models.

    Returns:
        Risk ratios, shape (m,).
    """
    if kind in ("linear", "mixed"):
        return np.asarray(np.exp(0.91 * estimate))
    if share < COMMON_OUTCOME:
        return np.asarray(np.exp(estimate))
    if kind == "cox":
        root = np.sqrt(np.exp(estimate))
        return np.asarray((1 - 0.5**root) / (1 - 0.5 ** (1 / root)))
    return np.asarray(np.exp(estimate / 2))


def _e_value(ratio: Array) -> Array:
    above = np.where(ratio >= 1, ratio, 1 / ratio)
    return np.asarray(above + np.sqrt(above * (above - 1)))
