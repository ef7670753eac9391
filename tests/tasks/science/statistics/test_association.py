from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tasks.records import AssociationSpec
from tasks.science.statistics.association import fit_association
from tasks.science.statistics.association_fit import COLUMNS, AssociationFit
from tasks.science.statistics.declaration import check_spec
from tasks.science.statistics.mixed_model import fit_mixed

from .made_up_clinic import FORMULA, cohort, spec


def row(fit: AssociationFit, term: str) -> pd.Series:
    return fit.coefficients.set_index("term").loc[term]


def test_ols_with_hc3_against_the_formula_of_mackinnon_and_white() -> None:
    table = cohort()
    fit = fit_association(spec(FORMULA), table)
    x = np.column_stack(
        [
            np.ones(len(table)),
            table.diagnosis == "MS",
            table.diagnosis == "NMO",
            table.edss,
            table.age_years,
            table.sex == "M",
        ]
    ).astype(float)
    y = table.brain_pad_years.to_numpy()
    bread = np.linalg.inv(x.T @ x)
    beta = bread @ x.T @ y
    e = y - x @ beta
    h = np.einsum("ij,jk,ik->i", x, bread, x)
    covariance = bread @ (x.T * (e / (1 - h)) ** 2) @ x @ bread
    se, df = np.sqrt(np.diag(covariance)), len(y) - 6
    got = fit.coefficients
    assert list(got.columns) == COLUMNS
    assert list(got.term) == ["Intercept", "diagnosis[MS]", "diagnosis[NMO]", "edss", "age_years", "sex[M]"]
    assert got.estimate.to_numpy() == pytest.approx(beta)
    assert got.se.to_numpy() == pytest.approx(se)
    assert got.p_value.to_numpy() == pytest.approx(2 * stats.t.sf(np.abs(beta / se), df))
    assert got.ci_high.to_numpy() == pytest.approx(beta + stats.t.ppf(0.975, df) * se)
    assert (got.df == df).all()
    assert fit.method == "OLS, HC3"
    assert (fit.n_used, fit.n_subjects, fit.n_dropped, fit.problems) == (90, 90, {}, ())
    for k, name in enumerate(got.term[1:], start=1):
        without = np.delete(x, k, axis=1)
        reduced = y - without @ np.linalg.lstsq(without, y, rcond=None)[0]
        partial = 1 - (e @ e) / (reduced @ reduced)
        assert row(fit, name).partial_r2 == pytest.approx(partial)
        assert row(fit, name).f2 == pytest.approx(partial / (1 - partial))


def test_standardised_beta_is_a_refit_on_z_scores() -> None:
    table = cohort().rename(columns={"edss": "lesions", "age_years": "years"})
    z = table.assign(
        **{
            name: (table[name] - table[name].mean()) / table[name].std()
            for name in ("lesions", "years", "brain_pad_years")
        }
    )
    formula = "brain_pad_years ~ diagnosis * lesions + years"
    fit, refit = fit_association(spec(formula), table), fit_association(spec(formula), z)
    main = "brain_pad_years ~ diagnosis + lesions + years"
    of_main, again = fit_association(spec(main), table).coefficients, fit_association(spec(main), z).coefficients
    assert of_main.beta_standardised[1:].to_numpy() == pytest.approx(again.estimate[1:].to_numpy())
    assert fit.coefficients.beta_standardised[1:].to_numpy() == pytest.approx(
        refit.coefficients.estimate[1:].to_numpy()
    )


@settings(max_examples=15, deadline=None)
@given(gain=st.floats(0.01, 100), shift=st.floats(-100, 100))
def test_p_values_ignore_the_unit_of_a_predictor(gain: float, shift: float) -> None:
    table = cohort(40)
    one = fit_association(spec("brain_pad_years ~ edss + age_years"), table)
    other = fit_association(spec("brain_pad_years ~ x + age_years"), table.assign(x=gain * table.edss + shift))
    assert row(other, "x").p_value == pytest.approx(row(one, "edss").p_value, rel=1e-6)
    assert row(other, "x").beta_standardised == pytest.approx(row(one, "edss").beta_standardised, rel=1e-6)
    assert row(other, "x").estimate == pytest.approx(row(one, "edss").estimate / gain, rel=1e-6)


