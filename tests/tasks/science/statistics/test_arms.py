"""The comparison of a study's models is made of the right rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tasks.science.statistics.arms import HELD_OUT, Arm, compare_arms
from tasks.science.statistics.bootstrap import metric_table
from tasks.science.statistics.comparison import error_table
from tests.tasks.science.report.made_up_models import INPUTS, adult_arms, adults, infant_arms, infants


def mae_of(predictions: pd.DataFrame) -> float:
    return float((predictions["predicted_age_years"] - predictions["target_years"]).abs().mean())


def test_every_other_model_is_paired_with_the_first_in_every_cohort() -> None:
    paired = adults().paired
    assert paired.groupby("cohort", sort=False).size().to_dict() == {"northern-sites": 5, "clinic": 5, HELD_OUT: 5}
    assert set(paired["reference"]) == {"rnc"}
    (unread,) = paired[(paired["cohort"] == "northern-sites") & (paired["model"] == "regression")].to_dict("records")
    assert (unread["n_subjects"], unread["n_unpaired"]) == (59, 1)


def test_holm_is_over_the_models_of_one_cohort() -> None:
    for _, rows in adults().paired.groupby("cohort"):
        smallest = rows["p_t"].min()
        assert rows["p_t_holm"].min() == pytest.approx(min(1, 5 * smallest))


def test_figures_of_a_cohort_are_those_of_the_validation_and_of_the_rows() -> None:
    arms = adult_arms()
    metrics = adults().metrics.set_index(["model", "cohort", "metric"])
    for arm in arms:
        stored = arm.metrics.set_index(["cohort", "metric"])
        assert metrics.loc[(arm.name, "clinic", "mae"), "ci_low"] == stored.loc[("clinic", "mae"), "ci_low"]
        held_out = arm.predictions[arm.predictions["cohort"] == HELD_OUT]
        assert metrics.loc[(arm.name, HELD_OUT, "mae"), "estimate"] == pytest.approx(mae_of(held_out))


def test_subjects_apart_are_in_no_statistic() -> None:
    comparison = infants()
    assert len(comparison.apart) == 3 * len(INPUTS)
    assert list(comparison.apart["model"][:5]) == list(INPUTS)
    for table in (comparison.metrics, comparison.paired, comparison.curve):
        assert "abnormal" not in set(table["cohort"])
    far = np.where(infant_arms()[0].predictions["apart"], 9.0, 0.0)
    moved = [
        replace(
            arm, predictions=arm.predictions.assign(predicted_age_years=arm.predictions["predicted_age_years"] + far)
        )
        for arm in infant_arms()
    ]
    pd.testing.assert_frame_equal(compare_arms(moved, resamples=500).paired, comparison.paired)


def test_folds_are_compared_by_every_metric_and_every_pair() -> None:
    comparison = infants()
    assert len(comparison.folds) == 10 * len(INPUTS)
    assert comparison.folds.groupby(["model", "repeat"])["n"].sum().eq(100).all()
    assert list(comparison.anova["metric"]) == ["mae", "rmse", "r2", "pearson", "spearman"]
    assert comparison.anova["p_value"].iloc[0] < 0.001
    assert comparison.fold_pairs.groupby("metric").size().eq(10).all()
    assert (comparison.fold_pairs["p_corrected"] > comparison.fold_pairs["p_t"]).all()


def test_a_learning_curve_pairs_by_the_size_that_was_asked_for_and_leaves_patients_out() -> None:
    curve = adults().curve
    assert set(curve["cohort"]) == {"northern-sites", HELD_OUT}
    all_of_them = curve[(curve["model"] == "regression") & (curve["cohort"] == "northern-sites")].iloc[0]
    assert (all_of_them["n_train"], all_of_them["reference"], all_of_them["n_paired"]) == (398, "rnc", 59)
    assert infants().curve.empty


def test_two_models_of_one_size_are_said_and_one_left_out() -> None:
    arms = adult_arms()
    arms.append(replace(arms[1], name="regression-again"))
    comparison = compare_arms(arms, resamples=20)
    assert "regression-again" not in set(comparison.curve["model"])
    assert comparison.problems == (
        "regression-again is left out of the learning curve: its family has another model of that size.",
    )


def test_only_terms_of_interest_are_set_beside_one_another() -> None:
    assert list(adults().associations.groupby("model", sort=False).size()) == [3] * 6
    assert "age_years" not in set(adults().associations["term"])


def test_models_on_different_contrasts_are_paired_by_session() -> None:
    flair = pd.DataFrame(
        {
            "cohort": "clinic", "participant_id": ["sub-1", "sub-1", "sub-2"], "session_id": ["ses-1", "ses-2", None],
            "scan_id": ["sub-1_ses-1_FLAIR", "sub-1_ses-2_FLAIR", "sub-2_FLAIR"], "target_years": [1.0, 2.0, np.nan],
            "predicted_age_years": [1.0, 2.0, 3.0], "status": "ok",
        }
    )  # fmt: skip
    t1w = flair.assign(scan_id=flair["scan_id"].str.replace("FLAIR", "T1w"))
    assert error_table(flair, "flair")["scan"].tolist() == ["clinic/sub-1/ses-1", "clinic/sub-1/ses-2"]
    assert error_table(t1w, "t1w")["scan"].tolist() == error_table(flair, "flair")["scan"].tolist()


def test_one_model_without_anything_else_gives_empty_tables() -> None:
    arm: Arm = adult_arms()[0]
    comparison = compare_arms([replace(arm, associations=pd.DataFrame(), metrics=pd.DataFrame())], resamples=20)
    assert comparison.paired.empty
    assert comparison.fold_pairs.empty
    assert list(comparison.metrics["cohort"].unique()) == [HELD_OUT]
    with pytest.raises(ValueError, match="different names"):
        compare_arms([arm, arm])


def test_held_out_figures_are_those_of_the_metric_table() -> None:
    arm = adult_arms()[0]
    rows = arm.predictions[arm.predictions["cohort"] == HELD_OUT]
    direct = metric_table(rows[["participant_id", "age_years", "predicted_age_years"]], (), 500)
    found = adults().metrics
    found = found[(found["model"] == "rnc") & (found["cohort"] == HELD_OUT)].reset_index(drop=True)
    pd.testing.assert_series_equal(found["ci_high"], direct["ci_high"])
