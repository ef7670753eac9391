"""Fit the study's model on its training cohort and register it."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.progress_bars import console, epoch_bar, progress_bars
from flows.workspace import NotReady, Workspace, open_workspace
from tasks.steps.progress import CohortState
from tasks.steps.train import TrainingPlan, member_done, plan_training, record_fit, register_fit, train_member


@flow(name="train", validate_parameters=False)
def train(study_path: str) -> dict[str, Any]:
    """Train every ensemble member that the store lacks, then register the ensemble where it is not yet.

    Returns:
        Name, version, address and run of the registered model.

    Raises:
        NotReady: Scans are missing, or there are too few to train on.
    """
    workspace = open_workspace(study_path)
    states = workspace.stored_states()
    refuse_missing(states)
    plan = plan_training(workspace.study, workspace.store, states)
    _refuse_empty(plan)
    record = workspace.fit_record(plan.key) or _fit(workspace, plan)
    registered = workspace.registration(plan.key)
    if registered is None:
        registered = register_fit(workspace.study, workspace.settings, workspace.store, record, states)
    return registered


def _fit(workspace: Workspace, plan: TrainingPlan) -> dict[str, Any]:
    study, store = workspace.study, workspace.store
    with progress_bars() as progress:
        for number, seed in enumerate(study.seeds, start=1):
            if member_done(store, plan.key, seed):
                continue
            description = f"train {number} of {len(study.seeds)}" if len(study.seeds) > 1 else "train"
            on_epoch = epoch_bar(progress, description, study.training.epochs)
            train_member(study, workspace.settings, store, plan, seed, on_epoch)
    return record_fit(study, store, plan)


def refuse_missing(states: list[CohortState]) -> None:
    """Stop a later stage from running on a part of the study as if it were the whole."""
    left = {state.spec.name: len(state.missing) for state in states if state.missing}
    if left:
        named = ", ".join(f"{count} of {name}" for name, count in left.items())
        raise NotReady(f"scans are not preprocessed yet: {named}; run `padflow preprocess` or `padflow run` first")


def _refuse_empty(plan: TrainingPlan) -> None:
    counts = plan.rows["split"].value_counts().to_dict()
    if counts.get("train", 0) < 2 or counts.get("validation", 0) < 1:
        raise NotReady(
            f"too few prepared scans to train: found {counts or 'none'}, expected at least 2 for training and 1 for "
            "validation. `padflow status` tells what became of the others."
        )
    if counts.get("calibration", 0) < 3:
        console.print("fewer than 3 calibration scans: no age-bias correction will be fitted", style="yellow")
