"""Whether a model of categories has finite estimates at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

Array = NDArray[np.float64]

TOLERANCE = 1e-7


def separating_columns(x: Array, codes: NDArray[np.intp]) -> list[int]:
    """Find a combination of predictors that puts every row on its own category's side.

    The likelihood then rises for ever along it, and what a program prints is where it gave up. The search is a linear
    programme: `a[k−1] ≤ x·b ≤ a[k]` for every row of category k, with as much slack as possible and |b| ≤ 1. Slack
    above zero is separation, complete or quasi-complete.

    Args:
        x: Predictors without the intercept, shape (n, p).
        codes: Category of each row, 0 … K − 1, shape (n,).

    Returns:
        The fewest columns that do so, as far as taking them out one by one tells; empty where estimates are finite.

    Reference: Albert & Anderson 1984, doi:10.1093/biomet/71.1.1; Konis 2007 (thesis, Oxford), section 4.
    """
    needed = list(range(x.shape[1])) if _separates(x, codes) else []
    for column in list(needed):
        rest = [other for other in needed if other != column]
        if rest and _separates(x[:, rest], codes):
            needed = rest
    return needed


def _separates(x: Array, codes: NDArray[np.intp]) -> bool:
    spread = x.std(axis=0)
    scaled = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    n, p = scaled.shape
    n_cuts = int(codes.max())
    cuts = np.eye(n_cuts)
    below, above = codes < n_cuts, codes > 0
    # Each row: x·b − a[k] ≤ 0 where there is a cut above it, a[k−1] − x·b ≤ 0 where there is one below.
    constraints = np.vstack(
        [
            np.hstack([scaled[below], -cuts[codes[below]]]),
            np.hstack([-scaled[above], cuts[codes[above] - 1]]),
        ]
    )
    bounds = [(-1.0, 1.0)] * p + [(None, None)] * n_cuts
    found = linprog(constraints.sum(axis=0), A_ub=constraints, b_ub=np.zeros(len(constraints)), bounds=bounds)
    return bool(found.success) and -float(found.fun) > TOLERANCE * n
