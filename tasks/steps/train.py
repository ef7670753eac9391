"""Fit the study's ensemble by torchrun jobs and keep it in the store."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from infra import layout
from infra.launch import MemberJob, member_processes, run_members, training_devices
from infra.settings import Settings
from infra.storage import Store, replace_file
from infra.study import Study
from tasks.records import AgeBias, TargetSpec, TrainingJob, TrainingRow, as_json, digest, training_values
from tasks.science.cohort.splits import assign_splits, refuse_leaks
from tasks.science.statistics.age_bias import fit_age_bias
from tasks.science.statistics.conformal import corrected_conformal, one_scan_per_subject, split_conformal
from tasks.steps.members import (
    MEMBER_FILES,
    NOT_USED,
    Member,
    member_done,
    member_key,
    member_predictions,
    member_rows,
    members_of,
    parts_of,
    unseen_predictions,
)
from tasks.steps.progress import CohortState
from tasks.steps.quality import VOLUME, quality_table
from tasks.steps.white_matter import white_matter_files

# Raised when a change of the training code alters the weights that equal inputs give.
TRAINING_VERSION = 2


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
    sourced = pd.concat(everything, ignore_index=True).fillna({"split": ""})
    refuse_leaks(sourced)
    refuse_leaks(sourced.assign(sha256=_volume_contents(store, states).fillna(sourced["sha256"])))
    return TrainingPlan(rows, _fit_key(study, states[0].recipe_key, rows))


def _labelled(state: CohortState, scans: pd.DataFrame) -> pd.DataFrame:
    columns = ["scan_id", "cohort", "participant_id", "session_id", "sha256", "age_years", "years_since_baseline"]
    columns += ["template"]
    named = scans[columns].assign(role=state.spec.role, site=scans["site"].fillna("").astype(str))
    # From any image to the models that were trained on it.
    named["images"] = state.indexed.image_hashes(scans)
    if "target_years" in scans:
        named["target_years"] = scans["target_years"]
    return named.assign(participant_id=named["cohort"] + "/" + named["participant_id"])


def _sourced(state: CohortState) -> pd.DataFrame:
    # Two cohorts of one data set share its people, so a subject is known by the data set and not by the cohort.
    named = state.prepared[["scan_id", "participant_id"]]
    return named.assign(sha256=state.prepared["image_sha256"], cohort=state.indexed.root, role=state.spec.role)


def _volume_contents(store: Store, states: list[CohortState]) -> pd.Series:
    """SHA-256 of each prepared volume, in the order of the cohorts' prepared scans; missing where it is not known."""
    tables = [
        quality_table(store, state.spec.name, state.indexed.root, state.recipe_key, state.prepared["sha256"])
        for state in states
    ]
    known = [table.get(VOLUME, pd.Series("", index=table.index)) for table in tables]
    contents = pd.concat(known, ignore_index=True).astype(object)
    return contents.where(contents.astype(bool), None)


def _fit_key(study: Study, recipe_key: str, rows: pd.DataFrame) -> str:
    columns = ["scan_id", "participant_id", "session_id", "sha256", "target_years", "years_since_baseline", "split"]
    # Folds are alike in site.
    columns += ["site"] if study.ensemble.folds else []
    # MONAI lays out networks and changes training scans.
    versions = layout.library_versions("torch", "pytorch-lightning", "numpy", "monai")
    inputs = [
        asdict(study.network),
        training_values(study.training),
        list(study.seeds),
        asdict(study.ensemble),
        [study.train_subjects, study.splits.seed],
        asdict(study.target),
        recipe_key,
        rows[columns].to_csv(index=False),
    ]
    return digest(["fit", TRAINING_VERSION, versions, inputs])


def member_job(study: Study, settings: Settings, store: Store, plan: TrainingPlan, member: Member) -> TrainingJob:
    """What one member is trained on and how; the job's folder keeps its steps, so that a killed one goes on."""
    folder = settings.home / "training" / plan.key[: layout.KEY_LENGTH] / member.name
    recipe_key = study_recipe_key(study)
    white_matter = white_matter_files(study, settings, recipe_key, plan.rows["template"])
    rows = tuple(
        TrainingRow(
            scan_id=str(row["scan_id"]),
            participant_id=str(row["participant_id"]),
            path=str(store.local_path(layout.prepared_volume(recipe_key, str(row["sha256"])))),
            target_years=float(row["target_years"]),
            split=row["split"],
            tissue_path=white_matter.priors.get(row["template"], ""),
        )
        for row in member_rows(study, plan.rows, member).to_dict("records")
    )
    n_train, n_validation = (sum(row.split == part for row in rows) for part in ("train", "validation"))
    # Every rank validates a part, so there are no more of them than validation scans.
    n_scans, members = min(n_train, 2 * n_validation), len(members_of(study))
    processes = member_processes(study.training, n_scans, study.ensemble.placement, members)
    return TrainingJob(
        network=study.network,
        training=replace(study.training, processes=processes),
        seed=member.fit_seed,
        rows=rows,
        output_folder=str(folder),
        resolution_mm=study.recipe.resolution_mm,
        channels=study.recipe.channel_names,
        white_matter_folder=white_matter.folder,
    )


