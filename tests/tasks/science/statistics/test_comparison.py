"""Models paired on the same subjects: differences of errors, and their tests."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from tasks.science.statistics.comparison import compare_with_reference, paired_mae_difference


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


def errors_of(model: str, predicted: np.ndarray, target: np.ndarray, sessions: int = 1) -> pd.DataFrame:
    scans = np.arange(len(target))
    return pd.DataFrame(
        {
            "model": model,
            "subject": [f"sub-{scan // sessions:03d}" for scan in scans],
            "scan": [f"scan-{scan:03d}" for scan in scans],
            "target_years": target,
            "predicted_years": predicted,
        }
    )


def pair_of_models(n: int = 40, sessions: int = 1, seed: int = 7) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    target = rng.uniform(20, 80, n)
    first, second = target + rng.normal(0, 3, n), target + rng.normal(0, 4, n)
    return pd.concat([errors_of("flair", first, target, sessions), errors_of("t1w", second, target, sessions)])


def gains(table: pd.DataFrame) -> np.ndarray:
    sizes = (table["predicted_years"] - table["target_years"]).abs().to_numpy()
    return sizes[(table["model"] == "t1w").to_numpy()] - sizes[(table["model"] == "flair").to_numpy()]


def test_standard_error_is_that_of_the_mean_where_every_subject_has_one_scan() -> None:
    table = pair_of_models()
    gain = gains(table)
    (row,) = compare_with_reference(table, "flair", resamples=20_000).to_dict("records")
    # The bootstrap of a mean has SE √(Σ(x − x̄)²/n)/√n exactly, up to the number of draws.
    exact = gain.std() / np.sqrt(len(gain))
    assert row["se"] == pytest.approx(exact, rel=0.02)
    assert row["difference"] == pytest.approx(gain.mean())
    assert row["t"] == pytest.approx(gain.mean() / row["se"])
    # Two-sided p of Student's t by integrating its density.
    grid = np.linspace(-abs(row["t"]), abs(row["t"]), 200_001)
    df = len(gain) - 1
    density = np.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / np.sqrt(df * np.pi)
    inside = np.trapezoid(density * (1 + grid**2 / df) ** (-(df + 1) / 2), grid)
    assert row["p_t"] == pytest.approx(1 - inside, abs=1e-6)
    assert (row["df"], row["n_subjects"], row["n_scans"], row["n_unpaired"]) == (39, 40, 40, 0)


def test_sessions_of_a_subject_widen_the_standard_error() -> None:
    rng = np.random.default_rng(11)
    target = np.repeat(rng.uniform(20, 80, 20), 5)
    habit = np.repeat(rng.normal(0, 3, 20), 5)
    table = pd.concat(
        [
            errors_of("flair", target + 5, target, sessions=5),
            errors_of("t1w", target + 5 + habit + rng.normal(0, 0.1, 100), target, sessions=5),
        ]
    )
    (clustered,) = compare_with_reference(table, "flair", resamples=4000).to_dict("records")
    alone = table.assign(subject=table["scan"])
    (naive,) = compare_with_reference(alone, "flair", resamples=4000).to_dict("records")
    assert clustered["se"] > 1.8 * naive["se"]
    assert (clustered["df"], clustered["n_scans"]) == (19, 100)


def test_signed_rank_equals_counting_every_sign() -> None:
    table = pair_of_models(n=9, seed=3)
    gain = gains(table)
    ranks = np.abs(gain).argsort().argsort() + 1.0
    found = min(ranks[gain > 0].sum(), ranks[gain < 0].sum())
    signs = np.array(list(itertools.product([0, 1], repeat=9)))
    sums = np.minimum(signs @ ranks, (1 - signs) @ ranks)
    (row,) = compare_with_reference(table, "flair", resamples=100).to_dict("records")
    assert row["wilcoxon"] == pytest.approx(found)
    assert row["p_wilcoxon"] == pytest.approx((sums <= found).mean())


def test_only_scans_of_both_models_are_compared_and_the_others_counted() -> None:
    table = pair_of_models()
    fewer = table[~((table["model"] == "t1w") & table["scan"].isin(["scan-000", "scan-001"]))]
    (row,) = compare_with_reference(fewer, "flair", resamples=100).to_dict("records")
    assert (row["n_scans"], row["n_unpaired"]) == (38, 2)
    assert row["difference"] == pytest.approx(gains(table)[2:].mean())


def test_row_order_alters_nothing() -> None:
    table = pair_of_models()
    shuffled = table.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(
        compare_with_reference(table, "flair", resamples=200), compare_with_reference(shuffled, "flair", resamples=200)
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda other: other.assign(predicted_years=other["target_years"] + 1), "equal on every scan"),
        (lambda other: other.assign(predicted_years=other["target_years"] + 2), "no t-test"),
        (lambda other: other.assign(target_years=other["target_years"] + 1), "different targets"),
        (lambda other: other.assign(scan="x" + other["scan"]), "no scan was predicted by both"),
        (lambda other: other.iloc[:2], "fewer than 3 subjects"),
    ],
)
def test_what_cannot_be_tested_is_said_and_has_no_p(change, said: str) -> None:
    target = np.linspace(20, 80, 12)
    first = errors_of("flair", target + 1, target)
    other = change(first.assign(model="t1w"))
    (row,) = compare_with_reference(pd.concat([first, other]), "flair", resamples=200).to_dict("records")
    assert said in row["note"]
    assert np.isnan(row["p_t"])
    assert np.isnan(row["p_t_holm"])


def test_a_table_that_would_mislead_is_refused() -> None:
    table = pair_of_models()
    with pytest.raises(ValueError, match="1 of 80 rows"):
        compare_with_reference(table.assign(predicted_years=[np.nan, *table["predicted_years"][1:]]), "flair")
    with pytest.raises(ValueError, match="occurs twice"):
        compare_with_reference(pd.concat([table, table.iloc[:1]]), "flair")
    with pytest.raises(ValueError, match="flair, t1w"):
        compare_with_reference(table, "T1w")


def test_under_the_null_five_percent_of_tests_call_a_difference() -> None:
    rng = np.random.default_rng(20)
    p_values = []
    for _ in range(200):
        target = rng.uniform(20, 80, 30)
        both = [errors_of(name, target + rng.normal(0, 4, 30), target) for name in ("flair", "t1w")]
        p_values.append(compare_with_reference(pd.concat(both), "flair", resamples=400)[["p_t", "p_wilcoxon"]])
    shares = (pd.concat(p_values) < 0.05).mean()
    # Three standard errors of a share of 5% in 200 trials are 4.6%; the bootstrap's SE is small by (n − 1)/n.
    assert shares.between(0.004, 0.1).all(), shares
