"""A fitted model as plain values, so that a store keeps it as JSON and a report reads all of it again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from .association_fit import AssociationFit
from .design import Coding
from .formula import parse

TABLES = (
    *("coefficients", "covariance", "rows", "adjusted_means", "contrasts", "diagnostics", "strata", "heterogeneity"),
)
PLAIN = ("name", "formula", "response", "method", "n_used", "n_subjects", "kind", "family", "groups")
MAPPINGS = ("n_dropped", "centre", "random_effects", "n_missing")
# JSON knows neither of these.
UNWRITABLE = {"inf": float("inf"), "-inf": float("-inf")}


def to_record(fit: AssociationFit) -> dict[str, Any]:
    """Write a fit as values that JSON can hold; what is undefined is null.

    Args:
        fit: Any fit, also one that was not fitted.

    Returns:
        Texts, numbers, lists and mappings; `from_record` gives an equal fit back.
    """
    return {
        **{name: _plain(getattr(fit, name)) for name in PLAIN},
        **{name: {str(k): _plain(v) for k, v in getattr(fit, name).items()} for name in MAPPINGS},
        **{name: _written(getattr(fit, name)) for name in TABLES},
        "problems": list(fit.problems),
        "notes": list(fit.notes),
        "coding": None if fit.coding is None else _coding_record(fit.coding),
    }


def from_record(record: dict[str, Any]) -> AssociationFit:
    """Read what `to_record` wrote."""
    coding = record["coding"]
    values: dict[str, Any] = {name: record[name] for name in PLAIN}
    values |= {name: {k: _number(v) for k, v in record[name].items()} for name in MAPPINGS}
    values |= {name: _read(record[name]) for name in TABLES}
    values |= {"problems": tuple(record["problems"]), "notes": tuple(record["notes"])}
    values |= {"coding": None if coding is None else _coding(coding)}
    return AssociationFit(**values)


def _coding_record(coding: Coding) -> dict[str, Any]:
    return {
        "formula": coding.formula.text,
        "terms": [term.label for term in coding.formula.terms],
        "levels": {name: list(levels) for name, levels in coding.levels.items()},
        "centres": dict(coding.centres),
        "spreads": dict(coding.spreads),
    }


def _coding(record: dict[str, Any]) -> Coding:
    formula = parse(record["formula"])
    kept = tuple(term for term in formula.terms if term.label in record["terms"])
    levels = {name: tuple(values) for name, values in record["levels"].items()}
    return Coding(replace(formula, terms=kept), levels, record["centres"], record["spreads"])


def _written(table: pd.DataFrame) -> dict[str, Any]:
    columns = {str(name): column for name, column in table.items()}
    return {
        "index": [_plain(value) for value in table.index],
        "types": {name: str(column.dtype) for name, column in columns.items()},
        "columns": {name: [_plain(value) for value in column.tolist()] for name, column in columns.items()},
    }


def _read(record: dict[str, Any]) -> pd.DataFrame:
    index = record["index"]
    columns = {
        name: pd.Series([_number(value) for value in values], index=index, dtype=record["types"][name])
        if record["types"][name] != "object"
        else pd.Series(values, index=index, dtype=object)
        for name, values in record["columns"].items()
    }
    return pd.DataFrame(columns, index=index, columns=list(columns))


def _number(value: Any) -> Any:
    return float("nan") if value is None else UNWRITABLE.get(value, value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else str(value)
    if value is pd.NA or value is None:
        return None
    return value if isinstance(value, str | int | float | bool) else str(value)
