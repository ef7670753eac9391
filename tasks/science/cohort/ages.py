"""Ages as cohort tables really hold them, in years."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from .problems import Problem, examples, quoted
from .subject_tables import PARTICIPANTS_NOTES_PATH, Visit
from .tsv import DECIMAL_COMMA, Cells, as_number

OLDEST_PLAUSIBLE_YEARS = 130.0
DAYS_PER_YEAR = 365.25
UNITS_PER_YEAR_BY_COLUMN = {"age_years": 1.0, "age": 1.0, "age_months": 12.0}
UNITS_PER_YEAR = {
    **dict.fromkeys(("year", "years", "yr", "yrs", "y", "a"), 1.0),
    **dict.fromkeys(("month", "months", "mo", "mos"), 12.0),
    **dict.fromkeys(("week", "weeks", "wk", "wks"), DAYS_PER_YEAR / 7),
    **dict.fromkeys(("day", "days", "d"), DAYS_PER_YEAR),
}
CENSORED_AGE = re.compile(r"(?:>=?|≥)\s*([0-9]+(?:\.[0-9]+)?)\s*\+?|([0-9]+(?:\.[0-9]+)?)\s*\+")
LARGEST_DISAGREEMENT_YEARS = 1.0


def ages_years(
    rows: Mapping[Visit, Cells], note: Mapping[str, Any], path: str, said: list[Problem]
) -> dict[Visit, float]:
    """Find each row's age in `age_years`, `age` or `age_months`, the first that is there.

    Args:
        rows: Cells by subject and session.
        note: What participants.json says of `age`; its Units are honoured.
        path: The table's name in problems.
        said: Problems are appended here, one for each kind of irregularity.

    Returns:
        Ages in years, without the rows that have none.
    """
    units_per_year = dict(UNITS_PER_YEAR_BY_COLUMN)
    unit = unit_per_year(str(note.get("Units", "")))
    if unit is not None:
        units_per_year["age"] = unit
    elif any("age" in cells for cells in rows.values()):
        del units_per_year["age"]
        shown = quoted(str(note.get("Units")))
        message = f"The unit of `age`, {shown}, is not years, months, weeks or days, so `age` is not used. Correct it."
        said.append(Problem(PARTICIPANTS_NOTES_PATH, "age-unit", message))
    ages: dict[Visit, float] = {}
    odd: dict[str, list[str]] = defaultdict(list)
    for visit, cells in rows.items():
        given = {name: cells[name] for name in units_per_year if cells.get(name) is not None}
        read = [(str(text), *read_age(str(text), units_per_year[name])) for name, text in given.items()]
        for text, _, oddity in read:
            if oddity:
                odd[oddity].append(f"{' '.join(visit).strip()} {quoted(text)}")
        values = [value for _, value, _ in read if value is not None]
        if values:
            ages[visit] = values[0]
        if values and max(values) - min(values) > LARGEST_DISAGREEMENT_YEARS:
            odd["differ between age columns, the first is taken"].append(" ".join(visit).strip())
    for oddity, where in odd.items():
        said.append(Problem(path, "age", f"{len(where)} ages {oddity}: {examples(where)}. Correct the table."))
    return ages


def unit_per_year(text: str) -> float | None:
    """How many of a unit make a year: 1 where none is named, None where it is not understood.

    >>> unit_per_year(""), unit_per_year("Years"), unit_per_year("age in months"), unit_per_year("decades")
    (1.0, 1.0, 12.0, None)
    """
    words = re.findall(r"[a-z]+", text.casefold())
    found = {UNITS_PER_YEAR[word] for word in words if word in UNITS_PER_YEAR and (len(word) > 1 or len(words) == 1)}
    if not words:
        return 1.0
    return found.pop() if len(found) == 1 else None


def read_age(text: str, units_per_year: float = 1.0) -> tuple[float | None, str]:
    """Read one age, and say what was odd about it.

    Args:
        text: A cell that is not missing.
        units_per_year: 1 for years, 12 for months.

    Returns:
        The age in years, or None, and the oddity in words ("" if none).

    >>> read_age("18", 12), read_age("89+"), read_age("25-30")
    ((1.5, ''), (89.0, 'are censored, taken as their bound'), (None, 'cannot be read, taken as missing'))
    """
    oddity = ""
    value = as_number(text)
    if value is None and DECIMAL_COMMA.fullmatch(text):
        value, oddity = float(text.replace(",", ".")), "have a decimal comma, read as a decimal point"
    censored = CENSORED_AGE.fullmatch(text)
    if value is None and censored:
        value, oddity = float(censored[1] or censored[2]), "are censored, taken as their bound"
    if value is None:
        return None, "cannot be read, taken as missing"
    years = value / units_per_year
    if not 0 <= years <= OLDEST_PLAUSIBLE_YEARS:
        return None, f"are outside 0 to {OLDEST_PLAUSIBLE_YEARS:.0f} years, taken as missing"
    return years, oddity
