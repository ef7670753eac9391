"""A shift of known size is found and measured; no shift is not cried over."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.science.statistics.controls import are_controls, centring_table
from tasks.science.statistics.shift import COLUMNS, shift_table


def scans(n: int, seed: int, mean: float = 0.0, sd: float = 1.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{i}" for i in range(n)],
            "session_id": "",
            "years_since_baseline": 0.0,
            "snr": rng.normal(mean, sd, n),
            "cnr": rng.normal(5, 1, n),
        }
    )


def naive_ks(a: np.ndarray, b: np.ndarray) -> float:
    return max(abs(float(np.mean(a <= x)) - float(np.mean(b <= x))) for x in [*a, *b])


def test_a_moved_figure_is_found_with_its_size_and_the_others_are_left_alone() -> None:
    reference, moved = scans(150, 1), scans(120, 2, mean=1.0)
    table = shift_table(reference, {"site-c": moved}, ["snr", "cnr"]).set_index("figure")
    assert table["shifted"].to_dict() == {"snr": True, "cnr": False}
    snr = table.loc["snr"]
    assert snr.ci_low < 1.0 < snr.ci_high
    pooled = np.sqrt((149 * reference.snr.var() + 119 * moved.snr.var()) / 268)
    assert snr.smd == pytest.approx((moved.snr.mean() - reference.snr.mean()) / pooled)
    assert snr.ks == pytest.approx(naive_ks(moved.snr.to_numpy(), reference.snr.to_numpy()))


def test_a_wider_distribution_of_the_same_mean_is_a_shift() -> None:
    row = shift_table(scans(300, 1), {"b": scans(300, 2, sd=4.0)}, ["snr"]).iloc[0]
    assert row.shifted
    assert abs(row.smd) < 0.5


def test_thousands_of_scans_make_a_small_difference_significant_but_no_shift() -> None:
    row = shift_table(scans(6000, 1), {"b": scans(6000, 2, mean=0.15)}, ["snr"]).iloc[0]
    assert row.p_ks_holm < 1e-6
    assert not row.shifted


def test_equal_distributions_are_seldom_called_shifted() -> None:
    called = [shift_table(scans(40, s), {"b": scans(40, 1000 + s)}).shifted.any() for s in range(40)]
    assert sum(called) <= 5


def test_sessions_of_a_subject_count_once_and_missing_values_are_counted() -> None:
    twice = pd.concat([scans(20, 1), scans(20, 3).assign(years_since_baseline=1.0, session_id="2")], ignore_index=True)
    twice.loc[4, "snr"] = np.nan
    row = shift_table(scans(30, 2), {"b": twice}, ["snr"]).iloc[0]
    assert (row.n_reference, row.n, row.n_missing) == (30, 19, 1)


def test_what_cannot_be_compared_says_why() -> None:
    same = scans(10, 1).assign(snr=1.0)
    few, still = (shift_table(same, {"b": table}, ["snr"]).iloc[0] for table in (same.head(2), same))
    assert few.note == "fewer than 3 subjects: not compared"
    assert (still.note, still.shifted) == ("the same value everywhere", False)
    stripped = shift_table(same, {"b": same.assign(snr=0.0)}, ["snr"]).iloc[0]
    assert stripped.shifted
    assert "no scatter" in stripped.note
    assert list(shift_table(same, {}).columns) == COLUMNS
    with pytest.raises(ValueError, match="reference lacks srn"):
        shift_table(same, {"b": same}, ["srn"])


def predictions(pad: float, role: str, **more: object) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    age = rng.uniform(30, 70, 60)
    table = pd.DataFrame({"cohort": "c", "role": role, "participant_id": [f"s{i % 30}" for i in range(60)]})
    return table.assign(age_years=age, predicted_age_years=age + pad + rng.normal(0, 2, 60), **more)


def test_controls_are_everybody_outside_clinics_and_whom_the_table_names_within() -> None:
    spec = {"diagnosis": ("HC", "cn"), "group": (0,)}
    clinic = predictions(0, "clinical").head(5)
    clinic = clinic.assign(diagnosis=["MS", "hc ", None, "CN", "MS"], group=[1.0, 1.0, 1.0, np.nan, 0.0])
    assert are_controls(clinic, spec).tolist() == [False, True, False, True, True]
    assert are_controls(clinic.drop(columns=["diagnosis", "group"]), spec).sum() == 0
    assert are_controls(clinic.assign(role="external"), spec).all()


def test_an_offset_of_controls_is_estimated_with_its_interval() -> None:
    table = predictions(3.0, "clinical", is_control=[True] * 40 + [False] * 20)
    row = centring_table(table, resamples=500).iloc[0]
    assert (row.correction, row.who, row.n_subjects, row.n_scans) == ("raw", "controls", 30, 40)
    assert row.ci_low < 3.0 < row.ci_high
    nobody = centring_table(table.assign(is_control=False), resamples=50)
    assert nobody["note"].tolist() == ["nobody is known to be a healthy control"]
    assert nobody["mean_pad_years"].isna().all()
