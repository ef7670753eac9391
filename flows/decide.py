"""Decide whether a model becomes the champion, and record it: the gates of the study, on people that it never saw."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.preprocess import prepare_missing
from flows.progress_bars import console, counter, progress_bars
from flows.run_names import run_name
from flows.validate import fitted
from flows.workspace import Workspace, open_workspace
from infra import tracking
from infra.decisions import Chain, read_chain
from infra.promotion import check_version
from tasks.steps.decide import (
    Scored,
    Version,
    Weighed,
    evidence_key,
    opened_chain,
    plain,
    record_decision,
    version_in_registry,
    version_number,
    version_of,
    weigh,
)
from tasks.steps.progress import CohortState, FittedModel
from tasks.steps.validate import score_cohorts

# Where the server has a limit of this name, one decision is made at a time; the chain holds without it, too.
IN_TURN: dict[str, Any] = {"tags": ["padflow-promotion"], "cache_policy": NO_CACHE}


@flow(name="decide", flow_run_name=run_name, validate_parameters=False)
def decide(study_path: str) -> dict[str, dict[str, Any]]:
    """Decide on every model of a study that nobody has decided on with this evidence.

    Returns:
        The decision on each model, by the model's name; "" where the study has one alone.
    """
    workspace = open_workspace(study_path)
    models = workspace.by_model(workspace.stored_states())
    return {arm.study.arm: _decide_on_new(arm, fitted(arm, states)) for arm, states in models}


@task(task_run_name="decide-{workspace.study.registered_model}", **IN_TURN)
def _decide_on_new(workspace: Workspace, model: FittedModel) -> dict[str, Any]:
    study, settings, store = workspace.study, workspace.settings, workspace.store
    client = tracking.connect(settings)
    chain, problems = opened_chain(client, store, settings, study.registered_model)
    _say(problems)
    if not is_undecided(model, chain):
        return chain.about(str(model.registered["version"])) or chain.decisions[-1]
    weighed = _weigh(workspace, model.states, version_of(model), client, chain)
    key = evidence_key(study, model.fit_key, model.scored)
    return _record(workspace, weighed, client, chain, key, asked=False)


def is_undecided(model: FittedModel, chain: Chain) -> bool:
    """Whether the gates have still to be asked: not of the champion, nor of a version that was rolled back from."""
    version = str(model.registered["version"])
    key = evidence_key(model.study, model.fit_key, model.scored)
    return version != chain.champion and version not in chain.withdrawn and chain.about(version, key) is None


@flow(name="promote", flow_run_name=run_name, validate_parameters=False)
def promote(
    study_path: str, version: str | None = None, dry_run: bool = False, model: str | None = None
) -> dict[str, Any]:
    """Ask the gates of one of a study's models again, against the champion of now.

    Args:
        study_path: The study file.
        version: Another version of the registered model than the one that the study's newest fit is.
        dry_run: Record nothing.
        model: Name of one of the study's `[[models]]`; left out: the first, which is the primary one.

    Returns:
        The decision; in a dry run what it would be.

    Raises:
        ValueError: The study has no such model, the version is the champion already, or there is none of that number.
    """
    workspace = open_workspace(study_path)
    names = [arm.arm for arm in workspace.study.arms]
    if model is not None and model not in names:
        known = ", ".join(name for name in names if name) or "one alone, which needs no --model"
        raise ValueError(f"{workspace.study.name} has no model {model!r}; its models: {known}")
    models = workspace.by_model(workspace.stored_states())
    arm, states = next((own, view) for own, view in models if model in (None, own.study.arm))
    return _decide_again(arm, states, version, dry_run)


@task(task_run_name="decide-again-{workspace.study.registered_model}", **IN_TURN)
def _decide_again(
    workspace: Workspace, states: list[CohortState], version: str | None, dry_run: bool
) -> dict[str, Any]:
    study, settings, store = workspace.study, workspace.settings, workspace.store
    name = study.registered_model
    client = tracking.connect(settings)
    if dry_run:
        chain = read_chain(store, settings, name)
    else:
        chain, problems = opened_chain(client, store, settings, name)
        _say(problems)
    if version is None:
        challenger = version_of(fitted(workspace, states))
        check_version(client, name, challenger.version)
    else:
        number = version_number(name, version)
        check_version(client, name, number)
        challenger = version_in_registry(client, name, number, chain.facts_of(number))
    facts = chain.facts_of(chain.champion) if chain.champion else None
    if challenger.version == chain.champion or (facts and facts.get("fit_key") == challenger.fit_key):
        raise ValueError(
            f"{name}: version {challenger.version} is the champion already; give --version, or train another model"
        )
    weighed = _weigh(workspace, states, challenger, client, chain)
    if dry_run:
        return _unrecorded(workspace, weighed, chain)
    key = evidence_key(study, challenger.fit_key, [state for state in states if state.spec.role != "train"])
    return _record(workspace, weighed, client, chain, key, asked=True)


def _weigh(workspace: Workspace, states: list[CohortState], challenger: Version, client: Any, chain: Chain) -> Weighed:
    name = workspace.study.registered_model
    champion = chain.champion
    other = None
    if champion is not None:
        facts = chain.facts_of(champion)
        other = _scored(workspace, states, version_in_registry(client, name, champion, facts))
    return weigh(workspace.study, workspace.store, _scored(workspace, states, challenger), other)


def _scored(workspace: Workspace, states: list[CohortState], version: Version) -> Scored:
    """Have every prediction of a version in the store, of scans that are prepared as it takes them."""
    if version.recipe_key != states[0].recipe_key:
        workspace = replace(workspace, study=replace(workspace.study, recipe=version.recipe))
        states = workspace.states_of([state.indexed for state in states])
        if any(state.missing for state in states):
            with progress_bars() as progress:
                prepare_missing(workspace, states, progress)
            states = workspace.states_of([state.indexed for state in states])
    others = [state for state in states if state.spec.role != "train"]
    with progress_bars() as progress:
        bar = counter(progress, f"predict by version {version.version}")
        score_cohorts(workspace.settings, workspace.store, version.fit_key, {"uri": version.uri}, others, bar)
    return Scored(version, states)


def _record(workspace: Workspace, weighed: Weighed, client: Any, chain: Chain, key: str, asked: bool) -> dict[str, Any]:
    study, settings, store = workspace.study, workspace.settings, workspace.store
    decision = record_decision(study, settings, store, client, chain, weighed, key, asked)
    show_decision(decision)
    return decision


def _unrecorded(workspace: Workspace, weighed: Weighed, chain: Chain) -> dict[str, Any]:
    raised = weighed.kind in ("first", "promoted")
    return {
        "model": workspace.study.registered_model,
        "kind": weighed.kind,
        "champion_before": chain.champion,
        "champion_after": weighed.version.version if raised else chain.champion,
        "candidate": weighed.version.facts(),
        "reason": weighed.reason,
        "gates": [plain(asdict(verdict)) for verdict in weighed.verdicts],
        "left_out_subjects": weighed.left_out,
    }


def show_decision(decision: dict[str, Any]) -> None:
    """Show the gates beside the flow run, for who looks at Prefect."""
    rows = [{name: gate[name] for name in ("gate", "outcome", "sentence")} for gate in decision["gates"]]
    slug = "".join(c if c.isalnum() else "-" for c in decision["model"].lower())
    said = f"{decision['model']} version {decision['candidate']['version']}: {decision['kind']}. {decision['reason']}"
    create_table_artifact(table=rows, key=f"decision-{slug}", description=said)


def decision_lines(decision: dict[str, Any], champion_now: str | None = None) -> list[str]:
    """A decision for a terminal: what was decided, then each gate; a later champion is said, where it is another."""
    version = (decision.get("candidate") or {}).get("version") or decision["champion_after"]
    number = f" (decision {decision['number']})" if "number" in decision else ""
    champion = decision["champion_after"] or "none"
    is_champion = f"the champion is version {champion}"
    if champion_now not in (None, champion):
        now = "none" if champion_now == "none" else f"version {champion_now}"
        is_champion = f"the champion was version {champion} after it, and is {now} now"
    lines = [f"{decision['model']} version {version}: {decision['kind']}{number}; {is_champion}"]
    marks = {"passed": "passed", "failed": "FAILED", "not judged": "not judged"}
    lines += [f"  {marks[gate['outcome']]:<10}  {gate['gate']:<8}  {gate['sentence']}" for gate in decision["gates"]]
    left_out = decision.get("left_out_subjects") or {}
    lines += [f"  left out: {count} subjects, {why}" for why, count in left_out.items()]
    # Why a model is refused stands above already, gate by gate.
    return lines if decision["kind"] == "refused" else [*lines, f"  {decision['reason']}"]


def _say(problems: list[str]) -> None:
    for problem in problems:
        console.print(problem, style="yellow", markup=False, highlight=False, soft_wrap=True)
