"""Score the external and clinical cohorts by the registered model and measure it."""

from __future__ import annotations

from prefect import flow

from flows.preprocess import RUNNER, fan_out, summary
from flows.progress_bars import counter, progress_bars
from flows.run_names import run_name
from flows.train import refuse_missing
from flows.workspace import NotReady, Workspace, open_workspace
from infra import layout
from infra.clusters import connect
from infra.decisions import read_chain
from infra.preflight import demands_of, fit_workers
from tasks.steps.card import log_card
from tasks.steps.progress import CohortState, FittedModel, validation_key
from tasks.steps.robustness import degraded_scans, is_measured, measure_robustness
from tasks.steps.train import plan_training
from tasks.steps.validate import log_validation, score_cohorts, validate_model


def fitted_models(workspace: Workspace, states: list[CohortState]) -> list[FittedModel]:
    """Every model of the study, trained and registered.

    Raises:
        NotReady: One is not trained on these scans, or not in this registry.
    """
    return [fitted(arm, own) for arm, own in workspace.by_model(states)]


def fitted(workspace: Workspace, states: list[CohortState]) -> FittedModel:
    """The fit and registration that later stages of one model build on.

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
    chain = read_chain(workspace.store, workspace.settings, workspace.study.registered_model)
    return FittedModel(workspace.study, states, record, registered, chain)


def scored_states(states: list[CohortState]) -> list[CohortState]:
    """The cohorts that the model has never seen."""
    return [state for state in states if state.spec.role != "train"]


@flow(name="validate", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
def validate(study_path: str) -> dict[str, str]:
    """Predict by the registry's model, then compute every metric that the store lacks.

    Returns:
        The address of each model's table of metrics; nothing where the study has no cohort to validate on.
    """
    workspace = open_workspace(study_path)
    models = list(workspace.by_model(workspace.stored_states()))
    return {arm.study.arm or "metrics": _validate_model(arm, states) for arm, states in models if scored_states(states)}


def _validate_model(workspace: Workspace, states: list[CohortState]) -> str:
    model = fitted(workspace, states)
    scored, fit_key = model.scored, model.fit_key
    with progress_bars() as progress:
        bar = counter(progress, f"predict {workspace.study.arm}".rstrip())
        score_cohorts(workspace.settings, workspace.store, fit_key, model.registered, scored, bar)
    key = layout.validation(validation_key(workspace.study, fit_key, scored))
    if not workspace.store.exists(key):
        tables = validate_model(workspace.store, model)
        log_validation(workspace.settings, model.registered, tables)
        log_card(workspace.settings, model, tables["metrics"])
    if not is_measured(workspace.store, model):
        _measure_robustness(workspace, model)
    return workspace.store.uri(key)


def _measure_robustness(workspace: Workspace, model: FittedModel) -> None:
    """Make scans worse, prepare them where the others were prepared, and see what the model says of them."""
    settings, store, recipe = workspace.settings, workspace.store, workspace.study.recipe
    degraded = [each for each in degraded_scans(store, model) if each.missing]
    with progress_bars() as progress:
        if degraded:
            advance = counter(progress, "degraded scans")(sum(len(each.missing) for each in degraded))
            everything = [scan for each in degraded for scan in each.missing]
            witness = degraded[0].state.indexed
            latest = layout.latest_index(witness.name, witness.root)
            demands = demands_of(settings, store, recipe, workspace.recipe_key, everything, latest)
            say = progress.console.out
            with connect(settings, say) as client, fit_workers(client, demands, say):
                parts = [
                    part
                    for each in degraded
                    for part in fan_out(
                        client, store, each.missing, recipe, each.recipe_key, advance, degradation=each.degradation
                    )
                ]
            summary(parts)
        bar = counter(progress, f"predict degraded {workspace.study.arm}".rstrip())
        measure_robustness(settings, store, model, bar)
