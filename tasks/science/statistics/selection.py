"""Which rows a declared model uses, and why the others are not used: every row leaves with a reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ...records import AssociationSpec
from .bootstrap import subject_keys
from .design import NotEstimable, as_levels, factor_values, is_missing, natural
from .formula import Factor, Formula, nearest
from .input_traps import AGES, halves_that_do_not_exist, impossible_values
from .longitudinal import add_baseline_columns, add_change_columns, ordered_sessions
from .survival import YEARS, times_to_event

Known = dict[tuple[Factor, bool], pd.Series]


# Columns that say who a row is, and that others are checked against.
IDENTITY = ("participant_id", "session_id", "scan_id", "cohort", "site", "years_since_baseline")
# With what other tables name people, letters alone.
NAMES_OF_PEOPLE = frozenset(
    {"participantid", "participant", "subjectid", "subject", "subjid", "sub", "patientid", "patient", "ptid", "pid"}
)
ISO_DATE = re.compile(r"(19|20)\d{2}-?[01]\d-?[0-3]\d")
CHECKS = (*AGES, "age_years_baseline", "ensemble_spread_years")


@dataclass
class Selection:
    """Rows that remain, and the account of those that left.

    Attributes:
        rows: Rows that remain, in the order of the table.
        dropped: Reason → number of rows; with the rows that remain they add up to the cohorts' rows.
        problems: Plain sentences.
        missing: Column of the formula → how many of the rows in question lack it.
        repeats: Whether subjects may have several rows.
        known: Factors that were read from the selected rows, or more, already.
    """

    rows: pd.DataFrame
    dropped: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    missing: dict[str, int] = field(default_factory=dict)
    repeats: bool = True
    known: Known = field(default_factory=dict)

    def keep(self, kept: pd.Series, reason: str) -> None:
        """Drop the rows where `kept` is False and count them under `reason`."""
        if not kept.all():
            self.dropped[reason] += int((~kept).sum())
            self.rows = self.rows[kept]


class SharedRows:
    """What many models of one table have in common: the rows that they select, and the factors that they read."""

    def __init__(self, table: pd.DataFrame, knows_people: bool = True) -> None:
        """Keep the table; without people of its own, rows of one session are no repetition."""
        self.table = table
        self.knows_people = knows_people
        self._selected: dict[tuple[object, ...], Selection] = {}

    def select(self, spec: AssociationSpec, formula: Formula) -> Selection:
        """As `select_rows`, once for all models that declare the same rows; only columns in use come along."""
        made = tuple(column for column in formula.columns if column not in self.table)
        waits = formula.response.column if spec.event else ""
        where = tuple((column, tuple(accepted)) for column, accepted in sorted(spec.where.items()))
        key = (spec.cohorts, spec.sessions, spec.groups, where, spec.event, waits, made)
        if key not in self._selected:
            self._selected[key] = select_rows(spec, self.table, formula, self.knows_people)
        found = self._selected[key]
        used = dict.fromkeys([*IDENTITY, *CHECKS, spec.groups, spec.event, *formula.columns])
        rows = found.rows[[column for column in used if column in found.rows.columns]]
        return Selection(rows, Counter(found.dropped), list(found.problems), {}, found.repeats, found.known)


def select_rows(spec: AssociationSpec, table: pd.DataFrame, formula: Formula, knows_people: bool = True) -> Selection:
    """Take the rows that a model declares: its cohorts, its filters, its sessions.

    Args:
        spec: The declared model.
        table: Predictions joined with the clinical table, one row per scan.
        knows_people: Whether `participant_id` is the table's own.
        formula: Its formula; columns that it names with `_baseline` or `_per_year` are made where they are absent.

    Returns:
        The selection. With `sessions="baseline"` each subject keeps its first session *after* the filters: by
        `years_since_baseline`, then by session in natural order, then by scan.

    Raises:
        ValueError: A filter names a column that the table lacks, or a scan occurs twice with different values.
    """
    selection = Selection(_rows_of_cohorts(spec, table))
    if spec.cohorts and "cohort" not in table:
        selection.problems.append(
            f"cohorts = {list(spec.cohorts)} is not applied: the table has no column cohort; all of its rows are used."
        )
    if spec.cohorts and "cohort" in table:
        for cohort in spec.cohorts:
            if not (table["cohort"] == cohort).any():
                selection.problems.append(f"Cohort {cohort} has no rows.")
    selection.keep(~is_missing(selection.rows["participant_id"]), "missing participant_id")
    if knows_people:
        _drop_repeated(selection)
    else:
        numbers = selection.rows.select_dtypes("number")
        # Wide tables are long to read as text: only rows whose numbers are alike can be.
        suspects = numbers.duplicated(keep=False) if len(numbers.columns) else np.ones(len(numbers), dtype=bool)
        alike = int(selection.rows[suspects].drop(columns="participant_id").astype(str).duplicated().sum())
        if alike:
            selection.problems.append(
                f"{alike} rows equal another in every column. Without participant_id nobody can tell a copy from a "
                "person; they are used."
            )
    for column, accepted in spec.where.items():
        _filter(selection, column, accepted)
    selection.rows = add_change_columns(selection.rows, formula.columns)
    first = ordered_sessions(selection.rows).groupby(subject_keys(selection.rows), sort=False).head(1).index
    later = "later session"
    if spec.event and formula.response.column == YEARS:
        selection.rows = times_to_event(selection.rows, spec.event)
        later = "later session, whose time and event are in the first one's row"
    if spec.sessions == "baseline":
        if len(first) < len(selection.rows):
            selection.problems += _doubts_about_the_first(selection.rows)
        selection.keep(pd.Series(selection.rows.index.isin(first), index=selection.rows.index), later)
    selection.rows = add_baseline_columns(selection.rows, formula.columns)
    selection.keep(~is_missing(selection.rows[spec.groups]), f"missing {spec.groups}")
    if spec.event:
        selection.keep(~is_missing(selection.rows[spec.event]), f"missing {spec.event}")
    selection.repeats = spec.sessions == "all"
    return selection


def _doubts_about_the_first(rows: pd.DataFrame) -> list[str]:
    """Say on what little it rests which session of a subject is the first, and whose name many people may share."""
    doubts = []
    subjects = subject_keys(rows)
    if "site" in rows:
        shared = int((as_levels(rows["site"]).groupby(subjects).nunique() > 1).sum())
        if shared:
            doubts.append(
                f"{shared} participants have rows of several sites. If sites number their people by themselves, these "
                "are different people: write the site into participant_id."
            )
    if YEARS in rows:
        untimed = int((is_missing(rows[YEARS]) & subjects.duplicated(keep=False)).sum())
        if untimed:
            doubts.append(f"{untimed} sessions have no {YEARS} and count as later than those that have.")
        return doubts
    if any(rows[name].groupby(subjects).nunique().max() > 1 for name in AGES if name in rows):
        return doubts
    if "session_id" not in rows:
        said = f"Neither session_id nor {YEARS} nor an age says which row of a participant is the first; the upper one "
        return [*doubts, said + "is taken."]
    names = as_levels(ordered_sessions(rows)["session_id"]).dropna().unique()
    if not _tell_their_order(names):
        first = ", ".join(sorted(names, key=natural)[:4])
        doubts.append(
            f"When sessions were is only in their names, taken in the order {first}. If that is wrong, add {YEARS}."
        )
    return doubts


def _tell_their_order(names: Iterable[str]) -> bool:
    """Whether names of sessions are one number each beside the same words, or dates from the year on."""
    if all(ISO_DATE.search(name) for name in names):
        return True
    return len({re.sub(r"\d+", "#", name, count=1) for name in names}) == 1 and all(
        len(re.findall(r"\d+", name)) == 1 for name in names
    )


def refuse_people_without_names(spec: AssociationSpec, table: pd.DataFrame) -> None:
    """Rows of one person under another column's name than participant_id would count as so many people.

    Raises:
        ValueError: A column that is named like people repeats its names, and the model does not group by it.
    """
    for column in [] if "participant_id" in table else map(str, table.columns):
        plain = re.sub(r"[^a-z]", "", column.casefold())
        if plain not in NAMES_OF_PEOPLE or column in (spec.groups, spec.stratify):
            continue
        names = as_levels(table[column]).dropna()
        if names.duplicated().any():
            raise ValueError(
                f"the table has no participant_id, and {column} repeats its names ({names.nunique()} in {len(names)} "
                f"rows), so that sessions would count as people. Rename {column} to participant_id, or group by it."
            )


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
    values = factor_values(formula, table, selection.known)
    absent: dict[str, np.ndarray] = {}
    for factor in dict.fromkeys([formula.response, *(f for term in formula.terms for f in term.factors)]):
        unread = values[factor.label].isna().to_numpy()
        missing = is_missing(table[factor.column]).to_numpy() if factor.function in ("log", "sqrt") else unread
        absent[factor.column] = missing
        if (unread & ~missing).any():
            absent[f"{factor.label} (undefined)"] = unread & ~missing
            selection.problems.append(_undefined(factor, int((unread & ~missing).sum()), formula))
    lacking, names = np.column_stack(list(absent.values())), list(absent)
    selection.missing = {name: int(column.sum()) for name, column in absent.items()}
    incomplete = lacking.any(axis=1)
    if spec.missing == "error" and incomplete.any():
        counts = ", ".join(f"{name} in {n}" for name, n in selection.missing.items() if n)
        raise NotEstimable(
            f'Not fitted: {int(incomplete.sum())} of {len(table)} rows lack a value ({counts}), and missing = "error" '
            "refuses them."
        )
    if not incomplete.any():
        return values
    for pattern, n in zip(*np.unique(lacking[incomplete], axis=0, return_counts=True), strict=True):
        lacks = [name for name, is_absent in zip(names, pattern, strict=True) if is_absent]
        selection.dropped["missing " + ", ".join(lacks)] += int(n)
    whole = np.flatnonzero(~incomplete)
    selection.rows = table.take(whole)
    return values.take(whole)


def _undefined(factor: Factor, rows: int, formula: Formula) -> str:
    too_small = "0 or below" if factor.function == "log" else "below 0"
    chosen = "; rows are then chosen by the outcome itself" if factor == formula.response else ""
    return f"{factor.label}: {rows} rows are {too_small} and not used{chosen}."


def _rows_of_cohorts(spec: AssociationSpec, table: pd.DataFrame) -> pd.DataFrame:
    table = table.reset_index(drop=True)
    return table[table["cohort"].isin(spec.cohorts)] if spec.cohorts and "cohort" in table else table


def _drop_repeated(selection: Selection) -> None:
    """One row per participant and session: a copy is dropped, and of rows that disagree nobody knows which is right."""
    rows = selection.rows
    names = [name for name in ("session_id", YEARS) if name in rows][:1]
    keys = pd.DataFrame({"subject": subject_keys(rows), **{name: as_levels(rows[name]).fillna("") for name in names}})
    if not names and "scan_id" in rows:
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
    if not names and "scan_id" not in rows:
        # What nothing names may be sessions.
        return
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
