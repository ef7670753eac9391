"""The models that a study compares, side by side: accuracy, paired differences, folds, training size, associations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from .bootstrap import metric_table
from .comparison import COLUMNS as PAIRED_COLUMNS
from .comparison import compare_with_reference, error_table
from .fold_comparison import ANOVA_COLUMNS, PAIR_COLUMNS, anova_over_folds, compare_folds_pairwise
from .fold_metrics import COLUMNS as FOLD_COLUMNS
from .fold_metrics import NAMES as FOLD_METRICS
from .fold_metrics import fold_metrics
from .learning_curve import COLUMNS as CURVE_COLUMNS
from .learning_curve import learning_curve

HELD_OUT = "held-out part"
"""Stands for a cohort: scans of the training cohort that the members asked have not seen."""

ARM_COLUMNS = ["model", "family", "budget", "n_train", "members", "changes"]
METRIC_COLUMNS = [
    "model", "cohort", "role", "correction", "metric", "n_subjects", "n_scans", "estimate", "ci_low", "ci_high", "note",
]  # fmt: skip
ASSOCIATION_COLUMNS = [
    "model", "association", "formula", "term", "estimate", "ci_low", "ci_high", "p_value", "q_value", "n_used",
    "n_dropped", "problems",
]  # fmt: skip
APART_COLUMNS = [
    "cohort", "participant_id", "session_id", "model", "age_years", "target_years", "predicted_age_years",
    "difference_years", "status", "reason",
]  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One model of a study, and what it said of everyone.

    Attributes:
        name: Its name.
        family: What it shares with models that differ from it in the number of training subjects alone.
        n_train: Training subjects.
        budget: Training subjects that were asked for; 0 takes all.
        members: Networks of its ensemble.
        changes: What sets it apart from the primary model: setting → value.
        predictions: One row per scan: `cohort, role, participant_id, session_id, age_years, target_years,
            predicted_age_years, status, reason` and `apart` (True: shown one by one, in no statistic). Rows of the
            cohort `HELD_OUT` are of the training cohort.
        out_of_fold: Each member's predictions of its own fold: `repeat, fold, scan, n_train, target_years,
            predicted_years`; empty without cross-validation.
        metrics: Its validation table: `cohort, predictor, correction, group, level, metric, n_subjects, n_scans,
            estimate, ci_low, ci_high, note`.
        associations: Its associations' table, one row per term.
    """

    name: str
    family: str
    n_train: int
    budget: int
    members: int
    changes: Mapping[str, str]
    predictions: pd.DataFrame
    out_of_fold: pd.DataFrame = field(default_factory=pd.DataFrame)
    metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    associations: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class ArmComparison:
    """Tables of the comparison; ages and errors in years.

    Attributes:
        primary: The model that the others are set against.
        arms: `ARM_COLUMNS`, in the study's order.
        metrics: Whole cohorts, raw and bias-corrected (`METRIC_COLUMNS`).
        paired: Every other model against the primary one, per cohort (`cohort, role` and `comparison.COLUMNS`).
        folds: Metrics per model, repeat and fold (`fold_metrics.COLUMNS`).
        anova: One row per metric (`fold_comparison.ANOVA_COLUMNS`).
        fold_pairs: One row per metric and pair of models (`fold_comparison.PAIR_COLUMNS`).
        curve: Error by training size per cohort (`cohort` and `learning_curve.COLUMNS`); empty where sizes don't
            differ.
        associations: Terms of interest per model (`ASSOCIATION_COLUMNS`).
        apart: Subjects that take part in no statistic, one row per scan and model (`APART_COLUMNS`).
        problems: Plain sentences on what could not be compared.
    """

    primary: str
    arms: pd.DataFrame
    metrics: pd.DataFrame
    paired: pd.DataFrame
    folds: pd.DataFrame
    anova: pd.DataFrame
    fold_pairs: pd.DataFrame
    curve: pd.DataFrame
    associations: pd.DataFrame
    apart: pd.DataFrame
    problems: tuple[str, ...] = ()

    @property
    def models(self) -> list[str]:
        """Names of the models, the primary one first."""
        return [str(name) for name in self.arms["model"]]


def compare_arms(arms: Sequence[Arm], resamples: int = 10_000, seed: int = 0) -> ArmComparison:
    """Compare the models of a study; the first is the primary one.

    Args:
        arms: The models, each with predictions of the same cohorts.
        resamples: Draws of subjects.
        seed: Of the draws.

    Returns:
        The tables; those that the study has no material for are empty.

    Raises:
        ValueError: No model, or two of one name.
    """
    names = [arm.name for arm in arms]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"A comparison needs models of different names; found {', '.join(names) or 'none'}.")
    roles = _roles(arms)
    errors = pd.concat([error_table(_together(arm), arm.name) for arm in arms], ignore_index=True)
    folds = _folds(arms)
    curve, problems = _curve(arms, errors, roles, resamples, seed)
    return ArmComparison(
        primary=names[0],
        arms=_arm_table(arms),
        metrics=pd.concat([_metrics(arm, roles, resamples, seed) for arm in arms], ignore_index=True),
        paired=_paired(names[0], errors, roles, resamples, seed),
        folds=folds,
        anova=pd.DataFrame([anova_over_folds(folds, name) for name in FOLD_METRICS], columns=ANOVA_COLUMNS)
        if folds["model"].nunique() > 1
        else pd.DataFrame(columns=ANOVA_COLUMNS),
        fold_pairs=_stacked([compare_folds_pairwise(folds, name) for name in FOLD_METRICS], PAIR_COLUMNS),
        curve=curve,
        associations=_stacked([_associations(arm) for arm in arms], ASSOCIATION_COLUMNS),
        apart=_apart(arms),
        problems=problems,
    )


