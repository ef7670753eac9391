"""Adjusted (estimated marginal) means, and their pairwise differences: groups as if they shared their covariates."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from .association_fit import CONTRAST_COLUMNS, MEANS_COLUMNS, AssociationFit
from .design import as_levels
from .multiplicity import holm

Array = NDArray[np.float64]
FreedomOf = Callable[[Array], Array]
MOST_COMPARED = 20
NO_PART = 1e-12
# Their linear predictors lack what would make them means: thresholds, or the hazard at baseline.
WITHOUT_MEANS = ("ordinal", "cox", "meta")


def adjusted_means(fit: AssociationFit, term: str | None = None, df_of: FreedomOf | None = None) -> pd.DataFrame:
    """Predict the response per level of a categorical predictor, all else equal.

    Numeric predictors are held at their mean in the rows used (after log or root); the other categorical ones are
    averaged over their levels with equal weight, as emmeans does. A logistic model's means are taken on the logarithm
    of odds and told as probabilities.

    Args:
        fit: A fitted model.
        term: A categorical predictor's name, such as `diagnosis`; None takes each.
        df_of: Degrees of freedom by weights of the parameters, shape (m, p) → (m,); None takes for each mean the fewest
            of the parameters that it is made of.

    Returns:
        `MEANS_COLUMNS` in the response's unit, 95% t intervals from the fit's own covariance. Empty for a model that
        was not fitted, and for ordinal and Cox models, which tell differences alone.

    Raises:
        ValueError: `term` is no categorical predictor of the model.

    Reference: Searle, Speed & Milliken 1980, doi:10.1080/00031305.1980.10483031.
    """
    rows = []
    for name, levels, weights in _weights(fit, term):
        if fit.kind in WITHOUT_MEANS:
            break
        mean, covariance, df = _projected(fit, weights, df_of)
        se = np.sqrt(np.diag(covariance))
        reach = stats.t.ppf(0.975, df) * se
        sizes: dict[str, int] = dict(as_levels(fit.rows[name]).value_counts()) if name in fit.rows else {}
        low, high = mean - reach, mean + reach
        if fit.kind == "logistic":
            mean, low, high = (1 / (1 + np.exp(-value)) for value in (mean, low, high))
            se = se * mean * (1 - mean)
        for k, level in enumerate(levels):
            rows.append((name, level, mean[k], se[k], low[k], high[k], sizes.get(level, np.nan)))
    return pd.DataFrame(rows, columns=MEANS_COLUMNS)


def pairwise_contrasts(fit: AssociationFit, adjustment: str, df_of: FreedomOf | None = None) -> pd.DataFrame:
    """Compare every two levels of each categorical predictor, corrected for the number of pairs.

    `tukey` refers |difference|/SE × √2 to the studentized range, which is exact for equal variances and sizes, and
    widens the intervals; `holm` steps down the p values and leaves intervals of single comparisons. Differences of a
    logistic model are on the logarithm of odds.

    Args:
        fit: A fitted model.
        adjustment: `tukey`, `holm`, or `none` for no contrasts.
        df_of: As for `adjusted_means`.

    Returns:
        `CONTRAST_COLUMNS`; empty where nothing is to be compared. Levels beyond 20 would be more pairs than anybody
        reads, and are left out.

    Reference: Tukey 1949, doi:10.2307/3001913; Kramer 1956, doi:10.2307/3001469; Holm 1979.
    """
    tables = []
    for name, levels, weights in _weights(fit, None) if adjustment != "none" else []:
        if len(levels) > MOST_COMPARED:
            continue
        pairs = list(combinations(range(len(levels)), 2))
        differences = np.array([weights[second] - weights[first] for first, second in pairs])
        estimate, covariance, df = _projected(fit, differences, df_of)
        se = np.sqrt(np.diag(covariance))
        statistic = np.abs(estimate) / se
        p = 2 * stats.t.sf(statistic, df)
        reach = stats.t.ppf(0.975, df)
        adjusted = holm(p)
        if adjustment == "tukey" and len(levels) > 2:
            adjusted = np.array(stats.studentized_range.sf(statistic * np.sqrt(2), len(levels), df))
            reach = stats.studentized_range.ppf(0.95, len(levels), df) / np.sqrt(2)
        tables.append(
            pd.DataFrame(
                {
                    "factor": name,
                    "contrast": [f"{levels[second]} − {levels[first]}" for first, second in pairs],
                    "estimate": estimate,
                    "se": se,
                    "df": df,
                    "ci_low": estimate - reach * se,
                    "ci_high": estimate + reach * se,
                    "p_value": p,
                    "p_adjusted": adjusted,
                    "adjustment": adjustment if len(levels) > 2 else "none",
                }
            )
        )
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=CONTRAST_COLUMNS)


def _weights(fit: AssociationFit, term: str | None) -> list[tuple[str, tuple[str, ...], Array]]:
    """Per categorical factor: its name, levels, and the mean design row of each level."""
    if fit.coding is None or fit.kind in ("meta",):
        return []
    levels = dict(fit.coding.levels)
    if term is not None and term not in levels:
        raise ValueError(
            f"{term!r} is no categorical predictor of {fit.name}; these are: {', '.join(levels) or 'none'}."
        )
    if not levels:
        return []
    grid = pd.DataFrame(list(product(*levels.values())), columns=list(levels), dtype=object).assign(**fit.centre)
    matrix = fit.coding.matrix(grid).reindex(columns=fit.covariance.columns)
    return [
        (name, levels[name], np.array([matrix[grid[name] == level].to_numpy().mean(axis=0) for level in levels[name]]))
        for name in ([term] if term else levels)
    ]


def _projected(fit: AssociationFit, weights: Array, df_of: FreedomOf | None) -> tuple[Array, Array, Array]:
    estimate = fit.coefficients["estimate"].to_numpy(dtype=float)
    covariance = fit.covariance.to_numpy(dtype=float)
    of_parts = fit.coefficients["df"].to_numpy(dtype=float)
    df = np.where(np.abs(weights) > NO_PART, of_parts, np.inf).min(axis=1) if df_of is None else df_of(weights)
    return weights @ estimate, weights @ covariance @ weights.T, df
