"""Facts that a reader must not miss, derived from a study's numbers and said in plain sentences.

A pipeline that ran to its end has not thereby found anything: a model fitted on a few scans still gives every scan an
age. What the numbers do not support is therefore said at the top, by rule, whoever runs the study.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from .contents import (
    CORRECTED,
    MODEL,
    RAW,
    TISSUE_VOLUMES,
    Comparison,
    Estimate,
    ReportContents,
    cohorts_of_role,
    compare_with_constant,
    headline,
    is_ok,
    overall,
    problems_of,
    unpredicted,
)
from .notation import anything, estimate_with_interval, is_missing, number, plural
from .units import PER_YEAR, Unit, error_in_words

FEWEST_EXTERNAL_SUBJECTS = 30
FEWEST_TRAINING_SUBJECTS = 100
LARGEST_EXCLUDED_SHARE = 0.10
SMALLEST_CALIBRATION_SLOPE = 0.5


def find_cautions(contents: ReportContents) -> tuple[str, ...]:
    """Derive the cautions of a report, the gravest for the reader's conclusions first.

    Args:
        contents: The report's contents; cautions that it already holds are not read.

    Returns:
        Sentences; none where nothing was found.
    """
    return (
        *_of_validation(contents.flow, contents.metrics, contents.unit),
        *_of_centring(contents.validation.get("centring"), contents.unit),
        *_of_shift(contents.validation.get("shift")),
        *_of_training(contents.training, contents.predictions, contents.unit),
        *_of_flow(contents.flow, contents.exclusions),
        *_of_predictions(contents.flow, contents.predictions),
        *_of_associations(contents.associations),
    )


def training_size(training: Mapping[str, Any]) -> tuple[int, str] | None:
    """Find how much the network was fitted on: subjects where they are counted, else scans."""
    for key, noun in (("n_subjects", "subject"), ("n_scans", "scan")):
        counts = training.get(key)
        if isinstance(counts, Mapping) and not is_missing(counts.get("train")):
            return int(counts["train"]), noun
    return None


def _of_validation(flow: pd.DataFrame, metrics: pd.DataFrame, unit: Unit) -> Iterator[str]:
    external = cohorts_of_role(flow, "external")
    if not external:
        yield "There is no external cohort: nothing here shows how the model does on another site."
    for cohort in external:
        model = headline(metrics, cohort, "mae")
        if model is None or math.isnan(model.estimate):
            corrected = headline(metrics, cohort, "mae", correction=CORRECTED)
            beside = " Its bias-corrected MAE alone says nothing of accuracy." if corrected else ""
            yield f"{cohort}: the model's raw MAE could not be estimated, so it is not validated there.{beside}"
            continue
        yield from _against_constant(cohort, compare_with_constant(metrics, cohort), unit)
        yield from _against_tissue_volumes(cohort, model, headline(metrics, cohort, "mae", TISSUE_VOLUMES), unit)
        yield from _of_calibration(cohort, headline(metrics, cohort, "slope"))
        if model.n_subjects < FEWEST_EXTERNAL_SUBJECTS:
            yield (
                f"{cohort}: the external validation rests on {plural(model.n_subjects, 'subject')}, fewer than "
                f"{FEWEST_EXTERNAL_SUBJECTS}; its intervals are wide and themselves uncertain."
            )
        yield from _of_inestimable(cohort, metrics)


def _against_constant(cohort: str, comparison: Comparison | None, unit: Unit) -> Iterator[str]:
    if comparison is None:
        yield f"{cohort}: no mean-age baseline was computed, so the model's MAE stands without a comparison."
        return
    if comparison.is_better:
        return
    figures = f"MAE {_error(comparison.model_mae, unit)} against {_error(comparison.baseline_mae, unit)}"
    if comparison.difference is not None:
        figures += f", difference {_error(comparison.difference, unit)}"
    found = "is worse than" if comparison.is_worse else "is not shown to be better than"
    yield (
        f"{cohort}: the model {found} predicting the training cohort's {comparison.baseline}: {figures}; "
        "its brain-PAD is not shown to carry information beyond age."
    )


def _against_tissue_volumes(cohort: str, model: Estimate, baseline: Estimate | None, unit: Unit) -> Iterator[str]:
    if baseline is not None and model.estimate > baseline.estimate:
        yield (
            f"{cohort}: a linear model on tissue volumes alone is more accurate than the network: "
            f"MAE {_error(baseline, unit)} against {_error(model, unit)}."
        )


def _of_calibration(cohort: str, slope: Estimate | None) -> Iterator[str]:
    if slope is None or math.isnan(slope.estimate):
        return
    figures = estimate_with_interval(slope.estimate, slope.ci_low, slope.ci_high)
    if slope.ci_low <= 0:
        yield f"{cohort}: predicted age is not shown to rise with age at all: calibration slope {figures}."
    elif slope.ci_high < SMALLEST_CALIBRATION_SLOPE:
        yield (
            f"{cohort}: predictions are pulled strongly towards the mean: calibration slope {figures}, where 1 is "
            "ideal. Young brains look too old and old ones too young; compare groups only with age as a covariate."
        )


def _of_inestimable(cohort: str, metrics: pd.DataFrame) -> Iterator[str]:
    rows = overall(metrics)
    rows = rows[(rows["cohort"] == cohort) & (rows["predictor"] == MODEL) & (rows["correction"] == RAW)]
    names = sorted({str(row["metric"]) for _, row in rows.iterrows() if is_missing(row["estimate"])})
    if names:
        yield f"{cohort}: not estimable for the model: {', '.join(names)}."


def _of_centring(centring: pd.DataFrame | None, unit: Unit) -> Iterator[str]:
    for row in [] if centring is None or centring.empty else centring.to_dict("records"):
        if row["correction"] != RAW or is_missing(row["ci_low"]) or row["ci_low"] <= 0 <= row["ci_high"]:
            continue
        found = error_in_words(row["mean_pad_years"], row["ci_low"], row["ci_high"], unit)
        yield (
            f"{row['cohort']}: in healthy people ({plural(int(row['n_subjects']), 'subject')}) predictions are off by "
            f"{found} on average; that is the model's or the scanner's, and every patient there carries it, too."
        )


def _of_shift(shift: pd.DataFrame | None) -> Iterator[str]:
    moved = shift[shift["shifted"].astype(bool)] if shift is not None and len(shift) else pd.DataFrame()
    for cohort, rows in moved.groupby("cohort", sort=False) if len(moved) else ():
        differ = "differs" if len(rows) == 1 else "differ"
        yield (
            f"{cohort}: {plural(len(rows), 'figure')} {differ} much from training (see “Shift against training”), so "
            "that the model may err there in ways that its other figures do not show."
        )


def _of_training(training: Mapping[str, Any], predictions: pd.DataFrame, unit: Unit) -> Iterator[str]:
    size = training_size(training)
    if size is not None and size[0] < FEWEST_TRAINING_SUBJECTS:
        yield (
            f"The network was fitted on {plural(*size)}, fewer than {FEWEST_TRAINING_SUBJECTS}: too few to learn "
            "brain age. Take its predictions as a test of the machinery, not as findings."
        )
    best, epochs = training.get("best_epoch"), training.get("epochs_run", training.get("epochs"))
    if isinstance(best, int) and isinstance(epochs, int) and best + 1 >= epochs:
        yield (
            f"The validation error was lowest in the last of {plural(epochs, 'epoch')}: the fit may have stopped "
            "before it converged."
        )
    yield from _of_age_range(training.get("age_range_years"), predictions, unit)


def _of_age_range(age_range_years: Any, predictions: pd.DataFrame, unit: Unit) -> Iterator[str]:
    if age_range_years is None or predictions.empty:
        return
    first, last = (float(edge) for edge in age_range_years)
    shown = [number(edge * PER_YEAR[unit], 1) for edge in (first, last)]
    for cohort, rows in predictions[predictions["role"] != "train"].groupby("cohort", sort=True):
        ages = rows["age_years"].astype(float)
        beyond = (ages < first) | (ages > last)
        outside, scored = int(beyond.sum()), int((beyond & is_ok(rows)).sum())
        if outside:
            became = f"{scored:,} of them have an age, which is extrapolated" if scored else "they are not scored"
            yield (
                f"{cohort}: {outside:,} of {plural(len(rows), 'scan')} {'lies' if outside == 1 else 'lie'} outside the "
                f"training ages ({shown[0]} to {shown[1]} {unit}); {became}."
            )


def _of_flow(flow: pd.DataFrame, exclusions: pd.DataFrame) -> Iterator[str]:
    for row in flow.to_dict("records"):
        cohort = row["cohort"]
        indexed, unused, prepared, excluded, missing = (
            int(row[key]) for key in ("indexed", "unused", "prepared", "excluded", "missing")
        )
        wanted = indexed - unused
        if missing:
            yield f"{cohort}: {missing:,} of {plural(wanted, 'scan')} missing: neither prepared nor excluded."
        if prepared + excluded + missing != wanted:
            yield (
                f"{cohort}: the counts do not add up: {prepared:,} prepared, {excluded:,} excluded and {missing:,} "
                f"missing are not the {wanted:,} that were to be used."
            )
        if wanted and excluded / wanted > LARGEST_EXCLUDED_SHARE:
            yield (
                f"{cohort}: {excluded:,} of {plural(wanted, 'scan')} ({excluded / wanted:.0%}) excluded; "
                "what is left may not represent the cohort."
            )
        listed = int((exclusions["cohort"] == cohort).sum())
        if listed != excluded:
            yield f"{cohort}: {excluded:,} scans are counted as excluded, but {listed:,} are listed with a reason."


def _of_predictions(flow: pd.DataFrame, predictions: pd.DataFrame) -> Iterator[str]:
    for name, n_prepared, n_lost in unpredicted(flow, predictions):
        yield f"{name}: {n_lost:,} of {plural(n_prepared, 'prepared scan')} have no prediction, not even a refused one."
    for cohort, rows in predictions.groupby("cohort", sort=True):
        bad = rows[~is_ok(rows)]
        if len(bad):
            kinds = ", ".join(f"{status} {n:,}" for status, n in bad["status"].map(anything).value_counts().items())
            yield f"{cohort}: {len(bad):,} of {plural(len(rows), 'prediction')} not usable ({kinds})."


def _of_associations(associations: pd.DataFrame) -> Iterator[str]:
    for model, rows in associations.groupby("model", sort=False):
        problems = dict.fromkeys(problem.rstrip(".") for value in rows["problems"] for problem in problems_of(value))
        if problems:
            yield f"Association “{model}”: {'; '.join(problems)}."


def _error(value: Estimate, unit: Unit) -> str:
    return error_in_words(value.estimate, value.ci_low, value.ci_high, unit)
