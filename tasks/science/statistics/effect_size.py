"""How large a difference is beside the scatter within the groups, whatever the number of observations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.stats import nct

MIN_PER_GROUP = 2
# A pooled SD this small beside the means is rounding.
RELATIVE_ROUNDING = 1e-9


class CohensD(NamedTuple):
    """A standardised difference with its 95% interval; NaN where `note` says why."""

    d: float
    ci_low: float
    ci_high: float
    note: str


def cohens_d(first: ArrayLike, second: ArrayLike) -> CohensD:
    """Standardise the difference of two independent groups' means by their pooled standard deviation.

    `d = (mean₁ − mean₂) / s_p`, `s_p² = ((n₁ − 1)s₁² + (n₂ − 1)s₂²) / (n₁ + n₂ − 2)`. With equal variances
    `t = d / √(1/n₁ + 1/n₂)` follows the noncentral t distribution with n₁ + n₂ − 2 degrees of freedom; the interval's
    ends are the noncentralities for which the t that was found is the 97.5th and the 2.5th percentile, divided by the
    same root. No small-sample correction (that would be Hedges' g). Folds of one cohort share data, so that the
    interval is narrower than the evidence there.

    Args:
        first: Observations of one group, shape (n₁,).
        second: Of the other, shape (n₂,).

    Returns:
        d, positive where the first group's mean is higher, and its interval.

    Raises:
        ValueError: A value is not finite.

    Reference: Cohen 1988, Statistical Power Analysis, chapter 2; Cumming & Finch 2001, doi:10.1177/0013164401614002.
    """
    a, b = np.asarray(first, dtype=float).ravel(), np.asarray(second, dtype=float).ravel()
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("An effect size needs finite observations; leave out what was not measured, and count it.")
    nan = float("nan")
    if min(len(a), len(b)) < MIN_PER_GROUP:
        return CohensD(nan, nan, nan, f"fewer than {MIN_PER_GROUP} observations in a group: no effect size")
    df = len(a) + len(b) - 2
    pooled = float(np.sqrt((((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum()) / df))
    if pooled <= RELATIVE_ROUNDING * max(abs(a.mean()), abs(b.mean()), np.finfo(float).tiny):
        return CohensD(nan, nan, nan, "no scatter within the groups: no effect size")
    root = float(np.sqrt(1 / len(a) + 1 / len(b)))
    d = float((a.mean() - b.mean()) / pooled)
    low, high = (_noncentrality(d / root, df, level) * root for level in (0.975, 0.025))
    if not np.isfinite([low, high]).all():
        return CohensD(d, nan, nan, "the effect is too large for an interval")
    return CohensD(d, low, high, "")


def _noncentrality(t: float, df: int, level: float) -> float:
    """The noncentrality under which a share `level` of draws lies below t."""

    def excess(noncentrality: float) -> float:
        return float(nct.cdf(t, df, noncentrality)) - level

    # The noncentral t is about normal around it with an SD of √(1 + t²/2df), so six of these hold any percentile.
    reach = 6 * float(np.sqrt(1 + t**2 / (2 * df))) + 2
    low, high = t - reach, t + reach
    try:
        return float(brentq(excess, low, high, xtol=1e-10)) if excess(low) > 0 > excess(high) else float("nan")
    except ValueError:
        # Beyond some thousands the distribution function is not computed.
        return float("nan")
