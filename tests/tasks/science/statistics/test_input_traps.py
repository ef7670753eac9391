"""One test per trap: what is wrong with a table is said, and no estimate is computed through it."""

from __future__ import annotations

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
