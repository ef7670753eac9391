"""What no version of a model has been trained on: how many scans, and whether they look like the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from mlflow import MlflowClient

from infra import layout
from infra.decisions import Chain
from infra.storage import Store
from infra.study import RetrainingSpec
from tasks.science.statistics.baselines import VOLUME_COLUMNS
from tasks.science.statistics.shift import SIGNIFICANCE, shift_table
from tasks.steps.progress import CohortState
from tasks.steps.quality import WORDS, quality_table

SESSION_COLUMNS = ["participant_id", "session_id", "scan_id", "years_since_baseline"]


@dataclass(frozen=True)
class NewScans:
    """Prepared scans of the training cohorts that no version has been trained on.

    Attributes:
        count: How many.
        known: How many some version has been trained on: the others, which the new ones are compared with.
        shifts: Quality figures of the new scans that have moved, the largest first: `figure`, `smd`, `n`.
    """

    count: int
    known: int
    shifts: tuple[dict[str, Any], ...]

    def enough(self, spec: RetrainingSpec) -> bool:
        """Whether there are so many that the study wants another model."""
        return self.count >= spec.min_new_scans

    def shifted(self, spec: RetrainingSpec) -> bool:
        """Whether they look so different that it does."""
        return any(abs(row["smd"]) >= spec.max_shift for row in self.shifts)


def find_new_scans(
    store: Store, chain: Chain, states: list[CohortState], client: MlflowClient | None = None
) -> NewScans:
    """Compare what is prepared for training with what the versions of the model were trained on.

    A version that was refused, or rolled back from, has used its scans too: the same ones would give the same model
    again. The others are the scans of all versions together: several studies may register versions of one model, and
    the newest, or the champion, may know few of these scans and not every scanner. Tissue volumes are no sign of
    another scanner, since they follow age, and take no part.

    Args:
        store: Where fits and figures lie; a version whose fit lies elsewhere is passed over.
        chain: Decisions on the model.
        states: Every cohort of the study.
        client: Of the registry, which has versions that nobody has decided on; None where there is none to ask.
    """
    training = [state for state in states if state.spec.role == "train" and len(state.prepared)]
    if not training:
        return NewScans(0, 0, ())
    tables = [_figures(store, state) for state in training]
    table = pd.concat(tables, ignore_index=True)
    used: set[str] = set().union(*(_rows_of(store, fit_key) for fit_key in _fits_of_versions(chain, client)))
    is_known = table["sha256"].isin(used)
    new, reference = table[~is_known].drop(columns="sha256"), table[is_known].drop(columns="sha256")
    shifts = shift_table(reference, {"new": new}) if len(new) and len(reference) else pd.DataFrame()
    return NewScans(len(new), len(reference), _moved(shifts))


def _fits_of_versions(chain: Chain, client: MlflowClient | None) -> set[str]:
    candidates = [decision["candidate"] for decision in chain.decisions if decision.get("candidate")]
    versions = client.search_model_versions(f"name = '{chain.model}'") if client else []
    # A version of another program's has no such tag, and says nothing of its scans.
    named = [version.tags.get("padflow.fit_key") for version in versions]
    return {str(fit_key) for fit_key in [*(candidate["fit_key"] for candidate in candidates), *named] if fit_key}


def _rows_of(store: Store, fit_key: str) -> set[str]:
    # Scans that the fit left out on purpose count: with the same settings they would be left out again.
    key = f"{layout.fit_folder(fit_key)}/rows.parquet"
    return set(store.read_table(key)["sha256"].astype(str)) if store.exists(key) else set()


def _figures(store: Store, state: CohortState) -> pd.DataFrame:
    figures = quality_table(store, state.spec.name, state.indexed.root, state.recipe_key, state.prepared["sha256"])
    figures = figures.drop(columns=[*WORDS, *VOLUME_COLUMNS, "years_since_baseline"], errors="ignore")
    figures = figures.select_dtypes(["number"])
    session = state.prepared["session_id"].astype(object)
    # A participant of one cohort is not one of another.
    who = state.prepared[[*SESSION_COLUMNS, "sha256"]].assign(
        participant_id=state.spec.name + "/" + state.prepared["participant_id"].astype(str),
        session_id=session.where(session.notna(), "").astype(str),
    )
    return pd.concat([who, figures.set_axis(who.index)], axis=1)


def _moved(table: pd.DataFrame) -> tuple[dict[str, Any], ...]:
    if table.empty:
        return ()
    moved = table[table["p_ks_holm"] < SIGNIFICANCE].sort_values("smd", key=abs, ascending=False)
    rows = moved[["figure", "smd", "n"]].to_dict("records")
    return tuple({"figure": str(row["figure"]), "smd": float(row["smd"]), "n": int(row["n"])} for row in rows)
