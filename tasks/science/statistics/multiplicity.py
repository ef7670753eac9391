"""False discoveries over everything that a study declared to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from .association import AssociationFit


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


def add_fdr(fits: Sequence[AssociationFit]) -> list[AssociationFit]:
    """Fill `q_value` over the terms of interest of all fits together, the declared family.

    Args:
        fits: Every declared model of the study; models that were not fitted add nothing to the family.

    Returns:
        The fits in the same order, with q values where `of_interest`, NaN elsewhere.
    """
    family = [fit.coefficients["p_value"][fit.coefficients["of_interest"]].to_numpy(dtype=float) for fit in fits]
    q_values = np.split(benjamini_hochberg(np.concatenate([*family, []])), np.cumsum([len(p) for p in family])[:-1])
    results = []
    for fit, q in zip(fits, q_values, strict=False):
        column = pd.Series(np.nan, index=fit.coefficients.index)
        column[fit.coefficients["of_interest"]] = q
        results.append(replace(fit, coefficients=fit.coefficients.assign(q_value=column)))
    return results
