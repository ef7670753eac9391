"""Outliers of a cohort and limits of a study: the planted bad scan is named by its figure, the good ones are left."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis.strategies import floats

from tasks.science.cohort.outliers import (
    FEWEST_TO_COMPARE,
    FIGURES,
    Limit,
    excludable,
    find_flags,
    rank_worst,
    robust_z,
    unknown_figures,
    usual_bounds,
)
from tasks.science.imaging.quality_bounds import beyond_bounds


def cohort(n: int = 40, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "snr": rng.normal(8, 0.5, n),
            "smoothness_mm": rng.normal(5, 0.3, n),
            "fov_cut_fraction": np.zeros(n),
            "grey_ml": rng.normal(650, 40, n),
            "registration_correlation_ratio": rng.normal(0.6, 0.02, n),
        },
        index=pd.Index(range(100, 100 + n)),
    )


def ids(figures: pd.DataFrame) -> pd.Series:
    return pd.Series([f"sub-{index}" for index in figures.index], index=figures.index)


def test_robust_z_is_the_published_formula() -> None:
    figures = cohort()
    x = figures["snr"].to_numpy()
    expected = -0.6745 * (x - np.median(x)) / np.median(np.abs(x - np.median(x)))
    assert robust_z(figures)["snr"].to_numpy() == pytest.approx(expected)


def test_only_the_bad_side_is_flagged() -> None:
    figures = cohort()
    figures.loc[100, "snr"], figures.loc[101, "snr"] = 2.0, 16.0
    figures.loc[102, "smoothness_mm"], figures.loc[103, "smoothness_mm"] = 2.0, 9.0
    flags = find_flags(ids(figures), figures, None, 4.0, {})
    assert set(flags["scan_id"]) == {"sub-100", "sub-102", "sub-103"}
    assert flags.set_index("scan_id").at["sub-100", "figure"] == "snr"
    assert "signal to noise" in flags.set_index("scan_id").at["sub-100", "reason"]


def test_several_bad_scans_do_not_hide_one_another() -> None:
    figures = cohort(40)
    figures.loc[figures.index[:10], "snr"] = 1.0
    assert len(find_flags(ids(figures), figures, None, 4.0, {})) == 10


def test_a_scan_is_compared_within_its_site() -> None:
    """A noisy scanner's scans are alike; a noisy scan at the quiet one is what stands out."""
    quiet, loud = cohort(30), cohort(30, seed=1).set_axis(range(200, 230))
    loud["snr"] -= 5
    figures = pd.concat([quiet, loud])
    figures.loc[100, "snr"] = 4.0
    sites = pd.Series(["quiet"] * 30 + ["loud"] * 30, index=figures.index)
    assert list(find_flags(ids(figures), figures, sites, 5.0, {})["scan_id"]) == ["sub-100"]
    assert find_flags(ids(figures), figures, None, 5.0, {}).empty


def test_a_small_site_is_compared_with_the_cohort() -> None:
    figures = cohort(30)
    figures.loc[100, "snr"] = 2.0
    sites = pd.Series(["small"] * 3 + ["large"] * 26 + [None], index=figures.index)
    assert list(find_flags(ids(figures), figures, sites, 4.0, {})["scan_id"]) == ["sub-100"]


def test_too_few_scans_have_no_outliers() -> None:
    figures = cohort(FEWEST_TO_COMPARE - 1)
    figures.iloc[0, 0] = -50
    assert robust_z(figures).isna().all(axis=None)
    assert find_flags(ids(figures), figures, None, 4.0, {}).empty
    assert not robust_z(cohort(FEWEST_TO_COMPARE)).isna().any(axis=None)


def test_where_nearly_all_agree_a_trifle_is_no_outlier_and_a_real_cut_is() -> None:
    figures = cohort()
    figures.loc[100, "fov_cut_fraction"], figures.loc[101, "fov_cut_fraction"] = 0.004, 0.12
    assert list(find_flags(ids(figures), figures, None, 4.0, {})["scan_id"]) == ["sub-101"]


def test_a_figure_that_could_not_be_measured_is_neither_outlier_nor_beyond_a_limit() -> None:
    figures = cohort()
    figures.loc[100, "snr"] = np.nan
    flags = find_flags(ids(figures), figures, None, 4.0, {"snr": Limit(min=1.0), "ghost_to_signal": Limit(max=0.1)})
    assert flags.empty


