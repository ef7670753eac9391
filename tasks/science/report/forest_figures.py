"""Forest plots: effects across models, and one effect across sites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..statistics.analysis import Analysis
from ..statistics.association_fit import AssociationFit
from .association_tables import RATIOS, effects_of, levels_by_model, levels_of
from .association_words import in_text, per, slug, term, unit, variable, variable_with_unit
from .interval_figures import IntervalPanel, IntervalRow, figures_of, interval_figure
from .notation import is_missing, missing_cells
from .print_figures import PrintFigure, print_style, printed
from .verdict import FALSE_DISCOVERY_RATE

MOST_FOREST_ROWS = 24
MOST_PANELS = 6
# Stands for the outcomes of a panel of standardised effects.
STANDARDISED = "standardised"


def forest_across_models(analysis: Analysis, name: str) -> PrintFigure | None:
    """Draw the effects of interest of all models, those on one scale in one panel.

    Differences between groups share a panel per outcome; slopes share one per outcome and predictor. Of more than fits
    on a page, the effects with the smallest p are drawn; of more scales than fit, standardised ones in one panel.
    """
    rows = effects_of(analysis)
    rows = rows[~missing_cells(rows["estimate"]) & ~missing_cells(rows["ci_low"])]
    if rows.empty:
        return None
    levels, n_all = levels_by_model(analysis), len(rows)
    rows = _by_p(rows, MOST_FOREST_ROWS)
    if len({_scale(row) for row in rows.to_dict("records")}) > MOST_PANELS:
        rows = _on_one_scale(rows, analysis.effects)
        if rows.empty:
            return None
    panels: dict[tuple[str, bool, str], list[IntervalRow]] = {}
    for row in rows.to_dict("records"):
        panels.setdefault(_scale(row), []).append(_row(row, _name_across(row, levels[str(row["model"])])))
    several = len({outcome for outcome, _, _ in panels}) > 1
    shown = [
        IntervalPanel(outcome if several else "", axis, of_scale, is_ratio)
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
        return printed(figure, name, "Effects across models", caption, alt, data)


def _by_p(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """The rows with the smallest p, in the order declared."""
    return rows.loc[rows["p_value"].sort_values(kind="stable").index[:most]].sort_index()


def _on_one_scale(rows: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """Rows whose standardised estimate is known, that estimate and its interval in place of the raw ones.

    A slope or a difference is standardised by a factor, and its interval with it; in a model with an interaction it is
    not, and is left out, as are ratios, whose scale is another.
    """
    interacting = set(effects.loc[effects["term"].fillna("").str.contains(":"), "model"])
    is_plain = rows["ratio"].isna() & rows["beta_standardised"].notna() & ~rows["model"].isin(interacting)
    plain = rows[is_plain & (rows["estimate"] != 0)]
    factor = plain["beta_standardised"] / plain["estimate"]
    scaled = {name: plain[name] * factor for name in ("estimate", "ci_low", "ci_high")}
    return plain.assign(**scaled, response=STANDARDISED)


def _scale(row: Mapping[Any, Any]) -> tuple[str, bool, str]:
    if row["response"] == STANDARDISED:
        return "", False, "standardised β, 95% CI"
    outcome, name = variable_with_unit(str(row["response"])), str(row["term"])
    if not is_missing(row["ratio"]):
        what = RATIOS.get(str(row["kind"]), "ratio").lower()
        return outcome, True, f"{what}, 95% CI"
    of = in_text(str(row["response"]))
    if "[" in name and ":" not in name:
        return outcome, False, f"{of}, difference between groups, 95% CI"
    if ":" in name:
        return outcome, False, f"{of}, interaction, 95% CI"
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
        return printed(figure, name, f"{words} across sites", caption, alt, data, fit.name)
