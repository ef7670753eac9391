"""Fit the study's ensemble as a torchrun job, keep it in the store, and register it once."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from infra import layout, registry, templates, tracking
from infra.launch import run_training, training_processes
from infra.settings import Settings
from infra.storage import Store, replace_file
from infra.study import Study
from tasks.records import AgeBias, Recipe, TrainingJob, TrainingRow, as_json, digest
from tasks.science.cohort.splits import assign_splits, refuse_leaks
from tasks.science.statistics.age_bias import fit_age_bias
from tasks.steps.progress import CohortState, registration_key

# Raised when a change of the training code alters the weights that equal inputs give.
TRAINING_VERSION = 1
MEMBER_FILES = ("weights.safetensors", "report.json", "curves.csv", "predictions.csv")


@dataclass(frozen=True)
class TrainingPlan:
    """Which rows are trained on, and the key that names the outcome."""

    rows: pd.DataFrame
    key: str


def plan_training(study: Study, store: Store, states: list[CohortState]) -> TrainingPlan:
    """Split the training cohort by subject and check that nothing leaks.

    Old subjects keep their part for ever: the split table lies in the store, and new subjects are added to it.

    Raises:
        ValueError: A subject or an image is in two parts, or in a part and in an external cohort.
    """
    training = [state for state in states if state.spec.role == "train"]
    everyone = pd.concat([_labelled(state, state.selection.scans) for state in training], ignore_index=True)
    key = layout.splits(study.name, digest(asdict(study.splits)))
    existing = store.read_table(key) if store.exists(key) else None
    subjects = sorted(set(everyone["participant_id"]))
    table = assign_splits(existing, subjects, study.splits.fractions(), study.splits.seed)
    if existing is None or len(table) != len(existing):
        store.write_table(key, table)
    rows = pd.concat([_labelled(state, state.prepared) for state in training], ignore_index=True)
    rows = rows.merge(table, on="participant_id", validate="many_to_one").sort_values("scan_id", ignore_index=True)
    everything = [_sourced(state).merge(rows[["scan_id", "split"]], on="scan_id", how="left") for state in states]
    refuse_leaks(pd.concat(everything, ignore_index=True).fillna({"split": ""}))
    return TrainingPlan(rows, _fit_key(study, states[0].recipe_key, rows))


def _labelled(state: CohortState, scans: pd.DataFrame) -> pd.DataFrame:
    columns = ["scan_id", "cohort", "participant_id", "session_id", "sha256", "age_years", "years_since_baseline"]
    named = scans[columns].assign(role=state.spec.role)
    return named.assign(participant_id=named["cohort"] + "/" + named["participant_id"])


def _sourced(state: CohortState) -> pd.DataFrame:
    # Two cohorts of one data set share its people, so a subject is known by the data set and not by the cohort.
    named = state.prepared[["scan_id", "participant_id"]]
    return named.assign(sha256=state.prepared["image_sha256"], cohort=state.indexed.root, role=state.spec.role)


def _fit_key(study: Study, recipe_key: str, rows: pd.DataFrame) -> str:
    columns = ["scan_id", "participant_id", "session_id", "sha256", "age_years", "years_since_baseline", "split"]
    versions = layout.library_versions("torch", "pytorch-lightning", "numpy")
    inputs = [
        asdict(study.network),
        asdict(study.training),
        list(study.seeds),
        recipe_key,
        rows[columns].to_csv(index=False),
    ]
    return digest(["fit", TRAINING_VERSION, versions, inputs])


@task(task_run_name="train-seed-{seed}", cache_policy=NO_CACHE)
def train_member(
    study: Study,
    settings: Settings,
    store: Store,
    plan: TrainingPlan,
    seed: int,
    on_epoch: Callable[[dict[str, Any]], None],
) -> None:
    """Train one ensemble member and keep its files in the store; a killed job goes on from its last epoch."""
    folder = settings.home / "training" / plan.key[: layout.KEY_LENGTH] / f"seed-{seed}"
    recipe_key = study_recipe_key(study)
    rows = tuple(
        TrainingRow(
            scan_id=str(row["scan_id"]),
            participant_id=str(row["participant_id"]),
            path=str(store.local_path(layout.prepared_volume(recipe_key, str(row["sha256"])))),
            age_years=float(row["age_years"]),
            split=row["split"],
        )
        for row in plan.rows.to_dict("records")
    )
    n_train, n_validation = (sum(row.split == part for row in rows) for part in ("train", "validation"))
    # Every rank validates a part, so there are no more of them than validation scans.
    processes = training_processes(study.training, min(n_train, 2 * n_validation))
    training = replace(study.training, processes=processes)
    job = TrainingJob(study.network, training, seed, rows, str(folder), study.recipe.resolution_mm)
    replace_file(folder / "job.json", as_json(job).encode())
    run_training(folder / "job.json", processes, on_epoch)
    for name in MEMBER_FILES:
        store.write(member_key(plan.key, seed, name), (folder / name).read_bytes())


def member_key(fit_key: str, seed: int, name: str) -> str:
    """Where one file of one ensemble member lies."""
    return f"{layout.fit_folder(fit_key)}/seed-{seed}/{name}"


def member_done(store: Store, fit_key: str, seed: int) -> bool:
    """Whether a member was trained; its predictions are written last."""
    return store.exists(member_key(fit_key, seed, MEMBER_FILES[-1]))


def study_recipe_key(study: Study) -> str:
    """The recipe's digest, by which prepared scans are found."""
    from tasks.science.imaging.recipe import recipe_digest

    return recipe_digest(study.recipe)


