from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.records import AgeBias
from tasks.science.statistics import age_bias
from tasks.science.statistics.metrics import calibration_slope, pearson_r


def held_out(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    age = rng.uniform(20, 80, n)
    return age, 0.7 * age + 15 + rng.normal(0, 4, n)


def test_the_line_is_predicted_on_age() -> None:
    age, predicted = held_out()
    bias = age_bias.fit_age_bias(age, predicted)
    assert [bias.alpha, bias.beta_years] == pytest.approx(np.polyfit(age, predicted, 1))
    assert bias.n_subjects == 400


@settings(max_examples=30, deadline=None)
@given(alpha=st.floats(-2, 2), beta=st.floats(-50, 50), seed=st.integers(0, 99))
def test_de_lange_and_beheshti_are_the_same(alpha: float, beta: float, seed: int) -> None:
    age, predicted = held_out(20, seed)
    bias = AgeBias(alpha, beta, 20)
    de_lange = age_bias.correct_de_lange(predicted, age, bias)
    assert age_bias.correct_beheshti(predicted, age, bias) == pytest.approx(de_lange, abs=1e-9)


def test_corrections_leave_no_dependence_of_the_gap_on_age() -> None:
    age, predicted = held_out()
    bias = age_bias.fit_age_bias(age, predicted)
    de_lange, cole = age_bias.correct_de_lange(predicted, age, bias), age_bias.correct_cole(predicted, bias)
    assert calibration_slope(age, de_lange) == pytest.approx(1.0)
    assert calibration_slope(age, cole) == pytest.approx(1.0)
    assert np.mean(de_lange - age) == pytest.approx(0.0, abs=1e-9)
    assert np.std(cole - age) == pytest.approx(np.std(de_lange - age) / bias.alpha)


def test_an_effect_of_disease_survives_a_correction_fitted_on_healthy_people() -> None:
    age, predicted = held_out()
    bias = age_bias.fit_age_bias(age, predicted)
    shifted = age_bias.correct_de_lange(predicted + 7, age, bias) - age_bias.correct_de_lange(predicted, age, bias)
    assert shifted == pytest.approx(7.0)


@pytest.mark.parametrize("r", [0.05, 0.3, 0.7071, 0.95])
def test_corrected_accuracy_is_high_whatever_the_predictor_is_worth(r: float) -> None:
    rng = np.random.default_rng(1)
    age = rng.normal(50, 10, 200_000)
    feature = r * (age - 50) / 10 + np.sqrt(1 - r**2) * rng.normal(size=len(age))
    slope, intercept = np.polyfit(feature, age, 1)
    predicted = slope * feature + intercept
    corrected = age_bias.correct_de_lange(predicted, age, age_bias.fit_age_bias(age, predicted))
    assert pearson_r(age, corrected) ** 2 == pytest.approx(age_bias.corrected_r2_by_construction(r), abs=0.005)


def test_the_trap_formula_has_its_minimum_of_four_fifths() -> None:
    r = np.linspace(-1, 1, 2001)
    assert min(map(age_bias.corrected_r2_by_construction, r)) == pytest.approx(0.8, abs=1e-6)
    assert age_bias.corrected_r2_by_construction(0.0) == 1.0
    with pytest.raises(ValueError, match="between -1 and 1"):
        age_bias.corrected_r2_by_construction(1.5)


@pytest.mark.parametrize(
    ("age", "predicted", "message"),
    [
        ([20.0, 30.0], [20.0, 30.0], "at least 3"),
        ([30.0, 30.0, 30.0], [20.0, 30.0, 40.0], "1 different ages"),
        ([20.0, 30.0, 40.0], [33.0, 33.0, 33.0], "do not depend on age"),
        ([20.0, 30.0, 40.0], [20.0, np.nan, 33.0], "not finite"),
    ],
)
def test_lines_that_mean_nothing_are_refused(age: list[float], predicted: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        age_bias.fit_age_bias(age, predicted)


def test_a_flat_line_cannot_be_inverted() -> None:
    with pytest.raises(ValueError, match="slope 0"):
        age_bias.correct_cole([40.0], AgeBias(0.0, 40.0, 10))
