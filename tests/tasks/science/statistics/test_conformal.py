"""Intervals hold as often as they promise, and say so where they cannot."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from tasks.science.statistics.age_bias import fit_age_bias
from tasks.science.statistics.conformal import (
    ConformalInterval,
    corrected_conformal,
    coverage_table,
    cross_fitted_residuals,
    one_scan_per_subject,
    split_conformal,
)

DRAWS = 4000


@pytest.mark.parametrize(("n", "alpha"), [(19, 0.05), (20, 0.1), (50, 0.1), (99, 0.05), (33, 0.2)])
def test_coverage_of_exchangeable_people_is_the_promised_one(n: int, alpha: float) -> None:
    rng = np.random.default_rng(n)
    held = 0
    for _ in range(DRAWS):
        # Heavy tails and an offset: the promise does not depend on the errors' distribution.
        errors = rng.standard_t(3, n + 1) + 0.7
        held += abs(errors[-1]) <= split_conformal(errors[:-1], alpha).half_width_years
    expected = math.ceil((n + 1) * (1 - alpha) - 1e-9) / (n + 1)
    assert 1 - alpha <= expected < 1 - alpha + 1 / (n + 1)
    assert held / DRAWS == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / DRAWS))


def test_too_few_people_give_an_infinite_interval_that_is_said() -> None:
    found = split_conformal(np.arange(10), alpha=0.05)
    assert found.half_width_years == math.inf
    assert "need 19" in found.note
    enough = split_conformal(np.arange(19), alpha=0.05)
    assert (enough.half_width_years, enough.note) == (18.0, "")


@pytest.mark.parametrize("errors", [[], [1.0, np.nan], [np.inf]])
def test_what_is_no_error_is_refused(errors: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        split_conformal(errors)
    with pytest.raises(ValueError, match="alpha"):
        split_conformal([1.0], alpha=1.0)


def simulated(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    age = rng.uniform(20, 80, n)
    return age, 50 + 0.7 * (age - 50) + rng.normal(0, 4, n)


def test_corrected_intervals_hold_new_peoples_ages() -> None:
    rng = np.random.default_rng(5)
    held = naive = 0
    for _ in range(1500):
        age, predicted = simulated(20, rng)
        new_age, new_predicted = simulated(1, rng)
        bias = fit_age_bias(age, predicted)
        error = float(new_predicted[0] - (bias.alpha * new_age[0] + bias.beta_years))
        held += abs(error) <= corrected_conformal(age, predicted, alpha=0.2).half_width_years
        own = predicted - (bias.alpha * age + bias.beta_years)
        naive += abs(error) <= split_conformal(own, alpha=0.2).half_width_years
    # At least the promise, less three binomial standard errors; never below what the subjects' own line would give.
    assert held / 1500 >= 0.8 - 0.031
    assert held > naive


def test_cross_fitted_residuals_come_from_the_other_half() -> None:
    rng = np.random.default_rng(6)
    age, predicted = simulated(40, rng)
    residuals = cross_fitted_residuals(age, predicted, seed=3)
    assert residuals is not None
    moved = predicted.copy()
    moved[7] += 100
    changed = cross_fitted_residuals(age, moved, seed=3)
    assert changed is not None
    # Subject 7 moves its own residual by its own error, and those of the half that it is not in by the line.
    assert changed[7] - residuals[7] == pytest.approx(100)
    assert int((np.abs(changed - residuals) < 1e-9).sum()) == 19


def test_people_who_cannot_be_halved_give_an_infinite_interval() -> None:
    found = corrected_conformal([20.0, 30.0, 40.0, 50.0], [22.0, 30.0, 41.0, 49.0])
    assert found.half_width_years == math.inf
    assert "cannot be halved" in found.note
    assert cross_fitted_residuals(np.full(20, 40.0), np.linspace(30, 50, 20)) is None


def test_one_scan_per_subject_keeps_the_first_session() -> None:
    table = pd.DataFrame(
        {
            "cohort": ["a", "a", "b", "a"],
            "participant_id": ["sub-1", "sub-1", "sub-1", "sub-2"],
            "session_id": ["ses-10", "ses-2", "ses-1", "ses-1"],
        }
    )
    assert one_scan_per_subject(table).index.tolist() == [1, 2, 3]


def test_coverage_is_counted_by_group_with_the_exact_interval() -> None:
    table = pd.DataFrame(
        {
            "participant_id": [f"sub-{n}" for n in range(20)],
            "age_years": np.linspace(21, 59, 20),
            "site": ["a"] * 10 + ["b"] * 10,
        }
    )
    table["predicted_age_years"] = table["age_years"] + np.where(np.arange(20) < 12, 1.0, -9.0)
    found = coverage_table(table, ConformalInterval(5.0, 0.1, 18, 19)).set_index(["group", "level"])
    assert found["n_covered"].loc[[("overall", "all"), ("site", "a"), ("site", "b")]].tolist() == [12, 10, 2]
    # Clopper-Pearson for 10 of 10: the lower end is (α/2)^(1/n).
    assert found.loc[("site", "a"), "ci_low"] == pytest.approx(0.025 ** (1 / 10))
    assert found.loc[("site", "a"), "ci_high"] == 1.0
    assert set(found.loc["age_band"].index) == {"20-29", "30-39", "40-49", "50-59"}
