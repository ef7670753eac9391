"""Publication tables of declared models: effects, effect sizes, sensitivity, means, pairs, sites, variances, rows."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..statistics.analysis import Analysis
from ..statistics.association_fit import AssociationFit
from ..statistics.formula import parse
from .association_words import capital, in_text, term, variable, variable_with_unit
from .notation import count, decimals_for, interval, is_missing, number, p_value, plural
from .tables import Cell, Table

RATIOS = {"logistic": "Odds ratio", "ordinal": "Odds ratio", "cox": "Hazard ratio"}
MOST_NOTES = 12


def effects_table(analysis: Analysis, *, of_interest: bool = True, with_model: bool = True) -> Table:
    """Set one row per effect: estimate with its interval, test, q and n; ratios where a model has them.

    Args:
        analysis: The models.
        of_interest: Whether the covariates and the intercept are left out.
        with_model: Whether a column names the model.

    Returns:
        The table; a model that was not fitted is a row that says so.
    """
    rows = effects_of(analysis) if of_interest else analysis.effects
    levels, kinds = levels_by_model(analysis), {fit.name: fit.kind for fit in analysis.fits}
    ratios = [RATIOS[kind] for kind in dict.fromkeys(kinds.values()) if kind in RATIOS]
    outcomes = list(dict.fromkeys(fit.response for fit in analysis.fits))
    body = []
    for row in rows.to_dict("records"):
        cells = [*([Cell(str(row["model"]))] if with_model else []), Cell(term_of(row, levels))]
        cells += [Cell(variable_with_unit(str(row["response"])))] if len(outcomes) > 1 else []
        cells.append(Cell(estimate(row), numeric=True))
        cells += [Cell(_ratio(row), numeric=True)] if ratios else []
        cells += [
            Cell(spread(row["se"], row), numeric=True),
            Cell(statistic(row), numeric=True),
            Cell(p_or_dash(row["p_value"]), numeric=True),
            Cell(p_or_dash(row["q_value"]), numeric=True),
            Cell(count(row["n_used"]), numeric=True),
        ]
        body.append(tuple(cells))
    columns = [
        *(["Model"] if with_model else []),
        "Effect" if of_interest else "Term",
        *(["Outcome"] if len(outcomes) > 1 else []),
        "β [95% CI]",
        *([f"{' or '.join(dict.fromkeys(ratios)).capitalize()} [95% CI]"] if ratios else []),
        *("SE", "t or z (df)", "p", "q", "n"),
    ]
    caption = f"Associations{_of_outcome(outcomes)}" if of_interest else f"Every coefficient{_of_outcome(outcomes)}"
    return Table(caption, tuple(columns), tuple(body), tuple(_footnotes(analysis, bool(ratios))))


def effects_of(analysis: Analysis) -> pd.DataFrame:
    """Select the effects of interest, and the models that were not fitted, so that none vanishes."""
    flags = analysis.effects["of_interest"]
    return analysis.effects[flags.map(lambda flag: not is_missing(flag) and bool(flag)).astype(bool)]


def levels_by_model(analysis: Analysis) -> dict[str, Mapping[str, Sequence[str]]]:
    """Give each model's categorical factors their levels, the reference first."""
    return {fit.name: levels_of(fit) for fit in analysis.fits}


def levels_of(fit: AssociationFit) -> Mapping[str, Sequence[str]]:
    """Levels of a model's categorical factors, the reference first; of shared estimates what the formula tells."""
    if fit.coding is not None:
        return fit.coding.levels
    try:
        terms = parse(fit.formula).terms
    except ValueError:
        return {}
    return {f.label: (f.reference,) for term in terms for f in term.factors if f.reference is not None}


def method_of(fit: AssociationFit) -> str:
    """Write how a model was fitted, columns in words."""
    return fit.method.replace("participant_id", variable("participant_id"))


def covariates_of(fit: AssociationFit) -> list[str]:
    """Name the variables of a model that are in no effect of interest."""
    if fit.coding is None:
        return []
    wanted = set(fit.coefficients.loc[fit.coefficients["of_interest"].astype(bool), "term"])
    owners = fit.coding.terms_of_columns()
    of_interest = {
        label for name, owner in owners.items() if owner is not None and name in wanted for label in owner.key
    }
    labels = dict.fromkeys(f.label for owner in owners.values() if owner is not None for f in owner.factors)
    return [label for label in labels if label not in of_interest]


def estimate(row: Mapping[Any, Any]) -> str:
    """Write an estimate with its interval, as many decimals as the interval carries."""
    decimals = decimals_for(row["estimate"], row["ci_low"], row["ci_high"])
    ends = interval(row["ci_low"], row["ci_high"], decimals)
    return " ".join(filter(None, [number(row["estimate"], decimals), ends]))


def statistic(row: Mapping[Any, Any]) -> str:
    """Write a test statistic with its letter: t with degrees of freedom, z without."""
    if is_missing(row["statistic"]):
        return number(None)
    df = row["df"]
    if is_missing(df) or math.isinf(df):
        return f"z = {number(row['statistic'])}"
    return f"t({number(df, 0 if float(df).is_integer() else 1)}) = {number(row['statistic'])}"


