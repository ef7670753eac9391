"""Which rows a declared model uses, and why the others are not used: every row leaves with a reason."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

import pandas as pd

from ...records import AssociationSpec
from .bootstrap import subject_keys
from .design import as_levels, factor_values, is_missing
from .formula import Formula, nearest

EDSS_RANGE = (0.0, 10.0)


@dataclass
class Selection:
    """Rows that remain, and the account of those that left.

    Attributes:
        rows: Rows that remain, in the order of the table.
        dropped: Reason → number of rows; with the rows that remain they add up to the cohorts' rows.
        problems: Plain sentences.
    """

    rows: pd.DataFrame
    dropped: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def keep(self, kept: pd.Series, reason: str) -> None:
        """Drop the rows where `kept` is False and count them under `reason`."""
        if not kept.all():
            self.dropped[reason] += int((~kept).sum())
            self.rows = self.rows[kept]


def select_rows(spec: AssociationSpec, table: pd.DataFrame) -> Selection:
    """Take the rows that a model declares: its cohorts, its filters, its sessions.

    Args:
        spec: The declared model.
        table: Predictions joined with the clinical table, one row per scan.

    Returns:
        The selection. With `sessions="baseline"` each subject keeps its first session *after* the filters: by
        `years_since_baseline`, then by session in natural order, then by scan.

    Raises:
        ValueError: A filter names a column that the table lacks, or a scan occurs twice.
    """
    if "scan_id" in table and table["scan_id"].duplicated().any():
        first = table["scan_id"][table["scan_id"].duplicated()].iloc[0]
        raise ValueError(f"The table repeats scan {first}; check that the clinical table joins one row to each scan.")
    selection = Selection(_rows_of_cohorts(spec, table))
    if spec.cohorts and "cohort" in table:
        for cohort in spec.cohorts:
            if not (table["cohort"] == cohort).any():
                selection.problems.append(f"Cohort {cohort} has no rows.")
    for column, accepted in spec.where.items():
        _filter(selection, column, accepted)
    if spec.sessions == "baseline":
        first = ordered_sessions(selection.rows).groupby(subject_keys(selection.rows), sort=False).head(1).index
        selection.keep(pd.Series(selection.rows.index.isin(first), index=selection.rows.index), "later session")
    return selection


def keep_complete(selection: Selection, formula: Formula) -> pd.DataFrame:
    """Drop rows that lack a variable of the formula, counted under the variables that they lack.

    Args:
        selection: Altered in place.
        formula: A formula whose columns the rows have.

    Returns:
        The factors' values of the rows that remain.
    """
    table = selection.rows
    values = factor_values(formula, table)
    absent: dict[str, pd.Series] = {}
    for factor in [formula.response, *(f for term in formula.terms for f in term.factors)]:
        missing = is_missing(table[factor.column])
        absent[factor.column] = missing
        undefined = values[factor.label].isna() & ~missing
        if undefined.any():
            absent[f"{factor.label} (undefined)"] = undefined
    lacking = pd.DataFrame(absent, index=table.index, dtype=bool)
    incomplete = lacking[lacking.any(axis=1)]
    selection.dropped.update("missing " + ", ".join(lacking.columns[row]) for row in incomplete.to_numpy())
    selection.rows = table.drop(index=incomplete.index)
    return values.loc[selection.rows.index]


def ordered_sessions(table: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by time within subjects: years since baseline (unknown last), session in natural order, scan."""
    keys = pd.DataFrame(index=table.index)
    for column in ("years_since_baseline", "session_id", "scan_id"):
        if column in table:
            values = table[column]
            keys[column] = values if pd.api.types.is_numeric_dtype(values) else values.astype(str).map(_padded)
    return table.loc[keys.sort_values(list(keys.columns), kind="stable").index] if len(keys.columns) else table


def implausible_values(rows: pd.DataFrame, columns: tuple[str, ...]) -> list[str]:
    """Point at clinical values that cannot be true, or are not on their scale; the rows are kept.

    EDSS runs from 0 to 10 in half points, and 0.5 does not exist by definition, yet real tables hold it.

    Args:
        rows: Rows of the fit.
        columns: Columns that the model reads; others are not looked at.

    Returns:
        Plain sentences, none where all is well.
    """
    sentences = []
    for column in columns:
        name = column.casefold()
        if name not in ("edss", "disease_duration", "disease_duration_years"):
            continue
        values = pd.to_numeric(rows[column].astype(object), errors="coerce").astype(float)
        if name == "edss":
            outside = ~values.between(*EDSS_RANGE) & values.notna()
            counts = {
                f"outside 0–10, such as {_first(values, outside)}": outside,
                f"off the half points, such as {_first(values, (values * 2) % 1 != 0)}": (values * 2) % 1 > 0,
                "equal to 0.5, which the scale does not have": values == 0.5,
            }
        else:
            counts = {"negative": values < 0}
            if "age_years" in rows:
                counts["longer than the age"] = values > rows["age_years"]
        sentences += [f"{column}: {n} rows {what}; kept." for what, mask in counts.items() if (n := int(mask.sum()))]
    return sentences


def _rows_of_cohorts(spec: AssociationSpec, table: pd.DataFrame) -> pd.DataFrame:
    table = table.reset_index(drop=True)
    return table[table["cohort"].isin(spec.cohorts)] if spec.cohorts and "cohort" in table else table


def _filter(selection: Selection, column: str, accepted: tuple[str, ...]) -> None:
    if column not in selection.rows:
        raise ValueError(f"where: there is no column {column!r}; {nearest(column, selection.rows.columns)}")
    values = as_levels(selection.rows[column])
    for level in accepted:
        if not (values == level).any():
            selection.problems.append(f"where: no row has {column} = {level!r}; {nearest(level, values.dropna())}")
    selection.keep(values.isin(accepted), f"{column} not in ({', '.join(accepted)})")


def _padded(text: str) -> str:
    return re.sub(r"\d+", lambda digits: digits.group().zfill(12), text)


def _first(values: pd.Series, mask: pd.Series) -> str:
    return f"{values[mask].iloc[0]:g}" if mask.any() else ""