def _together(arm: Arm) -> pd.DataFrame:
    """The scans that statistics are made of."""
    return arm.predictions[~arm.predictions["apart"].astype(bool)]


def _roles(arms: Sequence[Arm]) -> dict[str, str]:
    tables = pd.concat([_together(arm)[["cohort", "role"]] for arm in arms], ignore_index=True)
    return dict(tables.drop_duplicates("cohort").itertuples(index=False, name=None))


def _stacked(tables: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True)[columns] if filled else pd.DataFrame(columns=columns)


def _arm_table(arms: Sequence[Arm]) -> pd.DataFrame:
    rows = []
    for place, arm in enumerate(arms):
        said = "; ".join(f"{name}: {value}" for name, value in arm.changes.items())
        changes = said or (
            "the primary model" if place == 0 else "nothing: the settings are those of the primary model"
        )
        rows.append((arm.name, arm.family, arm.budget, arm.n_train, arm.members, changes))
    return pd.DataFrame(rows, columns=ARM_COLUMNS)


def _metrics(arm: Arm, roles: Mapping[str, str], resamples: int, seed: int) -> pd.DataFrame:
    """The whole cohorts' rows of the model's validation, so that no figure differs from it, and the held-out part."""
    tables = []
    if len(arm.metrics):
        own = arm.metrics[(arm.metrics["predictor"] == "model") & (arm.metrics["group"] == "overall")]
        tables.append(own[own["cohort"].isin(list(roles))])
    mine = _together(arm)
    held_out = mine[(mine["cohort"] == HELD_OUT) & (mine["status"] == "ok") & mine["target_years"].notna()]
    if len(held_out):
        columns = held_out[["participant_id", "predicted_age_years"]].assign(age_years=held_out["target_years"])
        tables.append(
            metric_table(columns, (), resamples, seed).assign(cohort=HELD_OUT, predictor="model", correction="raw")
        )
    stacked = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=METRIC_COLUMNS)
    return stacked.assign(model=arm.name, role=stacked["cohort"].map(roles))[METRIC_COLUMNS]


def _paired(primary: str, errors: pd.DataFrame, roles: Mapping[str, str], resamples: int, seed: int) -> pd.DataFrame:
    tables = []
    for cohort, role in roles.items():
        mine = errors[errors["cohort"] == cohort]
        if primary in set(mine["model"]):
            table = compare_with_reference(mine, primary, resamples, seed)
            tables.append(table.assign(cohort=cohort, role=role))
    return _stacked(tables, ["cohort", "role", *PAIRED_COLUMNS])


def _folds(arms: Sequence[Arm]) -> pd.DataFrame:
    tables = [arm.out_of_fold.assign(model=arm.name) for arm in arms if len(arm.out_of_fold)]
    return fold_metrics(pd.concat(tables, ignore_index=True)) if tables else pd.DataFrame(columns=FOLD_COLUMNS)


def _curve(
    arms: Sequence[Arm], errors: pd.DataFrame, roles: Mapping[str, str], resamples: int, seed: int
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    models = pd.DataFrame(
        [(arm.name, arm.family, arm.n_train, arm.budget or arm.n_train, arm.budget) for arm in arms],
        columns=["model", "family", "n_train", "size", "budget"],
    )
    columns = ["cohort", *CURVE_COLUMNS]
    if not (models.groupby("family")["size"].nunique() > 1).any():
        return pd.DataFrame(columns=columns), ()
    twice = models[models.duplicated(["family", "budget"])]
    problems = tuple(
        f"{name} is left out of the learning curve: its family has another model of that size."
        for name in twice["model"]
    )
    models = models.drop(index=twice.index)
    tables = []
    for cohort, role in roles.items():
        # In patients an error may be the disease, so that no accuracy is learnt there.
        if role != "clinical":
            mine = errors[errors["cohort"] == cohort]
            tables.append(learning_curve(mine, models, arms[0].family, resamples, seed).assign(cohort=cohort))
    return _stacked(tables, columns), problems


def _associations(arm: Arm) -> pd.DataFrame:
    if arm.associations.empty:
        return pd.DataFrame(columns=ASSOCIATION_COLUMNS)
    rows = arm.associations[arm.associations["of_interest"].map(bool).astype(bool)]
    return rows.rename(columns={"model": "association"}).assign(model=arm.name)[ASSOCIATION_COLUMNS]


def _apart(arms: Sequence[Arm]) -> pd.DataFrame:
    tables = []
    for place, arm in enumerate(arms):
        rows = arm.predictions[arm.predictions["apart"].astype(bool)]
        difference = rows["predicted_age_years"].astype(float) - rows["target_years"].astype(float)
        tables.append(rows.assign(model=arm.name, difference_years=difference, place=place))
    stacked = _stacked(tables, [*APART_COLUMNS, "place"])
    return stacked.sort_values(["cohort", "participant_id", "session_id", "place"], kind="stable")[
        APART_COLUMNS
    ].reset_index(drop=True)
