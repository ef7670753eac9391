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
from tasks.science.statistics.association_fit import AssociationFit
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
    table.loc[0, "site"] = None
    fit = analyse([SPEC], table).fits[0]
    assert fit.n_used == 179
    assert sum(fit.n_dropped.values()) == 61
    assert fit.n_dropped["missing site"] == 1
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


def phenotypes(without: tuple[str, ...] = ("site-3", "site-4", "site-5")) -> pd.DataFrame:
    """Planted means CIS 0, RRMS 2, SPMS 6; some sites see no CIS."""
    table = sites(seed=1)
    rng = np.random.default_rng(2)
    groups = np.array(["CIS", "RRMS", "SPMS"])[np.arange(len(table)) % 3]
    means = pd.Series(groups).map({"CIS": 0.0, "RRMS": 2.0, "SPMS": 6.0}).to_numpy()
    table = table.assign(phenotype=groups, brain_pad_years=means + rng.normal(0, 1, len(table)))
    return table[~(table.site.isin(without) & (table.phenotype == "CIS"))].reset_index(drop=True)


def test_strata_without_the_reference_are_not_pooled_against_another() -> None:
    spec = AssociationSpec("p", "brain_pad_years ~ phenotype + age_years", stratify="site")
    fit = analyse([spec], phenotypes()).fits[0]
    rows = fit.coefficients.set_index("term")
    assert rows.loc["phenotype[RRMS]", "estimate"] == pytest.approx(2, abs=0.4)
    assert rows.loc["phenotype[SPMS]", "estimate"] == pytest.approx(6, abs=0.4)
    assert rows.loc["phenotype[RRMS]", "reference"] == "phenotype = CIS"
    assert fit.heterogeneity.set_index("term").k.to_dict() == {
        "Intercept": 3,
        "phenotype[RRMS]": 3,
        "phenotype[SPMS]": 3,
        "age_years": 6,
    }
    said = " ".join(fit.problems)
    assert "site site-3, site-4, site-5 lack the reference CIS" in said
    assert "phenotype[RRMS]: 3 of 6 levels of site estimate it: site-0, site-1, site-2." in said


def test_a_slope_in_the_reference_group_is_pooled_with_its_like_alone() -> None:
    spec = AssociationSpec("p", "brain_pad_years ~ phenotype * edss + age_years", stratify="site")
    fit = analyse([spec], phenotypes()).fits[0]
    k = fit.heterogeneity.set_index("term").k
    assert (k["edss"], k["phenotype[SPMS]:edss"], k["age_years"]) == (3, 3, 6)
    cells = analyse([replace(spec, formula="brain_pad_years ~ phenotype + age_years - 1")], phenotypes()).fits[0]
    assert cells.heterogeneity.set_index("term").k.to_dict() == {
        "phenotype[CIS]": 3,
        "phenotype[RRMS]": 6,
        "phenotype[SPMS]": 6,
        "age_years": 6,
    }


def test_a_stratum_of_which_nothing_is_taken_counts_as_not_used() -> None:
    spec = AssociationSpec("p", "brain_pad_years ~ phenotype", stratify="site")
    table = phenotypes()
    fit = analyse([spec], table).fits[0]
    assert fit.n_used == (table.site < "site-3").sum()
    assert fit.n_used + sum(fit.n_dropped.values()) == len(table)


def shared(**references: str | None) -> pd.DataFrame:
    """What sites share of a difference between groups and of a slope."""
    tables = []
    for site, reference in references.items():
        table = pd.DataFrame({"term": ["phenotype[RRMS]", "age_years"], "estimate": [2.0, 0.1], "se": 0.5, "n": 30})
        table = table if reference is None else table.assign(reference=[reference, None])
        tables.append(estimate_rows(table, f"{site}.csv"))
    return pd.concat(tables, ignore_index=True)


def test_shared_differences_from_different_references_are_not_combined() -> None:
    fit = combined_estimates(shared(oslo="phenotype = CIS", graz="phenotype = CIS", lima="phenotype = PPMS")).fits[0]
    assert fit.coefficients.term.tolist() == ["age_years"]
    assert "phenotype[RRMS]: not combined" in fit.problems[0]
    assert "lima phenotype = PPMS" in fit.problems[0]


def test_one_reference_is_one_however_it_is_written_and_an_unknown_one_is_said() -> None:
    alike = combined_estimates(shared(oslo="phenotype = CIS", graz="CIS")).fits[0]
    assert len(alike.coefficients) == 2
    assert not any("reference" in sentence for sentence in alike.problems)
    unknown = combined_estimates(shared(oslo="phenotype = CIS", graz=None)).fits[0]
    assert unknown.coefficients.reference.tolist() == ["phenotype = CIS", ""]
    assert "phenotype[RRMS]: graz gives no reference level" in " ".join(unknown.problems)
    assert not any(sentence.startswith("age_years: graz") for sentence in unknown.problems)


