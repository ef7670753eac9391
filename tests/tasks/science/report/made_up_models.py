"""Made-up models of two studies: adults on two contrasts with a learning curve, infants on five inputs over folds."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from tasks.science.statistics.arms import HELD_OUT, Arm, ArmComparison, compare_arms
from tasks.science.statistics.bootstrap import metric_table

ADULTS = {
    # name: family, training subjects, budget, error in years, what sets it apart
    "rnc": ("rnc", 400, 0, 3.2, {}),
    "regression": ("regression", 398, 0, 3.9, {"training.objective": "age"}),
    "rnc-100": ("rnc", 100, 100, 4.4, {"train_subjects": "100"}),
    "regression-100": ("regression", 100, 100, 6.1, {"training.objective": "age", "train_subjects": "100"}),
    "rnc-50": ("rnc", 50, 50, 5.4, {"train_subjects": "50"}),
    "regression-50": ("regression", 50, 50, 8.0, {"training.objective": "age", "train_subjects": "50"}),
}
INPUTS = {"ratio": 0.125, "T1w": 0.19, "T2w": 0.17, "T1w-T2w": 0.15, "T1w-T2w-ratio": 0.14}


def cohort(name: str, role: str, ages: np.ndarray, predicted: np.ndarray, apart: bool = False) -> pd.DataFrame:
    """One session per subject, as the model of an arm sees it."""
    subjects = [f"sub-{name[:2]}{number:03d}" for number in range(len(ages))]
    return pd.DataFrame(
        {
            "cohort": name,
            "role": role,
            "participant_id": subjects,
            "session_id": "ses-1",
            "age_years": ages,
            "target_years": ages,
            "predicted_age_years": predicted,
            "status": "ok",
            "reason": "",
            "apart": apart,
        }
    )


def validation_of(predictions: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """A validation table as the study's own step writes it."""
    rows = predictions[(predictions["status"] == "ok") & ~predictions["apart"] & (predictions["cohort"] != HELD_OUT)]
    tables = [
        metric_table(part[["participant_id", "age_years", "predicted_age_years"]], (), resamples).assign(
            cohort=name, predictor="model", correction="raw"
        )
        for name, part in rows.groupby("cohort", sort=False)
    ]
    return pd.concat(tables, ignore_index=True)


def associations_of(slope: float) -> pd.DataFrame:
    """Terms of two declared models, one of them without a fit."""
    nan = float("nan")
    severity, diagnosis = "brain_pad_years ~ edss + age_years + sex", "brain_pad_years ~ diagnosis + age_years + sex"
    rows = [
        ("severity", severity, "edss", slope, slope - 0.4, slope + 0.4, 0.01 / slope, 0.02 / slope, 96, 4, True, []),
        ("severity", severity, "age_years", -0.2, -0.3, -0.1, 0.001, nan, 96, 4, False, []),
        ("diagnosis", diagnosis, "diagnosis[T.MS]", 6 * slope, slope, 11 * slope, 0.004, 0.008, 98, 2, True, []),
        ("trend", "edss ~ brain_pad_years", None, nan, nan, nan, nan, nan, 0, 100, True, ["no complete rows"]),
    ]
    columns = "model formula term estimate ci_low ci_high p_value q_value n_used n_dropped of_interest problems"
    return pd.DataFrame(rows, columns=columns.split())


def adult_arms(resamples: int = 100) -> list[Arm]:
    """Six models: two ways of training at three sizes, one with a scan that it could not read."""
    rng = np.random.default_rng(1)
    external, clinical, held = rng.uniform(20, 80, 60), rng.uniform(20, 70, 100), rng.uniform(20, 80, 40)
    effort = {size: rng.normal(0, 1, size) for size in (60, 100, 40)}
    arms = []
    for name, (family, n_train, budget, error, changes) in ADULTS.items():
        tables = [
            cohort(where, role, ages, ages + error * (0.6 * effort[len(ages)] + rng.normal(0, 0.8, len(ages))))
            for where, role, ages in (
                ("northern-sites", "external", external),
                ("clinic", "clinical", clinical),
                (HELD_OUT, "train", held),
            )
        ]
        predictions = pd.concat(tables, ignore_index=True)
        if name == "regression":
            predictions.loc[3, ["status", "predicted_age_years"]] = ["unreadable", np.nan]
        arms.append(
            Arm(
                name=name,
                family=family,
                n_train=n_train,
                budget=budget,
                members=5,
                changes=changes,
                predictions=predictions,
                metrics=validation_of(predictions, resamples),
                associations=associations_of(3.2 / error),
            )
        )
    return arms


def infant_arms(resamples: int = 100) -> list[Arm]:
    """Five inputs over twice five folds, ten infants of another hospital, three with abnormal myelination."""
    rng = np.random.default_rng(2)
    ages, external, abnormal = rng.uniform(0, 2, 100), rng.uniform(0, 2, 10), np.array([0.75, 1.1, 1.8])
    folds = pd.concat(
        [
            pd.DataFrame({"repeat": repeat, "fold": rng.permutation(100) % 5, "scan": range(100), "target_years": ages})
            for repeat in (1, 2)
        ],
        ignore_index=True,
    )
    arms = []
    for place, (name, error) in enumerate(INPUTS.items()):
        predictions = pd.concat(
            [
                cohort("other-hospital", "external", external, external + rng.normal(0, error, 10)),
                cohort("abnormal", "clinical", abnormal, abnormal - 0.4 + rng.normal(0, error, 3), apart=True),
            ],
            ignore_index=True,
        )
        arms.append(
            Arm(
                name=name,
                family=name,
                n_train=60,
                budget=0,
                members=10,
                changes={"network.inputs": name.replace("-", ", ")} if place else {},
                predictions=predictions,
                out_of_fold=folds.assign(
                    n_train=60, predicted_years=folds["target_years"] + rng.normal(0, error, len(folds))
                ),
                metrics=validation_of(predictions, resamples),
            )
        )
    return arms


@cache
def adults() -> ArmComparison:
    """The comparison of the adults' models."""
    return compare_arms(adult_arms(), resamples=500)


@cache
def infants() -> ArmComparison:
    """The comparison of the infants' models."""
    return compare_arms(infant_arms(), resamples=500)
