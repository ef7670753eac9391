"""Fit the study's model on its training cohort and register it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import flow

from flows.progress_bars import console, counter, epoch_bar, progress_bars
from flows.run_names import run_name
from flows.workspace import NotReady, Workspace, open_workspace
from infra import layout
from infra.local_files import one_at_a_time
from lightning_modules.network_check import check_network
from tasks.science.imaging.grid import grid_shape
from tasks.steps.members import Member, members_of
from tasks.steps.progress import CohortState
from tasks.steps.register import register_fit
from tasks.steps.train import TrainingPlan, plan_training, record_fit, train_members


@flow(name="train", flow_run_name=run_name, validate_parameters=False)
def train(study_path: str) -> dict[str, Any]:
    """Train every member of every model that the store lacks, then register each model where it is not yet.

    Returns:
        Name, version, address and run of each registered model, by the model's name; "" where the study has one alone.

    Raises:
        NotReady: Scans are missing, or there are too few to train on.
    """
    workspace = open_workspace(study_path)
    check_networks(workspace)
    models = list(workspace.by_model(workspace.stored_states()))
    # Every leak and every missing scan is found before the first model is trained.
    plans = []
    for arm, states in models:
        refuse_missing(states)
        plans.append(plan_training(arm.study, arm.store, states))
        refuse_too_few(plans[-1])
    registered = {}
    for (arm, states), plan in zip(models, plans, strict=True):
        # A scheduled run and one by hand may want the same model: it is fitted and registered once.
        with one_at_a_time(arm.settings.home / "training" / f"{plan.key[: layout.KEY_LENGTH]}.lock"):
            record = arm.fit_record(plan.key) or _fit(arm, plan)
            found = arm.registration(plan.key)
            if found is None:
                found = register_fit(arm.study, arm.settings, arm.store, record, states)
        registered[arm.study.arm] = found
    return registered


def check_networks(workspace: Workspace) -> None:
    """Refuse a study of which a network cannot be fitted on its grid, and name the model."""
    for arm in workspace.study.arms:
        try:
            check_network(arm.network, grid_shape(arm.recipe))
        except ValueError as error:
            raise ValueError(f"model {arm.arm!r}: {error}" if arm.arm else str(error)) from error


def _fit(workspace: Workspace, plan: TrainingPlan) -> dict[str, Any]:
    study, store = workspace.study, workspace.store
    alone = len(members_of(study)) == 1
    bars: dict[Member, Callable[[dict[str, Any]], None]] = {}
    with progress_bars() as progress:

        def on_epoch(member: Member, figures: dict[str, Any]) -> None:
            if member not in bars:
                named = " ".join(filter(None, ("train", study.arm, "" if alone else member.name)))
                bars[member] = epoch_bar(progress, named, int(figures.get("epochs", study.training.epochs)))
            bars[member](figures)

        train_members(study, workspace.settings, store, plan, on_epoch, counter(progress, "fetch"))
    return record_fit(study, store, plan)


def refuse_missing(states: list[CohortState]) -> None:
    """Stop a later stage from running on a part of the study as if it were the whole."""
    left = {state.spec.name: len(state.missing) for state in states if state.missing}
    if left:
        named = ", ".join(f"{count} of {name}" for name, count in left.items())
        raise NotReady(f"scans are not preprocessed yet: {named}; run `padflow preprocess` or `padflow run` first")


def refuse_too_few(plan: TrainingPlan) -> None:
    """Stop a study whose parts are too small to train on, and say where no age bias will be fitted."""
    counts = plan.rows["split"].value_counts().to_dict()
    if counts.get("train", 0) < 2 or counts.get("validation", 0) < 1:
        raise NotReady(
            f"too few prepared scans to train: found {counts or 'none'}, expected at least 2 for training and 1 for "
            "validation. `padflow status` tells what became of the others."
        )
    if counts.get("calibration", 0) < 3:
        console.print("fewer than 3 calibration scans: no age-bias correction will be fitted", style="yellow")
