"""What kind of model a response asks for, and its categories as codes."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from ...records import AssociationSpec
from .association_fit import Kind
from .design import NotEstimable, as_levels, is_missing, natural, reads_as_numbers
from .formula import Formula, nearest, parse
from .input_traps import SCALES

# Words that say themselves that something happened.
PLAIN_EVENTS = frozenset({"yes", "y", "true"})


class Outcome(NamedTuple):
    """The response as the model reads it.

    Attributes:
        kind: `linear` stands for every model of a number.
        rows: The rows, the response coded where it is a category.
        levels: Names of the codes; empty for numbers.
    """

    kind: Kind
    rows: pd.DataFrame
    levels: tuple[str, ...]


def coded_outcome(spec: AssociationSpec, formula: Formula, rows: pd.DataFrame) -> Outcome:
    """Choose between a number, two categories, ordered categories and a time.

    Args:
        spec: The declared model.
        formula: Its formula.
        rows: Rows in question.

    Returns:
        The kind of model, the rows and the levels.

    Raises:
        NotEstimable: The response holds what the declared kind cannot have.
    """
    name = formula.response.column
    if spec.event:
        return Outcome("cox", _waiting(spec, name, rows), ())
    if formula.response.function:
        return Outcome("linear", rows, ())
    kind = _kind(spec, rows[name])
    if kind == "linear":
        return Outcome(kind, rows, ())
    texts = as_levels(rows[name])
    found = sorted(set(texts.dropna()), key=natural)
    levels = spec.levels or tuple(found)
    unknown = [level for level in found if level not in levels]
    if unknown:
        raise NotEstimable(
            f"Not fitted: {name} holds {unknown[0]!r}, which levels does not name; {nearest(unknown[0], levels)}"
        )
    levels = tuple(level for level in levels if level in found)
    if len(levels) < 2:
        raise NotEstimable(f"Not fitted: {name} is {levels[0] if levels else 'missing'} in all rows.")
    if kind == "logistic" and len(levels) > 2:
        raise NotEstimable(
            f"Not fitted: {name} has {len(levels)} levels ({', '.join(levels[:6])}), a binary outcome two."
        )
    if kind == "ordinal" and not spec.levels and not reads_as_numbers(rows[name]):
        raise NotEstimable(
            f"Not fitted: give levels = [...] of {name}, the lowest first; it holds {', '.join(found[:8])}."
        )
    codes = texts.map({level: float(k) for k, level in enumerate(levels)}).astype("float64")
    return Outcome(kind if len(levels) > 2 else "logistic", rows.assign(**{name: codes}), levels)


def two_categories(spec: AssociationSpec, column: pd.Series) -> tuple[AssociationSpec, str]:
    """Notice an outcome of two categories that nothing declares: codes such as 1 and 2, or words whose event is open.

    Decided once for a model, before strata could each look different.

    Args:
        spec: The declared model.
        column: Its response in the rows that it declares.

    Returns:
        The model, binary where the codes ask for it, and a sentence, or "".
    """
    if spec.outcome not in ("auto", "binary") or spec.levels or spec.event or parse(spec.formula).response.function:
        return spec, ""
    found = column[~is_missing(column)].unique()[:3]
    if len(found) != 2:
        return spec, ""
    name, (low, high) = str(column.name), sorted(as_levels(pd.Series(found)), key=natural)
    if reads_as_numbers(column):
        is_code = low.isdigit() and high.isdigit() and name.casefold() not in SCALES
        if spec.outcome == "binary" or not is_code or (low, high) == ("0", "1"):
            return spec, ""
        if spec.sessions == "all":
            return spec, f'{name} is {low} or {high} and fitted as a number; for the odds give outcome = "binary".'
        said = f"{name} is {low} or {high}: read as two categories, the event is {high}"
        return replace(spec, outcome="binary"), f'{said}; outcome = "numeric" fits it as a number.'
    if high.casefold() in PLAIN_EVENTS:
        return spec, ""
    return spec, f'{name}: the event is {high}, the last of {low}, {high}; levels = ["{high}", "{low}"] turns it round.'


def _kind(spec: AssociationSpec, column: pd.Series) -> Kind:
    if spec.outcome == "numeric":
        return "linear"
    if spec.outcome != "auto":
        return "logistic" if spec.outcome == "binary" else "ordinal"
    if pd.api.types.is_float_dtype(column) and not set(column.dropna().unique()[:3]) <= {0.0, 1.0}:
        return "linear"
    levels = set(as_levels(column).dropna())
    if len(levels) == 2 and (levels == {"0", "1"} or not reads_as_numbers(column)):
        return "logistic"
    if levels and not reads_as_numbers(column):
        shown = ", ".join(sorted(levels, key=natural)[:8])
        raise NotEstimable(
            f'Not fitted: {column.name} holds text ({shown}). To explain ordered levels, give outcome = "ordinal" and '
            "levels = [...], the lowest first; groups that have no order stand on the right of ~."
        )
    return "linear"


def _waiting(spec: AssociationSpec, time: str, rows: pd.DataFrame) -> pd.DataFrame:
    events, times = (pd.to_numeric(rows[name], errors="coerce").astype(np.float64) for name in (spec.event, time))
    for name, unread, expected in (
        (spec.event, ~events.isin([0, 1]), "expected 1 where the event came, else 0"),
        (time, times.isna(), "expected a number: the time from the first visit to the event or to the last visit"),
    ):
        odd = rows[name][unread & ~is_missing(rows[name])]
        if len(odd):
            raise NotEstimable(f"Not fitted: {name} holds {as_levels(odd).iloc[0]!r}; {expected}.")
    return rows.assign(**{spec.event: events, time: times})