def test_the_reference_travels_with_the_effects_of_a_site() -> None:
    files = []
    for site, rows in phenotypes().groupby("site"):
        effects = analyse([AssociationSpec("p", "brain_pad_years ~ phenotype + age_years")], rows).effects
        text = effects.drop(columns=["problems", "notes"]).to_csv(index=False)
        files.append(estimate_rows(pd.read_csv(io.StringIO(text)), f"{site}/effects.csv"))
    fit = combined_estimates(pd.concat(files, ignore_index=True)).fits[0]
    # Where RRMS is the reference no coefficient is named after it.
    assert fit.coefficients.term.tolist() == ["phenotype[RRMS]", "age_years"]
    assert any("phenotype[SPMS]: not combined" in sentence for sentence in fit.problems)


def answers() -> pd.DataFrame:
    """The response falls with edss in all sites; each sees other levels of it."""
    table = sites(4, seed=3)
    rng = np.random.default_rng(4)
    falls = table.edss + rng.normal(0, 2, len(table)) > 3.5
    return table.assign(resp=np.where(falls, "bad", "fair"))


def test_the_event_of_a_stratum_is_that_of_the_whole_table() -> None:
    spec = AssociationSpec("r", "resp ~ edss + age_years", stratify="site")
    table = answers()
    table.loc[(table.site == "site-0") & (table.resp == "bad"), "resp"] = "poor"
    refused = analyse([spec], table).fits[0]
    assert not refused.kind
    assert "resp holds text (bad, fair, poor)" in refused.problems[0]
    assert sum(refused.n_dropped.values()) + refused.n_used == len(table)
    directed = analyse([replace(spec, outcome="ordinal", levels=("poor", "bad", "fair"))], table).fits[0]
    assert (directed.strata.query("term == 'edss'").estimate < 0).all()
    alone = answers()
    alone.loc[alone.site == "site-0", "resp"] = "bad"
    fit = analyse([spec], alone).fits[0]
    assert fit.heterogeneity.k.tolist() == [3, 3, 3]
    assert any(sentence.startswith("site site-0: Not fitted: resp is bad") for sentence in fit.problems)


def test_a_number_that_is_zero_or_one_in_one_stratum_stays_a_number() -> None:
    table = sites(3, seed=5).assign(relapses=lambda rows: np.arange(len(rows)) % 4.0)
    table["relapses"] = table.relapses.mask(table.site == "site-0", table.relapses % 2)
    fit = analyse([AssociationSpec("n", "relapses ~ edss", stratify="site")], table).fits[0]
    assert len(fit.strata) == 6
    assert "OLS" in fit.method


def test_a_scale_of_each_stratum_is_said() -> None:
    fit = analyse([replace(SPEC, formula="brain_pad_years ~ scale(edss) + age_years")], sites()).fits[0]
    assert "scale(edss): the mean and standard deviation are those of each site" in fit.problems[0]


def combined(**tables: pd.DataFrame) -> tuple[AssociationFit, str]:
    """The one fit of sites' tables, and all that is said."""
    rows = [estimate_rows(table, f"{site}.csv") for site, table in tables.items()]
    analysis = combined_estimates(pd.concat(rows, ignore_index=True))
    return analysis.fits[0], " ".join([*analysis.problems, *analysis.fits[0].problems])


def edss_of(estimate: object, se: object = 0.2, **more: object) -> pd.DataFrame:
    return pd.DataFrame([{"term": "edss", "estimate": estimate, "se": se, "n": 50} | more])


def test_rows_that_do_not_say_what_they_estimate_are_counted() -> None:
    named = edss_of(0.8, model="m")
    fit, said = combined(
        a=pd.concat([named, edss_of(5.0, model=None)]),
        b=pd.concat([named.assign(estimate=0.7), named.assign(term=None, estimate=9.0)]),
        c=named.assign(term=None, estimate=None),
    )
    assert fit.heterogeneity.k.tolist() == [2]
    assert "a.csv: 1 row not used: they name no model." in said
    assert "b.csv: 1 row not used (m): they name no term." in said
    assert "c.csv: 1 row not used (m): no model could be fitted there." in said
    with pytest.raises(ValueError, match="No row has an estimate"):
        combined(a=edss_of(0.8, model=None))


def test_why_an_estimate_is_not_used_is_the_true_reason() -> None:
    fit, said = combined(
        comma=edss_of("0,8", "0,2"),
        point=edss_of(0.6),
        thousands=edss_of("1,234"),
        word=edss_of("abc"),
        none=edss_of(None),
        endless=edss_of(np.inf),
        negative=edss_of(0.5, -0.2),
        certain=edss_of(0.5, None),
    )
    assert fit.strata.estimate.tolist() == [0.8, 0.6]
    assert "estimate is no number ('1,234'): thousands (edss)" in said
    assert "estimate is no number ('abc'): word (edss)" in said
    assert "estimate is missing: none (edss)" in said
    assert "estimate is infinite: endless (edss)" in said
    assert "standard error is not above 0: negative (edss)" in said
    assert "standard error is missing: certain (edss)" in said


