"""Log a fit to MLflow, a run per study, model and member, and register its model once."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from infra import layout, registry, templates, tracking
from infra.image_roots import recordable
from infra.settings import Settings
from infra.storage import Store
from infra.study import Study
from tasks.records import AgeBias, Recipe, digest
from tasks.science.code_digest import code_digest
from tasks.science.cohort.outliers import usual_bounds
from tasks.steps.card import log_card
from tasks.steps.members import member_key, members_of
from tasks.steps.progress import CohortState, FittedModel, registration_key
from tasks.steps.quality import quality_table
from tasks.steps.train import study_recipe_key

LIGHTNING_MODULES = Path(__file__).parents[2] / "lightning_modules"


@task(task_run_name="register-{study.registered_model}", cache_policy=NO_CACHE)
def register_fit(
    study: Study, settings: Settings, store: Store, record: dict[str, Any], states: list[CohortState]
) -> dict[str, Any]:
    """Log the fit to MLflow and register it, once per registry."""
    client = tracking.connect(settings)
    earlier = registry.registered_before(client, study.registered_model, record["fit_key"])
    if earlier is not None:
        return _keep_registration(study, settings, store, record, states, earlier)
    experiment = tracking.experiment_id(client, settings, study.name)
    tags = {"padflow.fit_key": record["fit_key"], "padflow.study_digest": study.digest()}
    tags |= {"mlflow.parentRunId": _study_run(client, experiment, study)} if study.arm else {}
    name = "-".join(filter(None, (study.name, study.arm, record["fit_key"][:8])))
    run_id = tracking.start_run(client, experiment, name, tags)
    try:
        _log_fit(client, run_id, study, store, record, states)
        _log_members(client, experiment, run_id, study, store, record)
        bias = AgeBias(**record["age_bias"]) if record["age_bias"] else None
        low, high = record["age_range_years"]
        contract = registry.Contract(
            recipe=study.recipe,
            recipe_digest=study_recipe_key(study),
            network=study.network,
            target=study.target,
            age_range_years=(low, high),
            age_bias=bias,
            intervals=record["intervals"],
            fit_key=record["fit_key"],
            study_digest=study.digest(),
            image_roots=recordable([store.url]),
            why_no_age_bias=record["why_no_age_bias"],
            quality_bounds=_quality_bounds(study, store, states),
        )
        keys = [member_key(record["fit_key"], member, "weights.safetensors") for member in members_of(study)]
        weights = [store.read(key) for key in keys]
        if [hashlib.sha256(content).hexdigest() for content in weights] != record["weights_sha256"]:
            raise OSError(f"the weights under {layout.fit_folder(record['fit_key'])} are not those that were fitted")
        version = registry.register(
            client, run_id, study.registered_model, contract, weights, _template_files(study.recipe)
        )
    except BaseException:
        tracking.finish_run(client, run_id, succeeded=False)
        raise
    tracking.finish_run(client, run_id, succeeded=True)
    return _keep_registration(study, settings, store, record, states, version)


def _quality_bounds(study: Study, store: Store, states: list[CohortState]) -> dict[str, dict[str, Any]]:
    """What is usual among the scans of the training cohorts, by the study's own measure of what is not."""
    tables = [
        quality_table(store, state.spec.name, state.indexed.root, state.recipe_key, state.prepared["sha256"])
        for state in states
        if state.spec.role == "train"
    ]
    figures = pd.concat(tables, ignore_index=True)
    return usual_bounds(figures, study.quality.max_robust_z, study.quality.limits)


def _study_run(client: Any, experiment: str, study: Study) -> str:
    """The run that gathers the models which a study compares; made once."""
    tags = {"padflow.study": study.name}
    found = client.search_runs([experiment], f"tags.`padflow.study` = '{study.name}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    run_id = tracking.start_run(client, experiment, study.name, tags)
    tracking.finish_run(client, run_id, succeeded=True)
    return run_id


def _template_files(recipe: Recipe) -> dict[str, bytes]:
    """The recipe's templates, which travel with the model: a consumer need not reach where the study found them."""
    return {
        templates.travelling_name(spec, which): content
        for spec in recipe.templates
        for which, content in templates.template_contents(spec).items()
    }


def _keep_registration(
    study: Study,
    settings: Settings,
    store: Store,
    record: dict[str, Any],
    states: list[CohortState],
    version: registry.RegisteredVersion,
) -> dict[str, Any]:
    registered = {"uri": version.uri, **asdict(version)}
    log_card(settings, FittedModel(study, states, record, registered), pd.DataFrame())
    store.write_json(registration_key(study, settings, record["fit_key"]), registered)
    return registered


def _log_fit(
    client: Any, run_id: str, study: Study, store: Store, record: dict[str, Any], states: list[CohortState]
) -> None:
    settings_of_study = {
        "recipe": asdict(study.recipe),
        "network": asdict(study.network),
        "training": asdict(study.training),
        "splits": asdict(study.splits),
        "target": asdict(study.target),
        "ensemble": asdict(study.ensemble),
        "seeds": list(study.seeds),
        "train_subjects": study.train_subjects,
    }
    digests = {
        "study_digest": study.digest(),
        "recipe_digest": study_recipe_key(study),
        "rows_digest": digest(store.read_table(f"{layout.fit_folder(record['fit_key'])}/rows.parquet").to_csv()),
        "code_digest": code_digest(LIGHTNING_MODULES, LIGHTNING_MODULES / "networks"),
    }
    manifests = {f"manifest_digest.{state.spec.name}": state.indexed.digest for state in states}
    tracking.log_parameters(client, run_id, {**settings_of_study, **digests, **manifests})
    tracking.log_parameters(client, run_id, {"environment": tracking.environment()})
    tracking.log_text(client, run_id, json.dumps(record, indent=1), "fit.json")
    tracking.log_metrics(client, run_id, _ensemble_metrics(record))


def _ensemble_metrics(record: dict[str, Any]) -> dict[str, float]:
    members = list(record["members"].values())
    names = ("val_mae_years", "duration_s", "throughput_scans_per_s")
    return {f"mean/{name}": sum(member[name] for member in members) / len(members) for name in names}


def _log_members(client: Any, experiment: str, parent: str, study: Study, store: Store, record: dict[str, Any]) -> None:
    """One run per member below the model's: curves, its parameters, hardware and figures."""
    for member in members_of(study):
        tags = {"mlflow.parentRunId": parent, "padflow.fit_key": record["fit_key"], "padflow.member": member.name}
        run_id = tracking.start_run(client, experiment, f"{study.name}-{study.arm or 'model'}-{member.name}", tags)
        report = record["members"][member.name]
        numbers = {name: value for name, value in report.items() if type(value) in (int, float)}
        facts = {name: value for name, value in report.items() if name not in numbers}
        tracking.log_parameters(client, run_id, {"seed": member.seed, "fold": member.fold, **facts})
        tracking.log_metrics(client, run_id, {f"report/{name}": value for name, value in numbers.items()})
        curves = pd.read_csv(io.BytesIO(store.read(member_key(record["fit_key"], member, "curves.csv"))))
        tracking.log_curves(client, run_id, "", curves)
        tracking.log_text(
            client,
            run_id,
            store.read(member_key(record["fit_key"], member, "predictions.csv")).decode(),
            "predictions.csv",
        )
        tracking.finish_run(client, run_id, succeeded=True)
