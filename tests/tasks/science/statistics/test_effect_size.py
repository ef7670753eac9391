"""Cohen's d and its interval against printed figures and against simulation."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.science.statistics.effect_size import cohens_d

# mtcars (Henderson & Velleman 1981): weights in 1000 lb by transmission.
MANUAL = [2.62, 2.875, 2.32, 2.2, 1.615, 1.835, 1.935, 2.14, 1.513, 3.17, 2.77, 3.57, 2.78]
AUTOMATIC = [
    3.215, 3.44, 3.46, 3.57, 3.19, 3.15, 3.44, 3.44, 4.07, 3.73, 3.78, 5.25, 5.424, 5.345, 2.465, 3.52, 3.435, 3.84,
    3.845,
]  # fmt: skip


def test_equals_the_figures_that_the_r_package_effectsize_is_tested_with() -> None:
    found = cohens_d(AUTOMATIC, MANUAL)
    assert (found.d, found.ci_low, found.ci_high) == pytest.approx((1.892, 1.030, 2.732), abs=0.001)


def test_swapping_the_groups_turns_the_sign() -> None:
    found, turned = cohens_d(AUTOMATIC, MANUAL), cohens_d(MANUAL, AUTOMATIC)
    assert turned[:3] == pytest.approx((-found.d, -found.ci_high, -found.ci_low))


def test_interval_holds_the_true_effect_in_nineteen_of_twenty_samples() -> None:
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(400):
        found = cohens_d(rng.normal(0.8, 1, 6), rng.normal(0, 1, 8))
        held += found.ci_low <= 0.8 <= found.ci_high
    # 95% ± three binomial standard errors.
    assert 0.917 <= held / 400 <= 0.983


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ([1.0], [1.0, 2.0], "fewer than 2"),
        ([2.0, 2.0, 2.0], [3.0, 3.0], "no scatter"),
        ([0.1 + 0.2, 0.3], [0.3, 0.3], "no scatter"),
    ],
)
def test_no_effect_size_is_said(first: list[float], second: list[float], said: str) -> None:
    found = cohens_d(first, second)
    assert np.isnan(found.d)
    assert said in found.note


def test_an_effect_beyond_the_distributions_reach_has_no_interval() -> None:
    found = cohens_d([1.0, 1.0001, 0.9999], [2.0, 2.0001, 1.9999])
    assert found.d == pytest.approx(-10_000, rel=1e-6)
    assert np.isnan([found.ci_low, found.ci_high]).all()
    assert "too large" in found.note


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        cohens_d([1.0, np.nan], [1.0, 2.0])
