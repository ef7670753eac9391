"""The whole study: preprocess → train → validate → decide → explain → associate → report.

Each stage does only what the store lacks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from flows.associate import associate
from flows.decide import decide, is_undecided
from flows.explain import explain
from flows.preprocess import preprocess
from flows.progress_bars import console
from flows.run_names import run_name
from flows.train import check_networks, train
from flows.validate import fitted, fitted_models, scored_states, validate
from flows.workspace import NotReady, Workspace, open_workspace
from infra import layout
from infra.local_files import replace_file
from tasks.steps.associate import cohorts_of
from tasks.steps.explain import methods_left
from tasks.steps.progress import CohortState, FittedModel, association_key, predictions_key, validation_key
from tasks.steps.publish import publication_key
from tasks.steps.report import local_report, report_key, write_report
from tasks.steps.robustness import is_measured
from tasks.steps.train import plan_training

STAGES = ("preprocess", "train", "validate", "decide", "explain", "associate", "report")


@flow(name="study", flow_run_name=run_name, validate_parameters=False)
def run_study(
    study_path: str, rehash: bool = False, retry_excluded: bool = False, indexed: bool = False
) -> dict[str, Any]:
    """Run a study from raw scans to its report.

    Args:
        study_path: The study file.
        rehash: Read every file again when indexing.
        retry_excluded: Try scans again that preprocessing has excluded.
        indexed: The cohorts have been indexed a moment ago, and the store's index is taken.

    Returns:
        What each stage did, and the report's path.
    """
    check_networks(open_workspace(study_path))
    _rule("preprocess")
    prepared = preprocess(study_path, rehash, retry_excluded, indexed)
    _rule("train")
    registered = train(study_path)
    _rule("validate")
    validate(study_path)
    _rule("decide")
    decided = decide(study_path)
    _rule("explain")
    explained = explain(study_path)
    _rule("associate")
    fitted_now = associate(study_path)
    _rule("report")
    path = report(study_path)
    return {
        "preprocess": prepared,
        "model": registered,
        "decided": {arm: decision["kind"] for arm, decision in decided.items()},
        "explained": explained["made"],
        "associated": fitted_now,
        "report": str(path),
    }


def _rule(stage: str) -> None:
    console.rule(f"{STAGES.index(stage) + 1} of {len(STAGES)}  {stage}")


@flow(name="report", flow_run_name=run_name, validate_parameters=False)
def report(study_path: str) -> Path:
    """Write the report, unless the store holds that of the same state already."""
    workspace = open_workspace(study_path)
    states = workspace.stored_states()
    kept = kept_report(workspace, states)
    if kept is not None:
        return kept
    study, settings, store = workspace.study, workspace.settings, workspace.store
    models = fitted_models(workspace, states)
    if any(methods_left(model.study, store, model.fit_key, model.states) for model in models):
        raise NotReady("the study's maps are not made yet; run `padflow explain` or `padflow run` first")
    return write_report(study, workspace.study_text, settings, store, models)


def kept_report(workspace: Workspace, states: list[CohortState]) -> Path | None:
    """The report of this very state as a file on this machine, or None where none was written yet."""
    key = layout.report(report_key(workspace.study, fitted_models(workspace, states)))
    if not workspace.store.exists(key):
        return None
    path = local_report(workspace.settings, workspace.study)
    replace_file(path, workspace.store.read(key))
    return path


def stages_left(workspace: Workspace, states: list[CohortState]) -> list[str]:
    """Which stages have something to do, from the store alone and without starting any server."""
    models = list(workspace.by_model(states))
    if any(state.missing for _, own in models for state in own):
        return [
            stage for stage in STAGES if stage != "explain" or any(arm.study.explanation.methods for arm, _ in models)
        ]
    left = {stage for arm, own in models for stage in _stages_left_of_model(arm, own, arm is models[0][0])}
    if not left and kept_report(workspace, states) is None:
        left = {"report"}
    return [stage for stage in STAGES if stage in left]


def _stages_left_of_model(workspace: Workspace, states: list[CohortState], is_first: bool) -> list[str]:
    study, store = workspace.study, workspace.store
    plan = plan_training(study, store, states)
    record, registered = workspace.fit_record(plan.key), workspace.registration(plan.key)
    if record is None or registered is None:
        explain_too = ["explain"] if study.explanation.methods else []
        return ["train", "validate", "decide", *explain_too, "associate", "report"]
    scored = scored_states(states)
    left = []
    needed = [layout.predictions(predictions_key(plan.key, state)) for state in scored]
    if scored:
        needed.append(layout.validation(validation_key(study, plan.key, scored)))
    model = fitted(workspace, states)
    if not all(map(store.exists, needed)) or not is_measured(store, model):
        left.append("validate")
    if model.chain.untold or is_undecided(model, model.chain):
        left.append("decide")
    if methods_left(study, store, plan.key, states):
        left.append("explain")
    fits = [association_key(plan.key, spec, cohorts_of(spec, scored)) for spec in study.associations]
    written = [layout.association(key) for key in fits]
    if written:
        written.append(publication_key(FittedModel(study, states, record, registered), is_first))
    if not all(map(store.exists, written)):
        left.append("associate")
    return [*left, "report"] if left else []
