"""Who trains, who validates, who calibrates and who tests: by subject, for good."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import get_args

import pandas as pd

from ...records import Role, SplitName
from .problems import examples

SPLIT_NAMES: tuple[str, ...] = get_args(SplitName)
ROLES: tuple[str, ...] = get_args(Role)
FRACTION_TOLERANCE = 1e-9


def assign_splits(
    existing: pd.DataFrame | None, participants: Sequence[str], fractions: Mapping[str, float], seed: int
) -> pd.DataFrame:
    """Give each new subject a split and leave all others where they are, so that a growing cohort never leaks.

    New subjects come in the order of a hash of seed and name, and each goes to the split furthest below its share of
    the present subjects; empty splits are filled first. So each split ends within one subject of its share, where
    its share is at least one and earlier assignments allow it.

    Args:
        existing: Columns participant_id and split of an earlier call, or None. Its subjects keep their split even if
            they are absent now, lest one that comes back changes sides.
        participants: Names of the present subjects, in any order; unique across cohorts.
        fractions: Share of each of train, validation, calibration, test; a split left out has none.
        seed: Another seed gives other splits.

    Returns:
        Columns participant_id and split (text), sorted by participant_id: the existing rows and the new ones.

    Raises:
        ValueError: Fractions are not shares of a whole, a name is unknown, or `existing` contradicts itself.
    """
    _refuse_bad_fractions(fractions)
    split_of = _existing_splits(existing)
    present = set(participants)
    counts = dict.fromkeys(SPLIT_NAMES, 0)
    for participant_id in present & split_of.keys():
        counts[split_of[participant_id]] += 1
    targets = {name: fractions[name] * len(present) for name in SPLIT_NAMES if fractions.get(name, 0) > 0}
    for participant_id in sorted(present - split_of.keys(), key=lambda name: (_draw(seed, name), name)):
        chosen = max(targets, key=lambda name: (counts[name] == 0, targets[name] - counts[name]))
        counts[chosen] += 1
        split_of[participant_id] = chosen
    rows = sorted(split_of.items())
    return pd.DataFrame(rows, columns=["participant_id", "split"]).astype("str")


def _draw(seed: int, participant_id: str) -> str:
    return hashlib.sha256(f"{seed}:{participant_id}".encode()).hexdigest()


def _refuse_bad_fractions(fractions: Mapping[str, float]) -> None:
    unknown = sorted(set(fractions) - set(SPLIT_NAMES))
    if unknown:
        raise ValueError(f"unknown splits {', '.join(unknown)}; expected some of {', '.join(SPLIT_NAMES)}.")
    outside = [f"{name} = {share}" for name, share in fractions.items() if not 0 <= share <= 1]
    if outside:
        raise ValueError(f"fractions {', '.join(outside)}: expected shares from 0 to 1.")
    total = math.fsum(fractions.values())
    if abs(total - 1) > FRACTION_TOLERANCE:
        raise ValueError(f"fractions sum to {total:g}, expected 1. Change one so that {dict(fractions)} sums to 1.")


def _existing_splits(existing: pd.DataFrame | None) -> dict[str, str]:
    if existing is None:
        return {}
    pairs = existing[["participant_id", "split"]].drop_duplicates()
    unknown = sorted(set(pairs["split"].astype("str").fillna("missing")) - set(SPLIT_NAMES))
    if unknown:
        raise ValueError(f"existing splits hold {', '.join(unknown)}; expected some of {', '.join(SPLIT_NAMES)}.")
    twice = pairs["participant_id"][pairs["participant_id"].duplicated()].tolist()
    if twice:
        raise ValueError(f"existing splits put {examples(twice)} in two splits; leave each in the one it trained in.")
    return dict(zip(pairs["participant_id"].tolist(), pairs["split"].tolist(), strict=True))


def refuse_leaks(rows: pd.DataFrame) -> None:
    """Stop a study whose evaluation would meet what its training has seen.

    Args:
        rows: Every scan of a study: scan_id, participant_id, sha256, split, cohort, role. Rows of role `train` have a
            split; those of role `external` and `clinical` have none that counts.

    Raises:
        ValueError: A row cannot be checked; a subject or content is in two splits; or a subject or content of an
            external or clinical cohort is among the training cohorts' scans, whichever their split.
    """
    rows = rows.reset_index(drop=True)
    _refuse_unchecked(rows)
    subject = rows["cohort"] + "/" + rows["participant_id"]
    ours = rows["role"] == "train"
    for what, key in (("subject", subject), ("content (sha256)", rows["sha256"])):
        splits = rows["split"][ours].groupby(key[ours]).transform("nunique")
        crossing = rows[ours][splits > 1]
        if len(crossing):
            raise ValueError(
                f"the same {what} is in two splits: {_named(crossing, key)}. "
                "Assign splits by subject with `assign_splits`; remove copies of a scan under other names."
            )
        outside = rows[~ours & key.isin(set(key[ours]))]
        if len(outside):
            inside = rows[ours & key.isin(set(key[outside.index]))]
            raise ValueError(
                f"the same {what} is in training and in evaluation: {_named(outside, key)} against "
                f"{_named(inside, key)}. Narrow `select` so that each is in one cohort's role only."
            )


def _refuse_unchecked(rows: pd.DataFrame) -> None:
    roles = sorted(set(rows["role"].astype("str").fillna("missing")) - set(ROLES))
    if roles:
        raise ValueError(f"role {', '.join(roles)}: expected one of {', '.join(ROLES)}.")
    for name in ("scan_id", "participant_id", "sha256", "cohort"):
        blank = rows[rows[name].isna() | (rows[name] == "")]
        if len(blank):
            raise ValueError(f"{len(blank)} rows have no {name}, so leaks cannot be ruled out. Index the cohort again.")
    unassigned = rows[(rows["role"] == "train") & ~rows["split"].isin(SPLIT_NAMES)]
    if len(unassigned):
        raise ValueError(
            f"scans of training cohorts have no split among {', '.join(SPLIT_NAMES)}: "
            f"{examples(unassigned['scan_id'].tolist())}. Assign one with `assign_splits`."
        )


def _named(rows: pd.DataFrame, key: pd.Series) -> str:
    ordered = rows.assign(key=key[rows.index]).sort_values(["key", "scan_id"])
    where = ordered["split"].where(ordered["role"] == "train", ordered["role"])
    return examples([f"{scan} ({part})" for scan, part in zip(ordered["scan_id"], where, strict=True)])
