"""One test per trap: what is wrong with a table is said, and no estimate is computed through it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tasks.science.statistics.analysis import analyse
from tasks.science.statistics.association_fit import AssociationFit

from .made_up_clinic import cohort, spec

FORMULA = "brain_pad_years ~ disease_duration + age_years + sex"


def clinic(**changes: object) -> pd.DataFrame:
    table = cohort(60)
    rng = np.random.default_rng(5)
    return table.assign(disease_duration=(table.age_years - 15) * rng.uniform(0, 0.9, 60)).assign(**changes)


def fit(table: pd.DataFrame, formula: str = FORMULA, **options: object) -> AssociationFit:
    return analyse([spec(formula, **options)], table).fits[0]


def said(found: AssociationFit, *texts: str) -> bool:
    return any(all(text in sentence for text in texts) for sentence in found.problems)


def test_a_clean_table_is_not_complained_of() -> None:
    assert fit(clinic()).problems == ()


def test_a_negative_duration() -> None:
    table = clinic()
    table.loc[3, "disease_duration"] = -2.0
    found = fit(table)
    assert said(found, "disease_duration", "negative (-2)", "not used")
    assert (found.n_used, found.n_dropped) == (59, {"disease_duration negative": 1})


def test_a_duration_longer_than_the_age() -> None:
    table = clinic()
    table.loc[3, "disease_duration"] = 90.0
    found = fit(table)
    assert said(found, "1 row longer than the age", "90")
    assert found.n_used == 59


def test_a_duration_in_months_is_not_computed_through() -> None:
    found = fit(clinic().assign(disease_duration=lambda t: 12 * t.disease_duration))
    assert found.coefficients.empty
    assert said(found, "Not fitted: disease_duration is longer than the age", "months", "Divide it by 12")


@pytest.mark.parametrize(("per_year", "unit"), [(12.0, "months"), (365.25, "days")])
def test_an_age_in_months_or_days(per_year: float, unit: str) -> None:
    found = fit(clinic().assign(age_years=lambda t: per_year * t.age_years))
    assert found.coefficients.empty
    assert said(found, "Not fitted: age_years has a median", f"is it in {unit}")


def test_a_few_ages_in_months() -> None:
    table = clinic()
    table.loc[:1, "age_years"] *= 12
    found = fit(table)
    assert said(found, "age_years: 2 rows above 125 years (months or days?)")
    assert found.n_used == 58


def test_times_in_months_beside_ages_in_years() -> None:
    table = cohort(40, sessions=3).assign(years_since_baseline=lambda t: 12 * t.years_since_baseline)
    found = fit(table, "brain_pad_years ~ edss + years_since_baseline + age_years_baseline", sessions="all")
    assert said(found, "years_since_baseline grows by 12 for each year", "months", "Divide it by 12")


def test_edss_off_its_grid_or_range() -> None:
    table = clinic()
    table.loc[0, "edss"], table.loc[1, "edss"], table.loc[2, "edss"] = 3.2, 11.0, 0.5
    found = fit(table, "brain_pad_years ~ edss + age_years")
    assert said(found, "edss: 1 row outside 0–10 (11); not used")
    assert said(found, "edss: 1 row off the steps of 0.5 (3.2); not used")
    assert said(found, "0.5", "kept")
    assert found.n_used == 58


def test_another_scale_out_of_its_range() -> None:
    table = clinic(mmse=28.0 - np.arange(60) % 5)
    table.loc[0, "mmse"] = 35.0
    assert said(fit(table, "mmse ~ brain_pad_years + age_years"), "mmse: 1 row outside 0–30 (35)")


@pytest.mark.parametrize("codes", [("F", "M"), ("female", "male"), ("f", "m"), ("Female", "MALE"), ("woman", "man")])
def test_a_sex_spelt_otherwise_is_the_same_sex(codes: tuple[str, str]) -> None:
    table = clinic()
    spelt = table.assign(sex=np.where(table.sex == "F", *codes))
    got, expected = fit(spelt), fit(table)
    pd.testing.assert_frame_equal(got.coefficients, expected.coefficients)
    assert got.problems == ()


def test_sex_coded_five_ways_in_one_table() -> None:
    table = clinic()
    ways = np.array([["F", "M"], ["female", "male"], ["f", "m"], ["Female", "Male"], ["woman", "man"]])
    mixed = table.assign(sex=[ways[k % 5][int(sex == "M")] for k, sex in enumerate(table.sex)])
    found = fit(mixed)
    assert found.n_used == 60
    assert "sex[M]" in set(found.coefficients.term)
    assert said(found, "sex: coded as", "read as F and M")


@pytest.mark.parametrize("codes", [(1, 2), (0, 1), ("1", "2")])
def test_numeric_codes_of_sex_are_named_and_not_guessed(codes: tuple[object, object]) -> None:
    table = clinic()
    found = fit(table.assign(sex=[codes[int(sex == "M")] for sex in table.sex]))
    assert said(found, "do not say which is female")
    assert f"sex[{codes[1]}]" in set(found.coefficients.term)


def test_codes_beside_words_of_sex_are_missing() -> None:
    table = clinic().astype({"sex": object})
    table.loc[:4, "sex"] = "1"
    found = fit(table)
    assert said(found, "5 rows hold 1 beside F, M", "taken as missing")
    assert found.n_dropped == {"missing sex": 5}


def test_a_category_of_one_level() -> None:
    assert said(fit(clinic(sex="F")), "sex left out: sex is F in all 60 rows used.")
    assert said(fit(clinic(diagnosis="MS"), "brain_pad_years ~ diagnosis + age_years"), "diagnosis")


def test_a_row_given_twice_is_used_once() -> None:
    table = clinic().drop(columns="scan_id")
    found = fit(pd.concat([table, table.iloc[:3]]))
    assert said(found, "3 rows stand in the table twice")
    assert (found.n_used, found.n_dropped) == (60, {"the same row again": 3})


def test_one_session_with_two_sets_of_values_is_not_used() -> None:
    table = clinic().drop(columns="scan_id")
    found = fit(pd.concat([table, table.iloc[:2].assign(brain_pad_years=99.0)]))
    assert said(found, "4 rows share participant and session", "sub-000")
    assert (found.n_used, found.n_dropped) == (58, {"participant and session twice, with other values": 4})


def test_a_row_without_a_participant() -> None:
    table = clinic()
    table.loc[0, "participant_id"] = "n/a"
    assert fit(table).n_dropped == {"missing participant_id": 1}


def test_groups_of_fewer_than_three() -> None:
    table = clinic()
    table.loc[:1, "diagnosis"] = "CIS"
    found = fit(table, "brain_pad_years ~ diagnosis + age_years")
    assert said(found, "diagnosis = CIS left out: it has 2 subjects, at least 3 are needed")
    assert found.n_dropped == {"diagnosis = CIS has 2 subjects": 2}


def test_collinear_covariates_are_named() -> None:
    table = clinic().assign(age_in_days=lambda t: 365.25 * t.age_years)
    found = fit(table, "brain_pad_years ~ age_years + age_in_days + sex")
    assert found.coefficients.empty
    assert said(found, "age_years, age_in_days are perfectly collinear")


def test_decimal_commas() -> None:
    table = clinic()
    text = table.assign(edss=[f"{value:.1f}".replace(".", ",") for value in table.edss])
    formula = "brain_pad_years ~ edss + age_years"
    found = fit(text, formula)
    assert found.coefficients.estimate.to_numpy() == pytest.approx(fit(table, formula).coefficients.estimate.to_numpy())
    assert said(found, "edss", "decimal commas")


def test_words_among_numbers() -> None:
    table = clinic().astype({"edss": object})
    table.loc[:1, "edss"] = "unknown"
    found = fit(table, "brain_pad_years ~ edss + age_years")
    assert said(found, "edss: 2 rows hold words among numbers ('unknown')")
    assert found.n_dropped == {"missing edss": 2}


def test_infinite_values() -> None:
    table = clinic()
    table.loc[0, "brain_pad_years"] = np.inf
    found = fit(table)
    assert said(found, "brain_pad_years: 1 infinite values")
    assert found.n_used == 59


def test_a_constant_outcome() -> None:
    assert said(fit(clinic(brain_pad_years=2.0)), "Not fitted: brain_pad_years is 2 in all rows used")


def test_site_numbers_are_names() -> None:
    table = clinic(site=np.arange(60) % 3 + 1)
    found = fit(table, "brain_pad_years ~ site + age_years")
    assert list(found.coefficients.term) == ["Intercept", "site[2]", "site[3]", "age_years"]


def test_missing_values_can_be_refused() -> None:
    table = clinic()
    table.loc[:3, "disease_duration"] = np.nan
    assert fit(table).n_missing == {"brain_pad_years": 0, "disease_duration": 4, "age_years": 0, "sex": 0}
    found = fit(table, missing="error")
    assert said(found, "Not fitted: 4 of 60 rows lack a value (disease_duration in 4)")


def test_words_for_the_controls_do_not_switch_the_checks_of_a_scale_off() -> None:
    table = clinic().astype({"edss": object})
    table.loc[table.diagnosis == "HC", "edss"] = "-"
    patients = table.index[table.diagnosis == "MS"]
    table.loc[patients[:2], "edss"] = ["25", "0.25"]
    table.edss = table.edss.astype(str)
    found = fit(table, "brain_pad_years ~ edss + age_years", where={"diagnosis": ("MS",)})
    assert found.n_used == len(patients) - 2
    assert said(found, "edss: 1 row outside 0–10 (25)")
    assert not said(found, "words among numbers")
    everyone = fit(table, "brain_pad_years ~ edss + age_years")
    assert said(everyone, f"{int((table.diagnosis == 'HC').sum())} rows hold words among numbers ('-')")
    assert list(everyone.coefficients.term) == ["Intercept", "edss", "age_years"]


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        (["<5"] * 20, "nfl: 20 rows hold a limit instead of a number ('<5')"),
        (["43 y", "12 y"] * 10, "nfl: 20 rows hold a number with a unit ('43 y', '12 y')"),
        (["7,5"] * 20, "nfl: 20 values have decimal commas"),
        (["1.056,5"] * 20, "nfl: points group thousands and commas are decimal ('1.056,5')"),
        (["1,056.5"] * 20, "nfl: commas group thousands ('1,056.5')"),
        (["1,056"] * 20, "nfl: 20 rows hold a comma that could be decimal or group thousands ('1,056')"),
    ],
)
def test_what_people_write_among_numbers(cells: list[str], sentence: str) -> None:
    rng = np.random.default_rng(1)
    table = clinic(nfl=[*cells, *(f"{value:.1f}" for value in rng.uniform(5, 15, 40))])
    found = fit(table, "brain_pad_years ~ nfl + age_years")
    assert said(found, sentence)
    assert list(found.coefficients.term) == ["Intercept", "nfl", "age_years"]


def test_a_few_number_codes_beside_a_word_stay_a_category() -> None:
    table = clinic(arm=np.array(["1", "2", "unknown"])[np.arange(60) % 3])
    found = fit(table, "brain_pad_years ~ arm + age_years")
    assert list(found.coefficients.term) == ["Intercept", "arm[2]", "arm[unknown]", "age_years"]
    assert said(found, "arm: 20 rows hold words ('unknown') and 40 numbers", "levels of a category")


def test_a_declared_category_keeps_its_words_and_another_model_its_numbers() -> None:
    table = clinic().astype({"edss": str})
    table.loc[:9, "edss"] = "none tested"
    models = [spec("brain_pad_years ~ C(edss) + age_years"), spec("brain_pad_years ~ edss + age_years")]
    levels, numbers = analyse([replace(model, name=name) for model, name in zip(models, "ab", strict=True)], table).fits
    assert "edss[none tested]" in set(levels.coefficients.term)
    assert levels.n_used > numbers.n_used == 50


def test_times_in_words_are_missing_and_not_levels() -> None:
    table = cohort(40, sessions=3).astype({"years_since_baseline": str})
    table.loc[table.session_id == "ses-3", "years_since_baseline"] = "lost"
    found = fit(table, "brain_pad_years ~ years_since_baseline + sex", sessions="all")
    assert "years_since_baseline" in set(found.coefficients.term)
    assert said(found, "years_since_baseline: 40 rows hold words among numbers ('lost')")


def test_a_time_to_an_event_that_is_a_limit() -> None:
    rng = np.random.default_rng(2)
    times = [f"{value:.2f}" for value in rng.exponential(5, 60)]
    times[:20] = [">5"] * 20
    table = clinic(time=times, event=np.arange(60) % 2)
    assert said(fit(table, "time ~ brain_pad_years", event="event"), "time: 20 rows hold a limit", "0 as its event")


@pytest.mark.parametrize("code", [-999, -99, 999, 9999])
def test_codes_of_missing_values(code: int) -> None:
    table = clinic()
    clean = fit(table.drop(index=[3, 4]))
    table.loc[[3, 4], "brain_pad_years"] = code
    found = fit(table)
    assert said(found, f"brain_pad_years: 2 rows equal to {code}, a usual code of a missing value")
    assert found.n_dropped == {"missing brain_pad_years": 2}
    pd.testing.assert_frame_equal(found.coefficients, clean.coefficients)


def test_the_same_digits_within_a_distribution_are_values() -> None:
    scores = np.linspace(40, 130, 60)
    scores[[10, 20, 30]] = [77, 88, 99]
    assert fit(clinic(score=scores), "brain_pad_years ~ score + age_years").problems == ()
    changes = np.linspace(-20, 20, 60)
    changes[3] = -9
    assert fit(clinic(change=changes), "brain_pad_years ~ change + age_years").problems == ()
    skewed = np.exp(np.linspace(0, np.log(85), 60))
    skewed[59] = 99
    assert not said(fit(clinic(nfl=skewed), "brain_pad_years ~ nfl + age_years"), "code of a missing value")


def test_a_code_among_times_does_not_become_the_baseline() -> None:
    table = cohort(40, sessions=3)
    formula = "brain_pad_years ~ edss_baseline + years_since_baseline"
    clean = fit(table.drop(index=1), formula, sessions="all")
    table.loc[1, "years_since_baseline"] = -999.0
    found = fit(table, formula, sessions="all")
    assert said(found, "years_since_baseline: 1 row equal to -999")
    assert found.coefficients.estimate.to_numpy() == pytest.approx(clean.coefficients.estimate.to_numpy())


def test_codes_among_words_are_no_group() -> None:
    table = clinic()
    table.loc[:3, "diagnosis"] = "-999"
    found = fit(table, "brain_pad_years ~ diagnosis + age_years")
    assert said(found, "diagnosis: 4 rows equal to -999, a usual code of a missing value")
    assert found.n_dropped == {"missing diagnosis": 4}


def test_a_wild_value_is_pointed_at_and_kept() -> None:
    table = clinic()
    table.loc[3, "brain_pad_years"] = 512.0
    found = fit(table)
    assert said(found, "brain_pad_years: 1 row beyond 20 robust", "512", "kept")
    assert found.n_used == 60


@pytest.mark.parametrize("column", ["diagnosis", "site"])
def test_levels_that_differ_by_blanks_or_case_are_one(column: str) -> None:
    table = clinic()
    formula = f"brain_pad_years ~ {column} + age_years"
    expected = fit(table, formula)
    first = table[column].iloc[0]
    blank, lower = table.copy(), table.copy()
    blank.loc[0, column] = f" {first} "
    lower.loc[0, column] = first.swapcase()
    for changed, sentence in ((blank, "differ between rows"), (lower, f"'{first.swapcase()}' (1 row) is read as")):
        found = fit(changed, formula)
        pd.testing.assert_frame_equal(found.coefficients, expected.coefficients)
        assert said(found, column, sentence)


def test_blanks_of_a_filter_and_of_strata_are_no_level() -> None:
    table = clinic()
    table.loc[::2, "diagnosis"] += " "
    expected = fit(clinic(), "brain_pad_years ~ age_years", where={"diagnosis": ("MS",)})
    assert fit(table, "brain_pad_years ~ age_years", where={"diagnosis": ("MS",)}).n_used == expected.n_used
    table.loc[::2, "site"] += " "
    found = fit(table, "brain_pad_years ~ age_years", stratify="site")
    assert sorted(set(found.strata.stratum)) == ["x", "y"]


def test_genotypes_that_are_capitals_only_stay_apart() -> None:
    table = clinic(gene=np.array(["AA", "Aa", "aa"])[np.arange(60) % 3])
    found = fit(table, "brain_pad_years ~ gene + age_years")
    assert {"gene[Aa]", "gene[aa]"} <= set(found.coefficients.term)
    assert said(found, "gene:", "differ only by capitals")


def test_none_is_a_treatment() -> None:
    table = clinic(treatment=np.array(["None", "IFN", "OCR"])[np.arange(60) % 3])
    found = fit(table, "brain_pad_years ~ treatment + age_years")
    assert (found.n_used, "treatment[None]" in set(found.coefficients.term)) == (60, True)
    assert said(found, "treatment: 20 rows equal to None, which is read as a level")


def test_an_outcome_of_two_codes_is_two_categories() -> None:
    codes = np.random.default_rng(4).integers(1, 3, 60)
    found = fit(clinic(progressed=codes), "progressed ~ brain_pad_years + age_years")
    assert found.kind == "logistic"
    assert said(found, "progressed is 1 or 2", "the event is 2", 'outcome = "numeric"')
    numeric = fit(clinic(progressed=codes), "progressed ~ brain_pad_years + age_years", outcome="numeric")
    assert numeric.kind == "linear"


def test_which_of_two_words_is_the_event_is_said() -> None:
    words = np.array(["ja", "nein"])[np.random.default_rng(4).integers(0, 2, 60)]
    formula = "progressed ~ brain_pad_years + age_years"
    assert said(fit(clinic(progressed=words), formula), "the event is nein", 'levels = ["nein", "ja"]')
    assert not said(fit(clinic(progressed=words), formula, levels=("nein", "ja")), "the event is")


def test_times_in_months_beside_one_age() -> None:
    table = cohort(40, sessions=3).assign(years_since_baseline=lambda t: 12 * t.years_since_baseline)
    table.age_years = table.groupby("participant_id").age_years.transform("first")
    found = fit(table, "brain_pad_years ~ years_since_baseline + sex", sessions="all")
    assert said(found, "years_since_baseline: reaches 36", "is it in months?")


def test_brain_pad_in_months() -> None:
    table = clinic().assign(brain_pad_years=lambda t: 12 * t.brain_pad_years)
    assert said(fit(table), "brain_pad_years: its standard deviation is about", "months")


@pytest.mark.parametrize(
    ("cell", "what", "remedy"),
    [
        ("{:.1f} pts", "a number with a unit", "Write the number alone"),
        ("{:03.0f}Y", "a number with a unit", "Write the number alone"),
        ("{:.1f}%", "a number with a percent sign", "Write the number alone"),
        ("2,{:03.0f}", "a comma that could be decimal or group thousands", "Write points before decimals"),
        ("2 {:03.0f}", "a number with grouped thousands", "Write its digits without gaps"),
        ("2'{:03.0f}", "a number with grouped thousands", "Write its digits without gaps"),
    ],
)
def test_numbers_that_their_writing_hides_are_no_category(cell: str, what: str, remedy: str) -> None:
    cells = [cell.format(value) for value in np.arange(60) % 12 + 20]
    table = clinic(marker=cells)
    found = fit(table, "brain_pad_years ~ marker + age_years")
    assert said(found, "Not fitted: marker: 60 rows hold", what, repr(cells[0]), remedy, "C(marker)")
    assert (len(found.coefficients), len(found.problems)) == (0, 1)
    levels = fit(table, "brain_pad_years ~ C(marker) + age_years", details=False)
    assert f"marker[{cells[1]}]" in set(levels.coefficients.term)
    assert not said(levels, "marker: 60 rows")


def test_numbers_beside_grouped_thousands_are_no_category() -> None:
    cells = [f"{value:,}" for value in 900 + 7 * np.arange(60)]
    found = fit(clinic(marker=cells), "brain_pad_years ~ marker + age_years")
    assert said(found, "Not fitted: marker: 45 rows hold a comma that could be decimal or group thousands ('1,005'")


def test_a_handful_of_values_with_a_unit_is_a_category_that_is_pointed_at() -> None:
    table = clinic(field=np.array(["1.5T", "3T"])[np.arange(60) % 2])
    found = fit(table, "brain_pad_years ~ field + age_years")
    assert "field[3T]" in set(found.coefficients.term)
    assert said(found, "field: 60 rows hold a number with a unit ('1.5T', '3T')", "levels of a category")


@pytest.mark.parametrize("cells", [["20-29", "30-39", "40-49"], ["033Y", "041Y", "052Y"], ["1961-01-01", "1973-04-01"]])
def test_an_age_without_any_number_is_no_category(cells: list[str]) -> None:
    table = clinic(age_years=np.array(cells)[np.arange(60) % len(cells)])
    found = fit(table, "brain_pad_years ~ edss + age_years")
    assert found.coefficients.empty
    assert said(found, "Not fitted: age_years:", repr(cells[0]), "C(age_years)")
    assert len(fit(table, "brain_pad_years ~ edss + C(age_years)").coefficients) == 1 + len(cells)
    without = fit(table, "brain_pad_years ~ edss + sex")
    assert list(without.coefficients.term) == ["Intercept", "edss", "sex[M]"]


def test_a_model_of_a_hidden_number_leaves_the_others_alone() -> None:
    table = clinic(marker=[f"{value:.0f} y" for value in np.arange(60)])
    models = [spec("brain_pad_years ~ marker"), spec("brain_pad_years ~ edss", where={"diagnosis": ("MS",)})]
    found = analyse([replace(model, name=name) for model, name in zip(models, "ab", strict=True)], table)
    assert (found.fits[0].kind, found.fits[1].kind) == ("", "linear")
    assert any(sentence.startswith("marker: 60 rows hold a number with a unit") for sentence in found.problems)


def test_a_categorical_type_is_a_category_though_its_levels_are_numbers() -> None:
    codes = np.array([1, 2, 10])[np.arange(60) % 3]
    table = clinic(grade=pd.Categorical(codes))
    found = fit(table, "brain_pad_years ~ grade + age_years")
    assert list(found.coefficients.term) == ["Intercept", "grade[2]", "grade[10]", "age_years"]
    assert said(found, "grade: its type in the table is a category")
    assert found.formula == "brain_pad_years ~ C(grade) + age_years"
    as_floats = clinic(grade=pd.Categorical(np.where(codes == 10, np.nan, codes)))
    assert "grade[2]" in set(fit(as_floats, "brain_pad_years ~ grade").coefficients.term)


@pytest.mark.parametrize("formula", ["brain_pad_years ~ grade * edss", "brain_pad_years ~ C(grade) * edss"])
def test_an_ordered_type_gives_the_reference(formula: str) -> None:
    grades = pd.Categorical(np.array(["none", "mild", "bad"])[np.arange(60) % 3], ["dead", "none", "mild", "bad"], True)
    found = fit(clinic(grade=grades), formula)
    assert list(found.coefficients.term[1:3]) == ["grade[bad]", "grade[mild]"]
    assert said(found, "grade: its type in the table orders 'dead', 'none'")
    declared = fit(clinic(grade=grades), 'brain_pad_years ~ C(grade, ref="bad")')
    assert list(declared.coefficients.term) == ["Intercept", "grade[mild]", "grade[none]"]


def test_an_ordered_type_gives_the_levels_of_an_outcome() -> None:
    rng = np.random.default_rng(7)
    order = ["none", "mild", "bad"]
    table = clinic(grade=pd.Categorical(rng.choice(order, 60), order, ordered=True))
    formula = "grade ~ brain_pad_years + age_years"
    found, declared = (
        fit(table, formula, outcome="ordinal"),
        fit(table, formula, outcome="ordinal", levels=tuple(order)),
    )
    assert found.kind == "ordinal"
    pd.testing.assert_frame_equal(found.coefficients, declared.coefficients)
    two = clinic(grade=pd.Categorical(rng.choice(["well", "ill"], 60), ["well", "ill"], ordered=True))
    assert fit(two, formula).method.endswith("log odds of grade = ill")


def test_an_outcome_of_a_categorical_type_of_numbers_is_said() -> None:
    table = clinic(score=pd.Categorical(np.arange(60) % 9))
    found = fit(table, "score ~ brain_pad_years + age_years")
    assert found.kind == "linear"
    assert said(found, "score: its type in the table is a category of numbers", "read as numbers")


@pytest.mark.parametrize("mark", ["#REF!", "#VALUE!", "#NAME?", "#NUM!", "#DIV/0!", "#N/A", "-", "–", "--"])
def test_marks_of_nothing_are_no_level(mark: str) -> None:
    table = clinic()
    expected = fit(table.drop(index=range(4)), "brain_pad_years ~ diagnosis + age_years")
    table.loc[:3, "diagnosis"] = mark
    found = fit(table, "brain_pad_years ~ diagnosis + age_years")
    assert said(found, f"diagnosis: 4 rows without a value ({mark!r}): taken as missing")
    assert found.n_dropped == {"missing diagnosis": 4}
    pd.testing.assert_frame_equal(found.coefficients, expected.coefficients)


def test_marks_of_nothing_among_numbers_and_people() -> None:
    table = clinic().astype({"edss": object})
    table.loc[:3, "edss"], table.loc[5, "participant_id"] = "#NUM!", "#REF!"
    found = fit(table, "brain_pad_years ~ edss + age_years")
    assert found.n_dropped == {"missing participant_id": 1, "missing edss": 4}
    assert said(found, "edss: 4 rows hold words among numbers ('#NUM!')")


def test_a_dash_beside_a_plus_is_a_minus() -> None:
    table = clinic(bands=np.array(["+", "-"])[np.arange(60) % 2])
    assert "bands[-]" in set(fit(table, "brain_pad_years ~ bands + age_years").coefficients.term)


@pytest.mark.parametrize("word", ["unknown", "Missing", "n.a.", "not known"])
def test_a_level_that_may_be_a_missing_value_is_kept_and_said(word: str) -> None:
    table = clinic()
    table.loc[:5, "diagnosis"] = word
    found = fit(table, "brain_pad_years ~ diagnosis + age_years")
    assert said(found, f"diagnosis: 6 rows of {word!r}", "is it a missing value?")
    assert f"diagnosis[{word}]" in set(found.coefficients.term)


def test_minus_nine_below_a_scale_of_small_numbers() -> None:
    grades = np.arange(60) % 7
    grades[[3, 4]] = -9
    found = fit(clinic(grade=grades), "brain_pad_years ~ grade + age_years")
    assert said(found, "grade: 2 rows equal to -9, a usual code of a missing value and far from all others")
    assert found.n_dropped == {"missing grade": 2}


@pytest.mark.parametrize(("scale", "code"), [("edss", -9), ("edss", 99), ("mmse", 99), ("moca", -9), ("hoehn_yahr", 9)])
def test_codes_outside_a_known_scale(scale: str, code: int) -> None:
    values = np.arange(60) % 5 + 1.0
    values[[3, 4]] = code
    found = fit(clinic(**{scale: values}), f"brain_pad_years ~ {scale} + age_years")
    assert said(found, f"{scale}: 2 rows equal to {code}, a usual code of a missing value and outside its scale")
    assert found.n_dropped == {f"missing {scale}": 2}


@pytest.mark.parametrize("declared", ["auto", "binary"])
def test_nine_beside_no_and_yes_is_no_outcome(declared: str) -> None:
    codes = np.random.default_rng(4).integers(0, 2, 60)
    codes[[3, 4]] = 9
    found = fit(clinic(progressed=codes), "progressed ~ brain_pad_years + age_years", outcome=declared)
    assert (found.kind, found.n_dropped) == ("logistic", {"missing progressed": 2})
    assert said(found, "progressed: 2 rows equal to 9, a usual code of a missing value")


def test_nine_beside_small_counts_is_kept_and_asked_about() -> None:
    counts = np.arange(60) % 4
    counts[[3, 4]] = 9
    found = fit(clinic(relapses=counts), "brain_pad_years ~ relapses + age_years")
    assert said(found, "relapses: 2 rows equal to 9, and all others lie within 0–3; kept. Is it a code")
    assert found.n_used == 60
    assert fit(clinic(relapses=np.arange(60) % 10), "brain_pad_years ~ relapses + age_years").problems == ()


@pytest.mark.parametrize("name", ["diagnosis", "study_group", "scanner_id", "race", "Site_No", "phenotype_baseline"])
def test_codes_of_groups_that_are_fitted_as_one_slope(name: str) -> None:
    table = clinic(**{name: np.arange(60) % 4})
    sentence = f"{name}: 0, 1, 2, 3 are fitted as numbers, with one slope. If they name groups, write C({name})."
    assert said(fit(table, f"brain_pad_years ~ {name} + age_years"), sentence)
    assert not said(fit(table, f"brain_pad_years ~ C({name}) + age_years"), "one slope")


@pytest.mark.parametrize(
    ("name", "values"),
    [("group_size", np.arange(60) % 4), ("handedness", np.arange(60) % 2), ("treatment", np.arange(60) / 8)],
)
def test_amounts_and_two_codes_are_one_slope_without_a_word(name: str, values: np.ndarray) -> None:
    assert not said(fit(clinic(**{name: values}), f"brain_pad_years ~ {name} + age_years"), "one slope")


def test_points_that_may_group_thousands_beside_decimal_commas_are_not_guessed() -> None:
    table = clinic(marker=np.array(["812,5", "1.034", "950,25", "1.250"])[np.arange(60) % 4])
    found = fit(table, "brain_pad_years ~ marker + age_years")
    assert found.coefficients.empty
    assert said(
        found, "Not fitted: marker: 30 rows hold a point", "('1.034', '1.250')", "('812,5', '950,25')", "decimal"
    )
    assert not said(found, "read as decimals")


def test_points_that_can_only_be_decimal_settle_it() -> None:
    table = clinic(marker=np.array(["1,5", "1.034", "0.5", "2,75"])[np.arange(60) % 4])
    found = fit(table, "brain_pad_years ~ marker + age_years")
    assert list(found.coefficients.term) == ["Intercept", "marker", "age_years"]


@pytest.mark.parametrize("other", ["Zu\u0308rich", "Z\u00fcrich\u200b", "\ufeffZ\u00fcrich", "Z\u00fcrich\u00a0"])
def test_a_word_that_looks_the_same_is_one_level(other: str) -> None:
    clean = np.array(["Z\u00fcrich", "Graz", "Bern"], dtype=object)[np.arange(60) % 3]
    formula = "brain_pad_years ~ clinic + age_years"
    expected = fit(clinic(clinic=clean), formula)
    written = clean.copy()
    written[::6] = other
    found = fit(clinic(clinic=written), formula)
    pd.testing.assert_frame_equal(found.coefficients, expected.coefficients)
    assert said(found, "clinic: blanks, invisible characters or the encoding of accents in 'Z\u00fcrich' differ")


def test_a_number_with_an_invisible_character_is_a_number() -> None:
    table = clinic(marker=[f"{value}\u200b" for value in np.arange(60)])
    assert "marker" in set(fit(table, "brain_pad_years ~ marker + age_years").coefficients.term)


@pytest.mark.parametrize(
    "cells", [["TRUE", "FALSE", "NA"], ["true", "False", ""], [True, False, None], pd.array([True, False, None])]
)
def test_an_event_that_is_true_false_or_missing(cells: list[object]) -> None:
    rng = np.random.default_rng(2)
    times = rng.exponential(5, 60)
    places = np.arange(60) % 3
    codes = clinic(time=times, event=np.array([1, 0, np.nan])[places])
    words = codes.assign(event=pd.Series(cells).iloc[places].reset_index(drop=True))
    expected = fit(codes, "time ~ brain_pad_years", event="event")
    found = fit(words, "time ~ brain_pad_years", event="event")
    assert (found.kind, found.n_dropped) == ("cox", {"missing event": 20})
    pd.testing.assert_frame_equal(found.coefficients, expected.coefficients)


def test_a_year_of_birth_is_no_age() -> None:
    found = fit(clinic().assign(age_years=lambda t: 2020 - t.age_years.round()))
    assert found.coefficients.empty
    assert said(found, "Not fitted: age_years has a median of 19", "is it a year of birth?")


@pytest.mark.parametrize("kind", ["int64", "str"])
def test_whole_numbers_that_are_not_told_apart_are_no_amounts(kind: str) -> None:
    table = clinic(uid=pd.Series(2**60 + np.arange(60) % 3, dtype="int64").astype(kind))
    found = fit(table, "brain_pad_years ~ uid + age_years")
    assert found.coefficients.empty
    assert said(found, "Not fitted: uid: 60 rows of whole numbers beyond 2^53", str(2**60), "C(uid)")
    assert not said(found, "in all 60 rows")
    levels = fit(table, "brain_pad_years ~ C(uid) + age_years")
    assert list(levels.coefficients.term[1:3]) == [f"uid[{2**60 + 1}]", f"uid[{2**60 + 2}]"]
    large = clinic(uid=pd.Series(10**13 * (1 + np.arange(60)), dtype="int64").astype(kind))
    assert "uid" in set(fit(large, "brain_pad_years ~ uid + age_years").coefficients.term)


def test_thousands_grouped_in_two_ways_are_not_guessed() -> None:
    table = clinic(marker=np.array(["1,234.5", "1.234,5", "950"])[np.arange(60) % 3])
    found = fit(table, "brain_pad_years ~ marker + age_years")
    assert found.coefficients.empty
    assert said(found, "Not fitted: marker: 40 rows hold a number with grouped thousands ('1,234.5', '1.234,5')")
