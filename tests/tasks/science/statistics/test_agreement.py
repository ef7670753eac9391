from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.science.statistics.agreement import calibration_bins, limits_of_agreement


def predictions(n: int = 120, sessions: int = 1, bend: float = 0.0, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(n), sessions)
    age = rng.uniform(20, 80, n)[who]
    predicted = age + 2 + bend * (age - 50) ** 2 + rng.normal(0, 3, n)[who] + rng.normal(0, 1, len(who))
    ids = [f"s{i}" for i in who]
    return pd.DataFrame({"cohort": "c", "participant_id": ids, "age_years": age, "predicted_age_years": predicted})


def test_limits_are_bias_and_standard_deviation_of_the_differences() -> None:
    table = predictions()
    found = limits_of_agreement(table, resamples=500).set_index("figure")
    difference = table["predicted_age_years"] - table["age_years"]
    assert found.loc["bias", "estimate"] == pytest.approx(difference.mean())
    assert found.loc["sd", "estimate"] == pytest.approx(difference.std(ddof=1))
    assert found.loc["upper limit", "estimate"] == pytest.approx(difference.mean() + 1.96 * difference.std(), abs=0.01)
    middle = (table["predicted_age_years"] + table["age_years"]) / 2
    assert found.loc["slope", "estimate"] == pytest.approx(np.polyfit(middle, difference, 1)[0])
    assert (found["ci_low"] < found["estimate"]).all()
    assert (found["estimate"] < found["ci_high"]).all()


def test_repeated_sessions_do_not_narrow_the_intervals() -> None:
    found = limits_of_agreement(predictions(40, sessions=4), resamples=2000).set_index("figure")
    strangers = predictions(40, sessions=4)
    strangers["participant_id"] = [f"x{i}" for i in range(160)]
    apart = limits_of_agreement(strangers, resamples=2000).set_index("figure")
    widths = [t.loc["bias", "ci_high"] - t.loc["bias", "ci_low"] for t in (found, apart)]
    assert widths[0] > 1.4 * widths[1]
    assert (found["n_subjects"] == 40).all()


def test_bins_show_a_bend_that_a_line_hides() -> None:
    bins = calibration_bins(predictions(bend=0.01), resamples=300)
    assert len(bins) == 10
    assert bins["n_scans"].sum() == 120
    assert bins["n_subjects"].min() >= 8
    away = bins["predicted_mean_years"] - bins["age_mean_years"]
    assert away.iloc[0] > away.iloc[4] + 3
    assert away.iloc[9] > away.iloc[4] + 3
    assert ((bins["ci_low"] < bins["predicted_mean_years"]) & (bins["predicted_mean_years"] < bins["ci_high"])).all()
    assert (bins["age_to_years"].to_numpy()[:-1] <= bins["age_from_years"].to_numpy()[1:]).all()


def test_few_subjects_and_equal_ages_give_one_bin_and_no_false_interval() -> None:
    two = predictions(2)
    assert limits_of_agreement(two)["ci_low"].isna().all()
    (only,) = calibration_bins(two).to_dict("records")
    assert only["note"] == "fewer than 3 subjects: no interval"
    same = calibration_bins(predictions(50).assign(age_years=40.0), resamples=50)
    assert same["n_scans"].tolist() == [50]
    assert limits_of_agreement(predictions(1))["estimate"].isna().sum() == 4
