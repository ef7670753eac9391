"""Which figures an analysis gets: effects across models and sites, coefficients, and the rows behind each effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ..statistics.analysis import Analysis
from ..statistics.association_fit import AssociationFit
from ..statistics.design import INTERCEPT, factor_values, learn_coding
from .association_tables import RATIOS, levels_of
from .association_words import capital, slug, term, variable
from .forest_figures import MOST_FOREST_ROWS, forest_across_models, forest_across_sites
from .interval_figures import IntervalPanel, IntervalRow, figures_of, interval_figure
from .print_figures import PrintFigure, print_style, printed
from .scatter_figures import design_of, partial_regression, raincloud
from .trajectory_figures import trajectories

MOST_MODELS_DRAWN = 12
MOST_OF_A_KIND = 6
Draw = Callable[[str], PrintFigure | None]


def figures_of_analysis(analysis: Analysis) -> dict[str, PrintFigure]:
    """Draw everything that an analysis holds.

    Args:
        analysis: The models; those of a large screen hold no rows and get the forest alone.

    Returns:
        File name without ending → figure, in the order of reading.
    """
    made: dict[str, PrintFigure] = {}
    for stem, draw in _all_figures(analysis):
        name = _unused(stem, made)
        figure = draw(name)
        if figure is not None:
            made[name] = figure
    return made


def _unused(stem: str, made: Mapping[str, Any]) -> str:
    name, n = stem, 1
    while name in made:
        n += 1
        name = f"{stem}-{n}"
    return name


def _all_figures(analysis: Analysis) -> Iterator[tuple[str, Draw]]:
    yield "forest-models", partial(forest_across_models, analysis)
    for fit in [fit for fit in analysis.fits if fit.kind][:MOST_MODELS_DRAWN]:
        own = slug(fit.name)
        wanted = set(fit.coefficients.loc[fit.coefficients["of_interest"].astype(bool), "term"])
        for effect in [e for e in dict.fromkeys(map(str, fit.strata["term"])) if e in wanted][:MOST_OF_A_KIND]:
            yield f"forest-sites-{own}-{slug(effect)}", partial(forest_across_sites, fit, effect)
        yield f"trajectories-{own}", partial(trajectories, fit)
        factors, numbers = _of_interest(fit)
        for factor in factors[:MOST_OF_A_KIND]:
            yield f"groups-{own}-{slug(factor)}", partial(raincloud, fit, factor)
        for parameter in numbers[:MOST_OF_A_KIND]:
            yield f"partial-regression-{own}-{slug(parameter)}", partial(partial_regression, fit, parameter)
        yield f"coefficients-{own}", partial(coefficient_plot, fit)


def _of_interest(fit: AssociationFit) -> tuple[list[str], list[str]]:
    """Categorical factors and numeric coefficients among the effects of interest, interactions' parts included."""
    if fit.coding is None:
        return [], []
    owners = fit.coding.terms_of_columns()
    flags = dict(zip(fit.coefficients["term"], fit.coefficients["of_interest"].astype(bool), strict=True))
    wanted = [(column, owner) for column, owner in owners.items() if owner is not None and flags.get(column, False)]
    factors = dict.fromkeys(f.label for _, owner in wanted for f in owner.factors if f.label in fit.coding.levels)
    numbers = [
        column
        for column, owner in wanted
        if not any(f.label in fit.coding.levels for f in owner.factors) and len(owner.factors) == 1
    ]
    return list(factors), numbers


def coefficient_plot(fit: AssociationFit, name: str) -> PrintFigure | None:
    """Draw every predictor of one model on a common scale: standardised β, or ratios per SD.

    Returns:
        The figure, or None where the model holds no rows, or fewer than two predictors.
    """
    table = standardised(fit)
    if table is None or len(table) < 2:
        return None
    levels = levels_of(fit)
    is_ratio = fit.kind in RATIOS
    ends = ("estimate", "ci_low", "ci_high")
    shown = table.assign(**{name: np.exp(table[name]) for name in ends}) if is_ratio else table
    rows = [
        IntervalRow(
            _standardised_name(str(r["term"]), levels), r["estimate"], r["ci_low"], r["ci_high"], r["of_interest"]
        )
        for r in shown.to_dict("records")
    ][:MOST_FOREST_ROWS]
    outcome = capital(variable(fit.response))
    axis = f"{RATIOS[fit.kind].lower()} per SD, or between groups, 95% CI" if is_ratio else f"{outcome}, in SDs, 95% CI"
    with print_style():
        figure = interval_figure([IntervalPanel("", axis, rows, is_ratio)])
        said = "; ".join(f"{row.name}: {figures_of(row)}" for row in rows)
        what = "on the outcome's odds or hazard" if is_ratio else "in SDs of the outcome"
        caption = (
            f"Every predictor of the model “{fit.name}” {what}: numeric ones per SD, groups against their reference. "
            "Filled: effects of interest; open: covariates."
        )
        alt = f"Coefficient plot of {fit.name}. {said}."
        return printed(figure, name, f"Coefficients, {fit.name}", caption, alt, shown, fit.name)


def _standardised_name(name: str, levels: Mapping[str, Any]) -> str:
    words = term(name, levels)
    return words.rpartition(", per ")[0] or words


def standardised(fit: AssociationFit) -> pd.DataFrame | None:
    """Re-express a model in z-scored variables with intervals: a linear map of its estimates and their covariance.

    Returns:
        `term, estimate, ci_low, ci_high, of_interest` less the intercept; None without rows. Of logistic and Cox
        models only the predictors are scaled.
    """
    design = design_of(fit)
    if design is None or fit.coding is None or fit.kind not in ("linear", "mixed", "logistic"):
        return None
    values = factor_values(fit.coding.formula, fit.rows)
    numeric = [name for name in values if pd.api.types.is_float_dtype(values[name])]
    spread = values[numeric].std().replace(0.0, 1.0)
    scaled = values.assign(**((values[numeric] - values[numeric].mean()) / spread))
    coded = learn_coding(fit.coding.formula, scaled)[0].matrix(scaled)
    of_outcome = 1.0 if fit.kind in RATIOS else float(spread[fit.response])
    to_standard = np.linalg.lstsq(coded.to_numpy(), design.to_numpy(), rcond=None)[0] / of_outcome
    rows = fit.coefficients.set_index("term").loc[list(design.columns)]
    covariance = fit.covariance.loc[design.columns, design.columns].to_numpy(dtype=float)
    estimates = to_standard @ rows["estimate"].to_numpy(dtype=float)
    spread_of = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", to_standard, covariance, to_standard), 0.0))
    reach = stats.t.ppf(0.975, rows["df"].to_numpy(dtype=float)) * spread_of
    table = pd.DataFrame(
        {
            "term": coded.columns,
            "estimate": estimates,
            "ci_low": estimates - reach,
            "ci_high": estimates + reach,
            "of_interest": rows["of_interest"].to_numpy(dtype=bool),
        }
    )
    return table[table["term"] != INTERCEPT].reset_index(drop=True)
