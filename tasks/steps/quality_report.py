"""What the report shows of image quality: every figure, what stands out, and the worst scans to look at."""

from __future__ import annotations

import numpy as np
import pandas as pd

from infra import layout
from infra.storage import Store
from infra.study import Study
from tasks.science.cohort.outliers import rank_worst
from tasks.science.imaging.contact_sheet import SheetEntry, contact_sheet_png
from tasks.steps.progress import CohortState
from tasks.steps.quality import STAGE, VOLUME, WORDS, flags_of, quality_table, sites_of

WORST, USUAL = 9, 3


def judged_scans(state: CohortState) -> pd.DataFrame:
    """Prepared scans of a cohort with those that its thresholds exclude, which are the first to be looked at."""
    poor = [item.scan_id for item in state.excluded if item.stage == STAGE]
    scans = state.selection.scans
    return scans[scans["scan_id"].isin([*state.prepared["scan_id"], *poor])].reset_index(drop=True)


def quality_figures(store: Store, states: list[CohortState]) -> pd.DataFrame:
    """Every figure of every prepared scan: `cohort`, `scan_id`, figures, `absent`."""
    tables = []
    for state in states:
        scans = judged_scans(state)
        if len(scans):
            figures = quality_table(store, state.spec.name, state.indexed.root, state.recipe_key, scans["sha256"])
            figures = figures.drop(columns=VOLUME, errors="ignore")
            named = pd.DataFrame({"cohort": state.spec.name, "scan_id": scans["scan_id"]})
            tables.append(pd.concat([named, figures], axis=1))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["cohort", "scan_id"])


def quality_flags(study: Study, store: Store, states: list[CohortState]) -> pd.DataFrame:
    """Everything that the study's thresholds find: `cohort`, then as `find_flags` gives it, and what became of it."""
    tables = []
    for state in states:
        scans = judged_scans(state)
        if scans.empty:
            continue
        flags = flags_of(store, state.spec, state.indexed.root, state.recipe_key, scans, study.quality)
        excluded = flags["scan_id"].isin([item.scan_id for item in state.excluded if item.stage == STAGE])
        fate = np.where(excluded, "excluded", "used")
        tables.append(flags.assign(cohort=state.spec.name, fate=fate))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def contact_sheets(study: Study, store: Store, states: list[CohortState]) -> tuple[tuple[str, bytes], ...]:
    """The worst scans of each cohort beside some at random, as one picture per cohort."""
    sheets = []
    for state in states:
        scans = judged_scans(state)
        if scans.empty:
            continue
        figures = quality_table(store, state.spec.name, state.indexed.root, state.recipe_key, scans["sha256"])
        ranked = rank_worst(figures.drop(columns=WORDS, errors="ignore"), sites_of(scans, study.quality))
        worst, rest = ranked.iloc[:WORST], ranked.iloc[WORST:]
        # The same report every time: the draw is seeded by who there is.
        chosen = np.random.default_rng(len(scans)).permutation(len(rest))[:USUAL]
        parts = [_entries(store, state.recipe_key, scans, part) for part in (worst, rest.iloc[np.sort(chosen)])]
        if any(parts):
            sheets.append((state.spec.name, contact_sheet_png(*parts)))
    return tuple(sheets)


def _entries(store: Store, recipe_key: str, scans: pd.DataFrame, ranked: pd.DataFrame) -> list[SheetEntry]:
    keys = [layout.montage(recipe_key, str(scans.at[index, "sha256"])) for index in ranked.index]
    entries = []
    for index, key, row in zip(ranked.index, keys, ranked.to_dict("records"), strict=True):
        far = "" if pd.isna(row["robust_z"]) else f" (robust z {row['robust_z']:.1f})"
        entries.append(SheetEntry(str(scans.at[index, "scan_id"]), f"{row['figures']}{far}", store.read(key)))
    return entries
