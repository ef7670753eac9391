from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.science.statistics.bootstrap import COLUMNS, age_band, bootstrap_metrics, metric_table
from tasks.science.statistics.metrics import METRICS


def cohort(n_subjects: int = 60, sessions: int = 1, seed: int = 0, subject_sd: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(n_subjects), sessions)
    age = rng.uniform(20, 80, n_subjects)[subject]
    error = subject_sd * rng.normal(size=n_subjects)[subject] + 5 * rng.normal(size=len(subject))
    return pd.DataFrame(
        {
            "scan_id": [f"scan-{i}" for i in range(len(subject))],
            "cohort": "a",
            "participant_id": [f"sub-{i}" for i in subject],
            "age_years": age,
            "predicted_age_years": age + error,
            "site": np.where(subject % 3 == 0, "north", "south"),
        }
    )


def one(table: pd.DataFrame, metric: str, level: str = "all") -> pd.Series:
    return table[(table.metric == metric) & (table.level == level)].iloc[0]


def test_every_draw_equals_the_metric_of_the_rows_it_repeats() -> None:
    rng = np.random.default_rng(3)
    subject = pd.factorize(rng.integers(0, 15, 40))[0]
    age = rng.integers(20, 35, 40).astype(float)
    predicted = (age + rng.normal(0, 4, 40)).round()
    draws = bootstrap_metrics(age, predicted, subject, 50, np.random.default_rng(1))
    same = np.random.default_rng(1)
    k = subject.max() + 1
    drawn = same.integers(0, k, size=(50, k))
    for index, subjects in enumerate(drawn):
        rows = np.concatenate([np.flatnonzero(subject == who) for who in subjects])
        for name, metric in METRICS.items():
            assert draws[name][index] == pytest.approx(metric(age[rows], predicted[rows]), abs=1e-8), name


def test_overall_comes_first_then_levels_and_nothing_is_lost() -> None:
    frame = cohort()
    frame.loc[:4, "site"] = None
    table = metric_table(frame, ("site", "age_band"), resamples=200)
    assert list(table.columns) == COLUMNS
    assert (table.group[:7] == "overall").all()
    levels = table[(table.group == "site") & (table.metric == "mae")]
    assert list(levels.level) == ["(missing)", "north", "south"]
    assert levels.n_scans.sum() == 60
    assert table[(table.group == "age_band") & (table.metric == "mae")].n_scans.sum() == 60


def test_intervals_hold_the_estimate_and_repeat_with_the_seed() -> None:
    first, again = metric_table(cohort(), resamples=500), metric_table(cohort(), resamples=500)
    pd.testing.assert_frame_equal(first, again)
    assert ((first.ci_low <= first.estimate) & (first.estimate <= first.ci_high)).all()
    assert not metric_table(cohort(), resamples=500, seed=1).ci_low.equals(first.ci_low)


def test_an_interval_does_not_depend_on_the_other_groups_or_on_row_order_of_levels() -> None:
    alone = metric_table(cohort(), ("site",), resamples=300)
    among = metric_table(cohort(), ("age_band", "site"), resamples=300)
    pd.testing.assert_frame_equal(
        alone[alone.group == "site"].reset_index(drop=True), among[among.group == "site"].reset_index(drop=True)
    )


def test_sessions_of_a_subject_travel_together() -> None:
    frame = cohort(n_subjects=40, sessions=4, subject_sd=8.0)
    clustered = one(metric_table(frame, (), resamples=2000), "mae")
    as_strangers = one(metric_table(frame.assign(participant_id=frame.scan_id), (), resamples=2000), "mae")
    assert (clustered.n_subjects, clustered.n_scans) == (40, 160)
    assert clustered.ci_high - clustered.ci_low > 1.3 * (as_strangers.ci_high - as_strangers.ci_low)


def test_equal_participants_of_two_cohorts_are_two_people() -> None:
    both = pd.concat([cohort(20), cohort(20, seed=1).assign(cohort="b")])
    both["scan_id"] = both["cohort"] + both["scan_id"]
    assert one(metric_table(both, (), resamples=50), "mae").n_subjects == 40


def test_two_subjects_get_an_estimate_but_no_interval() -> None:
    table = metric_table(cohort(2), (), resamples=50)
    assert table.estimate.notna().all()
    assert table.ci_low.isna().all()
    assert (table.note == "fewer than 3 subjects: no interval").all()


