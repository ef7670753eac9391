"""Which of a cohort's scans a study uses, and why not the others: every indexed scan is accounted for."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd

from ...records import Recipe, content_key
from .bids import BidsIndex
from .companions import with_companions
from .manifest import MANIFEST_DTYPES, UNREAD_REASONS, check_manifest, same_content, unread_kind
from .problems import examples
from .tsv import as_number

SELECTION_STAGE = "selection"
# A scan that another of the same session stands for is no loss, so it has a stage of its own.
SUPERSEDED = "superseded"
# Nor is one whose person no longer agrees to its use.
CONSENT_STAGE = "consent"
CONSENT_WITHDRAWN = "consent withdrawn"
NOT_MAGNITUDE = frozenset({"part-phase", "part-real", "part-imag"})
RERUN_REMARK = "the last run is used, since a repeat is usually made because the first was bad"
VARIANT_REMARK = "one image per session, the plainest name first; to use this one, select its `entities`"
OF_ONE_FILE = frozenset({"scan_id", "run", "modality", "path", "size_bytes", "version", "sha256", "entities"})
EVERYTHING: Mapping[str, Sequence[str | float | int]] = MappingProxyType({})


@dataclass(frozen=True)
class Selection:
    """A cohort's scans in three parts: every manifest row stands in exactly one.

    Attributes:
        scans: Manifest rows that the study uses, each joined with its session's clinical row. `sha256` names all
            that a scan is prepared from; `image_sha256` its own file; `companions` the scan_ids of the other images
            that it needs, joined by blanks; `template` the one for its age.
        excluded: Rows that the study asked for and cannot use: scan_id, participant_id, sha256, stage, reason.
        unused: Rows that the study did not ask for: scan_id, reason.
    """

    scans: pd.DataFrame
    excluded: pd.DataFrame
    unused: pd.DataFrame


def select_scans(
    index: BidsIndex,
    recipe: Recipe,
    select: Mapping[str, Sequence[str | float | int]] = EVERYTHING,
    withdrawn: Collection[str] = (),
) -> Selection:
    """Take at most one usable scan per session, with its age, and say why each other scan is not taken.

    Where a recipe needs several images of a session, the first contrast's stands for the scan, and goes with the
    plainest usable image of each other contrast.

    Args:
        index: A cohort's index.
        recipe: Says which contrasts a session must have.
        select: Column of the manifest or clinical table to accepted values; a scan must match every column.
        withdrawn: scan_ids that are excluded whatever was asked for, since consent to their use is withdrawn.

    Returns:
        The partition of the manifest.

    Raises:
        ValueError: The cohort has no scan of a contrast, or `select` names a column or value that is not there.
    """
    rows = check_manifest(index.manifest).merge(
        index.clinical, on=["participant_id", "session_id"], how="left", validate="many_to_one"
    )
    for contrast in recipe.contrasts:
        _refuse_absent_modality(rows, contrast)
    unused = _why_unused(rows, index.clinical, recipe.contrasts, select)
    reasons = _why_excluded(rows, unused == "")
    gone = rows["scan_id"].isin(withdrawn) & rows["modality"].isin(recipe.contrasts)
    unused, reasons = unused.where(~gone, ""), reasons.where(~gone, CONSENT_WITHDRAWN)
    needed = _with_template(with_companions(rows.assign(unused=unused, why=reasons), recipe.contrasts), recipe)
    unused, reasons = needed.pop("unused"), needed.pop("why")
    asked, usable = unused == "", reasons == ""
    sha256_of = dict(zip(rows["scan_id"], rows["sha256"], strict=True))
    excluded = rows.loc[asked & ~usable, ["scan_id", "participant_id", "sha256"]]
    return Selection(
        scans=_with_keys(needed[asked & usable], sha256_of).reset_index(drop=True),
        excluded=excluded.assign(stage=_stages(reasons[asked & ~usable]), reason=reasons[asked & ~usable])
        .astype("str")
        .reset_index(drop=True),
        unused=rows.loc[~asked, ["scan_id"]].assign(reason=unused[~asked]).astype("str").reset_index(drop=True),
    )


def _with_template(rows: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    if not recipe.templates:
        return rows.assign(template="")
    names = [recipe.template_for(12.0 * age) for age in rows["age_years"]]
    served = pd.Series([name is not None for name in names], rows.index)
    why = _reasons(rows, ~served & rows["age_years"].notna(), "no template of the recipe serves its age")
    return rows.assign(template=[name or "" for name in names], why=rows["why"].where(rows["why"] != "", why))


def _with_keys(scans: pd.DataFrame, sha256_of: Mapping[str, str]) -> pd.DataFrame:
    """Name what each scan is prepared from: its own bytes, its companions' and its template."""
    parts = zip(scans["sha256"], scans["companions"], scans["template"], strict=True)
    keys = [
        content_key((own, *(sha256_of[name] for name in others.split())), template) for own, others, template in parts
    ]
    return scans.assign(image_sha256=scans["sha256"], sha256=pd.Series(keys, scans.index, dtype="str"))


def _refuse_absent_modality(rows: pd.DataFrame, modality: str) -> None:
    found = sorted(set(rows["modality"]))
    if modality not in found:
        held = f"scans of {', '.join(found)}" if found else "no scans at all"
        raise ValueError(
            f"modality {modality!r}: the cohort holds {held}{_nearest(modality, found)}. "
            "Change the study's modality, or see the index's problems."
        )


