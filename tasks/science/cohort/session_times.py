"""When each session was, in years since the subject's baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from .problems import quoted
from .tsv import Cells, as_number

DAYS_PER_YEAR = 365.25
LONGEST_FOLLOW_UP_YEARS = 130.0


def times_since_baseline(
    sessions: Sequence[str], cells: Mapping[str, Cells], ages: Mapping[str, float], base_age: float | None
) -> tuple[dict[str, float], list[str]]:
    """Date one subject's sessions, from the most exact source that dates all of them (else most of them).

    Sources, the most exact first: years_since_baseline, days_since_baseline, acq_time, differences of age (often whole
    years). Those that give no baseline themselves are used only where they date the first session.

    Args:
        sessions: The subject's session names, the first by name first.
        cells: Each session's table row.
        ages: Ages in years that sessions themselves give.
        base_age: The subject's age in years at baseline, if known.

    Returns:
        Years since baseline per session, without the sessions that cannot be dated (a first or only session that
        nothing dates is the baseline, at 0); and the texts that could not be read.
    """
    unread: list[str] = []
    first = sessions[0]
    dated = {
        "years": _numbers(cells, "years_since_baseline", 1.0, unread),
        "days": _numbers(cells, "days_since_baseline", DAYS_PER_YEAR, unread),
        "clock": _from_first(first, _clock_years(cells, unread)),
        "age": _apart(first, {**({} if base_age is None else {first: base_age}), **ages}),
    }
    best = max(dated.values(), key=len)
    return {first: 0.0, **best}, unread


def _apart(first: str, ages: Mapping[str, float]) -> dict[str, float]:
    """Years by ages; of two sessions at one age in whole years nobody knows whether days or a year lie between them."""
    times = _from_first(first, ages)
    whole = all(float(age).is_integer() for age in ages.values())
    return {session: years for session, years in times.items() if session == first or years or not whole}


def _numbers(cells: Mapping[str, Cells], name: str, units_per_year: float, unread: list[str]) -> dict[str, float]:
    times = {}
    for session, row in cells.items():
        text = row.get(name)
        if text is None:
            continue
        value = as_number(text)
        if value is None or abs(value) / units_per_year > LONGEST_FOLLOW_UP_YEARS:
            unread.append(f"{session} {name} {quoted(text)}")
        else:
            times[session] = value / units_per_year
    return times


def _clock_years(cells: Mapping[str, Cells], unread: list[str]) -> dict[str, float]:
    """BIDS lets acq_time be shifted by a constant per subject, so only differences mean anything."""
    times = {}
    for session, row in cells.items():
        text = row.get("acq_time")
        if text is None:
            continue
        try:
            moment = datetime.fromisoformat(text).replace(tzinfo=None)
        except ValueError:
            unread.append(f"{session} acq_time {quoted(text)}")
            continue
        times[session] = (moment - datetime(1800, 1, 1)).total_seconds() / (DAYS_PER_YEAR * 86400)
    return times


def _from_first(first: str, moments: Mapping[str, float]) -> dict[str, float]:
    if first not in moments:
        return {}
    earliest = min(moments.values())
    return {session: moment - earliest for session, moment in moments.items()}