def test_undefined_metrics_say_so() -> None:
    table = metric_table(cohort().assign(age_years=40.0), (), resamples=50)
    assert one(table, "r2").note == "undefined: ages or predictions are all equal"
    assert np.isfinite(one(table, "mae").ci_low)
    few = metric_table(cohort(3), (), resamples=500)
    assert "resamples, left out" in one(few, "pearson_r").note


def test_bad_tables_are_refused() -> None:
    with pytest.raises(ValueError, match="repeat a scan"):
        metric_table(pd.concat([cohort(5), cohort(5)]), ())
    with pytest.raises(ValueError, match=r"lack \['scanner'\]"):
        metric_table(cohort(5), ("scanner",))
    with pytest.raises(ValueError, match="not finite"):
        metric_table(cohort(5).assign(predicted_age_years=np.nan), ())


def test_age_bands() -> None:
    assert list(age_band(pd.Series([0.4, 39.99, 40.0]))) == ["0-9", "30-39", "40-49"]


def test_the_95_percent_interval_covers_about_95_percent() -> None:
    truth = 5 * np.sqrt(2 / np.pi)
    hits = sum(
        row.ci_low <= truth <= row.ci_high
        for row in (one(metric_table(cohort(40, seed=s), (), resamples=400), "mae") for s in range(200))
    )
    assert 0.88 <= hits / 200 <= 0.99


def test_regression_intervals_of_rank_correlation_cover() -> None:
    rng = np.random.default_rng(0)
    r = 0.7
    truth = 6 / np.pi * np.arcsin(r / 2)
    hits = 0
    for _ in range(200):
        x = rng.normal(50, 10, 80)
        y = 50 + r * (x - 50) + np.sqrt(1 - r**2) * rng.normal(0, 10, 80)
        draws = bootstrap_metrics(x, y, np.arange(80), 400, rng)["spearman_rho"]
        low, high = np.quantile(draws, [0.025, 0.975])
        hits += low <= truth <= high
    assert 0.88 <= hits / 200 <= 0.99


def _naive_ranks(values: list[float]) -> list[float]:
    return [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]


def _naive_r(x: list[float], y: list[float]) -> float:
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    products = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return products / (sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y)) ** 0.5


def _naive_metrics(age: list[float], predicted: list[float]) -> dict[str, float]:
    n = len(age)
    errors = [p - a for a, p in zip(age, predicted, strict=True)]
    mean_age, mean_predicted = sum(age) / n, sum(predicted) / n
    spread = sum((a - mean_age) ** 2 for a in age)
    slope = sum((a - mean_age) * (p - mean_predicted) for a, p in zip(age, predicted, strict=True)) / spread
    return {
        "mae": sum(abs(e) for e in errors) / n,
        "rmse": (sum(e * e for e in errors) / n) ** 0.5,
        "r2": 1 - sum(e * e for e in errors) / spread,
        "pearson_r": _naive_r(age, predicted),
        "spearman_rho": _naive_r(_naive_ranks(age), _naive_ranks(predicted)),
        "calibration_slope": slope,
        "calibration_intercept": mean_predicted - slope * mean_age,
    }


def test_the_table_equals_a_loop_over_resampled_rows_in_plain_python() -> None:
    rng = np.random.default_rng(8)
    subject = np.repeat(np.arange(12), 2)
    # Whole years, so that ranks tie.
    age = rng.integers(20, 40, 24).astype(float)
    predicted = np.round(age + rng.normal(0, 5, 24))
    draws = bootstrap_metrics(age, predicted, subject, 60, np.random.default_rng(5))
    for index, drawn in enumerate(np.random.default_rng(5).integers(0, 12, size=(60, 12))):
        rows = [row for who in drawn for row in (2 * who, 2 * who + 1)]
        naive = _naive_metrics([age[row] for row in rows], [predicted[row] for row in rows])
        assert naive == pytest.approx({name: draws[name][index] for name in naive}, abs=1e-7)
    assert naive.keys() == METRICS.keys()


def test_ranks_of_more_scans_than_float32_counts_exactly_fall_back(monkeypatch: pytest.MonkeyPatch) -> None:
    age, predicted = (np.random.default_rng(2).normal(size=(2, 50)) * 10 + 50).round()
    exact = bootstrap_metrics(age, predicted, np.arange(50), 40, np.random.default_rng(1))
    monkeypatch.setattr("tasks.science.statistics.bootstrap.MOST_SCANS_IN_FLOAT32", 0)
    double = bootstrap_metrics(age, predicted, np.arange(50), 40, np.random.default_rng(1))
    np.testing.assert_allclose(exact["spearman_rho"], double["spearman_rho"], atol=1e-7)