def ensemble_predictions(store: Store, fit_key: str, seeds: tuple[int, ...]) -> pd.DataFrame:
    """The members' mean prediction of every scan of the training cohort."""
    tables = []
    for seed in seeds:
        content = io.BytesIO(store.read(member_key(fit_key, seed, "predictions.csv")))
        tables.append(pd.read_csv(content, dtype={"scan_id": str, "split": str}))
    grouped = pd.concat(tables).groupby(["scan_id", "split"], as_index=False)
    return grouped[["age_years", "predicted_age_years"]].mean()


def calibrate(plan: TrainingPlan, predictions: pd.DataFrame) -> tuple[AgeBias | None, str]:
    """Fit the age bias on one scan per calibration subject: scans that no member and no early stopping has seen.

    Returns:
        The fitted line and an empty text, or None and why there is none: too few subjects, or all of one age.
    """
    held_out = plan.rows[plan.rows["split"] == "calibration"]
    first = held_out.sort_values(["years_since_baseline", "session_id"]).drop_duplicates("participant_id")
    used = first[["scan_id"]].merge(predictions, on="scan_id", validate="one_to_one")
    try:
        return fit_age_bias(used["age_years"].to_numpy(), used["predicted_age_years"].to_numpy()), ""
    except ValueError as error:
        return None, str(error)


@task(task_run_name="record-fit", cache_policy=NO_CACHE)
def record_fit(study: Study, store: Store, plan: TrainingPlan) -> dict[str, Any]:
    """Write what was fitted, after everything that it names."""
    predictions = ensemble_predictions(store, plan.key, study.seeds)
    bias, why_no_bias = calibrate(plan, predictions)
    trained = plan.rows[plan.rows["split"] == "train"]
    weights = [store.read(member_key(plan.key, seed, "weights.safetensors")) for seed in study.seeds]
    record = {
        "fit_key": plan.key,
        "seeds": list(study.seeds),
        "members": {str(seed): store.read_json(member_key(plan.key, seed, "report.json")) for seed in study.seeds},
        "weights_sha256": [hashlib.sha256(content).hexdigest() for content in weights],
        "age_bias": asdict(bias) if bias else None,
        "why_no_age_bias": why_no_bias,
        # Of every part: training learns from one, model choice and bias correction from the others.
        "age_range_years": [math.floor(plan.rows["age_years"].min()), math.ceil(plan.rows["age_years"].max())],
        "mean_training_age_years": float(trained["age_years"].mean()),
        "scans_by_split": plan.rows["split"].value_counts().to_dict(),
        "subjects_by_split": plan.rows.groupby("split")["participant_id"].nunique().to_dict(),
    }
    store.write_table(f"{layout.fit_folder(plan.key)}/rows.parquet", plan.rows)
    store.write_json(layout.fit_record(plan.key), record)
    return record


@task(task_run_name="register", cache_policy=NO_CACHE)
def register_fit(
    study: Study, settings: Settings, store: Store, record: dict[str, Any], states: list[CohortState]
) -> dict[str, Any]:
    """Log the fit to MLflow and register it, once per registry."""
    client = tracking.connect(settings)
    earlier = registry.registered_before(client, study.registered_model, record["fit_key"])
    if earlier is not None:
        return _keep_registration(study, settings, store, record["fit_key"], earlier)
    experiment = tracking.experiment_id(client, settings, study.name)
    tags = {"padflow.fit_key": record["fit_key"], "padflow.study_digest": study.digest()}
    run_id = tracking.start_run(client, experiment, f"{study.name}-{record['fit_key'][:8]}", tags)
    try:
        _log_fit(client, run_id, study, store, record, states)
        bias = AgeBias(**record["age_bias"]) if record["age_bias"] else None
        low, high = record["age_range_years"]
        contract = registry.Contract(
            recipe=study.recipe,
            recipe_digest=study_recipe_key(study),
            network=study.network,
            age_range_years=(low, high),
            age_bias=bias,
            fit_key=record["fit_key"],
            study_digest=study.digest(),
        )
        keys = [member_key(record["fit_key"], seed, "weights.safetensors") for seed in study.seeds]
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
    return _keep_registration(study, settings, store, record["fit_key"], version)


def _template_files(recipe: Recipe) -> dict[str, bytes]:
    """The recipe's templates, which travel with the model: a consumer need not reach where the study found them."""
    return {
        templates.travelling_name(spec, which): content
        for spec in recipe.templates
        for which, content in templates.template_contents(spec).items()
    }


def _keep_registration(
    study: Study, settings: Settings, store: Store, fit_key: str, version: registry.RegisteredVersion
) -> dict[str, Any]:
    registered = {"uri": version.uri, **asdict(version)}
    store.write_json(registration_key(study, settings, fit_key), registered)
    return registered


def _log_fit(
    client: Any, run_id: str, study: Study, store: Store, record: dict[str, Any], states: list[CohortState]
) -> None:
    settings_of_study = {
        "recipe": asdict(study.recipe),
        "network": asdict(study.network),
        "training": asdict(study.training),
        "splits": asdict(study.splits),
        "seeds": list(study.seeds),
    }
    digests = {"study_digest": study.digest(), "recipe_digest": study_recipe_key(study)}
    manifests = {f"manifest_digest.{state.spec.name}": state.indexed.digest for state in states}
    tracking.log_parameters(client, run_id, {**settings_of_study, **digests, **manifests})
    tracking.log_parameters(client, run_id, {"environment": tracking.environment()})
    tracking.log_text(client, run_id, json.dumps(record, indent=1), "fit.json")
    for seed in study.seeds:
        curves = pd.read_csv(io.BytesIO(store.read(member_key(record["fit_key"], seed, "curves.csv"))))
        tracking.log_curves(client, run_id, f"seed-{seed}", curves)
        report = record["members"][str(seed)]
        tracking.log_metrics(client, run_id, {f"seed-{seed}/best_val_mae_years": report["val_mae_years"]})
