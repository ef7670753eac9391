"""The report holds every row, shows only what it holds, and stands alone."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.science.report import page_parts
from tasks.science.report.cautions import find_cautions
from tasks.science.report.contents import ReportContents, empty_table
from tasks.science.report.disease_figures import first_sessions
from tasks.science.report.page import render_report
from tasks.science.report.verdict import answer_questions
from tasks.science.statistics.analysis import Analysis, gathered

from .made_up_study import made_up_study

HOSTILE = "<script>alert('x')</script>\"&'{{ 7*7 }}$x$"
NOT_CLOSED = {"meta", "img", "br", "link", "input", "hr"}


class PageReader(HTMLParser):
    """Collects what a test asks of a page: elements with attributes, text, and whether tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in NOT_CLOSED:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def read(page: str) -> PageReader:
    reader = PageReader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def words(page: str) -> str:
    return " ".join(" ".join(read(page).text).split())


@pytest.fixture(scope="module")
def study() -> ReportContents:
    return made_up_study()


@pytest.fixture(scope="module")
def page(study: ReportContents) -> str:
    return render_report(study)


@pytest.fixture(scope="module")
def nothing() -> ReportContents:
    tables = {name: pd.DataFrame() for name in ("flow", "exclusions", "curves", "metrics", "predictions")}
    return ReportContents("empty", "0" * 64, "", training={}, **tables)


def test_page_loads_nothing_and_runs_nothing_but_the_script_that_sorts(page: str) -> None:
    script = (Path(page_parts.__file__).parent / "sort.js").read_text(encoding="utf-8")
    assert re.findall(r"<script.*?</script>", page, re.DOTALL) == [f"<script>{script}</script>"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
        in html.unescape(page)
    )
    for tag, attributes in read(page).elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action", "data"):
            address = attributes.get(name)
            assert address is None or address.startswith(("#", "data:", "https://doi.org/"))
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)


def test_equal_contents_give_equal_bytes(study: ReportContents, page: str) -> None:
    assert render_report(study) == page
    assert render_report(made_up_study()) == page


def test_names_within_the_page_are_unique_and_links_lead_somewhere(page: str) -> None:
    elements = read(page).elements
    names = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(names) == len(set(names))
    targets = {attributes["href"][1:] for _, attributes in elements if (attributes.get("href") or "").startswith("#")}
    clips = set(re.findall(r"url\(#([^)]+)\)", page))
    assert (targets | clips) <= set(names)


