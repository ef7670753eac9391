"""Fit every declared association that the store lacks."""

from __future__ import annotations

from prefect import flow

from flows.run_names import run_name
from flows.validate import fitted
from flows.workspace import NotReady, Workspace, open_workspace
from infra import layout
from tasks.steps.associate import associate as fit_one
from tasks.steps.associate import cohorts_of
from tasks.steps.progress import CohortState, association_key, predictions_key
from tasks.steps.publish import publication_key, publish_associations


@flow(name="associate", flow_run_name=run_name, validate_parameters=False)
def associate(study_path: str) -> list[str]:
    """Fit the associations of brain-PAD; each has a key of its own, so a changed one leaves the others alone.

    Returns:
        The names of those that were fitted by this run.
    """
    workspace = open_workspace(study_path)
    models = list(workspace.by_model(workspace.stored_states()))
    return [name for arm, states in models for name in _associate_model(arm, states, arm is models[0][0])]


def _associate_model(workspace: Workspace, states: list[CohortState], is_first: bool) -> list[str]:
    model = fitted(workspace, states)
    fit_key, scored = model.fit_key, model.scored
    for state in scored:
        if not workspace.store.exists(layout.predictions(predictions_key(fit_key, state))):
            raise NotReady(f"cohort {state.spec.name!r} has no predictions yet; run `padflow validate` first")
    done = []
    for spec in workspace.study.associations:
        used = cohorts_of(spec, scored)
        if not workspace.store.exists(layout.association(association_key(fit_key, spec, used))):
            fit_one(workspace.store, fit_key, spec, used)
            done.append(f"{workspace.study.arm}: {spec.name}" if workspace.study.arm else spec.name)
    if workspace.study.associations and not workspace.store.exists(publication_key(model, is_first)):
        publish_associations(workspace.settings, workspace.store, model, is_first)
    return done
