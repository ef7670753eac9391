"""participants.tsv, participants.json and the sessions.tsv files, as rows keyed by subject and session."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .problems import Problem, examples, quoted
from .tsv import Cells, TextTable, read_tsv

PARTICIPANTS_PATH = "participants.tsv"
PARTICIPANTS_NOTES_PATH = "participants.json"
SESSIONS_PATH = "sub-*/sub-*_sessions.tsv"
LABEL = "[A-Za-z0-9]{1,64}"
KNOWN_COLUMNS = frozenset(
    {
        *("participant_id", "session_id", "sex", "gender", "site"),
        *("age", "age_years", "age_months"),
        *("years_since_baseline", "days_since_baseline", "acq_time"),
    }
)
LABEL_REMARKS = {
    "missing-prefix": "Names without sub- or ses- are read as if they had it. Write it.",
    "bad-label": "Rows whose name is not sub- or ses- with 1 to 64 letters or digits are not used. Correct them.",
}

Visit = tuple[str, str]
"""participant_id and session_id ("" where there is none)."""


@dataclass
class SubjectTables:
    """What a cohort's tables say, as text.

    Attributes:
        people: Each subject's own row.
        visits: Each session's row.
        columns: Every column, in the order met.
        notes: participants.json: column, in lower case, to its description.
        given: Whether there is a participants.tsv.
    """

    people: dict[str, Cells] = field(default_factory=dict)
    visits: dict[Visit, Cells] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)
    given: bool = False

    def visit_or_person(self, row: Visit, name: str) -> str | None:
        """A lasting trait: what the session says, else what the subject's row says."""
        own = self.visits.get(row, {}).get(name)
        return own if own is not None else self.people.get(row[0], {}).get(name)


def read_subject_tables(
    participants_tsv: bytes | None,
    sessions: Mapping[str, bytes],
    participants_json: bytes | None,
    said: list[Problem],
) -> SubjectTables:
    """Read a cohort's tables; rows of participants.tsv that carry a session_id are sessions' rows.

    Args:
        participants_tsv: Bytes, or None where there is no such file.
        sessions: Bytes of each sub-*_sessions.tsv by participant_id.
        participants_json: Bytes, or None.
        said: Problems are appended here.
    """
    tables = SubjectTables(notes=_read_notes(participants_json, said), given=participants_tsv is not None)
    columns: dict[str, None] = {}
    if participants_tsv is None:
        message = "There is no participants.tsv, so no ages. Write one with participant_id, age and sex."
        said.append(Problem(PARTICIPANTS_PATH, "missing-table", message))
    else:
        table = read_tsv(participants_tsv, PARTICIPANTS_PATH, KNOWN_COLUMNS, said)
        columns.update(dict.fromkeys(table.columns))
        for (person, session), cells in _by_visit(table, "", PARTICIPANTS_PATH, said).items():
            if session:
                tables.visits[person, session] = cells
            else:
                tables.people[person] = cells
    for participant_id in sorted(sessions):
        path = f"{participant_id}/{participant_id}_sessions.tsv"
        table = read_tsv(sessions[participant_id], path, KNOWN_COLUMNS, said)
        columns.update(dict.fromkeys(table.columns))
        for visit, cells in _by_visit(table, participant_id, path, said).items():
            tables.visits[visit] = {**tables.visits.get(visit, {}), **cells}
    tables.columns = list(columns)
    return tables


def _read_notes(participants_json: bytes | None, said: list[Problem]) -> dict[str, dict[str, Any]]:
    if participants_json is None:
        return {}
    try:
        notes = json.loads(participants_json.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        message = f"The file is not JSON ({error}); units and levels are taken to be BIDS's own. Correct it."
        said.append(Problem(PARTICIPANTS_NOTES_PATH, "unreadable-json", message))
        return {}
    described = notes.items() if isinstance(notes, dict) else ()
    return {name.casefold(): note for name, note in described if isinstance(note, dict)}


def _by_visit(table: TextTable, participant_id: str, path: str, said: list[Problem]) -> dict[Visit, Cells]:
    needed = "session_id" if participant_id else "participant_id"
    if table.columns and needed not in table.columns:
        found = examples([quoted(name) for name in table.columns])
        message = f"The table has no column {needed}, so it is not used; it has {found}. Are its columns tab-separated?"
        said.append(Problem(path, "unusable-table", message))
        return {}
    rows: dict[Visit, list[Cells]] = defaultdict(list)
    odd: dict[str, list[str]] = defaultdict(list)
    for cells in _own_rows(table, participant_id, path, said) if participant_id else table.rows:
        person = participant_id or _label(cells["participant_id"], "sub-", odd)
        given_session = cells.get("session_id")
        session = _label(given_session, "ses-", odd) if given_session or participant_id else ""
        if person is not None and session is not None:
            kept = {name: cell for name, cell in cells.items() if name not in ("participant_id", "session_id")}
            rows[person, session].append(kept)
    said += [
        Problem(path, kind, f"{LABEL_REMARKS[kind]} ({len(names)}: {examples(names)})") for kind, names in odd.items()
    ]
    return {visit: _agreed(visit, repeats, path, said) for visit, repeats in rows.items()}


def _own_rows(table: TextTable, participant_id: str, path: str, said: list[Problem]) -> list[Cells]:
    """Rows of a table of sessions, but those that name another: they would give one person's age to another."""
    own: list[Cells] = []
    strangers: list[str] = []
    for cells in table.rows:
        named = cells.get("participant_id") or participant_id
        if named in (participant_id, participant_id.removeprefix("sub-")):
            own.append(cells)
        else:
            strangers.append(quoted(named))
    if strangers:
        names = examples(list(dict.fromkeys(strangers)))
        message = (
            f"{len(strangers)} rows name {names}, expected {participant_id} as in the file's name; they are not used. "
            "Find out whose they are; correct the column, or move the rows."
        )
        said.append(Problem(path, "wrong-subject", message))
    return own


def _label(text: str | None, prefix: str, odd: dict[str, list[str]]) -> str | None:
    if text is not None and re.fullmatch(prefix + LABEL, text):
        return text
    if text is not None and re.fullmatch(LABEL, text):
        odd["missing-prefix"].append(text)
        return prefix + text
    odd["bad-label"].append("empty" if text is None else quoted(text))
    return None


def _agreed(visit: Visit, repeats: Sequence[Cells], path: str, said: list[Problem]) -> Cells:
    if len(repeats) == 1:
        return repeats[0]
    conflicts = [name for name in repeats[0] if len({row[name] for row in repeats}) > 1]
    outcome = f"they differ in {examples(conflicts)}, missing now" if conflicts else "they agree, so one is kept"
    message = f"{' '.join(visit).strip()} stands in {len(repeats)} rows; {outcome}. Leave one row."
    said.append(Problem(path, "duplicate-row", message))
    return {name: None if name in conflicts else cell for name, cell in repeats[0].items()}
