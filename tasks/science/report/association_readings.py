"""What each model says and rests on, in plain sentences, for those who read no tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..statistics.association_fit import AssociationFit
from .association_tables import RATIOS, dropped_reasons, levels_of
from .association_words import PER, capital, p_equals, per, term, unit, variable
from .notation import decimals_for, is_missing, number, plural
from .verdict import FALSE_DISCOVERY_RATE

MOST_EFFECTS_READ = 8
# Diagnostic figure → how it is read, what of it, and which of several.
CHECKS = {
    "variance inflation": ("variance inflation at most", "value", "max"),
    "residual normality (Shapiro-Wilk W)": ("normality of residuals (Shapiro-Wilk)", "p_value", "min"),
    "random-effect normality (Shapiro-Wilk W)": ("normality of random effects (Shapiro-Wilk)", "p_value", "min"),
    "Breusch-Pagan": ("equal spread of residuals (Breusch-Pagan)", "p_value", "min"),
    "largest Cook's distance": ("largest Cook's distance", "value", "max"),
    "proportional odds (Brant χ²)": ("proportional odds (Brant)", "p_value", "min"),
    "proportional hazards (χ²)": ("proportional hazards (Schoenfeld residuals)", "p_value", "min"),
    "auc": ("area under the ROC curve", "value", "max"),
}


def readings(fit: AssociationFit) -> tuple[str, ...]:
    """Read a model aloud: each effect of interest, the rows that it rests on, and those that it lost and why.

    Args:
        fit: Fitted or not.

    Returns:
        Plain sentences.
    """
    if not fit.kind:
        return (*fit.problems[:1], *_rows(fit))
    wanted = fit.coefficients[fit.coefficients["of_interest"].astype(bool)].to_dict("records")
    said = [_effect(fit, row) for row in wanted[:MOST_EFFECTS_READ]]
    if len(wanted) > MOST_EFFECTS_READ:
        said.append(f"The other {len(wanted) - MOST_EFFECTS_READ} effects stand in the table.")
    return (*said, *_rows(fit), *_checks(fit), *fit.notes)


def _checks(fit: AssociationFit) -> list[str]:
    """Say in one sentence what the model's diagnostics came to; what they object to stands among the problems."""
    figures = fit.diagnostics[fit.diagnostics["value"].notna()]
    said = []
    for name, (words, column, pick) in CHECKS.items():
        values = figures.loc[figures["figure"] == name, column].dropna()
        if len(values):
            value = values.agg(pick)
            said.append(f"{words} {p_equals(value)}" if column == "p_value" else f"{words} {number(value)}")
    return [f"Checks: {'; '.join(said)}."] if said else []


def _effect(fit: AssociationFit, row: Mapping[Any, Any]) -> str:
    levels, name = levels_of(fit), str(row["term"])
    if is_missing(row["estimate"]):
        return f"{term(name, levels)}: no estimate."
    letter = "q" if not is_missing(row["q_value"]) else "p"
    value = row["q_value"] if letter == "q" else row["p_value"]
    found = not is_missing(value) and value < FALSE_DISCOVERY_RATE
    size = _ratio(fit, row, name, levels) if not is_missing(row["ratio"]) else _difference(fit, row, name, levels)
    end = "" if found else ", so that no association is shown"
    return f"{size}{_where(fit, name)}, {p_equals(value, letter)}{end}."


def _where(fit: AssociationFit, name: str) -> str:
    """Where an effect that is part of an interaction holds: at the other part's zero, mean or reference."""
    if fit.coding is None or ":" in name:
        return ""
    own = fit.coding.terms_of_columns().get(name)
    if own is None:
        return ""
    places = []
    for other in fit.coding.formula.terms:
        if own.key < other.key:
            for factor in other.factors:
                if factor.label not in own.key:
                    levels = fit.coding.levels.get(factor.label)
                    at = "the mean" if factor.function in ("center", "scale") else "0"
                    where = f"where {variable(factor.column)} is {levels[0] if levels else at}"
                    places.append(where)
    return f" {' and '.join(dict.fromkeys(places))}" if places else ""


