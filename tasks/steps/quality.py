"""Quality figures of a cohort's prepared scans as one table, and what the study makes of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from infra import layout
from infra.storage import Store
from infra.study import CohortSpec, QualitySpec
from tasks.records import Excluded
from tasks.science.cohort.outliers import excludable, find_flags

STAGE = "quality"
ABSENT = "absent"
VOLUME = "volume_sha256"
# What a row holds beside its figures.
WORDS = [ABSENT, VOLUME]


def quality_table(store: Store, cohort: str, root: str, recipe_key: str, keys: pd.Series) -> pd.DataFrame:
    """Quality figures of prepared scans.

    They lie in one object per cohort and recipe. Only scans that it lacks are read from their own sidecars, and it is
    written again with them: ten thousand small reads take minutes on an object store, one takes a second.

    Args:
        store: Where they lie.
        cohort: The cohort's name.
        root: Its BIDS root.
        recipe_key: Digest of the recipe.
        keys: The scans' names in the store.

    Returns:
        A column per figure, NaN where one could not be measured, `absent`, which says why, and `volume_sha256` of the
        prepared volume; on the index of `keys`.
    """
    place = layout.quality_table(recipe_key, cohort, root)
    known = store.read_table(place).set_index("key") if store.exists(place) else pd.DataFrame()
    wanted = keys.astype(str)
    lacking = [key for key in dict.fromkeys(wanted) if key not in known.index]
    if lacking:
        texts = store.read_many([layout.prepared_sidecar(recipe_key, key) for key in lacking])
        new = pd.DataFrame([_row(json.loads(text)) for text in texts], index=pd.Index(lacking, name="key"))
        known = pd.concat([known, new]) if len(known) else new
        store.write_table(place, known.rename_axis("key").reset_index())
    if not len(known):
        return pd.DataFrame(index=keys.index)
    return known.reindex(wanted.to_numpy()).set_axis(keys.index)


def _row(sidecar: dict[str, Any]) -> dict[str, Any]:
    figures, absent = sidecar["quality"], sidecar.get("quality_absent", {})
    said = "; ".join(f"{name}: {why}" for name, why in absent.items())
    return {**figures, **dict.fromkeys(absent, np.nan), ABSENT: said, VOLUME: sidecar.get(VOLUME, "")}


def flags_of(
    store: Store, spec: CohortSpec, root: str, recipe_key: str, scans: pd.DataFrame, quality: QualitySpec
) -> pd.DataFrame:
    """What is wrong with each prepared scan of a cohort, by the study's thresholds."""
    figures = quality_table(store, spec.name, root, recipe_key, scans["sha256"]).drop(columns=WORDS, errors="ignore")
    return find_flags(scans["scan_id"], figures, sites_of(scans, quality), quality.max_robust_z, quality.limits)


def sites_of(scans: pd.DataFrame, quality: QualitySpec) -> pd.Series | None:
    """Which scanner each scan comes from, where the cohort says so."""
    sites = scans.get(quality.site)
    # The clinical table writes "" where a site is not known: that is no site of its own.
    return None if sites is None else sites.where(sites != "")


def quality_exclusions(
    store: Store, spec: CohortSpec, root: str, recipe_key: str, scans: pd.DataFrame, quality: QualitySpec
) -> list[Excluded]:
    """Prepared scans that the study does not accept; nothing is read where its thresholds exclude nothing.

    They stay in the store: with other thresholds they are used again, and nothing is computed anew.
    """
    if scans.empty or not quality.can_exclude:
        return []
    flags = flags_of(store, spec, root, recipe_key, scans, quality)
    chosen = excludable(flags, quality.on_limit, quality.on_outlier)
    named = scans.set_index("scan_id")["sha256"]
    return [
        Excluded(str(row["scan_id"]), str(named[row["scan_id"]]), STAGE, str(row["reason"]))
        for row in chosen.to_dict("records")
    ]
