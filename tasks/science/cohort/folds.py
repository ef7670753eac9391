"""Folds of a cross-validation: by subject, alike in age and site."""

from __future__ import annotations

import hashlib

import pandas as pd

AGE_BAND_SHARE = 5
"""Age bands are fifths of the cohort."""


def assign_folds(subjects: pd.DataFrame, folds: int, seed: int) -> pd.Series:
    """Deal subjects into folds, so that each has its share of every age band at every site.

    Subjects are laid in a row, band by band and site by site within a band, in a random order within each, and dealt
    out in turn. So folds differ by one subject at most, and so do their shares of any stratum; `n` strata that are too
    small to be shared out are dealt on from where the one before them ended.

    Args:
        subjects: One row per subject: participant_id, target_years, site (may be missing).
        folds: How many.
        seed: Another seed deals anew: several of them make a repeated cross-validation.

    Returns:
        Fold from 0 of each participant_id, int, indexed by participant_id.

    Raises:
        ValueError: A subject stands in two rows, or there are fewer subjects than folds.
    """
    if subjects["participant_id"].duplicated().any():
        raise ValueError("a subject stands in two rows; folds are dealt to subjects, so give one row for each.")
    if len(subjects) < folds:
        raise ValueError(f"{len(subjects)} subjects cannot be dealt into {folds} folds; give fewer folds.")
    rank = subjects["target_years"].rank(method="first")
    band = ((rank - 1) * AGE_BAND_SHARE // len(subjects)).astype(int)
    draw = [hashlib.sha256(f"{seed}:{name}".encode()).hexdigest() for name in subjects["participant_id"]]
    laid = pd.DataFrame(
        {
            "name": subjects["participant_id"],
            "band": band,
            "site": subjects["site"].fillna("").astype(str),
            "draw": draw,
        }
    ).sort_values(["band", "site", "draw"])
    return pd.Series(range(len(laid)), index=pd.Index(laid["name"], name="participant_id")) % folds


def nested_subset(participants: list[str], n_subjects: int, seed: int) -> set[str]:
    """Choose some subjects, so that a smaller number is a part of a larger one: a learning curve adds, never swaps.

    >>> small, large = nested_subset(["a", "b", "c", "d"], 2, 0), nested_subset(["a", "b", "c", "d"], 3, 0)
    >>> len(small), small < large
    (2, True)
    """
    ordered = sorted(participants, key=lambda name: hashlib.sha256(f"subset:{seed}:{name}".encode()).hexdigest())
    return set(ordered[:n_subjects])