def test_rows_not_used_are_counted_with_their_reason_and_add_up() -> None:
    table = pd.concat([cohort(60, sessions=2), cohort(10).assign(cohort="other", scan_id=lambda t: "o" + t.scan_id)])
    table.loc[table.participant_id.isin(["sub-001", "sub-002"]), "edss"] = np.nan
    table.loc[table.participant_id == "sub-002", "sex"] = "n/a"
    fit = fit_association(
        spec(FORMULA.replace('C(diagnosis, ref="HC")', "site"), where={"diagnosis": ("MS", "HC")}), table
    )
    in_cohort = table[table.cohort == "ms"]
    assert fit.n_used + sum(fit.n_dropped.values()) == len(in_cohort) == 120
    assert fit.n_dropped["diagnosis not in (MS, HC)"] == (in_cohort.diagnosis == "NMO").sum()
    kept = in_cohort[in_cohort.diagnosis != "NMO"]
    assert fit.n_dropped["later session"] == len(kept) / 2
    lacking = {k: v for k, v in fit.n_dropped.items() if k.startswith("missing")}
    assert set(lacking) <= {"missing edss", "missing edss, sex"}
    assert sum(lacking.values()) >= 1


def test_baseline_takes_the_first_session_in_time_not_in_the_table() -> None:
    table = cohort(40, sessions=3)
    shuffled = table.sample(frac=1.0, random_state=0)
    first = table[table.session_id == "ses-1"]
    expected = fit_association(spec("brain_pad_years ~ edss + age_years"), first)
    got = fit_association(spec("brain_pad_years ~ edss + age_years"), shuffled)
    assert got.coefficients.estimate.to_numpy() == pytest.approx(expected.coefficients.estimate.to_numpy())
    assert got.n_dropped == {"later session": 80}
    misleading = shuffled.assign(session_id=shuffled.session_id.map({"ses-1": "z", "ses-2": "b", "ses-3": "a"}))
    got = fit_association(spec("brain_pad_years ~ edss + age_years"), misleading)
    assert got.coefficients.estimate.to_numpy() == pytest.approx(expected.coefficients.estimate.to_numpy())


def test_repeated_sessions_go_to_a_mixed_model() -> None:
    table = cohort(40, sessions=3)
    fit = fit_association(
        spec("edss ~ brain_pad_years_baseline * years_since_baseline + age_years_baseline + sex", sessions="all"), table
    )
    assert fit.method == "LMM REML, random intercept per participant_id, Satterthwaite df, at most between-within"
    assert (fit.n_used, fit.n_subjects) == (120, 40)
    first = table[table.session_id == "ses-1"].set_index("participant_id")
    pad = table.participant_id.map(first.brain_pad_years)
    matrix = pd.DataFrame(
        {
            "Intercept": 1.0,
            "pad": pad,
            "years": table.years_since_baseline,
            "age": table.participant_id.map(first.age_years),
            "sex": (table.sex == "M").astype(float),
            "pad:years": pad * table.years_since_baseline,
        }
    )
    direct = fit_mixed(table.edss, matrix, table.participant_id)
    assert fit.coefficients.estimate.to_numpy() == pytest.approx(direct.fixed.to_numpy(), rel=1e-6)
    assert fit.coefficients.df.to_numpy() == pytest.approx(direct.df.to_numpy())
    assert (fit.coefficients.df.to_numpy() <= np.array([78.0, 36.0, 78.0, 36.0, 36.0, 78.0]) + 1e-9).all()
    assert fit.coefficients.partial_r2.isna().all()
    assert fit.coefficients.beta_standardised[1:].notna().all()


def test_a_random_intercept_per_site() -> None:
    rng = np.random.default_rng(0)
    table = cohort(120).assign(site=rng.choice([f"site-{i}" for i in range(8)], 120))
    assert (
        fit_association(spec(FORMULA, groups="site"), table).method
        == "LMM REML, random intercept per site, Satterthwaite df, at most between-within"
    )


