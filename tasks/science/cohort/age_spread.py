"""A few people who stand for all ages of a cohort, where it would take too long to look at everybody."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def spread_over_ages(ages_years: Float[np.ndarray, " n"], most: int) -> Int[np.ndarray, " chosen"]:
    """Choose people at even steps of age, so that no decade stands for the others because it is frequent.

    Args:
        ages_years: Ages, finite.
        most: How many to choose at most.

    Returns:
        Positions of the chosen, the youngest first; equal ages in the order given.

    >>> spread_over_ages(np.array([70.0, 20.0, 21.0, 22.0, 45.0]), 3).tolist()
    [1, 4, 0]
    """
    order = np.argsort(ages_years, kind="stable")
    if len(order) <= most:
        return order
    left = list(order)
    chosen = []
    for target in np.linspace(ages_years.min(), ages_years.max(), most):
        nearest = min(left, key=lambda position: abs(float(ages_years[position]) - float(target)))
        left.remove(nearest)
        chosen.append(nearest)
    return np.array(sorted(chosen, key=lambda position: (float(ages_years[position]), int(position))))
