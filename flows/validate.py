"""Score the external and clinical cohorts by the registered model and measure it."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.progress_bars import counter, progress_bars
from flows.train import refuse_missing
from flows.workspace import NotReady, Workspace, open_workspace
from infra import layout
from tasks.steps.progress import CohortState, validation_key
from tasks.steps.train import plan_training
from tasks.steps.validate import score_cohorts, validate_model


def fitted(workspace: Workspace, states: list[CohortState]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fit and registration that later stages build on.

    Raises:
        NotReady: The model of this study and these scans is not trained, or not in this registry.
    """
    refuse_missing(states)
    key = plan_training(workspace.study, workspace.store, states).key
    record, registered = workspace.fit_record(key), workspace.registration(key)
    if record is None or registered is None:
        raise NotReady(
            "the study's model is not trained on these scans yet; run `padflow train` or `padflow run` first"
        )
    return record, registered


def scored_states(states: list[CohortState]) -> list[CohortState]:
    """The cohorts that the model has never seen."""
    return [state for state in states if state.spec.role != "train"]


@flow(name="validate", validate_parameters=False)
def validate(study_path: str) -> dict[str, str]:
    """Predict by the registry's model, then compute every metric that the store lacks.

    Returns:
        The address of the table of metrics; nothing where the study has no cohort to validate on.
    """
    workspace = open_workspace(study_path)
    states = workspace.stored_states()
    record, registered = fitted(workspace, states)
    scored = scored_states(states)
    if not scored:
        return {}
    with progress_bars() as progress:
        bar = counter(progress, "predict")
        score_cohorts(workspace.settings, workspace.store, record["fit_key"], registered, scored, bar)
    key = layout.validation(validation_key(workspace.study, record["fit_key"], scored))
    if not workspace.store.exists(key):
        training = [state for state in states if state.spec.role == "train"]
        validate_model(workspace.study, workspace.store, record["fit_key"], scored, training)
    return {"metrics": workspace.store.uri(key)}
