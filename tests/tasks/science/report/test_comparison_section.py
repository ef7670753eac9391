"""The report's section on the models that a study compares."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest

from tasks.science.report.comparison_section import comparison_section, paired_sentence
from tasks.science.report.contents import ReportContents
from tasks.science.report.page import render_report
from tasks.science.report.units import in_unit, metrics_in_unit, worded
from tasks.science.statistics.arms import ArmComparison, compare_arms

from .made_up_models import INPUTS, adult_arms, adults, infants
from .test_page import HOSTILE, read, words


@pytest.fixture(scope="module")
def study() -> ReportContents:
    # Of the rest of the page test_page tells; here it is empty.
    names = ("flow", "exclusions", "curves", "metrics", "predictions")
    return ReportContents("harbour", "0" * 64, "", training={}, **{name: pd.DataFrame() for name in names})


@pytest.fixture(scope="module")
def adult_page(study: ReportContents) -> str:
    return render_report(replace(study, comparison=adults()))


@pytest.fixture(scope="module")
def infant_page(study: ReportContents) -> str:
    return render_report(replace(study, comparison=infants(), unit="months"))


def files_of(page: str) -> dict[str, pd.DataFrame]:
    found = {}
    for _, attributes in read(page).elements:
        name, address = attributes.get("download"), attributes.get("href") or ""
        if name:
            found[name] = pd.read_csv(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    return found


def section_of(page: str) -> str:
    start = page.index('<section aria-labelledby="comparison">')
    return words(page[start : page.index('<section aria-labelledby="slices">')])


def test_a_study_of_one_model_has_no_such_section(study: ReportContents) -> None:
    page = render_report(study)
    assert "Comparison of the models" not in words(page)
    assert 'href="#comparison"' not in page


def test_page_stays_well_formed_and_its_names_unique(adult_page: str, infant_page: str) -> None:
    for page in (adult_page, infant_page):
        elements = read(page).elements
        names = [attributes["id"] for _, attributes in elements if "id" in attributes]
        assert len(names) == len(set(names))
        assert "comparison" in names
        tables = sum(tag == "table" for tag, _ in elements)
        assert tables == sum(tag == "caption" for tag, _ in elements)
        assert not re.search(r"\b(nan|NaN|NaT|inf)\b|<NA>|\bNone\b", section_of(page))


def test_equal_comparisons_give_equal_bytes(study: ReportContents, adult_page: str) -> None:
    assert render_report(replace(study, comparison=compare_arms(adult_arms(), resamples=500))) == adult_page


def test_every_model_stands_in_every_table_with_its_n(adult_page: str) -> None:
    section = comparison_section(adults(), "years")
    for cohort in section.cohorts:
        assert cohort.accuracy is not None
        assert [row[0].text for row in cohort.accuracy.rows] == adults().models
        assert all(row[1].text.isdigit() for row in cohort.accuracy.rows)
        assert cohort.paired is not None
        assert [row[0].text for row in cohort.paired.rows] == adults().models[1:]
    assert "59 scans, 1 unpaired" in section_of(adult_page)
    assert {len(table.rows) for table in section.associations} == {6}


def test_differences_are_said_in_words_and_patients_left_out_of_them() -> None:
    sentences = comparison_section(adults(), "years").sentences
    assert len(sentences) == 2
    assert sentences[0].startswith("northern-sites: 5 of 5 models differ from rnc: regression is less accurate by")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"difference": -1.5, "ci_low": -2.5, "ci_high": -0.5},
            "regression is more accurate by 18.00 months [6.00, 30.00]",
        ),
        ({"p_t_holm": 0.2}, "no model is shown to differ from rnc (5 tested)"),
        ({"p_t_holm": np.nan}, "no model could be tested against rnc. 5 could not be tested."),
    ],
)
def test_what_the_tests_found_is_said(change: dict[str, float], said: str) -> None:
    shown = replace(adults(), paired=adults().paired.assign(**change))
    assert said in paired_sentence(shown, "northern-sites", "months")


def test_a_note_is_said_under_its_table(study: ReportContents) -> None:
    comparison = adults()
    noted = replace(comparison, paired=comparison.paired.assign(note="the two models predict different targets"))
    text = section_of(render_report(replace(study, comparison=noted)))
    assert "rnc-100, regression-100, rnc-50, regression-50: the two models predict different targets" in text


def test_months_are_shown_where_the_study_says_so(infant_page: str) -> None:
    text = section_of(infant_page)
    assert "MAE (months)" in text
    assert "Predicted (months)" in text
    assert "(years)" not in text
    saved = files_of(infant_page)
    shown = saved["models.csv"].set_index("model")["mae_months"]
    inside = infants().metrics
    inside = inside[(inside["metric"] == "mae") & (inside["cohort"] == "other-hospital")].set_index("model")["estimate"]
    np.testing.assert_allclose(shown.loc[list(INPUTS)], 12 * inside.loc[list(INPUTS)], rtol=1e-5)
    folds = saved["models-folds.csv"]
    np.testing.assert_allclose(folds["mae"], 12 * infants().folds["mae"], rtol=1e-5)
    np.testing.assert_allclose(folds["r2"], infants().folds["r2"], rtol=1e-5)
    pairs = saved["models-fold-pairs.csv"].merge(
        infants().fold_pairs, on=["metric", "model", "other"], suffixes=("", "_inside")
    )
    factor = pairs["metric"].map({"mae": 12, "rmse": 12}).fillna(1)
    np.testing.assert_allclose(pairs["difference"], factor * pairs["difference_inside"], rtol=1e-4)
    np.testing.assert_allclose(pairs["d"], pairs["d_inside"], rtol=1e-4)


def test_subjects_apart_are_listed_one_by_one_for_each_model(infant_page: str) -> None:
    text = section_of(infant_page)
    assert "abnormal: 3 subjects apart from every statistic" in text
    assert text.count("sub-ab001, ses-1") == len(INPUTS)
    assert text.index("Cross-validation folds") < text.index("Subjects apart")


def test_a_scan_apart_without_prediction_says_why(study: ReportContents) -> None:
    comparison = infants()
    apart = comparison.apart.assign(predicted_age_years=np.nan, status="out-of-range", reason="age 104 lies outside")
    text = section_of(render_report(replace(study, comparison=replace(comparison, apart=apart))))
    assert "sub-ab000, ses-1, T1w: out-of-range: age 104 lies outside" in text


def test_hostile_names_are_shown_and_never_obeyed(study: ReportContents) -> None:
    arms = [replace(arm, name=f"{HOSTILE}{arm.name}", changes={HOSTILE: HOSTILE}) for arm in adult_arms(20)]
    page = render_report(replace(study, comparison=compare_arms(arms, resamples=20)))
    assert page.lower().count("<script") == 1
    assert HOSTILE in section_of(page)


@pytest.mark.parametrize(
    "name", [field.name for field in fields(ArmComparison) if field.name not in ("primary", "arms")]
)
def test_any_table_may_be_empty(study: ReportContents, name: str) -> None:
    comparison = infants()
    value = getattr(comparison, name)
    empty = value.iloc[:0] if isinstance(value, pd.DataFrame) else ()
    read(render_report(replace(study, comparison=replace(comparison, **{name: empty}), unit="months")))


def test_one_model_with_folds_is_no_comparison(study: ReportContents) -> None:
    comparison = infants()
    alone = replace(
        comparison,
        **{name: getattr(comparison, name).query("model == 'ratio'") for name in ("arms", "metrics", "folds", "apart")},
        paired=comparison.paired.iloc[:0],
        anova=comparison.anova.iloc[:0],
        fold_pairs=comparison.fold_pairs.iloc[:0],
    )
    page = render_report(replace(study, comparison=alone, unit="months"))
    assert "Comparison of the models" not in words(page)
    assert "Out-of-fold predictions: mean over folds" in section_of(page)


def test_conversion_touches_lengths_of_time_alone() -> None:
    metrics = pd.DataFrame(
        {
            "metric": ["mae", "calibration_slope", "mean_brain_pad", "r2"],
            "estimate": 0.5,
            "ci_low": 0.25,
            "ci_high": 1.0,
        }
    )
    shown = metrics_in_unit(metrics, "months")
    assert shown["estimate"].tolist() == [6.0, 0.5, 6.0, 0.5]
    assert shown["ci_high"].tolist() == [12.0, 1.0, 12.0, 1.0]
    assert metrics["estimate"].tolist() == [0.5] * 4
    assert in_unit(metrics, ["estimate"], "years") is metrics
    assert worded("Difference (years)", "months") == "Difference (months)"
