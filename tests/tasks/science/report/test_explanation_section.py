"""The report's part on what the model looks at: of whom, how repeatable, how fine; no word where there is none."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.science.imaging.regions import OUTSIDE
from tasks.science.report.contents import Explanation, ReportContents
from tasks.science.report.explanation_tables import explanation_caption, region_tables
from tasks.science.report.page import render_report
from tests.tasks.science.report.made_up_study import made_up_montage, made_up_study

FACTS: dict[str, Any] = {
    "method": "grad_ram",
    "cohort": "northern-sites",
    "n_subjects": 18,
    "age_range": [21.4, 83.9],
    "age_unit": "years",
    "members": 5,
    "template": "MNI152NLin2009aSym",
    "cell_mm": [32.0, 32.0, 32.0],
    "unit": "years per cell",
    "repeatability": 0.874,
}


@pytest.fixture(scope="module")
def study() -> ReportContents:
    names = [f"place {number}" for number in range(20)]
    known = pd.DataFrame({"set": "known places", "region": names, "n_voxels": 30})
    known = known.assign(mean_magnitude=np.linspace(0.2, 0.01, 20), mean_signed=-0.01, sd_over_subjects=0.02)
    regions = known.assign(share=0.0123, rank=range(1, 21))
    tissue = {"set": "tissue", "share": 0.2, "mean_signed": 0.0, "sd_over_subjects": 1e-5}
    tissues = [("grey matter", 300, 0.1), ("white matter", 100, 0.02), (OUTSIDE, 9000, 0.5)]
    tissues = [{**tissue, "region": name, "n_voxels": n, "mean_magnitude": mean} for name, n, mean in tissues]
    nowhere = {"set": "known places", "region": "nowhere", "n_voxels": 0}
    regions = pd.concat([regions, pd.DataFrame([nowhere, *tissues])], ignore_index=True)
    return replace(made_up_study(), explanations=(Explanation(FACTS, regions, made_up_montage(2)),))


def section_of(page: str) -> str:
    section = page[page.index('<h2 id="explanation">') : page.index('<h2 id="groups">')]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", section))


@pytest.fixture(scope="module")
def page(study: ReportContents) -> str:
    return render_report(study)


def test_the_section_says_of_whom_how_repeatable_and_how_fine(page: str) -> None:
    section = page[page.index('<h2 id="explanation">') : page.index('<h2 id="groups">')]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", section))
    assert "18 subjects of northern-sites, 21 to 84 years" in text
    assert "5 members of the ensemble" in text
    assert "r = 0.87" in text
    assert "it tells lobes apart at best" not in text
    assert "1.2%" in text
    assert "the first 12 of 21" in text


def test_coarse_maps_and_undefined_repeatability_are_said() -> None:
    text = explanation_caption({**FACTS, "cell_mm": [64.0, 64.0, 64.0], "repeatability": None})
    assert "cells of 64 × 64 × 64 mm: it tells lobes apart at best" in text
    assert "is not defined" in text


def test_a_region_without_voxels_has_no_figure(study: ReportContents) -> None:
    (table,) = region_tables(study.explanations[0].regions.query("region == 'nowhere'"), "grad_ram")
    assert [cell.text for cell in table.rows[0]] == ["nowhere", "0", "–", "–", "–", "–"]


def test_regions_are_compared_with_the_brain_and_not_with_the_air_around_it(study: ReportContents) -> None:
    known, tissue = region_tables(study.explanations[0].regions, "grad_ram")
    assert known.rows[0][2].text == f"{0.2 / 0.08:.2f}"
    assert tissue.rows[0][2].text == f"{0.1 / 0.08:.2f}"
    assert tissue.rows[0][3].below == "SD over subjects 1 × 10⁻⁵"


def test_a_study_without_maps_has_no_such_section(study: ReportContents) -> None:
    page = render_report(replace(study, explanations=()))
    assert 'href="#explanation"' not in page
    assert "What the model looks at" not in page


def test_the_picture_is_in_the_page_and_described(page: str) -> None:
    assert re.search(r'<img src="data:image/png;base64,[^"]+" alt="Grad-RAM: mean map', page)
