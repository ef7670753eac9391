"""Each caution is raised by the numbers that call for it, and by no others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest

from tasks.science.report.cautions import find_cautions
from tasks.science.report.contents import ReportContents
from tasks.science.statistics.analysis import gathered

from .made_up_study import made_up_study

Change = Callable[[ReportContents], ReportContents]


@pytest.fixture(scope="module")
def sound() -> ReportContents:
    """A study without a fault: the made-up one, its bad rows mended."""
    study = made_up_study()
    predictions = study.predictions.assign(status="ok")
    validation = {**study.validation, "shift": study.validation["shift"].assign(shifted=False)}
    mended = replace(study, predictions=predictions, validation=validation, cautions=())
    return with_problems(mended, [[]] * 7)


def with_check(study: ReportContents, name: str, **changes: object) -> ReportContents:
    """Another first row of one of validation's tables."""
    table = study.validation[name].copy()
    table.loc[table.index[0], list(changes)] = list(changes.values())
    return replace(study, validation={**study.validation, name: table})


def with_problems(study: ReportContents, problems: list[list[str]]) -> ReportContents:
    return replace(study, analysis=replace(study.analysis, effects=study.associations.assign(problems=problems)))


def with_metric(
    study: ReportContents,
    metric: str,
    values: tuple[float, float, float],
    predictor: str = "model",
    n: int | None = None,
) -> ReportContents:
    metrics = study.metrics.copy()
    rows = (metrics["metric"] == metric) & (metrics["predictor"] == predictor) & (metrics["correction"] == "raw")
    rows &= (metrics["group"] == "overall") & (metrics["cohort"] == "northern-sites")
    assert rows.sum() == 1
    metrics.loc[rows, ["estimate", "ci_low", "ci_high"]] = values
    if n is not None:
        metrics.loc[rows, "n_subjects"] = n
    return replace(study, metrics=metrics)


def with_flow(study: ReportContents, **changes: int) -> ReportContents:
    flow = study.flow.copy()
    for column, change in changes.items():
        flow.loc[1, column] += change
    return replace(study, flow=flow)


def without_predictions(study: ReportContents, n: int) -> ReportContents:
    return replace(study, predictions=study.predictions.iloc[n:])


def with_difference(study: ReportContents, low: float, high: float) -> ReportContents:
    row = study.metrics[
        (study.metrics["predictor"] == "mean age") & (study.metrics["cohort"] == "northern-sites")
    ].iloc[[0]]
    row = row.assign(metric="mae_difference", estimate=(low + high) / 2, ci_low=low, ci_high=high)
    return replace(study, metrics=pd.concat([study.metrics, row], ignore_index=True))


def excluding(study: ReportContents, n: int) -> ReportContents:
    rows = pd.DataFrame(
        [("northern-sites", f"sub-x{i}", "read", "truncated") for i in range(n)], columns=study.exclusions.columns
    )
    changed = with_flow(study, indexed=n, excluded=n)
    return replace(changed, exclusions=pd.concat([study.exclusions, rows], ignore_index=True))


def test_a_sound_study_raises_none(sound: ReportContents) -> None:
    assert find_cautions(sound) == ()


def test_the_mean_age_sentence_says_the_numbers(sound: ReportContents) -> None:
    study = with_metric(sound, "mae", (9.1, 7.2, 11.0))
    study = with_metric(study, "mae", (8.4, 6.9, 10.2), "mean age")
    study = with_metric(study, "mae", (20.0, 18.0, 22.0), "tissue volumes")
    assert find_cautions(study) == (
        "northern-sites: the model is not shown to be better than predicting the training cohort's mean age: "
        "MAE 9.10 y [7.20, 11.00] against 8.40 y [6.90, 10.20]; "
        "its brain-PAD is not shown to carry information beyond age.",
    )


