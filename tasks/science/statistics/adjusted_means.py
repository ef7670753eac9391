"""Adjusted (estimated marginal) means: what groups would show if they shared their covariates."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
from scipy import stats

from .association import AssociationFit

COLUMNS = ["term", "level", "mean", "ci_low", "ci_high"]


def adjusted_means(fit: AssociationFit, term: str | None = None) -> pd.DataFrame:
    """Predict the response per level of a categorical predictor, all else equal.

    Numeric predictors are held at their mean in the rows used (after log or root); the other categorical ones are
    averaged over their levels with equal weight, as emmeans does.

    Args:
        fit: A fitted model.
        term: A categorical predictor's name, such as `diagnosis`; None takes each.

    Returns:
        `term, level, mean, ci_low, ci_high` in the response's unit, 95% t intervals from the fit's own covariance
        (mixed models: with the fewest degrees of freedom of its terms). Empty for a model that was not fitted.

    Raises:
        ValueError: `term` is no categorical predictor of the model.

    Reference: Searle, Speed & Milliken 1980, doi:10.1080/00031305.1980.10483031.
    """
    if fit.coding is None:
        return pd.DataFrame(columns=COLUMNS)
    levels = dict(fit.coding.levels)
    if term is not None and term not in levels:
        raise ValueError(
            f"{term!r} is no categorical predictor of {fit.name}; these are: {', '.join(levels) or 'none'}."
        )
    if not levels:
        return pd.DataFrame(columns=COLUMNS)
    grid = pd.DataFrame(list(product(*levels.values())), columns=list(levels), dtype=object).assign(**fit.centre)
    matrix = fit.coding.matrix(grid)
    estimate = fit.coefficients["estimate"].to_numpy(dtype=float)
    covariance = fit.covariance.to_numpy(dtype=float)
    reach = stats.t.ppf(0.975, fit.coefficients["df"].min())
    rows = []
    for name in [term] if term else levels:
        for level in levels[name]:
            weights = matrix[grid[name] == level].to_numpy().mean(axis=0)
            mean, half = weights @ estimate, reach * np.sqrt(weights @ covariance @ weights)
            rows.append((name, level, mean, mean - half, mean + half))
    return pd.DataFrame(rows, columns=COLUMNS)
