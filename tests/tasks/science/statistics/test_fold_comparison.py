"""Models over folds: each test against its definition, the corrected one against the plain one's false findings."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tasks.science.statistics.fold_comparison import anova_over_folds, compare_folds_pairwise, corrected_resampled_t
from tasks.science.statistics.fold_metrics import fold_metrics
from tasks.science.statistics.metrics import mae, spearman_rho


def folds_of(values: dict[str, list[float]], n: int = 25, repeats: int = 1) -> pd.DataFrame:
    rows = []
    for model, figures in values.items():
        per_repeat = len(figures) // repeats
        rows += [
            {"model": model, "repeat": place // per_repeat, "fold": place % per_repeat, "n": n, "mae": figure}
            for place, figure in enumerate(figures)
        ]
    return pd.DataFrame(rows)


INPUTS = {
    "T1w": [2.31, 2.05, 2.62, 2.44, 2.18],
    "T2w": [2.02, 1.94, 2.35, 2.21, 2.09],
    "ratio": [1.51, 1.22, 1.78, 1.69, 1.30],
}


def test_metrics_of_a_fold_are_those_of_its_scans() -> None:
    rng = np.random.default_rng(1)
    target = rng.uniform(0, 2, 30)
    table = pd.DataFrame(
        {
            "model": "ratio", "repeat": 0, "fold": np.arange(30) % 3, "scan": range(30), "n_train": 20,
            "target_years": target, "predicted_years": target + rng.normal(0, 0.2, 30),
        }
    )  # fmt: skip
    found = fold_metrics(table)
    assert found[["n", "n_train"]].drop_duplicates().to_numpy().tolist() == [[10, 20]]
    for fold, part in table.groupby("fold"):
        row = found[found["fold"] == fold].iloc[0]
        assert row["mae"] == pytest.approx(mae(part["target_years"], part["predicted_years"]))
        assert row["spearman"] == pytest.approx(spearman_rho(part["target_years"], part["predicted_years"]))
    with pytest.raises(ValueError, match="twice"):
        fold_metrics(pd.concat([table, table.iloc[:1]]))


def test_anova_equals_its_sums_of_squares() -> None:
    found = anova_over_folds(folds_of(INPUTS))
    groups = np.array(list(INPUTS.values()))
    between = 5 * ((groups.mean(axis=1) - groups.mean()) ** 2).sum()
    within = ((groups - groups.mean(axis=1, keepdims=True)) ** 2).sum()
    assert found["f"] == pytest.approx((between / 2) / (within / 12))
    assert found["eta2"] == pytest.approx(between / (between + within))
    assert (found["df_between"], found["df_within"], found["n_models"], found["n_folds"]) == (2, 12, 3, 15)


def test_anova_equals_a_printed_table() -> None:
    # NIST/SEMATECH e-Handbook of Statistical Methods, 7.4.3.3 and 7.4.3.4.
    levels = {"1": [6.9, 5.4, 5.8, 4.6, 4.0], "2": [8.3, 6.8, 7.8, 9.2, 6.5], "3": [8.0, 10.5, 8.1, 6.9, 9.3]}
    found = anova_over_folds(folds_of(levels))
    assert found["f"] == pytest.approx(9.59, abs=0.005)
    assert found["p_value"] == pytest.approx(0.00325, abs=5e-5)


def test_pairs_equal_their_definitions() -> None:
    table = compare_folds_pairwise(folds_of(INPUTS)).set_index(["model", "other"])
    assert len(table) == 3
    row = table.loc[("T1w", "ratio")]
    difference = np.array(INPUTS["T1w"]) - np.array(INPUTS["ratio"])
    plain = difference.mean() / (difference.std(ddof=1) / np.sqrt(5))
    corrected = difference.mean() / np.sqrt((1 / 5 + 1 / 4) * difference.var(ddof=1))
    assert (row["t"], row["t_corrected"], row["df"]) == pytest.approx((plain, corrected, 4))
    assert row["p_corrected"] > row["p_t"]
    # U: how often a fold of one is above one of the other; all 25 pairs here, p = 2/C(10, 5).
    above = sum(a > b for a, b in itertools.product(INPUTS["T1w"], INPUTS["ratio"]))
    assert (row["u"], row["p_u"]) == pytest.approx((above, 2 / 252))


def test_holm_grows_with_the_number_of_pairs() -> None:
    table = compare_folds_pairwise(folds_of(INPUTS))
    p = table["p_t"].to_numpy()
    order = np.argsort(p)
    expected = np.empty(3)
    expected[order] = np.maximum.accumulate(np.minimum(1, p[order] * np.array([3, 2, 1])))
    assert table["p_t_holm"].to_numpy() == pytest.approx(expected)


def test_training_size_comes_from_the_table_or_from_the_other_folds() -> None:
    folds = folds_of({name: figures * 2 for name, figures in INPUTS.items()}, repeats=2)
    derived = compare_folds_pairwise(folds)
    given = compare_folds_pairwise(folds.assign(n_train=50))
    assert derived["t_corrected"].iloc[0] == pytest.approx(
        derived["t"].iloc[0] * np.sqrt(1 / 10) / np.sqrt(1 / 10 + 1 / 4)
    )
    assert given["t_corrected"].iloc[0] == pytest.approx(given["t"].iloc[0] * np.sqrt(0.1) / np.sqrt(0.1 + 0.5))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"a": [1.0, 2.0, 3.0], "b": [1.0, 2.0, 3.0]}, "equal in every fold"),
        ({"a": [1.1, 2.2, 3.3], "b": [1.2, 2.3, 3.4]}, "same in every fold"),
        ({"a": [1.0, 2.0], "b": [1.0, 3.0]}, "fewer than 3 folds of a model"),
        ({"a": [1.0, np.nan, 3.0, 4.0], "b": [1.0, 3.0, 2.0, np.nan]}, "fewer than 3 shared folds"),
        ({"a": [1.0, np.nan, 3.0, 4.0], "b": [1.0, 3.0, 2.0, np.nan]}, "2 folds have no mae"),
        ({"a": [2.0, 2.0, 2.0], "b": [1.0, 1.0, 1.0]}, "no scatter"),
    ],
)
def test_pairs_that_cannot_be_tested_say_so(values: dict[str, list[float]], said: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (row,) = compare_folds_pairwise(folds_of(values)).to_dict("records")
    assert said in row["note"]
    assert np.isnan([row["p_t"], row["p_corrected"], row["p_t_holm"]]).all()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"a": [1.0, 2.0, 3.0]}, "fewer than two models"),
        ({"a": [1.0, 2.0, 3.0], "b": [1.0, 2.0]}, "fewer than 3 folds of b"),
        ({"a": [1.0] * 3, "b": [1.0] * 3}, "all folds of all models are equal"),
        ({"a": [1.0] * 3, "b": [2.0] * 3}, "no scatter"),
        ({"a": [np.nan] * 3, "b": [2.0] * 3}, "fewer than two models"),
    ],
)
def test_anova_that_cannot_be_done_says_so(values: dict[str, list[float]], said: str) -> None:
    found = anova_over_folds(folds_of(values))
    assert said in found["note"]
    assert np.isnan(found["p_value"])


def test_folds_of_other_people_are_not_paired_and_this_is_said() -> None:
    folds = folds_of(INPUTS)
    alike = folds.assign(scans=folds["fold"].map(str))
    pd.testing.assert_frame_equal(compare_folds_pairwise(alike), compare_folds_pairwise(folds))
    one_off = alike.assign(scans=alike["scans"].where(~((alike["model"] == "ratio") & (alike["fold"] == 0)), "others"))
    table = compare_folds_pairwise(one_off).set_index(["model", "other"])
    assert table["n_folds"].tolist() == [5, 4, 4]
    assert "1 folds hold other scans" in table.loc[("T1w", "ratio"), "note"]
    none = compare_folds_pairwise(alike.assign(scans=alike["model"] + alike["scans"]))
    assert none["p_t"].isna().all()
    assert none[["p_u", "d"]].notna().all(axis=None)


def test_a_repeated_fold_is_refused() -> None:
    folds = folds_of(INPUTS)
    with pytest.raises(ValueError, match="T1w has fold 0 of repeat 0 twice"):
        compare_folds_pairwise(pd.concat([folds, folds.iloc[:1]]))


def test_the_plain_test_finds_what_is_not_there_and_the_corrected_one_does_not() -> None:
    """Two equally useless predictors of noise, over thirty random splits of the same sixty people."""
    rng = np.random.default_rng(8)
    plain, corrected = [], []
    for _ in range(300):
        label, features = rng.normal(size=60), rng.normal(size=(60, 2))
        difference = []
        for _ in range(30):
            order = rng.permutation(60)
            test, train = order[:12], order[12:]
            x, y = features[train] - features[train].mean(axis=0), label[train] - label[train].mean()
            slopes = (x * y[:, None]).sum(axis=0) / (x**2).sum(axis=0)
            predicted = label[train].mean() + slopes * (features[test] - features[train].mean(axis=0))
            size = np.abs(label[test][:, None] - predicted).mean(axis=0)
            difference.append(size[0] - size[1])
        values = np.array(difference)
        plain.append(stats.ttest_1samp(values, 0).pvalue)
        corrected.append(corrected_resampled_t(values, 12 / 48)[1])
    assert (np.array(plain) < 0.05).mean() > 0.2
    # Three standard errors above 5% in 300 trials.
    assert (np.array(corrected) < 0.05).mean() < 0.088
