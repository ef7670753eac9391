"""Which rows a declared model uses, and why the others are not used: every row leaves with a reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pandas as pd

from ...records import AssociationSpec
from .bootstrap import subject_keys
from .design import NotEstimable, as_levels, factor_values, is_missing
from .formula import Formula, nearest
from .input_traps import halves_that_do_not_exist, impossible_values
from .longitudinal import add_baseline_columns, add_change_columns, ordered_sessions
from .survival import YEARS, times_to_event


@dataclass
class Selection:
    """Rows that remain, and the account of those that left.

    Attributes:
        rows: Rows that remain, in the order of the table.
        dropped: Reason → number of rows; with the rows that remain they add up to the cohorts' rows.
        problems: Plain sentences.
        missing: Column of the formula → how many of the rows in question lack it.
    """

    rows: pd.DataFrame
    dropped: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    missing: dict[str, int] = field(default_factory=dict)

    def keep(self, kept: pd.Series, reason: str) -> None:
        """Drop the rows where `kept` is False and count them under `reason`."""
        if not kept.all():
            self.dropped[reason] += int((~kept).sum())
            self.rows = self.rows[kept]


def select_rows(spec: AssociationSpec, table: pd.DataFrame, formula: Formula) -> Selection:
    """Take the rows that a model declares: its cohorts, its filters, its sessions.

    Args:
        spec: The declared model.
        table: Predictions joined with the clinical table, one row per scan.
        formula: Its formula; columns that it names with `_baseline` or `_per_year` are made where they are absent.

    Returns:
        The selection. With `sessions="baseline"` each subject keeps its first session *after* the filters: by
        `years_since_baseline`, then by session in natural order, then by scan.

    Raises:
        ValueError: A filter names a column that the table lacks, or a scan occurs twice with different values.
    """
    selection = Selection(_rows_of_cohorts(spec, table))
    if spec.cohorts and "cohort" in table:
        for cohort in spec.cohorts:
            if not (table["cohort"] == cohort).any():
                selection.problems.append(f"Cohort {cohort} has no rows.")
    selection.keep(~is_missing(selection.rows["participant_id"]), "missing participant_id")
    _drop_repeated(selection)
    for column, accepted in spec.where.items():
        _filter(selection, column, accepted)
    selection.rows = add_change_columns(selection.rows, formula.columns)
    first = ordered_sessions(selection.rows).groupby(subject_keys(selection.rows), sort=False).head(1).index
    if spec.event and formula.response.column == YEARS:
        selection.rows = times_to_event(selection.rows, spec.event)
    if spec.sessions == "baseline":
        if len(first) < len(selection.rows) and not {"session_id", YEARS} & set(selection.rows):
            selection.problems.append(
                f"Neither session_id nor {YEARS} says which row of a participant is the first; the upper one is taken."
            )
        selection.keep(pd.Series(selection.rows.index.isin(first), index=selection.rows.index), "later session")
    selection.rows = add_baseline_columns(selection.rows, formula.columns)
    selection.keep(~is_missing(selection.rows[spec.groups]), f"missing {spec.groups}")
    if spec.event:
        selection.keep(~is_missing(selection.rows[spec.event]), f"missing {spec.event}")
    return selection


def drop_impossible(selection: Selection, formula: Formula) -> None:
    """Drop rows whose clinical values cannot be true, and say so.

    Raises:
        NotEstimable: A whole column is in another unit than its name says.
    """
    selection.problems += halves_that_do_not_exist(selection.rows, formula.columns)
    for found in list(impossible_values(selection.rows, formula.columns)):
        selection.keep(~found.rows.reindex(selection.rows.index), found.reason)
        selection.problems.append(found.sentence)


def keep_complete(spec: AssociationSpec, selection: Selection, formula: Formula) -> pd.DataFrame:
    """Drop rows that lack a variable of the formula, counted under the variables that they lack.

    Args:
        spec: The declared model.
        selection: Altered in place.
        formula: A formula whose columns the rows have.

    Returns:
        The factors' values of the rows that remain.

    Raises:
        NotEstimable: The model refuses tables that lack values, and these rows do.
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
    selection.missing = {str(name): int(lacking[name].sum()) for name in lacking}
    incomplete = lacking[lacking.any(axis=1)]
    if spec.missing == "error" and len(incomplete):
        counts = ", ".join(f"{name} in {n}" for name, n in selection.missing.items() if n)
        raise NotEstimable(
            f'Not fitted: {len(incomplete)} of {len(table)} rows lack a value ({counts}), and missing = "error" '
            "refuses "
            "them."
        )
    selection.dropped.update("missing " + ", ".join(lacking.columns[row]) for row in incomplete.to_numpy())
    selection.rows = table.drop(index=incomplete.index)
    return values.loc[selection.rows.index]


def _rows_of_cohorts(spec: AssociationSpec, table: pd.DataFrame) -> pd.DataFrame:
    table = table.reset_index(drop=True)
    return table[table["cohort"].isin(spec.cohorts)] if spec.cohorts and "cohort" in table else table


def _drop_repeated(selection: Selection) -> None:
    """One row per participant and session: a copy is dropped, and of rows that disagree nobody knows which is right."""
    rows = selection.rows
    names = [name for name in ("session_id", YEARS) if name in rows][:1]
    if not names and "scan_id" not in rows:
        return
    keys = pd.DataFrame({"subject": subject_keys(rows), **{name: as_levels(rows[name]).fillna("") for name in names}})
    if not names:
        keys["scan"] = rows["scan_id"]
    suspects = keys.duplicated(keep=False)
    if not suspects.any():
        return
    copies = pd.Series(False, index=rows.index)
    copies[suspects] = rows[suspects].astype(str).duplicated().to_numpy()
    if copies.any():
        selection.problems.append(
            f"{int(copies.sum())} rows stand in the table twice, each value alike; each is used once."
        )
        selection.keep(~copies, "the same row again")
    left = selection.rows
    if "scan_id" in left and left["scan_id"].duplicated().any():
        first = left["scan_id"][left["scan_id"].duplicated()].iloc[0]
        raise ValueError(f"The table repeats scan {first}; check that the clinical table joins one row to each scan.")
    disagreeing = keys.loc[left.index].duplicated(keep=False)
    if disagreeing.any():
        who = " ".join(str(value) for value in keys.loc[left.index][disagreeing].iloc[0] if value != "")
        selection.problems.append(
            f"{int(disagreeing.sum())} rows share participant and session with another row but not its values, such as "
            f"{who}; none of them is used. Keep the right ones."
        )
        selection.keep(~disagreeing, "participant and session twice, with other values")


def _filter(selection: Selection, column: str, accepted: tuple[str, ...]) -> None:
    if column not in selection.rows:
        raise ValueError(f"where: there is no column {column!r}; {nearest(column, selection.rows.columns)}")
    values = as_levels(selection.rows[column])
    for level in accepted:
        if not (values == level).any():
            selection.problems.append(f"where: no row has {column} = {level!r}; {nearest(level, values.dropna())}")
    selection.keep(values.isin(accepted), f"{column} not in ({', '.join(accepted)})")