@task(task_run_name="train-{study.name}-{study.arm}", cache_policy=NO_CACHE)
def train_members(
    study: Study,
    settings: Settings,
    store: Store,
    plan: TrainingPlan,
    on_epoch: Callable[[Member, dict[str, Any]], None],
    on_fetch: Callable[[int], Callable[[], None]],
) -> None:
    """Train the members that the store lacks and keep each one's files as it ends.

    A killed member goes on from its last kept step; one that fails leaves the others to their work.
    """
    lacking = {member.name: member for member in members_of(study) if not member_done(store, plan.key, member)}
    folders: dict[str, Path] = {}
    jobs: list[MemberJob] = []

    def keep(name: str) -> None:
        for file in MEMBER_FILES:
            store.write(member_key(plan.key, lacking[name], file), (folders[name] / file).read_bytes())

    def tell(name: str, figures: dict[str, Any]) -> None:
        on_epoch(lacking[name], figures)

    volumes = [layout.prepared_volume(study_recipe_key(study), str(sha256)) for sha256 in plan.rows["sha256"]]
    with store.holding(volumes, on_fetch):
        for name, member in lacking.items():
            job = member_job(study, settings, store, plan, member)
            folders[name] = Path(job.output_folder)
            replace_file(folders[name] / "job.json", as_json(job).encode())
            jobs.append(MemberJob(name, folders[name] / "job.json", job.training.processes))
        run_members(jobs, study.ensemble.placement, training_devices(settings.asked_workers), tell, keep)


def study_recipe_key(study: Study) -> str:
    """The recipe's digest, by which prepared scans are found."""
    from tasks.science.imaging.recipe import recipe_digest

    return recipe_digest(study.recipe)


def calibration_rows(plan: TrainingPlan, predictions: pd.DataFrame) -> pd.DataFrame:
    """The ensemble's prediction of one scan per calibration subject, which no member and no early stopping has seen."""
    first = one_scan_per_subject(plan.rows[plan.rows["split"] == "calibration"])
    unseen = unseen_predictions(predictions, "calibration")
    return first[["scan_id", "participant_id"]].merge(unseen, on="scan_id", validate="one_to_one")


def calibrate(calibration: pd.DataFrame, target: TargetSpec) -> tuple[AgeBias | None, str]:
    """Fit the age bias on calibration subjects.

    Returns:
        The fitted line and an empty text, or None and why there is none: too few subjects, or all of one age.
    """
    if target.column != "age_years":
        return None, f"the model learns {target.column}, so that no age is known to correct its predictions by"
    try:
        return fit_age_bias(calibration["target_years"], calibration["predicted_age_years"]), ""
    except ValueError as error:
        return None, str(error)


def intervals(calibration: pd.DataFrame, bias: AgeBias | None) -> dict[str, dict[str, Any]]:
    """Half-widths of 95% intervals of raw predictions, and of corrected ones, whose bias line is cross-fitted.

    Returns:
        By `raw` and `corrected`; `half_width_years` is None where there are too few subjects, and `note` says so.
    """
    if calibration.empty:
        return {}
    age, predicted = (calibration[name].to_numpy() for name in ("target_years", "predicted_age_years"))
    found = {"raw": split_conformal(predicted - age)}
    if bias is not None:
        found["corrected"] = corrected_conformal(age, predicted)
    return {
        name: {
            "half_width_years": interval.half_width_years if math.isfinite(interval.half_width_years) else None,
            "level": 1 - interval.alpha,
            "n_subjects": interval.n_subjects,
            "note": interval.note,
        }
        for name, interval in found.items()
    }


@task(task_run_name="record-fit-{study.name}-{study.arm}", cache_policy=NO_CACHE)
def record_fit(study: Study, store: Store, plan: TrainingPlan) -> dict[str, Any]:
    """Write what was fitted, after everything that it names."""
    members = members_of(study)
    predictions = member_predictions(store, plan.key, members)
    calibration = calibration_rows(plan, predictions)
    bias, why_no_bias = calibrate(calibration, study.target)
    used = plan.rows[plan.rows["scan_id"].isin(predictions["scan_id"])]
    seen = predictions[predictions["split"] == "train"].drop_duplicates("scan_id")
    weights = [store.read(member_key(plan.key, member, "weights.safetensors")) for member in members]
    record = {
        "fit_key": plan.key,
        "seeds": list(study.seeds),
        "folds": study.ensemble.folds,
        "members": {m.name: store.read_json(member_key(plan.key, m, "report.json")) for m in members},
        "weights_sha256": [hashlib.sha256(content).hexdigest() for content in weights],
        "age_bias": asdict(bias) if bias else None,
        "why_no_age_bias": why_no_bias,
        "intervals": intervals(calibration, bias),
        # Of every part: training learns from one, model choice and bias correction from the others.
        "age_range_years": _whole_range(used["target_years"]),
        "mean_training_age_years": float(seen["target_years"].mean()),
        "scans_by_split": _counts(predictions, members[0]),
        "subjects_by_split": _counts(
            predictions.merge(used[["scan_id", "participant_id"]]), members[0], "participant_id"
        ),
    }
    # Which part each scan played stays known after the predictions of somebody who withdraws consent are gone.
    rows = plan.rows.assign(parts=plan.rows["scan_id"].map(parts_of(predictions)).fillna(NOT_USED))
    store.write_table(f"{layout.fit_folder(plan.key)}/rows.parquet", rows)
    store.write_json(layout.fit_record(plan.key), record)
    return record


def _whole_range(ages_years: pd.Series) -> list[float]:
    """First and last age that was seen, in whole years; in whole months where all are infants."""
    per_year = 12 if ages_years.max() < 5 else 1
    low, high = math.floor(ages_years.min() * per_year), math.ceil(ages_years.max() * per_year)
    return [low, high] if per_year == 1 else [low / per_year, high / per_year]


def _counts(predictions: pd.DataFrame, member: Member, what: str = "scan_id") -> dict[str, int]:
    """Scans or subjects of each part, as the first member sees them: in a cross-validation another's differ by one."""
    own = predictions[(predictions["seed"] == member.seed) & (predictions["fold"] == member.fold)]
    return {str(name): int(count) for name, count in own.groupby("split")[what].nunique().items()}
