"""The report opened in a real browser: it says no error, shows every figure, sorts, and fits phones and paper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.science.report.association_section import association_report
from tasks.science.report.page import render_report
from tasks.science.report.publication import publish
from tasks.science.statistics.analysis import gathered
from tests.browser import Page, browser_page, find_browser

from .made_up_analysis import one_model
from .made_up_study import made_up_study

if find_browser() is None:
    pytest.skip("no Chromium is installed here; install the package chromium", allow_module_level=True)

PAPER_WIDTH_PX = round((210 - 2 * 14) / 25.4 * 96)
WIDER_THAN_THE_PAGE = """
[...document.querySelectorAll('.plot, .diagram, table, img, pre')]
  .filter(e => e.getClientRects().length && e.getBoundingClientRect().right > innerWidth + 1)
  .map(e => e.id || e.getAttribute('alt') || (e.caption && e.caption.textContent) || e.tagName)
"""
FIRST_COLUMN = "[...document.querySelector('#sorted').tBodies[0].rows].map(r => r.cells[{}].textContent)"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of a study, and the page of an analysis alone."""
    folder = tmp_path_factory.mktemp("pages")
    analysis = one_model()
    files = publish(analysis)
    study = made_up_study()
    sheets = (("clinic", study.montages[0][1]),)
    study = replace(study, analysis=analysis, publication=files, sheets=sheets, quality=study.predictions.iloc[:3])
    (folder / "study.html").write_text(render_report(study), encoding="utf-8")
    (folder / "report.html").write_bytes(files["report.html"])
    return {name: folder / f"{name}.html" for name in ("study", "report")}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser_page(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize("name", ["study", "report"])
def test_page_says_no_error_and_shows_every_figure(browser: Page, pages: dict[str, Path], name: str) -> None:
    browser.complaints.clear()
    browser.size(1280, 900)
    browser.open(pages[name])
    assert browser.complaints == []
    assert browser.ask("document.querySelectorAll('figure').length") >= 3
    assert browser.ask("[...document.images].filter(i => !i.complete || i.naturalWidth === 0).map(i => i.alt)") == []
    seen = "[...document.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().width < 100).map(s => s.id)"
    assert browser.ask(seen) == []
    # What a figure refers to by name is in it: marks that are drawn by reference, and clips.
    lost = "[...document.querySelectorAll('use')].filter(u => !document.querySelector(u.getAttribute('href'))).length"
    assert browser.ask(lost) == 0


@pytest.mark.parametrize("name", ["study", "report"])
@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_page_is_no_wider_than_the_screen(browser: Page, pages: dict[str, Path], name: str, width: int) -> None:
    browser.size(width, 800)
    browser.open(pages[name])
    assert browser.ask("document.documentElement.scrollWidth") <= width
    # What is wider scrolls within itself, and can be reached by the keyboard.
    assert browser.ask(
        "[...document.querySelectorAll('.scroll')].every(e => e.tabIndex === 0 && e.clientWidth <= innerWidth)"
    )


def test_a_name_without_end_breaks_no_page(browser: Page, tmp_path: Path) -> None:
    name = "x" * 300
    (fit,) = one_model().fits
    coefficients = fit.coefficients.assign(model=name)
    fit = replace(fit, name=name, formula=name, problems=(name,), notes=(name,), coefficients=coefficients)
    page = tmp_path / "long.html"
    page.write_text(association_report(gathered([fit], [name]), {}), encoding="utf-8")
    for width in (320, 1280):
        browser.size(width, 800)
        browser.open(page)
        assert browser.ask("document.documentElement.scrollWidth") <= width


def test_tables_sort_by_click_and_by_key(browser: Page, pages: dict[str, Path]) -> None:
    browser.size(1280, 900)
    browser.open(pages["report"])
    tables = "[...document.querySelectorAll('table')]"
    browser.ask(f"{tables}.find(t => /every coefficient/.test(t.caption.textContent)).id = 'sorted'")
    heads = browser.ask("[...document.querySelector('#sorted').tHead.rows[0].cells].map(c => c.innerText)")
    place = next(index for index, text in enumerate(heads) if text.startswith("t or z"))
    button = f"document.querySelector('#sorted').tHead.rows[0].cells[{place}].querySelector('button')"
    before = browser.ask(FIRST_COLUMN.format(place))
    browser.ask(f"{button}.click()")
    values = [float(text.partition("=")[2].replace("−", "-")) for text in browser.ask(FIRST_COLUMN.format(place))]
    assert values == sorted(values)
    assert len(values) == len(before)
    assert browser.ask(f"{button}.parentElement.ariaSort") == "ascending"
    browser.ask(f"{button}.focus()")
    browser.press("Enter")
    again = [float(text.partition("=")[2].replace("−", "-")) for text in browser.ask(FIRST_COLUMN.format(place))]
    assert again == sorted(values, reverse=True)
    assert browser.ask("[...document.querySelectorAll('#sorted th[aria-sort=descending]')].length") == 1
    browser.ask("document.querySelector('#sorted').tHead.rows[0].cells[0].querySelector('button').click()")
    names = browser.ask(FIRST_COLUMN.format(0))
    assert names == sorted(names, key=str.casefold)


@pytest.mark.parametrize("name", ["study", "report"])
def test_page_prints_with_nothing_cut(browser: Page, pages: dict[str, Path], name: str) -> None:
    browser.size(1280, 900)
    browser.open(pages[name])
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 2
    browser.size(PAPER_WIDTH_PX, 900)
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.ask(WIDER_THAN_THE_PAGE) == []
        assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")


def test_what_a_name_says_is_never_run(browser: Page, tmp_path: Path) -> None:
    study = made_up_study(n_subjects=24)
    hostile = replace(
        study, study_name="<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
    )
    page = render_report(hostile)
    # Even markup that got past the escaping would not run.
    smuggled = page.replace(
        "</main>", "<script>document.title='run'</script><b onclick=\"document.title='run'\"></b></main>"
    )
    (tmp_path / "page.html").write_text(smuggled, encoding="utf-8")
    browser.open(tmp_path / "page.html")
    browser.ask("document.querySelector('b[onclick]').click()")
    assert browser.ask("document.title") != "run"
    assert browser.ask("document.querySelectorAll('th > button').length") > 0
    browser.complaints.clear()
