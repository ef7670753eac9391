from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from statsmodels.discrete.discrete_model import Logit

from tasks.science.statistics.analysis import analyse
from tasks.science.statistics.association_fit import AssociationFit
from tasks.science.statistics.categorical_outcome import ordinal
from tasks.science.statistics.separation import separating_columns

from .made_up_clinic import cohort, spec

# Last digits of participants → six sites.
TO_SIX = str.maketrans("6789", "0123")


def fit(table: pd.DataFrame, formula: str, **options: object) -> AssociationFit:
    return analyse([spec(formula, **options)], table).fits[0]


def with_conversion(n: int = 200, seed: int = 0) -> pd.DataFrame:
    table = cohort(n, seed=seed)
    rng = np.random.default_rng(seed)
    chance = 1 / (1 + np.exp(-(-1 + 0.4 * (table.brain_pad_years - table.brain_pad_years.mean()))))
    return table.assign(converted=np.where(rng.random(n) < chance, "yes", "no"))


def test_two_levels_ask_for_a_logistic_model() -> None:
    table = with_conversion()
    found = fit(table, "converted ~ brain_pad_years + age_years + sex")
    x = np.column_stack([np.ones(200), table.brain_pad_years, table.age_years, table.sex == "M"]).astype(float)
    other = Logit((table.converted == "yes").to_numpy(float), x).fit(disp=0)
    rows = found.coefficients
    assert found.kind == "logistic"
    assert "log odds of converted = yes" in found.method
    assert rows.estimate.to_numpy() == pytest.approx(other.params, rel=1e-6)
    assert rows.se.to_numpy() == pytest.approx(other.bse, rel=1e-5)
    assert rows.p_value.to_numpy() == pytest.approx(other.pvalues, rel=1e-4)
    assert rows.ratio.to_numpy() == pytest.approx(np.exp(other.params), rel=1e-6)
    assert rows.e_value.iloc[1] > rows.e_value_ci.iloc[1] >= 1
    assert found.rows.fitted.between(0, 1).all()
    means = fit(table, "converted ~ diagnosis + age_years").adjusted_means
    assert means["mean"].between(0, 1).all()
    assert (means.ci_low < means["mean"]).all()


def test_zero_and_one_are_two_levels_and_the_order_can_be_given() -> None:
    table = with_conversion()
    coded = table.assign(converted=(table.converted == "yes").astype(int))
    formula = "converted ~ brain_pad_years + age_years"
    up = fit(coded, formula).coefficients.estimate
    down = fit(table, formula, levels=("yes", "no")).coefficients.estimate
    assert up.to_numpy() == pytest.approx(-down.to_numpy(), rel=1e-6)
    assert fit(coded, formula, outcome="numeric").kind == "linear"


@pytest.mark.parametrize("gap", [0.0, 1.0])
def test_separation_is_said_and_not_an_estimate_of_thirty(gap: float) -> None:
    table = cohort(60)
    apart = table.assign(
        case=(table.edss > 3.5).map({True: "yes", False: "no"}), marker=table.edss + gap * (table.edss > 3.5)
    )
    found = fit(apart, "case ~ marker + age_years")
    assert found.coefficients.empty
    assert "marker separates case = yes perfectly" in found.problems[0]


def test_separation_is_found_only_where_it_is() -> None:
    x = np.array([[0.0], [1.0], [2.0], [3.0]])
    assert separating_columns(x, np.array([0, 0, 1, 1])) == [0]
    assert separating_columns(x, np.array([0, 1, 0, 1])) == []
    quasi = np.array([[0.0], [1.0], [1.0], [2.0]])
    assert separating_columns(quasi, np.array([0, 0, 1, 1])) == [0]


def test_repeated_sessions_of_two_levels_have_cluster_robust_errors() -> None:
    table = cohort(80, sessions=3)
    table = table.assign(
        ill=np.where(table.brain_pad_years + np.random.default_rng(0).normal(0, 6, 240) > 3, "yes", "no")
    )
    found = fit(table, "ill ~ brain_pad_years + age_years", sessions="all")
    assert "cluster-robust by participant_id" in found.method


def test_ordered_levels_against_the_likelihood_written_out() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=300)
    latent = 0.8 * x + rng.logistic(size=300)
    stage = np.digitize(latent, [-1.0, 0.5, 2.0])
    table = cohort(300).assign(stage=stage + 1.0, x=x)
    found = fit(table, "stage ~ x", outcome="ordinal")

    def deviance(values: np.ndarray) -> float:
        cuts = np.concatenate([[-np.inf], values[1] + np.cumsum(np.concatenate([[0], np.exp(values[2:])])), [np.inf]])
        cumulative = 1 / (1 + np.exp(-(cuts[:, None] - values[0] * x)))
        return -float(np.log(cumulative[stage + 1, np.arange(300)] - cumulative[stage, np.arange(300)]).sum())

    with np.errstate(over="ignore"):
        best = minimize(deviance, [0.5, -1.0, 0.3, 0.3], method="BFGS")
    assert found.kind == "ordinal"
    assert "4 levels, 1 … 4" in found.method
    row = found.coefficients.iloc[0]
    assert row.estimate == pytest.approx(best.x[0], abs=1e-4)
    assert row.se == pytest.approx(np.sqrt(best.hess_inv[0, 0]), rel=0.05)
    assert found.diagnostics.figure.iloc[0].startswith("proportional odds")
    assert not any("not proportional" in sentence for sentence in found.problems)