CASES: dict[str, tuple[Change, str]] = {
    "no external cohort": (lambda s: replace(s, flow=s.flow[s.flow["role"] != "external"]), "no external cohort"),
    "no better than the mean age": (
        lambda s: with_metric(with_metric(s, "mae", (12.0, 10.5, 13.5)), "mae", (20.0, 18.0, 22.0), "tissue volumes"),
        "is not shown to be better than predicting the training cohort's mean age",
    ),
    "worse than the mean age": (
        lambda s: with_metric(with_metric(s, "mae", (30.0, 25.0, 35.0)), "mae", (40.0, 38.0, 42.0), "tissue volumes"),
        "is worse than predicting the training cohort's mean age",
    ),
    "paired difference crosses zero": (lambda s: with_difference(s, -3.0, 0.4), "difference −1.30 y [−3.00, 0.40]"),
    "worse than tissue volumes": (
        lambda s: with_metric(s, "mae", (3.0, 2.5, 3.5), "tissue volumes"),
        "tissue volumes alone is more accurate",
    ),
    "no baseline": (
        lambda s: replace(s, metrics=s.metrics[s.metrics["predictor"] != "mean age"]),
        "no mean-age baseline",
    ),
    "few external subjects": (lambda s: with_metric(s, "mae", (4.7, 4.1, 5.4), n=29), "29 subjects, fewer than 30"),
    "raw MAE absent": (
        lambda s: replace(
            s, metrics=s.metrics[(s.metrics["correction"] != "raw") | (s.metrics["predictor"] != "model")]
        ),
        "bias-corrected MAE alone says nothing",
    ),
    "slope low": (lambda s: with_metric(s, "calibration_slope", (0.3, 0.2, 0.4)), "pulled strongly towards the mean"),
    "slope zero": (lambda s: with_metric(s, "calibration_slope", (0.1, -0.1, 0.3)), "not shown to rise with age"),
    "not estimable": (lambda s: with_metric(s, "r2", (float("nan"),) * 3), "not estimable for the model: r2"),
    "small training set": (
        lambda s: replace(s, training={**s.training, "n_subjects": {"train": 99}}),
        "fitted on 99 subjects, fewer than 100",
    ),
    "still falling": (lambda s: replace(s, training={**s.training, "best_epoch": 53}), "last of 54 epochs"),
    "ages outside": (
        lambda s: replace(s, training={**s.training, "age_range_years": (30.0, 82.0)}),
        "outside the training ages (30.0 to 82.0 years)",
    ),
    "off centre": (
        lambda s: with_check(s, "centring", mean_pad_years=2.0, ci_low=0.5, ci_high=3.5),
        "northern-sites: in healthy people (59 subjects) predictions are off by 2.00 y [0.50, 3.50] on average",
    ),
    "shift": (lambda s: with_check(s, "shift", shifted=True), "northern-sites: 1 figure differs much from training"),
    "missing": (lambda s: without_predictions(with_flow(s, prepared=-2, missing=2), 2), "2 of 61 scans missing"),
    "does not add up": (lambda s: without_predictions(with_flow(s, prepared=-2), 2), "do not add up"),
    "many excluded": (lambda s: excluding(s, 7), "8 of 68 scans (12%) excluded"),
    "exclusion not listed": (lambda s: replace(s, exclusions=s.exclusions.iloc[:-1]), "are listed with a reason"),
    "prediction lost": (
        lambda s: replace(s, predictions=s.predictions.iloc[1:]),
        "northern-sites: 1 of 60 prepared scans have no prediction",
    ),
    "prediction not ok": (
        lambda s: replace(s, predictions=s.predictions.assign(status=["out-of-range", *["ok"] * 119])),
        "1 of 60 predictions not usable (out-of-range 1)",
    ),
    "fit problem": (
        lambda s: with_problems(s, [["singular fit."]] + [[]] * 6),
        "Association “diagnosis”: singular fit.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_caution_is_raised_alone(sound: ReportContents, case: str) -> None:
    change, words = CASES[case]
    found = [caution for caution in find_cautions(change(sound)) if words in caution]
    assert len(found) == (2 if case == "ages outside" else 1)
    unrelated = [caution for caution in find_cautions(change(sound)) if words not in caution]
    assert unrelated == []


SILENT: dict[str, Change] = {
    "thirty external subjects": lambda s: with_metric(s, "mae", (4.7, 4.1, 5.4), n=30),
    "a hundred training subjects": lambda s: replace(s, training={**s.training, "n_subjects": {"train": 100}}),
    "scans are not counted where subjects are": lambda s: replace(
        s, training={**s.training, "n_subjects": {"train": 100}, "n_scans": {"train": 5}}
    ),
    "slope interval reaches one half": lambda s: with_metric(s, "calibration_slope", (0.4, 0.3, 0.5)),
    "a tenth excluded": lambda s: excluding(s, 5),
    "paired difference below zero": lambda s: with_difference(
        with_metric(with_metric(s, "mae", (12.0, 10.5, 13.5)), "mae", (20.0, 18.0, 22.0), "tissue volumes"), -3.0, -0.1
    ),
    "no associations": lambda s: replace(s, analysis=gathered([])),
    "training ages reach the cohort's": lambda s: replace(s, training={**s.training, "age_range_years": (22.0, 78.0)}),
}


@pytest.mark.parametrize("case", SILENT)
def test_no_caution_at_the_bounds(sound: ReportContents, case: str) -> None:
    assert find_cautions(SILENT[case](sound)) == ()


def test_two_dozen_scans_are_said_to_teach_nothing(sound: ReportContents) -> None:
    study = made_up_study(error_years=20.0, n_subjects=24)
    study = replace(study, training={"n_subjects": {"train": 16, "validation": 4, "calibration": 4}})
    found = " ".join(find_cautions(study))
    assert "fitted on 16 subjects" in found
    assert "not as findings" in found
    assert "24 subjects" in found or "23 subjects" in found
