"""Clinical values that cannot be true, or are in another unit than their name says: said, and not computed through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pandas as pd

from ..cohort.problems import examples
from .design import NotEstimable

# Scale → lowest, highest and step of its values; a step of 0 leaves the grid open. CDR-SB adds boxes of 0.5.
SCALES = {
    "edss": (0.0, 10.0, 0.5),
    "mmse": (0.0, 30.0, 0.0),
    "moca": (0.0, 30.0, 0.0),
    "cdr_sb": (0.0, 18.0, 0.5),
    "updrs_iii": (0.0, 132.0, 0.0),
    "hoehn_yahr": (0.0, 5.0, 0.0),
}
AGES = ("age", "age_years")
DURATIONS = (
    *("disease_duration", "disease_duration_years", "duration", "duration_years", "years_since_onset"),
    *("years_since_diagnosis", "time_since_diagnosis", "time_since_onset"),
)
OLDEST_YEARS = 125.0
YEARS_OF_BIRTH = (1890.0, 2100.0)
# Where so many durations exceed the age, the column is in another unit rather than full of slips.
SHARE_OF_WRONG_UNIT = 0.2
MONTHS_PER_YEAR, DAYS_PER_YEAR = 12.0, 365.25


class Impossible(NamedTuple):
    """Rows whose value cannot be true: which, why (as a reason of dropping), and the sentence about them."""

    rows: pd.Series
    reason: str
    sentence: str


def impossible_values(rows: pd.DataFrame, columns: Iterable[str]) -> Iterator[Impossible]:
    """Point at clinical values that cannot be true or are not on their scale.

    Args:
        rows: Rows that a model would use.
        columns: Columns that it reads; others are not looked at.

    Raises:
        NotEstimable: A whole column is in another unit than its name says.
    """
    age = next((rows[name] for name in (*AGES, "age_years_baseline") if name in rows), None)
    for column in columns:
        if column not in rows or not pd.api.types.is_numeric_dtype(rows[column]):
            continue
        name, values = column.casefold().removesuffix("_baseline"), rows[column].astype(float)
        if column == "years_since_baseline":
            _check_unit_of_times(column, rows)
        elif name in SCALES:
            yield from _off_the_scale(column, values, *SCALES[name])
        elif name in AGES:
            yield from _ages(column, values)
        elif name in DURATIONS:
            yield from _durations(column, values, age)


def halves_that_do_not_exist(rows: pd.DataFrame, columns: Iterable[str]) -> list[str]:
    """Warn of EDSS 0.5, which the scale does not have, yet real tables do: it is kept."""
    found = [(c, int((rows[c] == 0.5).sum())) for c in columns if c.casefold().removesuffix("_baseline") == "edss"]
    return [f"{c}: {n} rows equal to 0.5, which the scale does not have; kept." for c, n in found if n]


def _off_the_scale(column: str, values: pd.Series, low: float, high: float, step: float) -> Iterator[Impossible]:
    outside = values.notna() & ~values.between(low, high)
    if outside.mean() > 0.5:
        raise NotEstimable(
            f"Not fitted: {column} lies outside {low:g}–{high:g} in most rows (median {values.median():.3g}); if it "
            "is not "
            "that scale, or standardised, give it another name."
        )
    off = ~outside & ((values / step) % 1 > 1e-9) & ((values / step) % 1 < 1 - 1e-9) if step else outside & False
    if off.mean() > 0.5:
        raise NotEstimable(
            f"Not fitted: {column} is off its steps of {step:g} in most rows; if it is an average, or standardised, "
            "give "
            "it another name."
        )
    for mask, what in ((outside, f"outside {low:g}–{high:g}"), (off, f"off the steps of {step:g}")):
        if mask.any():
            yield _impossible(column, values, mask, what)


def _ages(column: str, values: pd.Series) -> Iterator[Impossible]:
    old = values > OLDEST_YEARS
    if old.mean() > 0.5:
        if (values.dropna().between(*YEARS_OF_BIRTH) & (values.dropna() % 1 == 0)).mean() > 0.5:
            raise NotEstimable(
                f"Not fitted: {column} has a median of {values.median():.0f}, expected years of age; is it a year of "
                "birth? Give the age at the scan, or name it for what it is."
            )
        unit = "days" if values.median() > OLDEST_YEARS * MONTHS_PER_YEAR else "months"
        raise NotEstimable(
            f"Not fitted: {column} has a median of {values.median():.0f}, expected years; is it in {unit}? Divide it, "
            "or "
            "name it for its unit."
        )
    for mask, what in ((values < 0, "below 0"), (old, f"above {OLDEST_YEARS:g} years (months or days?)")):
        if mask.any():
            yield _impossible(column, values, mask, what)


def _durations(column: str, values: pd.Series, age: pd.Series | None) -> Iterator[Impossible]:
    if (values < 0).any():
        yield _impossible(column, values, values < 0, "negative")
    if age is None or not pd.api.types.is_numeric_dtype(age):
        return
    longer = values > age.astype(float)
    if longer.mean() > SHARE_OF_WRONG_UNIT:
        raise NotEstimable(
            f"Not fitted: {column} is longer than the age in {longer.mean():.0%} of the rows (median "
            f"{values.median():.0f}"
            "), expected years; is it in months? Divide it by 12."
        )
    if longer.any():
        yield _impossible(column, values, longer, "longer than the age (months?)")


def _check_unit_of_times(column: str, rows: pd.DataFrame) -> None:
    """Compare the time between sessions with the ages at them, where both are given."""
    name = next((n for n in AGES if n in rows and pd.api.types.is_numeric_dtype(rows[n])), None)
    if name is None or "participant_id" not in rows:
        return
    both = rows[[column, name]].astype(float)
    apart = (both - both.groupby(rows["participant_id"].astype(str)).transform("min")).dropna()
    ages = float((apart[name] ** 2).sum())
    ratio = float((apart[name] * apart[column]).sum()) / ages if ages > 0.1 else 1.0
    for unit, per_year in (("months", MONTHS_PER_YEAR), ("days", DAYS_PER_YEAR)):
        if 0.8 < ratio / per_year < 1.25:
            raise NotEstimable(
                f"Not fitted: {column} grows by {ratio:.0f} for each year of {name}, expected 1; it is in {unit}. "
                "Divide "
                f"it by {per_year:g}."
            )


def _impossible(column: str, values: pd.Series, mask: pd.Series, what: str) -> Impossible:
    shown = examples([f"{value:g}" for value in values[mask].unique()])
    n = int(mask.sum())
    sentence = f"{column}: {n} row{'s' if n > 1 else ''} {what} ({shown}); not used. Correct or empty them."
    return Impossible(mask, f"{column} {what.split(' (')[0]}", sentence)