def _why_unused(
    rows: pd.DataFrame,
    clinical: pd.DataFrame,
    contrasts: Sequence[str],
    select: Mapping[str, Sequence[str | float | int]],
) -> pd.Series:
    why = _reasons(rows, ~rows["modality"].isin(contrasts), "another modality: " + rows["modality"])
    for column, accepted in select.items():
        values = _accepted_values(rows, clinical, column, accepted)
        shown = rows[column].astype("str").fillna("missing")
        # What tells files of one session apart chooses the scan, not the images that go with it.
        asked = rows["modality"] == contrasts[0] if column in OF_ONE_FILE else pd.Series(True, rows.index)
        outside = _reasons(rows, asked & ~rows[column].isin(values), f"not selected: {column} is " + shown)
        why = why.where(why != "", outside)
    return why


def _stages(reasons: pd.Series) -> pd.Series:
    kinds = [reasons.str.startswith("superseded by "), reasons == CONSENT_WITHDRAWN]
    return pd.Series(np.select(kinds, [SUPERSEDED, CONSENT_STAGE], SELECTION_STAGE), reasons.index, dtype="str")


def _reasons(rows: pd.DataFrame, applies: pd.Series, reason: pd.Series | str) -> pd.Series:
    """The reason where it applies, "" elsewhere."""
    return pd.Series(np.where(applies, reason, ""), rows.index, dtype="str")


def _accepted_values(
    rows: pd.DataFrame, clinical: pd.DataFrame, column: str, accepted: Sequence[str | float | int]
) -> list[str | float]:
    """Values that no row holds are refused: a misspelt group would otherwise be an empty study."""
    names = [str(name) for name in rows.columns]
    if column not in names:
        raise ValueError(
            f"select names the column {column!r}, which the cohort does not have{_nearest(column, names)}. "
            f"Its columns: {', '.join(names)}."
        )
    if isinstance(accepted, str) or not isinstance(accepted, Sequence) or not accepted:
        raise ValueError(f"select {column} = {accepted!r}: expected a list of accepted values, such as ['control'].")
    held = rows[column] if column in MANIFEST_DTYPES else pd.concat([rows[column], clinical[column]])
    values = [_as_value(value, held, column) for value in accepted]
    for value in values:
        if not (held == value).any():
            present = [str(other) for other in sorted(held.dropna().unique())]
            raise ValueError(
                f"select asks for {column} = {value!r}, which no row has{_nearest(str(value), present)}. "
                f"Values there are: {examples(present)}."
            )
    return values


def _as_value(value: str | float, column: pd.Series, name: str) -> str | float:
    if not pd.api.types.is_numeric_dtype(column):
        return str(value)
    number = as_number(value) if isinstance(value, str) else float(value)
    if number is None:
        raise ValueError(f"select asks for {name} = {value!r}, but the column holds numbers. Give a number.")
    return number


def _nearest(name: str, names: Sequence[str]) -> str:
    by_lower = {other.casefold(): other for other in names}
    close = difflib.get_close_matches(name.casefold(), list(by_lower), n=1, cutoff=0.5)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""


def _why_excluded(rows: pd.DataFrame, asked: pd.Series) -> pd.Series:
    parts = rows["entities"].str.split("_")
    not_magnitude = pd.Series([not NOT_MAGNITUDE.isdisjoint(names) for names in parts], rows.index)
    files = zip(rows["size_bytes"], rows["version"], strict=True)
    unread = [UNREAD_REASONS.get(unread_kind(size_bytes, version), "") for size_bytes, version in files]
    why = pd.Series(unread, rows.index, dtype="str")
    for reasons in (
        _reasons(rows, not_magnitude, "not a magnitude image: " + rows["entities"]),
        _why_ambiguous(rows),
        _reasons(rows, rows["age_years"].isna(), "no age; give one in participants.tsv or in sessions.tsv"),
    ):
        why = why.where(why != "", reasons)
    return why.where(why != "", _why_superseded(rows, asked & (why == "")))


def _why_ambiguous(rows: pd.DataFrame) -> pd.Series:
    """Equal bytes under two names belong to at most one of them, and nobody can tell to which."""
    why = [""] * len(rows)
    slots = list(zip(rows["participant_id"], rows["session_id"], rows["modality"], strict=True))
    names = rows["scan_id"].tolist()
    for repeats in same_content(rows):
        if len({slots[position] for position in repeats}) > 1:
            reason = f"the same bytes stand under {examples([names[position] for position in repeats])}"
            for position in repeats:
                why[position] = f"{reason}; remove those that are not theirs"
    return pd.Series(why, rows.index, dtype="str")


def _why_superseded(rows: pd.DataFrame, usable: pd.Series) -> pd.Series:
    """One scan per session and contrast: the plainest name, then the last run."""
    sessions = list(zip(rows["participant_id"], rows["session_id"], rows["modality"], strict=True))
    names, entities, runs = rows["scan_id"].tolist(), rows["entities"].tolist(), rows["run"].tolist()
    candidates = [position for position, is_usable in enumerate(usable) if is_usable]
    best_last = sorted(candidates, key=lambda at: (entities[at], -int(runs[at] or 0), names[at]), reverse=True)
    kept = {sessions[position]: position for position in best_last}
    why = [""] * len(rows)
    for position in candidates:
        best = kept[sessions[position]]
        if position != best:
            remark = RERUN_REMARK if entities[position] == entities[best] else VARIANT_REMARK
            why[position] = f"superseded by {names[best]}: {remark}"
    return pd.Series(why, rows.index, dtype="str")