def test_all_sessions_of_single_visits_fall_back_to_least_squares_and_say_so() -> None:
    fit = fit_association(spec(FORMULA, sessions="all"), cohort())
    assert fit.method == "OLS, HC3"
    assert fit.problems[0].startswith("No participant_id has two rows")


def test_equal_participants_of_two_cohorts_are_two_people() -> None:
    two = pd.concat([cohort(30), cohort(30, seed=1).assign(cohort="b", scan_id=lambda t: "b" + t.scan_id)])
    both = AssociationSpec("m", "brain_pad_years ~ edss + age_years", ("ms", "b"))
    assert fit_association(both, two).n_used == 60


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        ((), {"diagnosis[MS]", "diagnosis[NMO]", "edss", "diagnosis[MS]:edss", "diagnosis[NMO]:edss"}),
        (("diagnosis",), {"diagnosis[MS]", "diagnosis[NMO]"}),
        (("C(diagnosis)",), {"diagnosis[MS]", "diagnosis[NMO]"}),
        (("diagnosis[MS]",), {"diagnosis[MS]"}),
        (("edss:diagnosis",), {"diagnosis[MS]:edss", "diagnosis[NMO]:edss"}),
        (("age_years", "edss"), {"age_years", "edss"}),
    ],
)
def test_terms_of_interest(effects: tuple[str, ...], expected: set[str]) -> None:
    formula = "brain_pad_years ~ diagnosis * edss + age_years + sex".replace("diagnosis *", 'C(diagnosis, ref="HC") *')
    fit = fit_association(spec(formula, effects=effects), cohort())
    assert set(fit.coefficients.term[fit.coefficients.of_interest]) == expected


def test_the_depression_cohort_tells_that_a_scale_is_missing_for_all_controls(shared_data: Path) -> None:
    table = pd.read_csv(shared_data / "ds002748" / "participants.tsv", sep="\t").assign(cohort="ms")
    fit = fit_association(spec('BDI ~ C(group, ref="control") + age + gender'), table)
    assert (fit.n_used, fit.n_dropped) == (22, {"missing BDI": 2})
    assert row(fit, "group[depr]").ci_low > 0
    with_anxiety = fit_association(spec('BDI ~ C(group, ref="control") + `HADS-anx` + age'), table)
    assert with_anxiety.problems[0].startswith("Not fitted: the reference level 'control' of group has no rows")
    assert with_anxiety.n_dropped == {"missing HADS-anx": 15, "missing BDI, HADS-anx": 2}


def test_names_with_other_characters_stand_in_backticks() -> None:
    table = cohort().rename(columns={"edss": "HADS-anx"})
    fit = fit_association(spec("brain_pad_years ~ `HADS-anx` + age_years", effects=("HADS-anx",)), table)
    assert row(fit, "HADS-anx").of_interest


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"edss": np.nan}, "no complete rows are left"),
        ({"brain_pad_years": 3.0}, "brain_pad_years is 3 in all rows"),
        ({"diagnosis": "MS"}, "the reference level 'HC' of diagnosis has no rows"),
        ({"cohort": "elsewhere"}, "no complete rows are left"),
    ],
)
def test_a_model_that_cannot_be_fitted_is_a_row_with_a_reason(change: dict[str, object], reason: str) -> None:
    fit = fit_association(spec(FORMULA), cohort().assign(**change))
    assert fit.coefficients.empty
    assert list(fit.coefficients.columns) == COLUMNS
    assert reason in fit.problems[0]
    assert fit.method == ""


def test_no_rows_at_all_is_a_reason_too() -> None:
    fit = fit_association(spec(FORMULA, sessions="all"), cohort().iloc[:0])
    assert "no complete rows" in fit.problems[0]


