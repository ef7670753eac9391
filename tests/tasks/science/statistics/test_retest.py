"""Agreement of repeated sessions against printed figures and an analysis of variance of its own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.science.statistics.retest import REPEATABILITY, icc_2_1, retest_table, within_subject_sd

# Shrout & Fleiss 1979, table 2: six targets, four judges; ICC(2,1) is printed as .29.
JUDGES = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def test_equals_the_example_of_shrout_and_fleiss() -> None:
    icc, low, high = icc_2_1(JUDGES)
    assert icc == pytest.approx(0.29, abs=0.005)
    # The interval that the R package psych prints for these data.
    assert (low, high) == pytest.approx((0.019, 0.761), abs=0.001)


def anova_icc(x: np.ndarray) -> float:
    """Two-way analysis of variance by least squares on indicator columns."""
    n, k = x.shape
    y = x.ravel()
    subject, session = np.repeat(np.eye(n), k, axis=0), np.tile(np.eye(k), (n, 1))

    def unexplained(*parts: np.ndarray) -> float:
        design = np.column_stack([np.ones(n * k), *parts])
        return float(np.square(y - design @ np.linalg.lstsq(design, y, rcond=None)[0]).sum())

    full = unexplained(subject, session)
    bms = (unexplained(session) - full) / (n - 1)
    jms = (unexplained(subject) - full) / (k - 1)
    ems = full / ((n - 1) * (k - 1))
    return (bms - ems) / (bms + (k - 1) * ems + k * (jms - ems) / n)


@pytest.mark.parametrize("shape", [(5, 2), (12, 3)])
def test_equals_an_analysis_of_variance_by_least_squares(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(1).normal(size=shape) + np.arange(shape[0])[:, None] / 3
    assert icc_2_1(x)[0] == pytest.approx(anova_icc(x))


def test_a_drift_between_sessions_lowers_it_and_scale_does_not() -> None:
    x = np.random.default_rng(2).normal(size=(30, 2)) * 0.3 + np.linspace(0, 5, 30)[:, None]
    assert icc_2_1(x + np.array([0.0, 2.0]))[0] < icc_2_1(x)[0] - 0.1
    assert icc_2_1(7 * x - 100) == pytest.approx(icc_2_1(x))


def test_intervals_hold_the_truth_in_nineteen_of_twenty_samples() -> None:
    rng = np.random.default_rng(3)
    held = {"icc": 0, "sd": 0}
    for _ in range(300):
        scores = rng.normal(0, 3, (25, 1)) + rng.normal(0, 1, (25, 2))
        _, low, high = icc_2_1(scores)
        held["icc"] += low <= 9 / 10 <= high
        _, low, high = within_subject_sd(scores)
        held["sd"] += low <= 1.0 <= high
    assert all(0.91 <= count / 300 <= 0.985 for count in held.values()), held


def sessions(days: tuple[float, ...], n: int = 20, sd: float = 1.5, ageing: float = 1.0) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    parts = []
    brain = rng.normal(0, 4, n)
    base = rng.uniform(30, 70, n)
    for number, day in enumerate(days):
        age = base + day / 365.25
        table = pd.DataFrame({"cohort": "c", "participant_id": [f"sub-{i}" for i in range(n)], "age_years": age})
        table["predicted_age_years"] = base + ageing * day / 365.25 + brain + rng.normal(0, sd, n)
        parts.append(table.assign(session_id=str(number + 1), years_since_baseline=day / 365.25))
    return pd.concat(parts, ignore_index=True).sample(frac=1, random_state=0)


def test_sessions_weeks_apart_are_a_retest_and_sessions_years_apart_are_not() -> None:
    table, pairs = retest_table(sessions((0, 14, 730)), most_days=90)
    pad = table.set_index("quantity").loc["brain-PAD"]
    assert (pad.n_subjects, pad.n_longitudinal, pad.n_unknown) == (20, 0, 0)
    assert pad.interval_days == pytest.approx(14)
    assert pad.within_sd_ci_low < 1.5 < pad.within_sd_ci_high
    difference = pairs["other_pad_years"] - pairs["pad_years"]
    assert pad.within_sd_years == pytest.approx(np.sqrt(np.square(difference).sum() / 40))
    assert pad.repeatability_years == pytest.approx(REPEATABILITY * pad.within_sd_years)
    longitudinal, none = retest_table(sessions((0, 730)), most_days=90)
    assert none.empty
    assert longitudinal["n_longitudinal"].tolist() == [20, 20]
    assert longitudinal["note"].str.contains("fewer than 3 subjects").all()
    assert retest_table(sessions((0,)), most_days=90)[0].empty


def test_ageing_between_sessions_is_no_disagreement() -> None:
    apart = retest_table(sessions((0, 300), sd=0.0), most_days=365)[0].set_index("quantity")
    assert apart.loc["brain-PAD", "within_sd_years"] == pytest.approx(0, abs=1e-9)
    assert apart.loc["predicted age", "within_sd_years"] > 0.3


def test_whole_years_do_not_date_a_retest() -> None:
    dated = sessions((0, 0)).assign(age_years=lambda t: t["age_years"].round())
    table = dated.assign(years_since_baseline=dated["years_since_baseline"].where(dated["session_id"] == "1"))
    assert retest_table(table, most_days=90)[0]["n_longitudinal"].tolist() == [20, 20]
    # The times say that it was one day, whatever the ages are given to.
    assert retest_table(dated, most_days=90)[0]["n_subjects"].tolist() == [20, 20]
    undated = table.assign(years_since_baseline=np.nan, age_years=table["age_years"] + 0.5)
    assert retest_table(undated, most_days=90)[0]["n_subjects"].tolist() == [20, 20]


def test_scores_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 subjects"):
        icc_2_1([[1.0, 2.0]])
    assert np.isnan(icc_2_1(np.ones((4, 2)))).all()