def test_headings_descend_by_one_level_at_a_time(page: str) -> None:
    levels = [int(tag[1]) for tag, _ in read(page).elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_pictures_are_described_and_table_headers_say_what_they_head(page: str) -> None:
    elements = read(page).elements
    assert ("html", {"lang": "en"}) in elements
    pictures = [attributes for tag, attributes in elements if tag in {"img", "svg"}]
    assert len(pictures) >= 10
    assert all(len(attributes.get("alt") or attributes.get("aria-label") or "") > 20 for attributes in pictures)
    assert all(attributes.get("scope") in {"row", "col"} for tag, attributes in elements if tag == "th")
    tables = sum(tag == "table" for tag, _ in elements)
    assert tables == sum(tag == "caption" for tag, _ in elements)


def test_every_exclusion_and_every_term_appears(study: ReportContents, page: str) -> None:
    text = words(page)
    for row in study.exclusions.itertuples():
        assert row.scan_id in text
        assert row.reason in text
    for row in study.associations.itertuples():
        assert row.term in text
        assert row.formula in text
    assert "the fit did not converge; no number is given" in text


def test_hundreds_of_exclusions_are_all_listed(nothing: ReportContents) -> None:
    scans = [("a", f"sub-{i:04d}", "read", "truncated") for i in range(700)]
    exclusions = pd.DataFrame(scans, columns=["cohort", "scan_id", "stage", "reason"])
    text = words(render_report(replace(nothing, exclusions=exclusions)))
    assert all(scan_id in text for scan_id in exclusions["scan_id"])


def hostile_analysis(study: ReportContents) -> Analysis:
    problems = [[HOSTILE, "]]>"]] * len(study.associations)
    fits = [replace(fit, name=HOSTILE, formula=HOSTILE, problems=(HOSTILE, "]]>")) for fit in study.analysis.fits]
    return Analysis(tuple(fits), study.associations.assign(model=HOSTILE, problems=problems))


def test_hostile_names_are_shown_and_never_obeyed(study: ReportContents) -> None:
    predictions = study.predictions.assign(
        site=HOSTILE, scan_id=HOSTILE + study.predictions["scan_id"], diagnosis=HOSTILE
    )
    hostile = replace(
        study,
        study_name=HOSTILE,
        study_text=HOSTILE,
        exclusions=study.exclusions.assign(scan_id=HOSTILE, reason=HOSTILE),
        predictions=predictions,
        analysis=hostile_analysis(study),
        metrics=study.metrics.assign(note=HOSTILE),
        training={HOSTILE: {HOSTILE: HOSTILE}},
        provenance={HOSTILE: HOSTILE},
        montages=((HOSTILE, study.montages[0][1]),),
    )
    page = render_report(replace(hostile, cautions=(*find_cautions(hostile), HOSTILE)))
    assert page.lower().count("<script") == 1
    assert "49" not in re.findall(r"<title>(.*?)</title>", page)[0]
    assert HOSTILE in words(page)


def test_hostile_names_do_not_become_formulas_in_a_spreadsheet(study: ReportContents) -> None:
    formula = '=HYPERLINK("http://evil")'
    page = render_report(replace(study, exclusions=study.exclusions.assign(scan_id=formula)))
    files = {
        attributes["download"]: attributes["href"] for _, attributes in read(page).elements if "download" in attributes
    }
    saved = base64.b64decode((files["exclusions.csv"] or "").partition(",")[2]).decode()
    assert f"\n{formula}" not in saved
    assert ",=" not in saved
    assert ",\"'=HYPERLINK" in saved


def test_saved_predictions_are_the_predictions(study: ReportContents, page: str) -> None:
    files = {
        attributes["download"]: attributes["href"] for _, attributes in read(page).elements if "download" in attributes
    }
    assert {"predictions.csv", "metrics.csv", "associations.csv", "ages-1.csv", "baselines.csv", "groups.csv"} <= set(
        files
    )
    saved = pd.read_csv(io.BytesIO(base64.b64decode((files["predictions.csv"] or "").partition(",")[2])))
    assert list(saved["scan_id"]) == list(study.predictions["scan_id"])
    np.testing.assert_allclose(saved["age_years"], study.predictions["age_years"], rtol=1e-5)


def test_nothing_is_shown_as_nan(study: ReportContents) -> None:
    nan = float("nan")
    numbers = ["estimate", "ci_low", "ci_high"]
    broken = replace(
        study,
        metrics=study.metrics.assign(**dict.fromkeys(numbers, nan), note=None),
        analysis=replace(
            study.analysis,
            effects=study.associations.assign(**dict.fromkeys([*numbers, "se", "p_value", "q_value"], nan), term=None),
        ),
        predictions=study.predictions.assign(predicted_age_years=nan, brain_pad_years=nan, site=None, status=None),
        training={"val_mae_years": nan, "best_epoch": None, "ranges": [nan, None]},
        curves=study.curves.assign(val_mae_years=nan),
    )
    page = render_report(replace(broken, cautions=find_cautions(broken)))
    assert not re.search(r"\b(nan|NaN|NaT|None|inf)\b|<NA>", words(page).replace("None shown", ""))
    assert not [
        a for _, attributes in read(page).elements if re.search(r"\bnan\b", a := attributes.get("aria-label") or "")
    ]
    assert "not estimable" in words(page)


def test_a_study_of_nothing_says_so(nothing: ReportContents) -> None:
    text = words(render_report(replace(nothing, cautions=find_cautions(nothing))))
    for sentence in (
        "No cohort was indexed.",
        "No scan was excluded.",
        "no external cohort",
        "declares no association",
        "No training curves are recorded.",
        "Nothing is recorded of the training.",
        "names no grouping column",
        "No example slices were drawn.",
        "No provenance is recorded.",
        "The study file is not recorded.",
    ):
        assert sentence in text, sentence


@pytest.mark.parametrize("absent", ["curves", "metrics", "predictions", "exclusions", "flow"])
def test_any_table_may_be_empty(study: ReportContents, absent: str) -> None:
    contents = replace(study, **{absent: empty_table(absent)})
    page = render_report(replace(contents, cautions=find_cautions(contents)))
    read(page)
    assert study.study_name in words(page)


def test_a_grouping_column_without_values_says_so(study: ReportContents) -> None:
    bare = replace(study, predictions=study.predictions.assign(diagnosis=None), metrics=empty_table("metrics"))
    assert "No usable prediction has a value of “diagnosis”" in words(render_report(bare))
    assert "No usable prediction has a value of “nowhere”" in words(
        render_report(replace(bare, group_column="nowhere"))
    )


def test_a_scan_of_two_cohorts_is_one_person_among_its_group(study: ReportContents) -> None:
    own = study.predictions.assign(sha256=[f"{number:064x}" for number in range(len(study.predictions))])
    both = pd.concat([own, own.assign(cohort="the same people again")], ignore_index=True)
    once, twice = (first_sessions(table, "diagnosis") for table in (own, both))
    assert len(once) > 10
    pd.testing.assert_series_equal(once["diagnosis"], twice["diagnosis"])
    unknown = both.assign(sha256=None)
    assert len(first_sessions(unknown, "diagnosis")) == 2 * len(once)


def test_raw_figures_come_before_corrected_ones_and_these_come_with_their_warning(page: str) -> None:
    text = words(page)
    assert text.index("whole cohort, raw") < text.index("whole cohort, bias-corrected")
    warning = text.index("Corrected accuracy is inflated")
    assert text.index("whole cohort, raw") < warning < text.index("whole cohort, bias-corrected")
    assert 'href="https://doi.org/10.1002/hbm.25533"' in page


def test_a_missing_scan_makes_the_study_not_whole(study: ReportContents, page: str) -> None:
    assert "Not whole" not in words(page)
    flow = study.flow.assign(missing=[1, 0, 0], prepared=study.flow["prepared"] - [1, 0, 0])
    for broken in (replace(study, flow=flow), replace(study, exclusions=study.exclusions.iloc[1:])):
        assert answer_questions(broken)[0].answer == "Not whole"


def test_a_useless_model_is_not_praised() -> None:
    text = words(render_report(made_up_study(error_years=40.0, n_subjects=24)))
    assert "Not shown" in text
    assert "is not shown to carry information beyond age" in text
    assert "The model is not shown to read age from the brain" in text


def test_thousands_of_scans_make_a_page_that_a_browser_still_opens(study: ReportContents) -> None:
    many = pd.concat([study.predictions] * 60, ignore_index=True)
    many["scan_id"] = many["participant_id"] = [f"sub-{i}" for i in range(len(many))]
    page = render_report(replace(study, predictions=many.assign(site="one")))
    assert len(page) < 6_000_000
    assert "the CSV holds all of them" in page


def test_a_table_without_a_column_is_refused_with_the_columns_that_it_needs(study: ReportContents) -> None:
    with pytest.raises(ValueError, match=r"'flow' lacks missing.*Give the columns cohort, role"):
        replace(study, flow=study.flow.drop(columns="missing"))


def test_a_montage_that_is_no_png_is_refused(study: ReportContents) -> None:
    with pytest.raises(ValueError, match="not a PNG"):
        render_report(replace(study, montages=(("x", b"GIF89a"),)))


def test_sites_may_be_many_unknown_or_in_any_script(study: ReportContents) -> None:
    names = [f"site {i}" for i in range(20)] + ["大阪", "\x00\x1b[31m", "$\\frac$", None]
    sites = [names[i % len(names)] for i in range(len(study.predictions))]
    text = words(render_report(replace(study, predictions=study.predictions.assign(site=sites))))
    assert "other sites" in text
    assert "大阪" in text


def test_ensemble_curves_draw_every_member(study: ReportContents) -> None:
    curves = pd.concat([study.curves.assign(seed=seed) for seed in (0, 1, 2)], ignore_index=True)
    assert "54 epoch" in render_report(replace(study, curves=curves))


def test_a_study_in_months_shows_months_everywhere(study: ReportContents) -> None:
    # What a model or a formula says in its own words stays as it is.
    plain = study.predictions.assign(reason="")
    months = replace(study, unit="months", predictions=plain, analysis=gathered([]))
    shown = render_report(replace(months, cautions=find_cautions(months)))
    text = words(shown)
    for label in (
        "MAE (months)",
        "age (months)",
        "brain-PAD, raw (months)",
        "Validation MAE (months)",
        "Training ages (months)",
    ):
        assert label in text, label
    declared = re.sub(r"\b\w+_years\b", "", text)
    assert not re.findall(r"[^.]{0,40}\byears\b[^.]{0,20}", declared)
    assert "216 to 984" in text


def test_figures_of_a_study_in_months_are_twelve_times_those_in_years(study: ReportContents, page: str) -> None:
    def saved(of: str) -> dict[str, pd.DataFrame]:
        links = {a["download"]: a["href"] or "" for _, a in read(of).elements if a.get("download")}
        return {
            str(name): pd.read_csv(io.BytesIO(base64.b64decode(address.partition(",")[2])))
            for name, address in links.items()
        }

    months, years = saved(render_report(replace(study, unit="months"))), saved(page)
    assert months.keys() == years.keys()
    predictions = months["predictions.csv"]
    np.testing.assert_allclose(
        predictions["brain_pad_months"], 12 * years["predictions.csv"]["brain_pad_years"], rtol=1e-4
    )
    np.testing.assert_array_equal(predictions["edss"], years["predictions.csv"]["edss"])
    metrics = months["metrics.csv"]
    factor = (
        metrics["metric"].isin(["mae", "mae_difference", "rmse", "calibration_intercept"]).map({True: 12, False: 1})
    )
    np.testing.assert_allclose(metrics["estimate"], factor * years["metrics.csv"]["estimate"], rtol=1e-4, atol=1e-5)
    pd.testing.assert_frame_equal(months["associations.csv"], years["associations.csv"])


def test_coverage_is_shown_with_its_n_and_an_infinite_one_with_its_reason(study: ReportContents, page: str) -> None:
    text = words(page)
    rows = study.coverage[(study.coverage["group"] == "overall") & (study.coverage["correction"] == "raw")].iloc[0]
    assert f"{rows['n_covered']} of {rows['n_subjects']}" in text
    assert "± 9.80" in text
    assert "± infinite" in text
    assert "bias-corrected: 12 are too few" in text
    assert "raw: site Aarhus" in text
    assert "raw: age band 20-29" in text
    assert "Intervals of age" not in words(render_report(replace(study, coverage=empty_table("coverage"))))