def test_collinearity_and_too_few_rows_are_reasons() -> None:
    table = cohort().assign(months=lambda t: 12 * t.age_years)
    fit = fit_association(spec("brain_pad_years ~ age_years + months + sex"), table)
    assert "age_years, months are perfectly collinear" in fit.problems[0]
    few = fit_association(spec("brain_pad_years ~ edss + age_years"), table[:3])
    assert few.problems[0].startswith("Not fitted: 3 rows cannot carry 3 parameters (Intercept, edss, age_years)")


def test_nothing_left_of_the_effect_of_interest_is_a_reason() -> None:
    fit = fit_association(spec("brain_pad_years ~ site + age_years", effects=("site",)), cohort().assign(site="x"))
    said = "Not fitted: nothing is left of site in the 90 rows used; the model's coefficients are age_years."
    assert fit.problems[0] == said
    assert "site left out: site is x in all 90 rows used." in fit.problems


def test_a_covariate_of_one_level_is_left_out_and_said() -> None:
    fit = fit_association(spec(FORMULA), cohort().assign(sex="F"))
    assert "sex[M]" not in set(fit.coefficients.term)
    assert fit.problems == ("sex left out: sex is F in all 90 rows used.",)


def test_small_levels() -> None:
    table = cohort()
    table.loc[0, "diagnosis"] = "PPMS"
    table.loc[1:2, "diagnosis"] = "CIS"
    fit = fit_association(spec(FORMULA), table)
    assert fit.n_dropped == {"diagnosis = PPMS has 1 subject": 1, "diagnosis = CIS has 2 subjects": 2}
    assert "diagnosis = PPMS left out: it has 1 subject, at least 3 are needed." in fit.problems
    assert "diagnosis = CIS left out: it has 2 subjects, at least 3 are needed." in fit.problems
    assert np.isfinite(fit.coefficients.se).all()


def test_a_scan_that_alone_determines_a_coefficient_is_a_reason() -> None:
    table = cohort().assign(lesion=0.0)
    table.loc[5, "lesion"] = 1.0
    fit = fit_association(spec("brain_pad_years ~ lesion + age_years"), table)
    assert "ms/sub-005 alone determines a coefficient" in fit.problems[0]


def test_impossible_clinical_values_are_said_and_not_used() -> None:
    table = cohort().assign(disease_duration=lambda t: t.age_years / 4 + t.index % 3)
    table.loc[0, "edss"] = 0.5
    table.loc[1, "edss"] = 12.0
    table.loc[2:3, "edss"] = 3.2
    table.loc[4, "disease_duration"] = -1.0
    table.loc[5, "disease_duration"] = 99.0
    fit = fit_association(spec("brain_pad_years ~ edss + disease_duration + age_years"), table)
    advice = "not used. Correct or empty them."
    assert fit.problems[:5] == (
        "edss: 1 rows equal to 0.5, which the scale does not have; kept.",
        f"edss: 1 row outside 0–10 (12); {advice}",
        f"edss: 2 rows off the steps of 0.5 (3.2); {advice}",
        f"disease_duration: 1 row negative (-1); {advice}",
        f"disease_duration: 1 row longer than the age (months?) (99); {advice}",
    )
    assert fit.n_used == 85
    assert fit.n_dropped == {
        "edss outside 0–10": 1,
        "edss off the steps of 0.5": 2,
        "disease_duration negative": 1,
        "disease_duration longer than the age": 1,
    }


def test_brain_age_without_age_as_covariate_is_advised_against() -> None:
    assert "Add age_years" in fit_association(spec("brain_pad_years ~ edss"), cohort()).problems[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"formula": "brain_pad_years ~ Edss"}, "no column 'Edss'; did you mean 'edss'"),
        ({"formula": "brain_pad_years ~ system('x')"}, "Formula refused"),
        ({"effects": ("edsss",)}, "'edsss' is no term of its formula; did you mean 'edss'"),
        ({"where": {"Diagnosis": ("MS",)}}, "no column 'Diagnosis'; did you mean 'diagnosis'"),
        ({"groups": "subject"}, "no column 'subject'"),
    ],
)
def test_malformed_models_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        fit_association(AssociationSpec(**{"name": "m", "formula": FORMULA, "cohorts": ("ms",), **changes}), cohort())  # type: ignore[arg-type]