def test_people_of_sites_that_are_not_used_are_not_counted_as_used() -> None:
    fit, _ = combined(a=edss_of(0.8), b=edss_of(0.6, None, n=40), c=edss_of(0.5, n=40))
    assert (fit.n_used, fit.n_subjects) == (90, 90)
    assert fit.n_dropped == {"no estimate of b could be used": 40}
    unknown, said = combined(a=edss_of(0.8, n=None), c=edss_of(0.5, n=None))
    assert unknown.coefficients.n_used.isna().all()
    assert "a, c: n is not given" in said


@pytest.mark.parametrize("word", ["yes", "Ja", "y", "T", "1", True])
def test_words_for_yes_are_of_interest(word: object) -> None:
    fit, _ = combined(a=edss_of(0.8, of_interest=word), b=edss_of(0.6, of_interest=word))
    assert fit.coefficients.of_interest.all()
    assert fit.coefficients.q_value.notna().all()


def test_other_words_for_of_interest_are_refused_and_none_of_interest_is_said() -> None:
    with pytest.raises(ValueError, match=r"a\.csv: of_interest is perhaps"):
        combined(a=edss_of(0.8, of_interest="perhaps"))
    _, said = combined(a=edss_of(0.8, of_interest="no"), b=edss_of(0.6, of_interest="no"))
    assert "No term is of interest" in said


def test_a_site_in_another_unit_and_a_site_given_twice_are_asked_about() -> None:
    _, said = combined(a=edss_of(0.8), b=edss_of(9.6, 2.4), c=edss_of(0.7))
    assert "edss: b has 13 times the estimate and 12 times the standard error of the others" in said
    assert said.count("another unit") == 1
    _, plain = combined(a=edss_of(0.8), b=edss_of(9.6), c=edss_of(0.7))
    assert "another unit" not in plain
    _, said = combined(oslo=edss_of(0.8), osl=edss_of(0.8), graz=edss_of(0.7))
    assert "oslo, osl give the same numbers: is it one site twice?" in said
    with pytest.raises(ValueError, match="Sites Oslo and oslo"):
        combined(Oslo=edss_of(0.8), oslo=edss_of(0.8))


@pytest.mark.parametrize("n", [np.inf, -5, 0, 30.5, "forty"])
def test_a_count_that_counts_nobody_is_refused_with_its_row(n: object) -> None:
    table = pd.concat([edss_of(0.8), edss_of(0.7, n=n, term="age")])
    with pytest.raises(ValueError, match=rf"a\.csv: n is {n} in row 2 \(age\); expected a count of people"):
        combined(a=table)
    fit, _ = combined(a=pd.concat([edss_of(0.8), edss_of(None, n=n, term="age")]), b=edss_of(0.6))
    assert fit.n_used == 100


@pytest.mark.parametrize(("estimate", "se"), [(1e300, 0.2), (0.8, 1e200), (0.8, 1e-200)])
def test_a_term_whose_size_cannot_be_computed_with_leaves_the_others(estimate: float, se: float) -> None:
    odd = pd.concat([edss_of(estimate, se), edss_of(0.1, term="age")])
    fit, said = combined(a=odd, b=pd.concat([edss_of(0.7), edss_of(0.2, term="age")]))
    assert fit.coefficients.term.tolist() == ["age"]
    assert f"edss: not combined, since its size is beyond what can be computed (a {estimate:.3g}, SE {se:.3g})" in said


def test_a_site_with_all_the_weight_is_combined() -> None:
    fit, _ = combined(a=edss_of(0.8, 1e-12), b=edss_of(0.7), c=edss_of(0.6))
    assert fit.heterogeneity.i2.between(0, 1).all()


def test_one_interaction_is_one_however_it_is_spelt() -> None:
    reference, turned = "diagnosis = HC; sex = F", "sex = F; diagnosis = HC"
    fit, said = combined(
        a=edss_of(0.8, term="diagnosis[MS]:sex[M]", reference=reference),
        b=edss_of(0.7, term="sex[M] : diagnosis[MS] ", reference=turned),
    )
    assert fit.coefficients.term.tolist() == ["diagnosis[MS]:sex[M]"]
    assert "not combined" not in said
    apart, _ = combined(a=edss_of(0.8, term="g[a:b]"), b=edss_of(0.7, term="g[b:a]"))
    assert not len(apart.coefficients)


def test_columns_are_known_in_any_capitals() -> None:
    table = edss_of(0.8).rename(columns={"term": "Term", "estimate": " Beta", "se": "SE", "n": "N"})
    fit, _ = combined(a=table, b=edss_of(0.7).assign(SE=99.0, beta=99.0))
    assert fit.n_used == 100
    assert fit.coefficients.estimate.between(0.7, 0.8).all()


def test_how_an_interval_becomes_an_error_is_said() -> None:
    table = edss_of(0.8).drop(columns="se").assign(ci_low=0.4, ci_high=1.2)
    with pytest.raises(
        ValueError, match=r"no column 'se' of estimates; of a 95% interval it is \(high − low\) / 3\.92"
    ):
        estimate_rows(table, "a.csv")