def _difference(fit: AssociationFit, row: Mapping[Any, Any], name: str, levels: Mapping[str, Sequence[str]]) -> str:
    of, outcome = unit(fit.response), variable(fit.response)
    amount = abs(float(row["estimate"]))
    decimals = decimals_for(row["estimate"], row["ci_low"], row["ci_high"])
    bounds = f"(95% CI {number(row['ci_low'], decimals)} to {number(row['ci_high'], decimals)})"
    far = f"{number(amount, decimals)} {of}".strip()
    more = "higher" if row["estimate"] >= 0 else "lower"
    if ":" in name:
        step, where = _changes(name, levels)
        if step:
            less = "less" if row["estimate"] < 0 else "more"
            return f"Per {step}, {outcome} changed by {far} {less} {where} {bounds}"
        return f"{term(name, levels)}: {number(row['estimate'], decimals)} {of}".strip() + f" {bounds}"
    if "[" in name:
        factor, _, level = name.rstrip("]").partition("[")
        reference = next(iter(levels.get(factor, ())), "the reference")
        return f"{capital(outcome)} was {far} {more} in {level} than in {reference} {bounds}"
    return f"Per {per(name)}{_beside(name)}, {outcome} was {far} {more} {bounds}"


def _changes(name: str, levels: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """Read an interaction of two as a change per step of one of them, and where it is larger; nothing for another."""
    parts = re.split(r":(?![^\[]*\])", name)
    groups = [part for part in parts if part.endswith("]")]
    numbers = sorted((part for part in parts if part not in groups), key=lambda part: per(part) not in PER.values())
    if len(parts) != 2 or not numbers:
        return "", ""
    step = f"{per(numbers[0])}{_beside(numbers[0])}"
    if not groups:
        return step, f"per {per(numbers[1])}{_beside(numbers[1])}"
    factor, _, level = groups[0].rstrip("]").partition("[")
    return step, f"in {level} than in {next(iter(levels.get(factor, ())), 'the reference')}"


def _ratio(fit: AssociationFit, row: Mapping[Any, Any], name: str, levels: Mapping[str, Sequence[str]]) -> str:
    decimals = decimals_for(row["ratio"], row["ratio_ci_low"], row["ratio_ci_high"])
    what = RATIOS.get(fit.kind, "ratio").lower()
    bounds = f"(95% CI {number(row['ratio_ci_low'], decimals)} to {number(row['ratio_ci_high'], decimals)})"
    of = term(name, levels) if "[" in name or ":" in name else f"Per {per(name)}{_beside(name)}"
    return f"{of}: {what} {number(row['ratio'], decimals)} {bounds}"


def _beside(name: str) -> str:
    return f" of {variable(name)}" if unit(name) else ""


def _rows(fit: AssociationFit) -> list[str]:
    if fit.kind == "meta" and not fit.n_used:
        return ["How many rows the sites used is not given."]
    lost = sum(fit.n_dropped.values())
    whole = fit.n_used + lost
    of = f" of {plural(fit.n_subjects, 'subject')}" if fit.n_subjects != fit.n_used or not lost else ""
    if not fit.kind:
        left = f"{fit.n_used:,} of {plural(whole, 'row')} were left for it"
        said = [f"{left}; {lost:,} were not: {'; '.join(dropped_reasons(fit))}." if lost else f"{left}."]
    elif not lost:
        said = [f"All {plural(fit.n_used, 'row')}{of} were used."]
    else:
        verb = "was" if fit.n_used == 1 else "were"
        said = [
            f"{fit.n_used:,} of {plural(whole, 'row')} {verb} used ({plural(fit.n_subjects, 'subject')}); "
            f"{lost:,} {'was' if lost == 1 else 'were'} not: {'; '.join(dropped_reasons(fit))}."
        ]
    missing = [f"{variable(name)} in {n:,}" for name, n in fit.n_missing.items() if n]
    if missing:
        said.append(f"Missing among the rows in question: {', '.join(missing)}.")
    return said
