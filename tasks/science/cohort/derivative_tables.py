"""Tables of a derivatives data set: whose scans are there, how good they are, and which are not there and why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from .manifest import MANIFEST_DTYPES

# Of the prepared scans' table, what belongs to a file and not to a person.
OF_SCANS = (frozenset(MANIFEST_DTYPES) | {"image_sha256", "companions", "template"}) - {"participant_id", "session_id"}
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
COLUMN_NOTES = {
    "age": {"Description": "Age at the scan, or at the first session that is here", "Units": "years"},
    "sex": {"Description": "Sex", "Levels": {"F": "female", "M": "male"}},
    "site": {"Description": "Where the scan was made"},
    "years_since_baseline": {"Description": "Time since the first session", "Units": "years"},
}
OF_COHORT = "A column of the raw data set's participants.tsv or sessions.tsv"


def people_and_sessions(scans: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Split the clinical columns of scans into a table of people and tables of their sessions.

    BIDS wants one row per person in participants.tsv; what differs between a person's sessions stands in that person's
    sessions table, and the age of the first session in both.

    Args:
        scans: Prepared scans with their clinical columns.

    Returns:
        participants.tsv, and participant_id to sessions table (none where the cohort has no sessions).
    """
    own = [str(name) for name in scans.columns if name not in OF_SCANS]
    # BIDS knows `age`, in years.
    table = scans[own].drop(columns="age", errors="ignore").rename(columns={"age_years": "age"})
    others = [name for name in table.columns if name not in ("participant_id", "session_id")]
    by_person = table.groupby("participant_id", sort=True)
    varying = [name for name in others if (by_person[name].nunique(dropna=False) > 1).any()]
    lasting = [name for name in others if name not in varying or name == "age"]
    people = by_person[lasting].first().reset_index() if lasting else table[["participant_id"]].drop_duplicates()
    if not (table["session_id"] != "").any():
        return people, {}
    of_sessions = table[["participant_id", "session_id", *dict.fromkeys(["age", *varying])]]
    return people, {
        str(person): rows.drop(columns="participant_id").reset_index(drop=True)
        for person, rows in of_sessions.groupby("participant_id")
    }


def quality_table(scans: pd.DataFrame, files: Sequence[str], figures: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    """One row per scan that is there, with the figures by which to judge it.

    Args:
        scans: Prepared scans, manifest columns.
        files: The first image of each, below the data set's root.
        figures: Quality of each.
    """
    who = scans[["scan_id", "participant_id", "session_id", "run"]].reset_index(drop=True)
    return pd.concat([who.assign(file=list(files)), pd.DataFrame(list(figures))], axis=1)


def excluded_table(rows: Sequence[tuple[str, str, str]]) -> pd.DataFrame:
    """One row per indexed scan that is not there.

    Args:
        rows: scan_id, stage and reason.

    Returns:
        Columns scan_id, participant_id, stage, reason; sorted by scan.
    """
    ordered = sorted(rows)
    table = pd.DataFrame(ordered, columns=["scan_id", "stage", "reason"], dtype="str")
    people = [scan_id.rsplit("/", 1)[-1].split("_")[0] for scan_id, _, _ in ordered]
    table.insert(1, "participant_id", pd.Series(people, dtype="str"))
    return table


def tsv(table: pd.DataFrame) -> bytes:
    """Write a table as BIDS wants it: UTF-8, tabs, `n/a` for what is missing; no cell can break a line."""
    texts = table.rename(columns=_cell)
    for name in texts.select_dtypes(exclude="number").columns:
        texts[name] = texts[name].map(_cell, na_action="ignore").replace("", "n/a")
    lines = [list(texts.columns), *texts.astype("object").where(texts.notna(), "n/a").to_numpy().tolist()]
    return "".join("\t".join(str(cell) for cell in line) + "\n" for line in lines).encode()


def column_notes(table: pd.DataFrame) -> dict[str, Any]:
    """Describe the columns of a table of people or sessions, those of the cohort by where they come from."""
    names = [str(name) for name in table.columns if name not in ("participant_id", "session_id")]
    return {_cell(name): COLUMN_NOTES.get(name, {"Description": OF_COHORT}) for name in names}


def _cell(text: Any) -> str:
    return CONTROL_CHARACTERS.sub(" ", str(text)).strip()
