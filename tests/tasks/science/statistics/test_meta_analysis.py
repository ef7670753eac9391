from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar

from tasks.records import AssociationSpec
from tasks.science.statistics.analysis import analyse
from tasks.science.statistics.estimate_tables import combined_estimates, estimate_rows
from tasks.science.statistics.meta_analysis import pool

# Eight trials of Higgins & Green's kind: estimates and standard errors.
Y = np.array([0.28, 0.55, -0.10, 0.42, 0.90, 0.15, 0.33, 0.70])
SE = np.array([0.20, 0.25, 0.30, 0.15, 0.35, 0.18, 0.22, 0.28])


def test_reml_and_hartung_knapp_against_their_formulas() -> None:
    def minus_likelihood(tau2: float) -> float:
        v = SE**2 + tau2
        mean = (Y / v).sum() / (1 / v).sum()
        return float(np.log(v).sum() + np.log((1 / v).sum()) + ((Y - mean) ** 2 / v).sum())

    tau2 = float(minimize_scalar(minus_likelihood, bounds=(0, 2), method="bounded", options={"xatol": 1e-12}).x)
    w = 1 / (SE**2 + tau2)
    mean = (w * Y).sum() / w.sum()
    se = np.sqrt((w * (Y - mean) ** 2).sum() / 7 / w.sum())
    found = pool(Y, SE)
    assert found.tau2 == pytest.approx(tau2, abs=1e-6)
    assert found.estimate == pytest.approx(mean, rel=1e-6)
    assert (found.se, found.df) == (pytest.approx(se, rel=1e-5), 7)
    assert found.prediction_high == pytest.approx(mean + stats.t.ppf(0.975, 6) * np.sqrt(tau2 + 1 / w.sum()), rel=1e-5)
    fixed = 1 / SE**2
    q = (fixed * (Y - (fixed * Y).sum() / fixed.sum()) ** 2).sum()
    assert found.q == pytest.approx(q)
    assert found.q_p_value == pytest.approx(stats.chi2.sf(q, 7))
    assert found.weights.sum() == pytest.approx(1)


def test_paule_and_mandels_equation_holds() -> None:
    spread = 2 * Y
    found = pool(spread, SE, "PM")
    w = 1 / (SE**2 + found.tau2)
    assert (w * (spread - (w * spread).sum() / w.sum()) ** 2).sum() == pytest.approx(7)
    assert pool([1.0, 1.01, 1.0, 1.01], np.ones(4), "PM").tau2 == 0


def test_strata_that_agree_too_well_and_few_strata_are_said() -> None:
    said = " ".join(pool([1.0, 1.01, 1.02], [0.5, 0.5, 0.5]).problems)
    assert "3 strata are few" in said
    assert "agree better than their own errors" in said
    with pytest.raises(ValueError, match="two or more"):
        pool([1.0], [0.5])


def test_uneven_weights_are_said_with_the_interval_that_allows_for_them() -> None:
    uneven = pool([1.0, 1.2, 0.7, 1.5, 0.9, 1.1], [0.1, 0.1, 0.4, 0.4, 0.4, 0.4], "PM")
    said = uneven.problems[-1]
    assert "weights differ" in said
    low, high = (float(number) for number in said.split("[")[1].rstrip("].").split(","))
    assert high - low > 2 * stats.t.ppf(0.975, 5) * uneven.se
    assert not any("weights differ" in sentence for sentence in pool([1.0, 2.0, 3.0, 1.5, 0.5], [0.5] * 5).problems)


def sites(k: int = 6, n: int = 60, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    site = np.repeat([f"site-{i}" for i in range(k)], n)
    edss = rng.choice(np.arange(1, 7, 0.5), k * n)
    shift = np.repeat(rng.normal(1.0, 0.2, k), n)
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{i}" for i in range(k * n)],
            "site": site,
            "edss": edss,
            "age_years": rng.uniform(20, 60, k * n),
            "brain_pad_years": shift * edss + rng.normal(0, 3, k * n),
        }
    )


SPEC = AssociationSpec("edss", "brain_pad_years ~ edss + age_years", stratify="site")


def test_strata_of_a_table_and_files_of_its_sites_come_to_the_same() -> None:
    table = sites()
    whole = analyse([SPEC], table).fits[0]
    assert whole.kind == "meta"
    assert len(whole.strata.query("term == 'edss'")) == 6
    assert whole.n_used == 360
    shared = []
    for name, rows in table.groupby("site"):
        effects = analyse([replace(SPEC, stratify="")], rows).effects
        text = effects.drop(columns=["problems", "notes"]).to_csv(index=False)
        shared.append(estimate_rows(pd.read_csv(io.StringIO(text)), f"s3://bucket/{name}/effects.csv"))
    combined = combined_estimates(pd.concat(shared, ignore_index=True)).fits[0]
    columns = ["term", "estimate", "se", "df", "p_value", "ci_low", "ci_high", "of_interest"]
    pd.testing.assert_frame_equal(combined.coefficients[columns], whole.coefficients[columns])
    assert set(combined.strata.stratum) == set(table.site)
    assert combined.n_used == 360
    row = whole.coefficients.set_index("term").loc["edss"]
    assert row.ci_low < 1.0 < row.ci_high


def test_a_stratum_that_cannot_be_fitted_is_said_and_counted() -> None:
    table = sites(4)
    table.loc[table.site == "site-2", "edss"] = np.nan
    fit = analyse([SPEC], table).fits[0]
    assert fit.n_used == 180
    assert sum(fit.n_dropped.values()) == 60
    assert any(sentence.startswith("site site-2: Not fitted") for sentence in fit.problems)


def test_estimates_that_cannot_be_used_are_said() -> None:
    table = pd.DataFrame(
        {"site": list("abcd"), "term": "edss", "estimate": [1.0, 2.0, np.nan, 1.5], "se": [0.5, 0.5, 0.5, 0.0], "n": 30}
    )
    fit = combined_estimates(estimate_rows(table, "shared.csv")).fits[0]
    assert fit.heterogeneity.k.tolist() == [2]
    assert "standard error is not above 0: d (edss)" in " ".join(fit.problems)
    assert "estimate is missing: c (edss)" in " ".join(fit.problems)


def test_estimates_with_errors_in_them_are_refused() -> None:
    table = pd.DataFrame({"site": ["a", "a"], "term": "edss", "estimate": [1.0, 2.0], "se": 0.5})
    with pytest.raises(ValueError, match="a gives edss of model twice"):
        combined_estimates(estimate_rows(table, "x.csv"))
    with pytest.raises(ValueError, match="no column 'se'"):
        estimate_rows(table.drop(columns="se"), "x.csv")
