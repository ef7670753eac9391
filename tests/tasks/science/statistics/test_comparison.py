"""The paired difference of two predictors' errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.science.statistics.comparison import paired_mae_difference


def cohort(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age = rng.uniform(20, 80, n)
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{number // 2}" for number in range(n)],
            "age_years": age,
            "predicted_age_years": age + rng.normal(0, 4, n),
        }
    )


def test_interval_equals_that_of_resampling_subjects_one_by_one() -> None:
    table = cohort(60, 1)
    other = table["age_years"] + np.random.default_rng(2).normal(0, 6, 60)
    found = paired_mae_difference(table, other, resamples=4000, seed=3)
    gain = (table["predicted_age_years"] - table["age_years"]).abs() - (other - table["age_years"]).abs()
    assert found["estimate"] == pytest.approx(gain.mean())
    rng = np.random.default_rng(4)
    subjects = table["participant_id"].unique()
    rows = {subject: gain[table["participant_id"] == subject].to_numpy() for subject in subjects}
    drawn = [np.concatenate([rows[s] for s in rng.choice(subjects, len(subjects))]).mean() for _ in range(4000)]
    assert (found["ci_low"], found["ci_high"]) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.06)


def test_a_predictor_does_not_differ_from_itself() -> None:
    table = cohort(20, 5)
    found = paired_mae_difference(table, table["predicted_age_years"], resamples=100)
    assert (found["estimate"], found["ci_low"], found["ci_high"]) == (0.0, 0.0, 0.0)


def test_two_subjects_have_no_interval_and_nan_is_refused() -> None:
    table = cohort(4, 6)
    assert np.isnan(paired_mae_difference(table, table["age_years"])["ci_low"])
    with pytest.raises(ValueError, match="finite"):
        paired_mae_difference(table, [np.nan, 1, 2, 3])
