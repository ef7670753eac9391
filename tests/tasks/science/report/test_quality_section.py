"""The report's part on image quality: what stands out is named, what could not be measured is said."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tasks.science.cohort.outliers import Limit, find_flags
from tasks.science.report.contents import ReportContents
from tasks.science.report.page import render_report
from tasks.science.report.quality_tables import quality_table
from tasks.science.report.tables import exclusion_counts
from tests.tasks.science.report.made_up_study import made_up_montage, made_up_study


@pytest.fixture(scope="module")
def study() -> ReportContents:
    rng = np.random.default_rng(0)
    ids = pd.Series([f"sub-{number:02d}_T1w" for number in range(20)])
    figures = pd.DataFrame({"snr": rng.normal(8, 0.4, 20), "cnr": rng.normal(2, 0.1, 20), "ghost_to_signal": np.nan})
    figures.loc[3, "snr"], figures.loc[5, "cnr"] = 2.25, 0.3
    flags = find_flags(ids, figures, None, 4.0, {"snr": Limit(min=5.0)})
    quality = figures.assign(cohort="clinic", scan_id=ids, absent="ghost_to_signal: no air around the head")
    flags = flags.assign(cohort="clinic", fate=np.where(flags["rule"] == "limit", "excluded", "used"))
    return replace(made_up_study(), quality=quality, flags=flags, sheets=(("clinic", made_up_montage(1)),))


def text_of(page: str) -> str:
    section = page[page.index('<h2 id="quality">') : page.index('<h2 id="training">')]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", section))


def test_findings_name_scan_figure_value_and_fate(study: ReportContents) -> None:
    text = text_of(render_report(study))
    assert "snr (signal to noise in white matter) is 2.25, below the study's limit: at least 5" in text.replace(
        "&#39;", "'"
    )
    assert "sub-05_T1w" in text
    assert "excluded" in text
    assert "not measured in 20 scans: ghost_to_signal: no air around the head" in text


def test_the_contact_sheet_is_in_the_page_and_described(study: ReportContents) -> None:
    page = render_report(study)
    assert re.search(r'<img src="data:image/png;base64,[^"]+" alt="Contact sheet of clinic', page)


def test_a_study_without_findings_or_figures_says_so(study: ReportContents) -> None:
    assert "No scan breaks a limit or stands out" in text_of(render_report(replace(study, flags=pd.DataFrame())))
    assert "No quality figures are recorded" in text_of(render_report(replace(study, quality=pd.DataFrame())))


def test_ranges_are_those_of_the_cohort(study: ReportContents) -> None:
    table = quality_table(study.quality)
    assert table is not None
    rows = {row[0].text: row[3] for row in table.rows}
    assert [cell.text for cell in table.rows[0][:3]] == ["snr", "signal to noise in white matter", "low"]
    assert rows["snr"].text == f"{study.quality['snr'].median():.1f}"
    assert rows["ghost_to_signal"].text == "not measured"


def test_poor_scans_are_counted_by_figure_not_by_value() -> None:
    """A thousand noisy scans with a value each are one line."""
    reasons = [f"snr (noise) is {value}, below the study's limit: at least 5" for value in (1.0, 2.0, 3.0)]
    exclusions = pd.DataFrame({"cohort": "a", "scan_id": list("xyz"), "stage": "quality", "reason": reasons})
    (row,) = exclusion_counts(exclusions).rows
    assert [cell.text for cell in row] == ["a", "quality", "snr (noise)", "3"]
