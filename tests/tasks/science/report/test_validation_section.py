"""The page shows what validation found beside metrics, in the study's own unit and against its own target."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tasks.science.report.contents import ReportContents
from tasks.science.report.figures import predicted_against_age
from tasks.science.report.validation_section import cohort_agreement, validation_section
from tasks.science.report.validation_tables import retest_table, status_table
from tasks.science.statistics.retest import COLUMNS as RETEST_COLUMNS

from .made_up_study import made_up_study


@pytest.fixture(scope="module")
def study() -> ReportContents:
    return made_up_study()


def test_every_figure_of_a_cohort_has_its_own_data_and_says_what_it_shows(study: ReportContents) -> None:
    section, own = validation_section(study), cohort_agreement(study, "northern-sites", 1)
    drawings = [own.agreement, own.calibration, *section.forests, section.coverage, section.growth]
    assert [drawing.name for drawing in drawings if drawing] == [
        "figure-agreement-1", "figure-calibration-1", "figure-levels-1", "figure-coverage", "figure-robustness",
    ]  # fmt: skip
    assert all(len(drawing.data) for drawing in drawings if drawing)
    assert own.agreement is not None
    assert len(own.agreement.data) == (study.predictions["cohort"] == "northern-sites").sum() - 1
    assert "bias" in own.agreement.svg


def test_shifted_figures_and_rejected_headers_are_said_in_words(study: ReportContents) -> None:
    section = validation_section(study)
    assert section.shifted == (
        "northern-sites: none of 5 figures has shifted.",
        "clinic: 1 of 5 figures have shifted: signal to noise in white matter.",
    )
    assert section.robustness is not None
    (header,) = (row for row in section.robustness.rows if "header" in row[0].text)
    assert [cell.text for cell in header[1:5]] == ["12", "10", "0", "2"]
    assert header[2].below == "2 more turned back"


def test_months_are_months_everywhere(study: ReportContents) -> None:
    years, months = (cohort_agreement(replace(study, unit=unit), "clinic", 2) for unit in ("years", "months"))
    assert years.limits is not None
    assert months.limits is not None
    bias, as_months = (float(one.limits.rows[0][2].text.replace("−", "-")) for one in (years, months))  # type: ignore[union-attr]
    assert as_months == pytest.approx(12 * bias, abs=0.07)
    assert years.limits.rows[0][6].text == months.limits.rows[0][6].text
    section = validation_section(replace(study, unit="months"))
    for table in (section.centring, section.retest, section.robustness):
        assert table is not None
        assert not any("year" in column for column in table.columns)


def test_a_model_of_another_target_is_drawn_against_that_target(study: ReportContents) -> None:
    rows = study.predictions.assign(target_years=study.predictions["age_years"] + 10)
    rows.loc[rows.index[0], "target_years"] = np.nan
    drawing = predicted_against_age(rows, "northern-sites", 1, "years", "myelination age")
    assert drawing is not None
    assert drawing.title == "Predicted and myelination age, northern-sites"
    assert len(drawing.data) == 58
    away = drawing.data["predicted_age_years"] - drawing.data["target_years"]
    np.testing.assert_allclose(drawing.data["difference_years"], away)
    assert not re.search("chronological|brain-PAD", drawing.svg + drawing.caption)


def test_a_study_without_any_of_it_shows_none_of_it(study: ReportContents) -> None:
    bare = replace(study, validation={}, coverage=pd.DataFrame(), metrics=study.metrics.head(0))
    section = validation_section(bare)
    assert section.forests == ()
    assert section.shifts == ()
    assert [section.coverage, section.centring, section.retest, section.growth, section.robustness] == [None] * 5
    assert cohort_agreement(bare, "northern-sites", 1).agreement is None


def test_too_few_retests_say_why_and_give_no_number() -> None:
    row = {"cohort": "c", "quantity": "brain-PAD", "n_subjects": 1, "n_longitudinal": 2, "n_unknown": 1}
    note = "fewer than 3 subjects with two sessions within 90 days"
    table = retest_table(pd.DataFrame([{**row, "note": note}], columns=RETEST_COLUMNS), "years")
    assert table is not None
    assert table.rows[0][4].is_absent
    assert table.notes == (
        "c: 2 subjects with sessions further apart: longitudinal",
        "c: 1 subject whose sessions no time is known of",
        f"c: {note}",
    )


def test_what_is_not_scored_is_counted_by_status_with_a_reason(study: ReportContents) -> None:
    table = status_table(study.predictions)
    assert table is not None
    assert [[cell.text for cell in row[:3]] for row in table.rows] == [
        ["clinic", "ok", "59"], ["clinic", "out-of-range", "1"],
        ["northern-sites", "ok", "59"], ["northern-sites", "out-of-range", "1"],
    ]  # fmt: skip
    assert "lies outside 10 to 100" in table.rows[1][3].text
