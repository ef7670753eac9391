"""The clinical table: one row per subject and session, from participants.tsv, sessions.tsv and the scans found."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from .ages import ages_years
from .manifest import MANIFEST_DTYPES
from .problems import Problem, examples, problems_frame, quoted
from .session_times import times_since_baseline
from .subject_tables import PARTICIPANTS_PATH, SESSIONS_PATH, SubjectTables, Visit, read_subject_tables
from .tsv import typed_column

CLINICAL_DTYPES = {
    "participant_id": "str",
    "session_id": "str",
    "age_years": "float64",
    "sex": "str",
    "site": "str",
    "years_since_baseline": "float64",
}
"""Columns that every clinical table begins with; the cohort's own follow, float64 or str."""
SEXES = {"f": "F", "female": "F", "woman": "F", "m": "M", "male": "M", "man": "M"}
UNKNOWN_SITES = frozenset({"unknown", "unk"})
CONSUMED_COLUMNS = frozenset({*CLINICAL_DTYPES, "age", "age_months"})
TAKEN_NAMES = frozenset({*MANIFEST_DTYPES, *CLINICAL_DTYPES, "split", "role"})


def clinical_table(
    participants_tsv: bytes | None,
    sessions: Mapping[str, bytes],
    scans: pd.DataFrame,
    participants_json: bytes | None = None,
    folders: Collection[str] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Join what a cohort's tables say with what was scanned, so that models meet one tidy table and no surprise.

    A session's own values override the subject's. Where only the baseline age is given, a session's age is that plus
    its years since baseline; where no time is given, the age of later sessions is missing rather than wrong.

    Args:
        participants_tsv: Bytes of participants.tsv, or None where there is none.
        sessions: Bytes of each sub-*_sessions.tsv by participant_id.
        scans: A manifest.
        participants_json: Bytes of participants.json: the unit of `age` and the levels of `sex` are taken from it.
        folders: Folders that are there, as sub-* and sub-*/ses-*, where they are known.

    Returns:
        The table, one row per participant_id and session_id ("" where there are no sessions), with age_years (NaN if
        missing), sex (F, M or missing), site ("" if unknown), years_since_baseline (0 for a first or only session),
        then every other column, float64 or text; and the problems: path, kind, message.
    """
    said: list[Problem] = []
    tables = read_subject_tables(participants_tsv, sessions, participants_json, said)
    scanned = set(zip(scans["participant_id"].tolist(), scans["session_id"].tolist(), strict=True))
    _say_unmatched(tables, scanned, folders, said)
    rows = _rows(tables, scanned)
    years, ages = _times_and_ages(rows, tables, said)
    columns: dict[str, Sequence[Any]] = {
        "participant_id": [person for person, _ in rows],
        "session_id": [session for _, session in rows],
        "age_years": [ages.get(row, math.nan) for row in rows],
        "sex": _sexes(rows, tables, said),
        "site": [_site(tables.visit_or_person(row, "site")) for row in rows],
        "years_since_baseline": [years.get(row, math.nan) for row in rows],
    }
    typed = {name: pd.Series(columns[name], dtype=dtype) for name, dtype in CLINICAL_DTYPES.items()}
    return pd.DataFrame({**typed, **_other_columns(rows, tables, said)}), problems_frame(said)


def natural_order(text: str) -> list[tuple[int, str]]:
    """Sort "ses-2" before "ses-10".

    >>> sorted(["ses-10", "ses-2", ""], key=natural_order)
    ['', 'ses-2', 'ses-10']
    """
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", text) if part]


def _rows(tables: SubjectTables, scanned: set[Visit]) -> list[Visit]:
    rows = {*tables.visits, *scanned}
    with_rows = {person for person, _ in rows}
    rows.update((person, "") for person in tables.people if person not in with_rows)
    return sorted(rows, key=lambda row: (row[0], natural_order(row[1]), row[1]))


def _say_unmatched(
    tables: SubjectTables, scanned: set[Visit], folders: Collection[str] | None, said: list[Problem]
) -> None:
    scanned_people = {person for person, _ in scanned}
    with_visits = {person for person, _ in tables.visits}
    in_tables = {*tables.people, *with_visits}
    alike = {_as_spoken(person): person for person in sorted(scanned_people - in_tables)}
    for person in sorted(in_tables - scanned_people):
        namesake = alike.get(_as_spoken(person))
        hint = f" Is it {namesake}, which has scans and no row?" if namesake else ""
        said.append(Problem(person, "missing-scan", _why_no_scan(person, person, folders) + hint))
    for person, session in sorted(set(tables.visits) - scanned):
        if person in scanned_people:
            place = f"{person}/{session}"
            said.append(Problem(place, "missing-scan", _why_no_scan(f"{person} {session}", place, folders)))
    for person in sorted(scanned_people - in_tables) if tables.given else ():
        message = f"{person} has scans but no row in {PARTICIPANTS_PATH}, so no age. Add the row."
        said.append(Problem(person, "missing-participant", message))
    for person, session in sorted(scanned - set(tables.visits)):
        if person in with_visits:
            message = f"{person} {session or 'without a session'} has scans but no row in the sessions table. Add it."
            said.append(Problem(f"{person}/{session}".rstrip("/"), "missing-session", message))


def _why_no_scan(who: str, place: str, folders: Collection[str] | None) -> str:
    if folders is not None and place not in folders:
        return f"{who} is in the tables; expected a folder {place}/, found none. Copy it there, or take the row out."
    return (
        f"{who} is in the tables but has no anatomical scan that can be indexed. Copy its images, or take the row out."
    )


def _as_spoken(person: str) -> str:
    """A name as two people may write it differently: sub-007, sub-7 and SUB-7 are one."""
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", person.casefold())


def _times_and_ages(
    rows: Sequence[Visit], tables: SubjectTables, said: list[Problem]
) -> tuple[dict[Visit, float], dict[Visit, float]]:
    note = tables.notes.get("age", {})
    people_rows = {(person, ""): cells for person, cells in tables.people.items()}
    base_ages = ages_years(people_rows, note, PARTICIPANTS_PATH, said)
    ages = ages_years(tables.visits, note, SESSIONS_PATH, said)
    sessions_of: dict[str, list[str]] = defaultdict(list)
    for person, session in rows:
        sessions_of[person].append(session)
    years: dict[Visit, float] = {}
    unread: list[str] = []
    for person, sessions in sessions_of.items():
        cells = {session: tables.visits.get((person, session), {}) for session in sessions}
        if len(sessions) == 1:
            cells = {sessions[0]: {**tables.people.get(person, {}), **cells[sessions[0]]}}
        own = {session: ages[person, session] for session in sessions if (person, session) in ages}
        base_age = base_ages.get((person, ""))
        times, not_read = times_since_baseline(sessions, cells, own, base_age)
        unread += [f"{person} {text}" for text in not_read]
        years.update({(person, session): time for session, time in times.items()})
        anchors = [own[session] - times[session] for session in sessions if session in own and session in times]
        anchor = anchors[0] if anchors else base_age
        if anchor is not None:
            ages.update({(person, session): anchor + time for session, time in times.items() if session not in own})
    untimed = [f"{person} {session}".strip() for person, session in rows if (person, session) not in years]
    _say_times(unread, untimed, said)
    return years, ages


def _say_times(unread: Sequence[str], untimed: Sequence[str], said: list[Problem]) -> None:
    if unread:
        message = f"{len(unread)} session times cannot be read, taken as missing: {examples(unread)}. Correct them."
        said.append(Problem(SESSIONS_PATH, "session-time", message))
    if untimed:
        message = (
            f"{len(untimed)} sessions have no time, so no years since baseline and no age from the baseline's: "
            f"{examples(untimed)}. Give age, days_since_baseline or acq_time in sessions.tsv."
        )
        said.append(Problem(SESSIONS_PATH, "unknown-time", message))


def _sexes(rows: Sequence[Visit], tables: SubjectTables, said: list[Problem]) -> list[str | None]:
    """Codes are not guessed: which of 1 and 2 is female differs between cohorts, and only participants.json says."""
    levels = {
        name: {str(code).casefold(): SEXES.get(str(meaning).strip().casefold()) for code, meaning in given.items()}
        for name in ("sex", "gender")
        if isinstance(given := tables.notes.get(name, {}).get("Levels"), dict)
    }
    unknown: dict[str, int] = defaultdict(int)
    sexes: list[str | None] = []
    for row in rows:
        name = "sex" if tables.visit_or_person(row, "sex") is not None else "gender"
        text = tables.visit_or_person(row, name)
        code = "" if text is None else text.casefold()
        sexes.append(levels.get(name, {}).get(code) or SEXES.get(code))
        if text is not None and sexes[-1] is None:
            unknown[text] += 1
    for text, count in sorted(unknown.items()):
        message = (
            f"The sex {quoted(text)} of {count} rows is neither F nor M and is taken as missing. Write F or M, or "
            'explain the code in participants.json: {"sex": {"Levels": {"1": "male", "2": "female"}}}.'
        )
        said.append(Problem(PARTICIPANTS_PATH, "sex", message))
    return sexes


def _site(text: str | None) -> str:
    return "" if text is None or text.casefold() in UNKNOWN_SITES else text


def _other_columns(rows: Sequence[Visit], tables: SubjectTables, said: list[Problem]) -> dict[str, pd.Series]:
    merged = [{**tables.people.get(row[0], {}), **tables.visits.get(row, {})} for row in rows]
    consumed = CONSUMED_COLUMNS if "sex" in tables.columns else {*CONSUMED_COLUMNS, "gender"}
    others: dict[str, pd.Series] = {}
    for name in (name for name in tables.columns if name not in consumed):
        others_name = name
        while others_name in TAKEN_NAMES or (others_name != name and others_name in {*tables.columns, *others}):
            others_name += "_reported"
        if others_name != name:
            message = f"The column {quoted(name)} has a name that padflow uses; it is called {others_name!r}."
            said.append(Problem(PARTICIPANTS_PATH, "column-name", message))
        others[others_name], remark = typed_column([cells.get(name) for cells in merged])
        if remark:
            said.append(Problem(PARTICIPANTS_PATH, "number", f"Column {quoted(name)}: {remark}. Check it."))
    return others
