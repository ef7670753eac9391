"""Which columns each declared model reads and what it takes them for, and the table that it therefore reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...records import AssociationSpec
from ..cohort.problems import examples
from .design import NOMINAL_COLUMNS, as_levels
from .formula import BASELINE, PER_YEAR, as_categories, parse
from .input_traps import AGES
from .readable import PEOPLE, SEX_COLUMNS, Remark, readable
from .selection import SharedRows
from .survival import YEARS

# Words that end the names of columns whose numbers name groups, and what may follow them.
GROUPS = frozenset(
    {
        *("diagnosis", "dx", "group", "arm", "treatment", "phenotype", "subtype", "genotype", "race", "ethnicity"),
        *("site", "center", "centre", "scanner", "vendor", "manufacturer", "cohort", "sex", "gender", "handedness"),
    }
)
NUMBERING = frozenset({"id", "code", "no", "nr", "number"})
MOST_GROUPS = 12


class Roles(NamedTuple):
    """What a model takes its columns for.

    Attributes:
        levels: Categories by declaration, such as `C(grade)`.
        numbers: Numbers if their values allow it.
        amounts: Numbers in any case, such as `log(nfl)` or the time to an event.
        filters: Those that choose or group rows.
    """

    levels: frozenset[str]
    numbers: frozenset[str]
    amounts: frozenset[str]
    filters: frozenset[str]


class ModelTables:
    """One table as all declared models read it.

    They share one reading, but for a column that one model takes for a category and another for a number: such models
    read tables of their own.
    """

    def __init__(self, specs: Sequence[AssociationSpec], table: pd.DataFrame) -> None:
        """Keep the table; it is read when the first model asks."""
        self.raw = table
        self.said: dict[str, None] = {}
        self._read_by = {spec.name: columns_read(spec) for spec in specs}
        self._columns = list(dict.fromkeys(column for columns in self._read_by.values() for column in columns))
        self._roles = {spec.name: roles(spec) for spec in specs}
        self._levels, self._numbers, self._amounts, filters = (
            {column for role in self._roles.values() for column in role[kind]} for kind in range(4)
        )
        self._filters = filters - self._numbers
        self._events = {spec.event for spec in specs} - self._numbers
        self._disputed = self._levels & self._numbers
        self._knows_people = "participant_id" in table or any(spec.sessions != "baseline" for spec in specs)
        self._read: dict[frozenset[str], tuple[SharedRows, dict[str, list[Remark]]]] = {}
        self._refusals: dict[str, list[str]] = {}

    def of(self, spec: AssociationSpec) -> tuple[SharedRows, list[str]]:
        """Read the table for a model.

        Returns:
            Its rows, shared with other models, and what was odd about the columns and rows that it reads.
        """
        own = self._roles[spec.name].levels & self._disputed
        if own not in self._read:
            levels = (self._levels - self._disputed) | own | self._filters
            table, said = readable(self.raw, self._columns, levels, self._amounts, self._events)
            self._read[own] = self._shared(table), said
        shared, said = self._read[own]
        remarks = [(column, remark) for column in self._read_by[spec.name] for remark in said.get(column, ())]
        rows = declared_rows(spec, shared.table) if remarks else np.zeros(0, dtype=bool)
        remarks = [(column, one) for column, one in remarks if one.rows is None or (one.rows & rows).any()]
        self.said.update(dict.fromkeys(one.sentence for _, one in remarks))
        fitted = columns_fitted(spec)
        refusals = [one.sentence for column, one in remarks if one.refuses and column in fitted]
        self._refusals[spec.name] = refusals
        sentences = [one.sentence for _, one in remarks if one.sentence not in refusals]
        return shared, [*sentences, *codes_as_slopes(spec, shared.table)]

    def refuse_unreadable(self, spec: AssociationSpec) -> None:
        """Refuse a model, once its table is read, that would fit a column as what it is not.

        Raises:
            ValueError: Names the column, shows cells and says what to write instead.
        """
        if self._refusals[spec.name]:
            raise ValueError(" ".join(self._refusals[spec.name]))

    def _shared(self, table: pd.DataFrame) -> SharedRows:
        if self._knows_people:
            return SharedRows(table)
        return SharedRows(table.assign(participant_id=[f"row {k + 1}" for k in range(len(table))]), False)


def as_typed(spec: AssociationSpec, table: pd.DataFrame) -> AssociationSpec:
    """Declare of a model what the table's types say: a categorical column is a category, and its order is its levels'.

    The first level that the model's rows have is the reference, where the formula names none.
    """
    formula = parse(spec.formula)
    orders: dict[str, tuple[str, ...]] = {}
    for name in formula.columns:
        column = table.get(name, table.get(name.removesuffix(BASELINE)))
        if not isinstance(column, pd.Series) or not isinstance(column.dtype, pd.CategoricalDtype):
            continue
        if name.casefold() not in (*SEX_COLUMNS, *PEOPLE):
            orders[name] = _levels_in_order(spec, table, column)
    levels = orders.pop(formula.response.column, ())
    first = {name: order[0] if order and not set(order[0]) & set('"\\') else None for name, order in orders.items()}
    spec = replace(spec, formula=as_categories(spec.formula, first)) if first else spec
    declares = spec.levels or spec.event or formula.response.function or spec.outcome == "numeric"
    return spec if declares or not levels else replace(spec, levels=levels)


def _levels_in_order(spec: AssociationSpec, table: pd.DataFrame, column: pd.Series) -> tuple[str, ...]:
    if not column.cat.ordered:
        return ()
    present = set(column[declared_rows(spec, table)].dropna())
    return tuple(as_levels(pd.Series([level for level in column.cat.categories if level in present])))


def columns_read(spec: AssociationSpec) -> list[str]:
    """Columns that a model reads: those that it fits, and those that check or choose them."""
    return list(dict.fromkeys([*columns_fitted(spec), *AGES, YEARS, *_filters(spec)]))


def columns_fitted(spec: AssociationSpec) -> list[str]:
    """Columns that a model names, and those of which they are made."""
    named = [*parse(spec.formula).columns, *([spec.event] if spec.event else [])]
    return [*named, *(name.removesuffix(ending) for name in named for ending in (BASELINE, PER_YEAR))]


def roles(spec: AssociationSpec) -> Roles:
    """Say what a model takes its columns for."""
    formula = parse(spec.formula)
    factors = [factor for term in formula.terms for factor in term.factors]
    levels = {factor.column for factor in factors if factor.function == "C"}
    amounts = {f.column for f in (*factors, formula.response) if f.function not in ("", "C")}
    amounts |= {column for column in formula.columns if column.endswith(PER_YEAR)}
    if spec.outcome in ("binary", "ordinal"):
        levels.add(formula.response.column)
    elif spec.event or spec.outcome == "numeric":
        amounts.add(formula.response.column)
    levels |= {column.removesuffix(BASELINE) for column in levels}
    amounts |= {column.removesuffix(ending) for column in amounts for ending in (BASELINE, PER_YEAR)}
    numbers = {column for name in formula.columns for column in (name, name.removesuffix(BASELINE))} - levels
    return Roles(*(frozenset(names) for names in (levels, numbers | amounts, amounts, _filters(spec))))


def _filters(spec: AssociationSpec) -> list[str]:
    return [*spec.where, *filter(None, [spec.stratify, spec.groups])]


def codes_as_slopes(spec: AssociationSpec, table: pd.DataFrame) -> list[str]:
    """Point at predictors named like a group whose few whole numbers a model fits as one slope."""
    factors = dict.fromkeys(factor for term in parse(spec.formula).terms for factor in term.factors)
    said = []
    for name in [factor.column for factor in factors if not factor.function and _is_named_like_a_group(factor.column)]:
        column = table.get(name, table.get(name.removesuffix(BASELINE)))
        if not isinstance(column, pd.Series) or not pd.api.types.is_numeric_dtype(column):
            continue
        codes = np.unique(column[declared_rows(spec, table)].dropna().to_numpy(dtype=np.float64))
        # The slope between two codes is the difference of two groups.
        if 2 < len(codes) <= MOST_GROUPS and not (codes % 1).any():
            shown = examples([f"{code:g}" for code in codes])
            said.append(f"{name}: {shown} are fitted as numbers, with one slope. If they name groups, write C({name}).")
    return said


def _is_named_like_a_group(name: str) -> bool:
    words = [word for word in re.split(r"[\W_]+", name.casefold().removesuffix(BASELINE)) if word]
    while words and words[-1] in NUMBERING:
        words.pop()
    return bool(words) and words[-1] in GROUPS and name.casefold() not in NOMINAL_COLUMNS


def declared_rows(spec: AssociationSpec, table: pd.DataFrame) -> NDArray[np.bool_]:
    """Say which rows are of a model's cohorts and pass its filters."""
    chosen = np.ones(len(table), dtype=bool)
    if spec.cohorts and "cohort" in table:
        chosen &= table["cohort"].isin(spec.cohorts).to_numpy()
    for column, accepted in spec.where.items():
        if column in table:
            chosen &= as_levels(table[column]).isin(accepted).to_numpy()
    return chosen
