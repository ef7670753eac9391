"""What validation looks at beside metrics: coverage, centring, agreement, calibration, retest, shift."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from infra import layout
from infra.storage import Store
from tasks.science.cohort.outliers import FIGURES
from tasks.science.statistics.agreement import calibration_bins, limits_of_agreement
from tasks.science.statistics.conformal import ConformalInterval, coverage_table
from tasks.science.statistics.controls import PREDICTORS, are_controls, centring_table
from tasks.science.statistics.retest import retest_table
from tasks.science.statistics.shift import COLUMNS as SHIFT_COLUMNS
from tasks.science.statistics.shift import shift_table
from tasks.steps.members import member_predictions, members_of, unseen_predictions
from tasks.steps.progress import CohortState, FittedModel
from tasks.steps.quality import quality_table

NAMES = (
    "agreement", "calibration-bins", "centring", "coverage", "limits-of-agreement", "retest", "retest-pairs", "shift",
)  # fmt: skip
POINT_COLUMNS = [
    "cohort", "role", "scan_id", "participant_id", "session_id", "site", "is_control", "target_years",
    "predicted_age_years", "mean_years", "difference_years",
]  # fmt: skip
PAD, AGE = "brain_pad_years", "target_years"


def validation_tables(store: Store, model: FittedModel, measured: pd.DataFrame | None) -> dict[str, pd.DataFrame]:
    """Every table beside the metrics, by name (`NAMES`); empty where a study has nothing to put there.

    Args:
        store: Where figures of training scans lie.
        model: The fitted model with all cohorts.
        measured: Predictions of cohorts that are not apart, with the target as `age_years`; None without such a cohort.
    """
    if measured is None or measured.empty:
        return dict.fromkeys(NAMES, pd.DataFrame())
    spec = model.study.validation
    draws = (spec.resamples, spec.seed)
    rows = measured.assign(is_control=are_controls(measured, spec.controls))
    retest, pairs = retest_table(rows, spec.retest_days)
    return {
        "agreement": agreement_points(rows),
        "calibration-bins": calibration_bins(rows, *draws),
        "centring": centring_table(rows, *draws),
        "coverage": coverage_of(rows, model.record["intervals"], spec.groups),
        "limits-of-agreement": limits_of_agreement(rows, *draws),
        "retest": retest,
        "retest-pairs": pairs,
        "shift": shift_of(store, model, rows),
    }


def agreement_points(rows: pd.DataFrame) -> pd.DataFrame:
    """Each scan as the figures show it: predicted against target, and their difference against their mean."""
    target, predicted = rows["age_years"].astype(float), rows["predicted_age_years"].astype(float)
    points = rows.assign(target_years=target, mean_years=(target + predicted) / 2, difference_years=predicted - target)
    return points.reindex(columns=POINT_COLUMNS).sort_values(["cohort", "scan_id"], kind="stable", ignore_index=True)


def coverage_of(rows: pd.DataFrame, intervals: dict[str, Any], groups: tuple[str, ...]) -> pd.DataFrame:
    """How often the model's intervals hold the ages of healthy people of other cohorts.

    Args:
        rows: Measured predictions with `is_control`; patients may have a brain age of their own.
        intervals: What the fit's record says, by `raw` and `corrected`.
        groups: Columns to give coverage by, beside the whole.
    """
    tables = []
    columns = {"raw": PREDICTORS["raw"], "corrected": PREDICTORS["bias-corrected"]}
    for cohort, table in rows[rows["is_control"].astype(bool)].groupby("cohort", sort=False):
        for which in (name for name in columns if name in intervals):
            found = intervals[which]
            known = table[table[columns[which]].notna()]
            if known.empty:
                continue
            half_width_years = math.inf if found["half_width_years"] is None else found["half_width_years"]
            conformal = ConformalInterval(
                half_width_years, 1 - found["level"], 0, found["n_subjects"], False, found["note"]
            )
            own = coverage_table(known.assign(predicted_age_years=known[columns[which]]), conformal, groups)
            correction = "bias-corrected" if which == "corrected" else which
            tables.append(own.assign(cohort=str(cohort), correction=correction))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def shift_of(store: Store, model: FittedModel, rows: pd.DataFrame) -> pd.DataFrame:
    """Image quality and brain-PAD of each cohort's controls against training.

    Images are set against the scans that were trained on. Brain-PAD is set against the calibration part, which no
    member has seen: residuals of training scans are too small for anything to compare with.

    Returns:
        `who` (controls, or everybody where none is known) and the columns of `shift_table`, a row per cohort and
        figure; `brain_pad_years` is left out where it has no reference or nobody is known to be a control.
    """
    images = _training_figures(store, model)
    pads = _calibration_pads(store, model)
    tables = []
    for state in model.scored:
        own = rows[rows["cohort"] == state.spec.name]
        if own.empty:
            continue
        controls = own[own["is_control"].astype(bool)]
        chosen = controls if len(controls) else own
        figures = _figures(store, state, chosen).assign(target_years=chosen["age_years"].to_numpy())
        table = shift_table(images, {state.spec.name: figures}, _compared(images, figures))
        if len(pads) and len(controls):
            pad = (controls["predicted_age_years"] - controls["age_years"]).astype(float)
            table = pd.concat(
                [shift_table(pads, {state.spec.name: controls.assign(brain_pad_years=pad)}, [PAD]), table],
                ignore_index=True,
            )
        everybody = "everybody" if len(chosen) == len(own) else "controls"
        tables.append(table.assign(who=everybody))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*SHIFT_COLUMNS, "who"])


def _compared(images: pd.DataFrame, figures: pd.DataFrame) -> list[str]:
    named = [AGE, *FIGURES]
    return [name for name in named if name in images and name in figures and images[name].notna().any()]


def _training_figures(store: Store, model: FittedModel) -> pd.DataFrame:
    rows = _rows(store, model)
    trained = rows[rows["split"] == "train"].reset_index(drop=True)
    states = [state for state in model.states if state.spec.role == "train"]
    tables = [_figures(store, state, trained[trained["cohort"] == state.spec.name]) for state in states]
    return pd.concat([table for table in tables if len(table)], ignore_index=True)


def _figures(store: Store, state: CohortState, scans: pd.DataFrame) -> pd.DataFrame:
    """Quality figures of a cohort's scans, with what tells subjects and the order of their sessions."""
    keys = scans["sha256"].reset_index(drop=True)
    figures = quality_table(store, state.spec.name, state.indexed.root, state.recipe_key, keys)
    who = scans.reindex(columns=["participant_id", "session_id", "years_since_baseline", AGE]).reset_index(drop=True)
    return pd.concat([who, figures[[name for name in FIGURES if name in figures]].astype(float)], axis=1)


def _calibration_pads(store: Store, model: FittedModel) -> pd.DataFrame:
    rows = _rows(store, model)
    unseen = unseen_predictions(member_predictions(store, model.fit_key, members_of(model.study)), "calibration")
    named = rows.drop(columns=[AGE]).merge(unseen, on="scan_id", validate="one_to_one")
    return named.assign(brain_pad_years=named["predicted_age_years"] - named[AGE])


def _rows(store: Store, model: FittedModel) -> pd.DataFrame:
    return store.read_table(f"{layout.fit_folder(model.fit_key)}/rows.parquet")