def test_odds_that_are_not_proportional_are_said() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=1500)
    low = rng.random(1500) < 1 / (1 + np.exp(-2 * x))
    high = low & (rng.random(1500) < 0.5)
    found = ordinal(pd.Series(low.astype(float) + high), pd.DataFrame({"Intercept": 1.0, "x": x}), ("a", "b", "c"))
    assert found.problems[0].startswith("Odds are not proportional")


def test_text_as_an_outcome_asks_for_its_order() -> None:
    table = cohort()
    assert 'outcome = "ordinal"' in fit(table, "diagnosis ~ age_years").problems[0]
    assert "give levels" in fit(table, "diagnosis ~ age_years", outcome="ordinal").problems[0]
    named = fit(table, "diagnosis ~ edss", outcome="ordinal", levels=("HC", "NMO", "MS"))
    assert named.kind == "ordinal"


def test_few_clusters_are_said_and_have_few_degrees_of_freedom() -> None:
    table = with_conversion().assign(site=lambda rows: "site-" + rows.participant_id.str[-1].str.translate(TO_SIX))
    found = fit(table, "converted ~ brain_pad_years", groups="site", covariance="cluster")
    assert found.coefficients.df.tolist() == [5.0, 5.0]
    assert any("6 clusters are few" in sentence for sentence in found.problems)
    one = fit(table.assign(site="a"), "converted ~ brain_pad_years", groups="site", covariance="cluster")
    assert "all rows are of one site" in one.problems[0]


@pytest.mark.parametrize(
    ("formula", "options", "said"),
    [
        ("converted ~ brain_pad_years", {"groups": "site"}, "random effects of site are not offered for a logistic"),
        ("stage ~ brain_pad_years", {"groups": "site", "outcome": "ordinal"}, "not offered for an ordinal model"),
        (
            "stage ~ brain_pad_years",
            {"groups": "site", "covariance": "cluster", "outcome": "ordinal"},
            "share their site",
        ),
        (
            "edss ~ brain_pad_years",
            {"groups": "site", "event": "came"},
            "random effects of site are not offered for a Cox",
        ),
        ("edss ~ brain_pad_years", {"groups": "site", "covariance": "cluster", "event": "came"}, "share their site"),
        (
            "converted ~ brain_pad_years + years_since_baseline",
            {"sessions": "all", "random_slope": "years_since_baseline"},
            "random_slope is not offered for a logistic model",
        ),
    ],
)
def test_what_a_kind_of_model_has_not_is_refused(formula: str, options: dict[str, str], said: str) -> None:
    table = with_conversion().assign(
        came=lambda rows: (rows.edss > 3).astype(int), stage=lambda rows: rows.edss.round().clip(1, 4)
    )
    if "sessions" in options:
        later = table.assign(session_id="ses-2", scan_id=table.scan_id + "b", years_since_baseline=1.0)
        table = pd.concat([table, later], ignore_index=True)
    found = fit(table, formula, **options)
    assert found.coefficients.empty
    assert said in found.problems[0]


def test_zero_has_no_sign() -> None:
    table = cohort(150).assign(stage=lambda rows: rows.edss.round().clip(1, 4) - 1)
    signed = table.copy()
    signed.loc[signed.stage == 0, "stage"] = np.where(np.arange((signed.stage == 0).sum()) % 2, 0.0, -0.0)
    assert np.signbit(signed.stage).any()
    own, other = (fit(one, "stage ~ brain_pad_years", outcome="ordinal") for one in (signed, table))
    assert own.method == other.method
    pd.testing.assert_frame_equal(own.coefficients, other.coefficients)


def test_a_level_that_stands_in_incomplete_rows_alone_is_no_level() -> None:
    table = cohort(150).assign(stage=lambda rows: rows.edss.round().clip(1, 5))
    table.loc[table.stage == 3, "age_years"] = np.nan
    own = fit(table, "stage ~ brain_pad_years + age_years", outcome="ordinal")
    other = fit(table[table.stage != 3], "stage ~ brain_pad_years + age_years", outcome="ordinal")
    assert any("no complete row is 3" in sentence for sentence in own.problems)
    assert own.method == other.method
    pd.testing.assert_frame_equal(own.coefficients, other.coefficients)
    pd.testing.assert_frame_equal(own.diagnostics, other.diagnostics)