def test_limits_name_figure_value_and_bound() -> None:
    figures = cohort()
    figures.loc[100, "snr"], figures.loc[101, "grey_ml"] = 4.5, 900
    limits = {"snr": Limit(min=5.0), "grey_ml": Limit(400.0, 850.0)}
    flags = find_flags(ids(figures), figures, None, 1000.0, limits)
    assert list(flags["rule"]) == ["limit", "limit"]
    assert (
        flags["reason"].iloc[0] == "snr (signal to noise in white matter) is 4.5, below the study's limit: at least 5"
    )
    assert flags["reason"].iloc[1] == "grey_ml (grey matter, ml) is 900, above the study's limit: at most 850"


@given(floats(0, 20), floats(0, 20))
def test_a_limit_itself_is_accepted(bound: float, value: float) -> None:
    figures = pd.DataFrame({"snr": [value]})
    flags = find_flags(pd.Series(["a"]), figures, None, 4.0, {"snr": Limit(min=bound)})
    assert flags.empty == (value >= bound)


def test_outlying_anatomy_never_excludes_but_a_limit_on_it_does() -> None:
    """Small brains may be the disease that the study is about."""
    figures = cohort()
    figures.loc[100, "grey_ml"], figures.loc[101, "snr"] = 200, 1.0
    flags = find_flags(ids(figures), figures, None, 4.0, {})
    assert set(flags["scan_id"]) == {"sub-100", "sub-101"}
    assert list(excludable(flags, "exclude", "exclude")["scan_id"]) == ["sub-101"]
    assert excludable(flags, "exclude", "flag").empty
    limited = find_flags(ids(figures), figures, None, 4.0, {"grey_ml": Limit(min=300)})
    assert list(excludable(limited, "exclude", "flag")["scan_id"]) == ["sub-100"]
    assert excludable(limited, "flag", "flag").empty


def test_an_excluded_scan_is_named_once() -> None:
    figures = cohort()
    figures.loc[100, ["snr", "smoothness_mm"]] = 0.5, 20.0
    flags = find_flags(ids(figures), figures, None, 4.0, {"snr": Limit(min=5), "smoothness_mm": Limit(max=9)})
    assert len(flags) == 4
    assert list(excludable(flags, "exclude", "exclude")["rule"]) == ["limit"]


def test_the_worst_come_first_with_what_made_them_so() -> None:
    figures = cohort()
    figures.loc[105, "snr"], figures.loc[107, "registration_correlation_ratio"] = 3.0, 0.3
    figures.loc[109, "grey_ml"] = 100.0
    ranked = rank_worst(figures)
    assert list(ranked.index[:2]) == [107, 105]
    assert ranked["figures"].iloc[0].startswith("registration_correlation_ratio 0.3")
    few = rank_worst(figures.iloc[5:9])
    assert few.index[0] == 107


def test_unknown_names_are_answered_with_the_nearest() -> None:
    assert unknown_figures(FIGURES) == []
    assert unknown_figures(["snrr"]) == ["no quality figure is called 'snrr'; did you mean 'snr'?"]
    assert "there are: snr, cnr" in unknown_figures(["zzz"])[0]


def test_bounds_that_travel_flag_what_the_cohort_would_flag() -> None:
    random = np.random.default_rng(0)
    figures = pd.DataFrame({"snr": random.normal(10, 2, 200), "scale_x": random.normal(1, 0.1, 200), "grey_ml": 600.0})
    bounds = usual_bounds(figures, 3.0, {"fov_cut_fraction": Limit(max=0.1), "snr": Limit(min=0.0)})
    assert set(bounds) == {"snr", "scale_x", "fov_cut_fraction"}
    assert (bounds["snr"]["high"], bounds["fov_cut_fraction"]["high"]) == (None, 0.1)
    ids = pd.Series([str(number) for number in range(200)])
    flagged = find_flags(ids, figures, None, 3.0, {})
    said = [beyond_bounds(row, bounds) for row in figures.to_dict("records")]
    expected = flagged[flagged["figure"].isin(["snr", "scale_x"])].groupby("scan_id").size()
    assert {str(at): len(phrases) for at, phrases in enumerate(said) if phrases} == expected.to_dict()
    assert usual_bounds(figures.head(5), 3.0, {}) == {}
