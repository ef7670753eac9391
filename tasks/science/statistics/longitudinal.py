"""Change over time: values at a subject's first session, and change per year."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from .bootstrap import subject_keys
from .formula import BASELINE, PER_YEAR
from .input_traps import AGES


def add_baseline_columns(table: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """Add what a subject's first session said, for models such as `severity ~ pad_baseline * years + age_baseline`.

    Args:
        table: One row per session, with `participant_id` and, to order sessions, `years_since_baseline`.
        names: Columns wanted; those that end in `_baseline`, are absent, and whose stem is present are made.

    Returns:
        The table with the new columns; missing where the first session lacks the value.
    """
    wanted = [n for n in names if n.endswith(BASELINE) and n not in table and n.removesuffix(BASELINE) in table]
    if not wanted:
        return table
    if table.empty:
        return table.assign(**{name: table[name.removesuffix(BASELINE)] for name in wanted})
    subjects = subject_keys(table)
    first = ordered_sessions(table).groupby(subjects, sort=False).head(1)
    of_subject = first.set_index(subjects.loc[first.index])
    return table.assign(**{name: subjects.map(of_subject[name.removesuffix(BASELINE)]) for name in wanted})


def add_change_columns(table: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """Add change per year, for models such as `edss_per_year ~ brain_pad_years_per_year + age_years`.

    Args:
        table: One row per session, all sessions of a subject among them.
        names: Columns wanted; those that end in `_per_year`, are absent, and whose stem is present are made.

    Returns:
        The table with the new columns, equal in all rows of a subject; missing below two sessions.
    """
    wanted = [n for n in names if n.endswith(PER_YEAR) and n not in table and n.removesuffix(PER_YEAR) in table]
    subjects = subject_keys(table) if wanted else None
    for name in wanted:
        change = annualised_change(table, name.removesuffix(PER_YEAR))
        by_subject = pd.Series(change[name].to_numpy(dtype=float), index=subject_keys(change))
        table = table.assign(**{name: subjects.map(by_subject)})  # type: ignore[union-attr]
    return table


def annualised_change(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Reduce repeated values to change per year: the least-squares slope over each subject's sessions.

    With two sessions this is their difference over the years between them.

    Args:
        table: One row per session: `participant_id`, `years_since_baseline` and the column.
        column: What changes.

    Returns:
        One row per subject with two or more distinct times: `cohort` (if present), `participant_id`, `n_sessions`,
        `years` (first to last) and `<column>_per_year`.

    Raises:
        ValueError: A column is absent.
    """
    for name in ("participant_id", "years_since_baseline", column):
        if name not in table:
            raise ValueError(f"Change per year needs the column {name}; the columns are {list(table.columns)}.")
    complete = table.dropna(subset=["years_since_baseline", column])
    rows = []
    for _, sessions in complete.groupby(subject_keys(complete), sort=True):
        years = sessions["years_since_baseline"].to_numpy(dtype=float)
        if np.ptp(years) > 0:
            centred = years - years.mean()
            slope = float(centred @ sessions[column].to_numpy(dtype=float) / (centred @ centred))
            identity = {name: sessions[name].iloc[0] for name in ("cohort", "participant_id") if name in sessions}
            rows.append(
                {**identity, "n_sessions": len(years), "years": float(np.ptp(years)), f"{column}_per_year": slope}
            )
    identity_columns = [name for name in ("cohort", "participant_id") if name in table]
    return pd.DataFrame(rows, columns=[*identity_columns, "n_sessions", "years", f"{column}_per_year"])


def ordered_sessions(table: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by time within subjects: years since baseline (unknown last), age, session in natural order, scan."""
    keys = pd.DataFrame(index=table.index)
    for column in ("years_since_baseline", *AGES, "session_id", "scan_id"):
        if column in table:
            values = table[column]
            keys[column] = values if pd.api.types.is_numeric_dtype(values) else values.astype(str).map(_padded)
    return table.loc[keys.sort_values(list(keys.columns), kind="stable").index] if len(keys.columns) else table


def _padded(text: str) -> str:
    return re.sub(r"\d+", lambda digits: digits.group().zfill(12), text)
