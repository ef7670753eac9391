"""Many looks at once: false discoveries over what a study declared, any false finding over a set of comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from .association_fit import AssociationFit


def benjamini_hochberg(p_values: ArrayLike) -> NDArray[np.float64]:
    """Turn p values into q values: the smallest false discovery rate at which each would be called.

    Args:
        p_values: Of one family, shape (m,), 0–1.

    Returns:
        q values, shape (m,), in the same order: `min over ranks k ≥ rank of m × p(k) / k`.

    Raises:
        ValueError: A value is not finite or outside 0–1.

    Reference: Benjamini & Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError("p values lie between 0 and 1; found others, or NaN. Leave out what was not fitted.")
    order = np.argsort(p)[::-1]
    ranks = np.arange(len(p), 0, -1)
    q = np.empty_like(p)
    q[order] = np.minimum.accumulate(np.minimum(p[order] * len(p) / ranks, 1.0))
    return q


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjust p values so that the chance of any false finding in the family stays below the level asked for.

    Args:
        p_values: Of one family, shape (m,), 0–1; NaN where nothing was tested, which does not enlarge the family.

    Returns:
        Adjusted p values, shape (m,), in the same order, NaN where there was none:
        `max over ranks k ≤ rank of min(1, (m − k + 1) × p(k))`.

    Raises:
        ValueError: A value lies outside 0–1.

    Reference: Holm 1979, Scandinavian Journal of Statistics 6:65–70.
    """
    p = np.asarray(p_values, dtype=np.float64)
    tested = ~np.isnan(p)
    if not np.all((p[tested] >= 0) & (p[tested] <= 1)):
        raise ValueError("p values lie between 0 and 1; found others.")
    order = np.flatnonzero(tested)[np.argsort(p[tested], kind="stable")]
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.maximum.accumulate(np.minimum(p[order] * np.arange(len(order), 0, -1), 1.0))
    return adjusted


def add_fdr(fits: Sequence[AssociationFit]) -> list[AssociationFit]:
    """Fill `q_value` over the terms of interest of the fits of each declared family.

    Args:
        fits: Every declared model of the study; models that were not fitted add nothing to their family.

    Returns:
        The fits in the same order, with q values where `of_interest`, NaN elsewhere.
    """
    if not fits:
        return []
    tested = [fit.coefficients["of_interest"].astype(bool) & fit.coefficients["p_value"].notna() for fit in fits]
    p_values = pd.concat([fit.coefficients["p_value"].astype(float) for fit in fits], keys=range(len(fits)))
    is_tested = pd.concat(tested, keys=range(len(fits)))
    families = pd.Series([fit.family for fit in fits])[p_values.index.get_level_values(0)].to_numpy()
    q_values = pd.Series(np.nan, index=p_values.index)
    for family in dict.fromkeys(families):
        chosen = is_tested.to_numpy() & (families == family)
        q_values[chosen] = benjamini_hochberg(p_values[chosen])
    return [
        replace(fit, coefficients=fit.coefficients.assign(q_value=q_values.loc[k] if len(fit.coefficients) else np.nan))
        for k, fit in enumerate(fits)
    ]
