from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tasks.science.statistics import metrics
from tasks.science.statistics.metrics import METRICS

RNG = np.random.default_rng(7)
AGE = RNG.integers(20, 80, 200).astype(float)
PREDICTED = 0.8 * AGE + 9 + RNG.normal(0, 5, 200)
ages = st.lists(st.floats(18, 90), min_size=4, max_size=30).filter(lambda values: np.ptp(values) > 0.5)


def test_metrics_agree_with_scipy_and_numpy() -> None:
    line = stats.linregress(AGE, PREDICTED)
    slope, intercept = np.polyfit(AGE, PREDICTED, 1)
    assert metrics.pearson_r(AGE, PREDICTED) == pytest.approx(line.rvalue, abs=1e-12)
    assert metrics.spearman_rho(AGE, PREDICTED) == pytest.approx(stats.spearmanr(AGE, PREDICTED).statistic, abs=1e-12)
    assert metrics.calibration_slope(AGE, PREDICTED) == pytest.approx(slope)
    assert metrics.calibration_intercept(AGE, PREDICTED) == pytest.approx(intercept)
    assert metrics.rmse(AGE, PREDICTED) == pytest.approx(
        math.sqrt(np.var(PREDICTED - AGE) + np.mean(PREDICTED - AGE) ** 2)
    )


def test_known_values_by_hand() -> None:
    age, predicted = [20.0, 40.0, 60.0], [30.0, 40.0, 50.0]
    assert metrics.mae(age, predicted) == pytest.approx(20 / 3)
    assert metrics.r2(age, predicted) == pytest.approx(1 - 200 / 800)
    assert metrics.calibration_slope(age, predicted) == pytest.approx(0.5)
    assert metrics.calibration_intercept(age, predicted) == pytest.approx(20.0)


def test_r2_is_not_the_squared_correlation() -> None:
    assert metrics.r2(AGE, AGE + 100) < 0
    assert metrics.pearson_r(AGE, AGE + 100) == pytest.approx(1.0)


def test_predicting_the_mean_age_has_r2_zero() -> None:
    assert metrics.r2(AGE, np.full_like(AGE, AGE.mean())) == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(age=ages, shift=st.floats(-20, 20), gain=st.floats(0.1, 5), seed=st.integers(0, 99))
def test_correlations_ignore_shift_and_gain_and_errors_do_not_care_for_order(
    age: list[float], shift: float, gain: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = np.asarray(age)
    y = x + rng.normal(0, 5, len(x))
    assert metrics.pearson_r(x, gain * y + shift) == pytest.approx(metrics.pearson_r(x, y), abs=1e-9)
    order = rng.permutation(len(x))
    for metric in METRICS.values():
        assert metric(x[order], y[order]) == pytest.approx(metric(x, y), rel=1e-6, abs=1e-6)
    assert metrics.mae(x + shift, y + shift) == pytest.approx(metrics.mae(x, y), abs=1e-9)
    assert metrics.mae(x, y) <= metrics.rmse(x, y) + 1e-12
    assert metrics.calibration_slope(x, gain * y) == pytest.approx(gain * metrics.calibration_slope(x, y), abs=1e-6)


@pytest.mark.parametrize("metric", METRICS.values(), ids=list(METRICS))
def test_a_perfect_prediction(metric: object) -> None:
    best = {"mae": 0.0, "rmse": 0.0, "calibration_intercept": 0.0}
    name = next(key for key, value in METRICS.items() if value is metric)
    assert METRICS[name](AGE, AGE) == pytest.approx(best.get(name, 1.0), abs=1e-9)


@pytest.mark.parametrize("metric", METRICS.values(), ids=list(METRICS))
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(metric: object, bad: float) -> None:
    with pytest.raises(ValueError, match="predicted_age_years holds 1 of 2"):
        metric([20.0, 30.0], [21.0, bad])  # type: ignore[operator]


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="equally long"):
        metrics.mae([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="non-empty"):
        metrics.mae([], [])


def test_undefined_metrics_are_nan_and_only_those() -> None:
    constant = [40.0, 40.0, 40.0]
    predicted = [39.0, 40.0, 42.0]
    undefined = {name for name, metric in METRICS.items() if math.isnan(metric(constant, predicted))}
    assert undefined == {"r2", "pearson_r", "spearman_rho", "calibration_slope", "calibration_intercept"}
    undefined = {name for name, metric in METRICS.items() if math.isnan(metric(predicted, constant))}
    assert undefined == {"pearson_r", "spearman_rho"}
