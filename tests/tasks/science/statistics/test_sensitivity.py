"""Robust, rank, calibrated and resampled effects, and what a finding leans on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.power import TTestPower

from tasks.science.statistics.analysis import analyse
from tasks.science.statistics.association_fit import AssociationFit
from tasks.science.statistics.coefficient_bootstrap import resampled_mixed
from tasks.science.statistics.mixed_model import fit_mixed
from tasks.science.statistics.sensitivity import detectable, e_values, partial_spearman, power_of, risk_ratios

from .made_up_clinic import cohort, spec


def fit(table: pd.DataFrame, formula: str, **options: object) -> AssociationFit:
    return analyse([spec(formula, **options)], table).fits[0]


def test_a_robust_estimate_stands_beside_one_that_an_outlier_moves() -> None:
    table = cohort().assign(x=np.linspace(-1, 1, 90))
    table["brain_pad_years"] = 2 * table.x + np.random.default_rng(0).normal(0, 0.5, 90)
    table.loc[89, "brain_pad_years"] = 80.0
    found = fit(table, "brain_pad_years ~ x + age_years")
    row = found.coefficients.set_index("term").loc["x"]
    assert abs(row.estimate - 2) > 1
    assert abs(row.robust_estimate - 2) < 0.3
    assert any("Cook's distance" in sentence for sentence in found.problems)


def test_partial_rank_correlation_is_that_of_rank_residuals() -> None:
    table = cohort()
    row = fit(table, "brain_pad_years ~ edss + age_years").coefficients.set_index("term").loc["edss"]
    r = table[["brain_pad_years", "edss", "age_years"]].rank().corr().to_numpy()
    expected = (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))
    assert row.spearman_rho == pytest.approx(expected)
    assert row.spearman_ci_low < expected < row.spearman_ci_high
    alone = partial_spearman(table.edss, table, "age_years", [])
    assert alone[0] == pytest.approx(stats.spearmanr(table.edss, table.age_years).statistic)
    assert alone[3] == pytest.approx(stats.spearmanr(table.edss, table.age_years).pvalue)


def test_the_slope_of_a_noisy_predictor_is_put_back() -> None:
    rng = np.random.default_rng(0)
    n = 20_000
    age = rng.uniform(20, 60, n)
    true = 0.2 * (age - 40) + rng.normal(0, 4, n)
    table = pd.DataFrame(
        {
            "participant_id": np.arange(n).astype(str),
            "brain_pad_years": true + rng.normal(0, 3, n),
            "age_years": age,
            "mmse_loss": 0.5 * true + 0.1 * age + rng.normal(0, 1, n),
            "ensemble_spread_years": 3.0,
        }
    )
    formula = "mmse_loss ~ brain_pad_years + age_years"
    for options in ({"measurement_sd_years": 3.0}, {}, {"reliability": 1 - 9 / table.brain_pad_years.var()}):
        found = fit(table, formula, **options)
        row = found.coefficients.set_index("term").loc["brain_pad_years"]
        assert row.estimate == pytest.approx(0.5 * 16 / 25, abs=0.01)
        assert row.calibrated_estimate == pytest.approx(0.5, abs=0.02)
        assert row.calibrated_ci_low < 0.5 < row.calibrated_ci_high
        assert "measured with error" in found.notes[0]
    assert "give measurement_sd_years" in fit(table.drop(columns="ensemble_spread_years"), formula).notes[0]
    hopeless = fit(table, formula, measurement_sd_years=9.0)
    assert hopeless.coefficients.calibrated_estimate.isna().all()
    assert "cannot be corrected" in hopeless.notes[0]


def test_noise_of_an_outcome_is_said_to_bias_nothing() -> None:
    assert "does not bias the slopes" in fit(cohort(), "brain_pad_years ~ edss + age_years").notes[0]


def test_power_and_the_smallest_effect_that_is_found() -> None:
    se = 1 / np.sqrt(30)
    found = detectable(np.array([se]), np.array([29.0]))[0]
    assert TTestPower().power(found, 30, 0.05) == pytest.approx(0.8, abs=2e-3)
    assert power_of(np.array([found / se, 0.0]), np.array([29.0, 29.0])) == pytest.approx([0.8, 0.05], abs=2e-3)


def test_e_values_as_vanderweele_and_ding_print_them() -> None:
    # Their example: RR 3.9 (1.8, 8.7) gives 7.26 and 3.0.
    point, nearest = e_values(np.array([3.9]), np.array([1.8]), np.array([8.7]))
    assert (round(point[0], 2), round(nearest[0], 1)) == (7.26, 3.0)
    assert e_values(np.array([0.8]), np.array([0.5]), np.array([1.2]))[1][0] == 1
    assert risk_ratios(np.array([0.5]), "linear", 0.5)[0] == pytest.approx(np.exp(0.455))
    assert risk_ratios(np.log(np.array([4.0])), "logistic", 0.4)[0] == pytest.approx(2.0)


def test_bootstrap_intervals_are_seeded_and_resample_subjects() -> None:
    table = cohort(60)
    formula = "brain_pad_years ~ edss + age_years"
    one, again, other = (fit(table, formula, bootstrap=500, seed=s).coefficients for s in (1, 1, 2))
    pd.testing.assert_frame_equal(one, again)
    assert not one.bootstrap_ci_low.equals(other.bootstrap_ci_low)
    wide = (one.bootstrap_ci_high - one.bootstrap_ci_low) / (one.ci_high - one.ci_low)
    assert wide.between(0.75, 1.25).all()
    sessions = pd.concat([table.assign(session_id=f"ses-{k}", scan_id=table.scan_id + f"-{k}") for k in range(4)])
    copies = fit(sessions, formula, sessions="all", bootstrap=500, covariance="cluster", seed=1).coefficients
    # Copies of a session are no new evidence.
    assert copies.bootstrap_ci_low.to_numpy() == pytest.approx(one.bootstrap_ci_low.to_numpy())


@pytest.mark.parametrize(
    "formula",
    ["brain_pad_years ~ years_since_baseline + age_years_baseline", "ill ~ age_years"],
)
def test_bootstrap_of_mixed_and_logistic_models(formula: str) -> None:
    table = cohort(50, sessions=3)
    table = table.assign(ill=np.where(table.brain_pad_years > table.brain_pad_years.median(), "yes", "no"))
    rows = fit(table, formula, sessions="all", bootstrap=300).coefficients
    assert ((rows.bootstrap_ci_low < rows.estimate) & (rows.estimate < rows.bootstrap_ci_high)).all()
    assert ((rows.bootstrap_ci_high - rows.bootstrap_ci_low) / (rows.ci_high - rows.ci_low)).between(0.6, 1.5).all()


def test_a_whole_sample_is_the_estimate_in_every_bootstrap() -> None:
    table = cohort(30, sessions=3)
    matrix = pd.DataFrame({"Intercept": 1.0, "years": table.years_since_baseline})
    found = fit_mixed(table.brain_pad_years, matrix, table.participant_id)
    draw = resampled_mixed(found.profile, found.theta, np.ones((1, 30), dtype=np.int64))
    assert draw[0] == pytest.approx(found.fixed.to_numpy())


def test_unequal_spread_is_a_note_with_hc3_and_a_problem_without() -> None:
    table = cohort(300)
    formula = "brain_pad_years ~ diagnosis + age_years"
    assert any("Breusch-Pagan" in note for note in fit(table, formula).notes)
    assert any("Breusch-Pagan" in sentence for sentence in fit(table, formula, covariance="nonrobust").problems)


@pytest.mark.parametrize("covariance", ["HC0", "HC1", "HC2", "HC3", "nonrobust", "cluster"])
def test_covariances_agree_with_statsmodels(covariance: str) -> None:
    table = cohort(80).assign(block=np.arange(80) % 10)
    found = fit(
        table,
        "brain_pad_years ~ edss + age_years",
        covariance=covariance,
        groups="block" if covariance == "cluster" else "participant_id",
    )
    x = np.column_stack([np.ones(80), table.edss, table.age_years])
    how = {"cov_type": covariance} | (
        {"cov_kwds": {"groups": table.block.to_numpy()}} if covariance == "cluster" else {}
    )
    assert found.coefficients.se.to_numpy() == pytest.approx(OLS(table.brain_pad_years.to_numpy(), x).fit(**how).bse)


def test_power_of_a_strong_effect_is_one() -> None:
    shifts = np.linspace(0, 40, 200)
    power = power_of(shifts, np.full(200, 203.0))
    assert np.isfinite(power).all()
    assert (np.diff(power) >= -1e-9).all()
    assert power[-1] == pytest.approx(1.0)


def test_e_values_with_interactions_are_those_of_a_fit_in_standard_deviations() -> None:
    table = cohort(150).rename(columns={"brain_pad_years": "y", "edss": "x", "age_years": "w"})
    numeric = ["y", "x", "w"]
    scaled = table.assign(**((table[numeric] - table[numeric].mean()) / table[numeric].std()))
    formula = "y ~ x * diagnosis + w"
    own, other = (fit(one, formula).coefficients.set_index("term").iloc[1:] for one in (table, scaled))
    assert own.beta_standardised.to_numpy() == pytest.approx(other.estimate.to_numpy(), rel=1e-6)
    for name in ("e_value", "e_value_ci"):
        assert own[name].to_numpy() == pytest.approx(other[name].to_numpy(), rel=1e-6)


def test_rows_that_cluster_are_not_taken_for_independent_beside() -> None:
    table = cohort(60, sessions=3)
    found = fit(table, "brain_pad_years ~ edss + age_years", sessions="all", covariance="cluster", bootstrap=50)
    row = found.coefficients.set_index("term").loc["edss"]
    assert np.isnan(row.robust_estimate)
    assert np.isnan(row.spearman_rho)
    assert any("take rows of one participant_id for independent" in note for note in found.notes)
    of_sites = fit(
        table.assign(site=table.participant_id.str[-1]),
        "brain_pad_years ~ edss + age_years",
        groups="site",
        covariance="cluster",
        bootstrap=50,
    )
    assert of_sites.coefficients.bootstrap_ci_low.notna().all()


def test_a_noisy_predictor_that_changes_within_people_is_not_put_back() -> None:
    table = cohort(60, sessions=3)
    options = {"sessions": "all", "measurement_sd_years": 1.5}
    changing = fit(table, "edss ~ brain_pad_years + age_years", **options)
    assert changing.coefficients.calibrated_estimate.isna().all()
    assert any("brain_pad_years changes within participant_id" in note for note in changing.notes)
    fixed = fit(table, "edss ~ brain_pad_years_baseline + age_years", **options).coefficients.set_index("term")
    assert abs(fixed.calibrated_estimate["brain_pad_years_baseline"]) > abs(fixed.estimate["brain_pad_years_baseline"])


def test_a_robust_estimate_does_not_hang_on_where_zero_is() -> None:
    table = cohort()
    own, far = (
        fit(one, "brain_pad_years ~ x + age_years").coefficients.set_index("term").loc["x"]
        for one in (table.assign(x=table.edss), table.assign(x=table.edss + 1e7))
    )
    assert far.robust_estimate == pytest.approx(own.robust_estimate, rel=1e-5)
    assert far.robust_se == pytest.approx(own.robust_se, rel=1e-5)
