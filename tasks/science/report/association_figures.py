"""Which figures an analysis gets: effects across models and sites, coefficients, and the rows behind each effect."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ..statistics.analysis import Analysis
from ..statistics.association_fit import AssociationFit
from ..statistics.design import INTERCEPT, factor_values, learn_coding
from .association_tables import RATIOS, effects_of, levels_by_model, levels_of
from .association_words import per, term, unit, variable, variable_with_unit
from .interval_figures import IntervalPanel, IntervalRow, figures_of, interval_figure
from .notation import is_missing, missing_cells
from .print_figures import PrintFigure, print_style, printed
from .scatter_figures import design_of, partial_regression, raincloud
from .trajectory_figures import trajectories
from .verdict import FALSE_DISCOVERY_RATE

MOST_MODELS_DRAWN = 12
MOST_FOREST_ROWS = 24
MOST_OF_A_KIND = 6


def figures_of_analysis(analysis: Analysis) -> dict[str, PrintFigure]:
    """Draw everything that an analysis holds.

    Args:
        analysis: The models; those of a large screen hold no rows and get the forest alone.

    Returns:
        File name without ending → figure, in the order of reading.
    """
    made: dict[str, PrintFigure] = {}
    for stem, figure in _all_figures(analysis):
        made[_unused(stem, made)] = figure
    return made


def slug(text: str) -> str:
    """Make a name fit for a file: lower-case letters, digits and hyphens, never empty.

    >>> slug("EDSS, MS only"), slug("../大"), slug("diagnosis[MS]:years")
    ('edss-ms-only', 'unnamed', 'diagnosis-ms-years')
    """
    return re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-")[:60] or "unnamed"


def _unused(stem: str, made: Mapping[str, Any]) -> str:
    name, n = stem, 1
    while name in made:
        n += 1
        name = f"{stem}-{n}"
    return name


def _all_figures(analysis: Analysis) -> Iterator[tuple[str, PrintFigure]]:
    if (across := forest_across_models(analysis)) is not None:
        yield "forest-models", across
    fitted = [fit for fit in analysis.fits if fit.kind]
    for place, fit in enumerate(fitted[:MOST_MODELS_DRAWN]):
        for kind, stem, figure in _of_model(fit, place):
            if figure is not None:
                yield f"{kind}-{slug(stem)}", figure


def _of_model(fit: AssociationFit, place: int) -> Iterator[tuple[str, str, PrintFigure | None]]:
    name = f"figure-{slug(fit.name)}-{place}"
    for number_, effect in enumerate(dict.fromkeys(fit.strata["term"])):
        yield "forest-sites", f"{fit.name}-{effect}", forest_across_sites(fit, str(effect), f"{name}-sites-{number_}")
    yield "trajectories", fit.name, trajectories(fit, f"{name}-trajectories")
    factors, numbers = _of_interest(fit)
    for number_, factor in enumerate(factors[:MOST_OF_A_KIND]):
        yield "groups", f"{fit.name}-{factor}", raincloud(fit, factor, f"{name}-groups-{number_}")
    for number_, parameter in enumerate(numbers[:MOST_OF_A_KIND]):
        figure = partial_regression(fit, parameter, f"{name}-partial-{number_}")
        yield "partial-regression", f"{fit.name}-{parameter}", figure
    yield "coefficients", fit.name, coefficient_plot(fit, f"{name}-coefficients")


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


def forest_across_models(analysis: Analysis) -> PrintFigure | None:
    """Draw the effects of interest of all models, those on one scale in one panel.

    Differences between groups share a panel per outcome; slopes share one per outcome and predictor. Of more than fits
    on a page, the effects with the smallest p are drawn.
    """
    rows = effects_of(analysis)
    rows = rows[~missing_cells(rows["estimate"]) & ~missing_cells(rows["ci_low"])]
    if rows.empty:
        return None
    n_all = len(rows)
    rows = rows.loc[rows["p_value"].sort_values(kind="stable").index[:MOST_FOREST_ROWS]].sort_index()
    levels = levels_by_model(analysis)
    panels: dict[tuple[str, bool, str], list[IntervalRow]] = {}
    for row in rows.to_dict("records"):
        key = _scale(row, levels[str(row["model"])])
        panels.setdefault(key, []).append(_row(row, _name_across(row, levels[str(row["model"])])))
    shown = [
        IntervalPanel("" if is_ratio else outcome, axis, of_scale, is_ratio)
        for (outcome, is_ratio, axis), of_scale in panels.items()
    ]
    with print_style():
        figure = interval_figure(shown)
        said = "; ".join(f"{row.name}: {figures_of(row)}" for panel in shown for row in panel.rows)
        some = "" if len(rows) == n_all else f" The {len(rows)} effects with the smallest p of {n_all:,} are drawn."
        caption = (
            "Effects of interest with 95% intervals, the model in brackets; each panel has its own scale. The dashed "
            f"line is no association; filled: q < {FALSE_DISCOVERY_RATE:g}.{some}"
        )
        alt = f"Forest plot of effects across models. {said}."
        columns = ["model", "response", "term", "estimate", "ci_low", "ci_high", "p_value", "q_value", "n_used"]
        ratios = ["ratio", "ratio_ci_low", "ratio_ci_high"]
        data = rows[[*columns, *(ratios if rows["ratio"].notna().any() else [])]]
        return printed(figure, "figure-forest-models", "Effects across models", caption, alt, data)


def _scale(row: Mapping[Any, Any], levels: Mapping[str, Any]) -> tuple[str, bool, str]:
    outcome, name = variable_with_unit(str(row["response"])), str(row["term"])
    if not is_missing(row["ratio"]):
        what = RATIOS.get(str(row["kind"]), "ratio").lower()
        return outcome, True, f"{what} of {outcome}, 95% CI"
    of = unit(str(row["response"])) or variable(str(row["response"]))
    if "[" in name and ":" not in name:
        return outcome, False, f"difference between groups ({of}), 95% CI"
    if ":" in name:
        return outcome, False, f"interaction ({of} per unit), 95% CI"
    beside = f" of {variable(name)}" if unit(name) else ""
    return outcome, False, f"{of} per {per(name)}{beside}, 95% CI"


def _name_across(row: Mapping[Any, Any], levels: Mapping[str, Any]) -> str:
    """An effect and its model; a model that is named after its predictor adds nothing."""
    words, model = term(str(row["term"]), levels), str(row["model"])
    words = words.rpartition(", per ")[0] or words
    return words if slug(words).startswith(slug(model)) else f"{words} ({model})"


def _row(row: Mapping[Any, Any], name: str) -> IntervalRow:
    found = not is_missing(row["q_value"]) and row["q_value"] < FALSE_DISCOVERY_RATE
    if not is_missing(row["ratio"]):
        return IntervalRow(name, float(row["ratio"]), float(row["ratio_ci_low"]), float(row["ratio_ci_high"]), found)
    return IntervalRow(name, float(row["estimate"]), float(row["ci_low"]), float(row["ci_high"]), found)


def forest_across_sites(fit: AssociationFit, effect: str, name: str) -> PrintFigure | None:
    """Draw one effect by site with its weight, and pooled with the interval in which another site is expected."""
    rows = fit.strata[fit.strata["term"] == effect]
    pooled = fit.coefficients[fit.coefficients["term"] == effect]
    if rows.empty or pooled.empty:
        return None
    drawn = [
        IntervalRow(
            str(row["stratum"]), float(row["estimate"]), float(row["ci_low"]), float(row["ci_high"]), True,
            float(row["weight"]),
        )
        for row in rows.to_dict("records")
    ]  # fmt: skip
    spread = fit.heterogeneity[fit.heterogeneity["term"] == effect]
    prediction = None
    if len(spread) and not is_missing(spread.iloc[0]["prediction_low"]):
        prediction = float(spread.iloc[0]["prediction_low"]), float(spread.iloc[0]["prediction_high"])
    whole = pooled.iloc[0]
    ends = float(whole["estimate"]), float(whole["ci_low"]), float(whole["ci_high"])
    drawn.append(IntervalRow("Pooled, random effects", *ends, pooled=True, prediction=prediction))
    words, outcome = term(effect, levels_of(fit)), variable_with_unit(fit.response)
    with print_style():
        figure = interval_figure([IntervalPanel("", f"{words}: effect on {outcome}, 95% CI", drawn)])
        said = "; ".join(f"{row.name}: {figures_of(row)}" for row in drawn)
        alt = f"Forest plot of {words} by {variable(fit.groups or 'site')}. {said}."
        beyond = (
            " The orange line is the interval in which the effect at another site is expected."
            if prediction
            else " With so few sites no interval for another one can be given."
        )
        caption = (
            f"{words} in the model “{fit.name}”, by {variable(fit.groups or 'site')}. Squares grow with the weight (in "
            f"brackets); the diamond is the pooled effect and its 95% interval.{beyond}"
        )
        data = pd.concat([rows, pooled[["term", "estimate", "se", "ci_low", "ci_high"]].assign(stratum="pooled")])
        if prediction:
            data = data.assign(prediction_low=np.nan, prediction_high=np.nan)
            data.iloc[-1, [-2, -1]] = prediction
        return printed(figure, name, f"{words} across sites", caption, alt, data)


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
    outcome = variable_with_unit(fit.response)
    axis = f"{RATIOS[fit.kind].lower()} per SD, or between groups, 95% CI" if is_ratio else "SDs of the outcome, 95% CI"
    with print_style():
        figure = interval_figure([IntervalPanel(outcome, axis, rows, is_ratio)])
        said = "; ".join(f"{row.name}: {figures_of(row)}" for row in rows)
        what = "on the outcome's odds or hazard" if is_ratio else "in SDs of the outcome"
        caption = (
            f"Every predictor of the model “{fit.name}” {what}: numeric ones per SD, groups against their reference. "
            "Filled: effects of interest; open: covariates."
        )
        alt = f"Coefficient plot of {fit.name}. {said}."
        return printed(figure, name, f"Coefficients, {fit.name}", caption, alt, shown)


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
    spread_of = np.sqrt(np.einsum("ij,jk,ik->i", to_standard, covariance, to_standard))
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
