"""The same scans made worse: which are prepared, what the model makes of them, how its error grows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from infra import layout, tracking
from infra.settings import Settings
from infra.storage import Store
from tasks.records import ScanRef, digest
from tasks.science.imaging.degradations import Degradation
from tasks.science.report.csv_files import csv_text
from tasks.science.statistics.conformal import one_scan_per_subject
from tasks.science.statistics.robustness import robustness_table
from tasks.steps.exclusions import read_exclusions
from tasks.steps.prepare import preparation_key
from tasks.steps.progress import CohortState, FittedModel, finished_scans, predictions_key
from tasks.steps.validate import load_registered, predict_prepared, predictions_of

SCAN_COLUMNS = [
    "cohort", "participant_id", "session_id", "scan_id", "kind", "strength", "age_years", "original_age_years",
    "predicted_age_years", "status", "reason", "turned_back",
]  # fmt: skip


@dataclass(frozen=True)
class DegradedScans:
    """Scans of one cohort with one degradation: each is prepared, rejected or missing.

    Attributes:
        state: The cohort.
        degradation: What was done to them.
        recipe_key: Names their folder in the store.
        scans: Rows of the cohort's prepared scans.
        prepared: Whether each is there, on the index of `scans`.
        rejected: Key of a scan → `stage` and `reason`.
        missing: What is to be done.
    """

    state: CohortState
    degradation: Degradation
    recipe_key: str
    scans: pd.DataFrame = field(repr=False)
    prepared: pd.Series = field(repr=False)
    rejected: dict[str, dict[str, str]] = field(repr=False)
    missing: tuple[ScanRef, ...] = field(repr=False)


def chosen_scans(model: FittedModel) -> dict[str, pd.DataFrame]:
    """One scan each of some subjects of each external cohort, spread evenly over the training ages; empty where off."""
    spec, chosen = model.study.validation.robustness, {}
    for state in model.scored:
        # A scan outside the training ages gets no age, however good it is.
        within = state.prepared["age_years"].between(*model.record["age_range_years"])
        known = state.prepared[within & state.prepared["target_years"].notna()]
        if state.spec.role != "external" or state.spec.apart or known.empty or not spec.subjects:
            continue
        first = one_scan_per_subject(known).sort_values(["age_years", "scan_id"], ignore_index=True)
        few = min(spec.subjects, len(first))
        places = np.unique(np.linspace(0, len(first) - 1, few).round().astype(int))
        chosen[state.spec.name] = first.iloc[places].reset_index(drop=True)
    return chosen


def degraded_scans(store: Store, model: FittedModel) -> list[DegradedScans]:
    """Where the scans that a model is tried on stand, by one listing per degradation."""
    chosen, study = chosen_scans(model), model.study
    if not chosen:
        return []
    found = []
    for degradation in study.validation.robustness.degradations:
        key = preparation_key(study.recipe, degradation)
        marks = finished_scans(store, key).marks
        for state in model.scored:
            scans = chosen.get(state.spec.name)
            if scans is None:
                continue
            shas = scans["sha256"].astype(str)
            prepared = shas.map(lambda sha, held=marks: f"{sha}.json" in held and f"{sha}.npy" in held).astype(bool)
            refused = {sha: marks[f"{sha}.excluded.json"] for sha in shas[~prepared] if f"{sha}.excluded.json" in marks}
            rejected = read_exclusions(store, key, refused)
            missing = state.indexed.scan_refs(scans[~prepared & ~shas.isin(list(rejected))])
            found.append(DegradedScans(state, degradation, key, scans, prepared, rejected, tuple(missing)))
    return found


def robustness_key(model: FittedModel) -> str:
    """Names what a model makes of the degraded scans; "" where the study asks for none."""
    chosen = chosen_scans(model)
    if not chosen:
        return ""
    spec = model.study.validation
    scans = [[name, table[["sha256", "target_years"]].values.tolist()] for name, table in chosen.items()]
    keys = [preparation_key(model.study.recipe, each) for each in spec.robustness.degradations]
    predicted = [predictions_key(model.fit_key, state) for state in model.scored if state.spec.name in chosen]
    return digest(["robustness", 1, spec.resamples, spec.seed, keys, scans, predicted])


@task(task_run_name="robustness", cache_policy=NO_CACHE)
def measure_robustness(
    settings: Settings, store: Store, model: FittedModel, on_start: Callable[[int], Callable[[], None]]
) -> pd.DataFrame:
    """Predict every degraded scan by the registered model, and compare its error with that of the scans as they were.

    Returns:
        The table of `robustness_table`; each scan stands beside it in the store.
    """
    degraded = degraded_scans(store, model)
    tracking.connect(settings)
    loaded = load_registered(store, model.registered)
    advance = on_start(sum(int(each.prepared.sum()) for each in degraded))
    tables = [_scored(store, model, each, loaded, advance) for each in degraded]
    scans = pd.concat(tables, ignore_index=True)
    spec = model.study.validation
    table = robustness_table(scans, spec.resamples, spec.seed)
    key = robustness_key(model)
    client = tracking.connect(settings)
    for name, each in (("scans", scans), ("robustness", table)):
        text = csv_text(each)
        store.write(layout.robustness_table(key, name, "csv"), text.encode())
        shown = name if name == "robustness" else f"robustness-{name}"
        tracking.log_text(client, model.registered["run_id"], text, f"validation/{shown}.csv")
    store.write_table(layout.robustness_table(key, "scans", "parquet"), scans)
    # Last, since it says that all is there.
    store.write_table(layout.robustness_table(key, "robustness", "parquet"), table)
    return table


def _scored(
    store: Store, model: FittedModel, degraded: DegradedScans, loaded: object, advance: Callable[[], None]
) -> pd.DataFrame:
    scans, key = degraded.scans, degraded.recipe_key
    shas = scans["sha256"].astype(str)
    there = scans[degraded.prepared]
    rows = scans[["participant_id", "session_id", "scan_id", "sha256"]].assign(
        cohort=degraded.state.spec.name,
        kind=degraded.degradation.kind,
        strength=degraded.degradation.strength,
        age_years=scans["target_years"],
        status="rejected",
        reason=shas.map(
            lambda sha: "{stage}: {reason}".format(**degraded.rejected[sha]) if sha in degraded.rejected else ""
        ),
        turned_back=False,
    )
    original = predictions_of(store, model.fit_key, degraded.state).set_index("scan_id")["predicted_age_years"]
    rows["original_age_years"] = scans["scan_id"].map(original)
    rows["predicted_age_years"] = np.nan
    if len(there):
        keys = [layout.prepared_volume(key, sha) for sha in there["sha256"]]
        outputs = predict_prepared(store, loaded, keys, there["age_years"].astype(float).to_numpy(), advance)
        for name in ("predicted_age_years", "status", "reason"):
            rows.loc[there.index, name] = outputs[name].to_numpy()
        rows.loc[there.index, "turned_back"] = _turned_back(store, key, there["sha256"])
    return rows[SCAN_COLUMNS]


def _turned_back(store: Store, key: str, shas: pd.Series) -> list[bool]:
    """Whether preprocessing found the head to lie otherwise than its header says."""
    texts = store.read_many([layout.prepared_sidecar(key, str(sha)) for sha in shas])
    return [float(json.loads(text)["quality"].get("header_turn_degrees", 0.0)) > 0 for text in texts]


def stored_robustness(store: Store, model: FittedModel) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of growing errors and the scans that it rests on; both empty where the study asks for none."""
    key = robustness_key(model)
    if not key:
        return pd.DataFrame(), pd.DataFrame()
    table, scans = (store.read_table(layout.robustness_table(key, name, "parquet")) for name in ("robustness", "scans"))
    return table, scans


def is_measured(store: Store, model: FittedModel) -> bool:
    """Whether there is nothing to do."""
    key = robustness_key(model)
    return not key or store.exists(layout.robustness_table(key, "robustness", "parquet"))