def rows_table(analysis: Analysis) -> Table:
    """Account for every row of every model: used, and dropped for which reason."""
    body = [
        (
            Cell(fit.name),
            Cell(count(fit.n_used or (None if fit.kind else 0)), numeric=True),
            Cell(count(fit.n_subjects or (None if fit.kind else 0)), numeric=True),
            Cell(count(sum(fit.n_dropped.values())), numeric=True),
            Cell("; ".join(dropped_reasons(fit)) or "–"),
            Cell("; ".join(f"{capital(variable(name))} {n:,}" for name, n in fit.n_missing.items() if n) or "–"),
        )
        for fit in analysis.fits
    ]
    columns = ("Model", "Rows used", "Subjects", "Rows dropped", "Reasons", "Missing values by variable")
    return Table("Rows used and dropped", columns, tuple(body))


def dropped_reasons(fit: AssociationFit) -> list[str]:
    """Write why rows were not used, the most frequent reason first.

    A reason that names missing columns says them in words.
    """
    ordered = sorted(fit.n_dropped.items(), key=lambda item: (-item[1], item[0]))
    return [f"{n:,} {_reason(text)}" for text, n in ordered if n]


def _reason(text: str) -> str:
    if text == "later session":
        return "of later sessions"
    if filtered := re.fullmatch(r"(.+) not in \((.*)\)", text):
        return f"where {variable(filtered[1])} is not {' or '.join(filtered[2].split(', '))}"
    if rare := re.fullmatch(r"(.+) = (.+) has (\d+) subjects?", text):
        return f"where {variable(rare[1])} is {rare[2]} ({plural(int(rare[3]), 'subject')}, too few)"
    if not text.startswith("missing "):
        return text
    names = [variable(name.removesuffix(" (undefined)")) for name in text.removeprefix("missing ").split(", ")]
    return f"without {' and '.join(filter(None, [', '.join(names[:-1]), names[-1]]))}"


def _footnotes(analysis: Analysis, has_ratios: bool) -> list[str]:
    fits = analysis.fits
    notes = ["β is in units of the outcome per unit of the predictor, or the difference from the reference group."]
    if has_ratios:
        notes.append("Of logistic, ordinal and Cox models β is a logarithm of odds or hazard; its ratio stands beside.")
    for fit in fits[:MOST_NOTES]:
        notes.append(_model_note(fit))
    if len(fits) > MOST_NOTES:
        methods = ", ".join(dict.fromkeys(method_of(fit) for fit in fits if fit.method))
        notes.append(
            f"The other {len(fits) - MOST_NOTES:,} models: {methods}; rows of each stand in the table of rows."
        )
    families = {fit.family for fit in fits}
    over = "over all effects of the table" if len(families) < 2 else "within each declared family"
    notes.append(f"q: p after control of the false discovery rate (Benjamini-Hochberg) {over}.")
    return notes


def _model_note(fit: AssociationFit) -> str:
    if not fit.method:
        return f"{fit.name}: {next(iter(fit.problems), 'Not fitted.')}"
    names = [in_text(name) for name in covariates_of(fit)]
    adjusted = f"covariates: {', '.join(names)}" if names else "no covariates" if fit.coding else fit.formula
    dropped = dropped_reasons(fit)
    lost = f"dropped: {', '.join(dropped)}" if dropped else "no row dropped"
    used = f"{plural(fit.n_used, 'row')} of {plural(fit.n_subjects, 'subject')}" if fit.n_used else "n not given"
    return f"{fit.name}: {'; '.join(filter(None, (method_of(fit), adjusted, used, lost)))}."


def _of_outcome(outcomes: Sequence[str]) -> str:
    return f" with {variable_with_unit(outcomes[0])}" if len(outcomes) == 1 else ""


def term_of(row: Mapping[Any, Any], levels: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    """Write an effect in words, or that its model was not fitted."""
    if is_missing(row["term"]):
        return "the model was not fitted"
    return term(str(row["term"]), levels.get(str(row["model"]), {}))


def _ratio(row: Mapping[Any, Any]) -> str:
    if is_missing(row["ratio"]):
        return "–"
    return triple(row, "ratio", "ratio_ci_low", "ratio_ci_high")


def triple(row: Mapping[Any, Any], middle: str, low: str, high: str) -> str:
    """Write a number with its interval, or a dash."""
    if is_missing(row[middle]):
        return "–"
    return estimate({"estimate": row[middle], "ci_low": row[low], "ci_high": row[high]})


def bounds(low: Any, high: Any) -> str:
    """Write an interval, or a dash."""
    return interval(low, high, decimals_for(low, high)) or "–"


def spread(se: Any, row: Mapping[Any, Any]) -> str:
    """Write a standard error with as many decimals as its estimate."""
    return number(se, decimals_for(row.get("estimate", row.get("mean")), row["ci_low"], row["ci_high"]))


def percent(share: Any) -> str:
    """Write a share, or a dash."""
    return "–" if is_missing(share) else f"{float(share):.0%}"


def p_or_dash(value: Any) -> str:
    """Write a p or q value, or a dash where nothing was tested."""
    return "–" if is_missing(value) else p_value(value)


def set_if(
    caption: str, columns: Sequence[str], body: Sequence[tuple[Cell, ...]], notes: Sequence[str], wanted: bool = True
) -> Table | None:
    """Make a table, or None where it would have no rows or is not wanted."""
    return Table(caption, tuple(columns), tuple(body), tuple(notes)) if body and wanted else None
