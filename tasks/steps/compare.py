"""Gather what the models of a study said of the same people, and compare them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import pandas as pd

from infra import layout
from infra.storage import Store
from infra.study import Study
from tasks.records import digest
from tasks.science.statistics.arms import HELD_OUT, Arm, ArmComparison, compare_arms
from tasks.steps.associate import association_table
from tasks.steps.members import member_predictions, members_of, unseen_predictions
from tasks.steps.progress import FittedModel, validation_key
from tasks.steps.validate import joined, predictions_of

HELD_OUT_ROLE = "of the training cohort"
PREDICTION_COLUMNS = [
    "cohort", "role", "apart", "participant_id", "session_id", "age_years", "target_years", "predicted_age_years",
    "status", "reason",
]  # fmt: skip
FOLD_COLUMNS = ["repeat", "fold", "scan", "n_train", "target_years", "predicted_years"]
# What does not alter a fit, or is named elsewhere.
NO_CHANGE = ("name", "arm", "models", "associations", "explanation", "registered_model", "excluded_tolerance")
# Set by the study from others of its settings.
FOLLOWS = {"network.input_channels"}


def gather_comparison(store: Store, models: list[FittedModel]) -> ArmComparison | None:
    """Read every model's predictions, metrics and associations from the store, and compare the models.

    Args:
        store: Where they lie.
        models: The study's models, the primary one first.

    Returns:
        The comparison; None where the study has one model, no folds and no subjects apart, and so nothing to show.
    """
    primary = models[0].study
    apart = any(state.spec.apart for state in models[0].scored)
    if len(models) == 1 and not primary.ensemble.folds and not apart:
        return None
    families = family_names([model.study for model in models])
    arms = [_arm(store, model, primary, family) for model, family in zip(models, families, strict=True)]
    return compare_arms(arms, primary.validation.resamples, primary.validation.seed)


def family_names(studies: list[Study]) -> list[str]:
    """Name for each model the family that shares all but the number of training subjects: its largest model."""
    keys = [digest({**_settings(study), "train_subjects": 0}) for study in studies]
    largest: dict[str, Study] = {}
    for key, study in zip(keys, studies, strict=True):
        held = largest.get(key)
        if held is None or _budget(study) > _budget(held):
            largest[key] = study
    return [_name(largest[key]) for key in keys]


def settings_apart(study: Study, primary: Study) -> dict[str, str]:
    """Say which settings set a model apart from the primary one: `network.name` → `densenet169`."""
    own, base = dict(_leaves(_settings(study))), dict(_leaves(_settings(primary)))
    changed = {name for name in own if name not in base or base[name] != own[name]} - FOLLOWS
    return {name: _written(value) for name, value in own.items() if name in changed}


def _settings(study: Study) -> dict[str, Any]:
    return {name: value for name, value in asdict(replace(study, models=())).items() if name not in NO_CHANGE}


def _leaves(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _written(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _budget(study: Study) -> float:
    return study.train_subjects or float("inf")


def _name(study: Study) -> str:
    return study.arm or study.name


def _arm(store: Store, model: FittedModel, primary: Study, family: str) -> Arm:
    study, scored, fit_key = model.study, model.scored, model.fit_key
    members = member_predictions(store, fit_key, members_of(study))
    rows = store.read_table(f"{layout.fit_folder(fit_key)}/rows.parquet")
    tables = [predictions_of(store, fit_key, state).assign(apart=state.spec.apart) for state in scored]
    held_out = _held_out(members, rows)
    tables += [held_out] if len(held_out) else []
    predictions = joined([table.reindex(columns=PREDICTION_COLUMNS) for table in tables]) if tables else held_out
    metrics = store.read_table(layout.validation(validation_key(study, fit_key, scored))) if scored else pd.DataFrame()
    return Arm(
        name=_name(study),
        family=family,
        n_train=int(model.record["subjects_by_split"]["train"]),
        budget=study.train_subjects,
        members=len(members_of(study)),
        changes=settings_apart(study, primary),
        predictions=predictions,
        out_of_fold=_out_of_fold(members, rows),
        metrics=metrics,
        associations=association_table(store, fit_key, study.associations, scored),
    )


def _held_out(members: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The mean prediction of those members that have not seen a scan's subject."""
    unseen = unseen_predictions(members, "test")
    known = rows[["scan_id", "participant_id", "session_id"]].merge(unseen, on="scan_id", validate="one_to_one")
    # Of a training cohort the target is what is known; the age beside it is not needed.
    known = known.assign(cohort=HELD_OUT, role=HELD_OUT_ROLE, apart=False, age_years=known["target_years"])
    return known.assign(status="ok", reason="")[PREDICTION_COLUMNS]


def _out_of_fold(members: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Each member's predictions of its own fold; the persistent test part, which all share, is no fold."""
    in_folds = members[members["fold"] >= 0]
    if in_folds.empty:
        return pd.DataFrame(columns=FOLD_COLUMNS)
    dealt = set(rows.loc[rows["split"].isin(["train", "validation"]), "scan_id"])
    trained = in_folds[in_folds["split"] == "train"].groupby(["seed", "fold"]).size().rename("n_train").reset_index()
    own = in_folds[(in_folds["split"] == "test") & in_folds["scan_id"].isin(dealt)]
    own = own.merge(trained, on=["seed", "fold"], how="left", validate="many_to_one")
    # Models on different contrasts share no scan; the session says whose it is.
    session = (rows["participant_id"] + "/" + rows["session_id"].fillna("").astype(str)).set_axis(rows["scan_id"])
    named = own.assign(scan=own["scan_id"].map(session))
    return named.rename(columns={"seed": "repeat", "predicted_age_years": "predicted_years"})[FOLD_COLUMNS]