def test_a_model_can_be_checked_before_there_are_data() -> None:
    assert check_spec(spec(FORMULA)).response.label == "brain_pad_years"
    assert check_spec(spec("edss ~ age_years_baseline"), ["participant_id", "edss", "age_years"]).intercept


def test_a_join_that_repeats_scans_is_refused() -> None:
    with pytest.raises(ValueError, match="repeats scan scan-0-0"):
        fit_association(spec(FORMULA), pd.concat([cohort(), cohort().assign(edss=3.0)]))


def test_a_filter_value_that_no_row_has_is_said() -> None:
    fit = fit_association(spec("brain_pad_years ~ edss + age_years", where={"diagnosis": ("MS", "nmo")}), cohort())
    assert "where: no row has diagnosis = 'nmo'; did you mean 'NMO'?" in fit.problems


def test_hc3_keeps_its_level_where_groups_differ_in_variance_and_size() -> None:
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(120):
        group = np.repeat(["a", "b"], [60, 15])
        y = rng.normal(size=75) * np.where(group == "b", 4.0, 1.0)
        table = pd.DataFrame(
            {
                "cohort": "ms",
                "participant_id": np.arange(75).astype(str),
                "group": group,
                "y": y,
                "age_years": 1.0 * rng.uniform(20, 60, 75),
            }
        )
        rejected += row(fit_association(spec("y ~ group + age_years", details=False), table), "group[b]").p_value < 0.05
    assert rejected / 120 < 0.1


@pytest.mark.parametrize(
    ("column", "formula"),
    [
        ("Intercept", "brain_pad_years ~ Intercept + age_years"),
        ("diagnosis[MS]", "brain_pad_years ~ `diagnosis[MS]` + diagnosis"),
        ("edss:age_years", "brain_pad_years ~ edss * age_years + `edss:age_years`"),
    ],
)
def test_a_column_named_like_one_of_the_design_does_not_take_its_place(column: str, formula: str) -> None:
    table = cohort().assign(**{column: np.random.default_rng(0).normal(size=90)})
    fit = fit_association(spec(formula), table)
    assert fit.coefficients.empty
    assert f"are named {column!r}" in fit.problems[0]


@pytest.mark.parametrize("name", ["residual", "fitted", "leverage"])
def test_a_column_named_like_a_figure_of_the_fit_is_refused(name: str) -> None:
    fit = fit_association(spec(f"{name} ~ age_years"), cohort().rename(columns={"brain_pad_years": name}))
    assert fit.problems[0] == f"Not fitted: {name} is what a fit calls a figure of its own; rename the column."


def test_one_group_tells_nothing_of_groups() -> None:
    one = fit_association(spec("brain_pad_years ~ edss", groups="site"), cohort().assign(site="x"))
    assert "all rows are of one site" in one.problems[0]
    two = fit_association(spec("brain_pad_years ~ edss", groups="site"), cohort())
    assert any(sentence.startswith("2 groups hardly tell") for sentence in two.problems)


def test_many_levels_are_not_compared_in_pairs() -> None:
    table = cohort(180).assign(region=[f"r{k % 30:02d}" for k in range(180)])
    fit = fit_association(spec("brain_pad_years ~ region + diagnosis", contrasts="holm"), table)
    assert set(fit.contrasts.factor) == {"diagnosis"}
    assert any("region: more than 20 levels are not compared" in note for note in fit.notes)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bootstrap": 1}, "need 40 resamples at least"),
        ({"formula": "brain_pad_years ~ 0"}, "neither a predictor nor an intercept"),
        ({"levels": ("a", "b", "a"), "outcome": "ordinal"}, "names one level twice"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fit_association(spec(**{"formula": "brain_pad_years ~ edss"} | options), cohort())


def test_an_undefined_logarithm_is_said() -> None:
    fit = fit_association(spec("log(brain_pad_years) ~ age_years"), cohort())
    assert any("rows are then chosen by the outcome itself" in sentence for sentence in fit.problems)
