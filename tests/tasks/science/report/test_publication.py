"""What a manuscript takes from an analysis: numbers as fitted, files that open, and words for what ran and no more."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.science.report.association_figures import figures_of_analysis, standardised
from tasks.science.report.association_methods import methods_text
from tasks.science.report.association_readings import readings
from tasks.science.report.association_tables import effects_table, rows_table
from tasks.science.report.model_tables import random_effects_table
from tasks.science.report.print_figures import PrintFigure
from tasks.science.report.publication import figure_files, publication_tables, publish, table_files
from tasks.science.report.table_formats import as_html, as_latex, as_markdown
from tasks.science.report.trajectory_figures import mean_course
from tasks.science.statistics.analysis import Analysis, analyse, gathered

from .made_up_analysis import DIAGNOSIS, clinic, made_up_analysis, one_model

HOSTILE = "<script>x</script> \\input{/etc/passwd} $x$ a_b^c & 50% | *b* 大 =1+1"
COLUMN_MM = 85
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return made_up_analysis()


@pytest.fixture(scope="module")
def figures(analysis: Analysis) -> dict[str, PrintFigure]:
    return figures_of_analysis(analysis)


def renamed(analysis: Analysis, name: str) -> Analysis:
    """The same fits under a name that nobody would choose in good faith."""
    return gathered([replace(f, name=name, coefficients=f.coefficients.assign(model=name)) for f in analysis.fits])


def test_one_row_per_effect_and_none_vanishes(analysis: Analysis) -> None:
    table = effects_table(analysis)
    wanted = analysis.effects[analysis.effects["of_interest"].map(bool)]
    assert len(table.rows) == len(wanted)
    texts = [" ".join(cell.text for cell in row) for row in table.rows]
    assert any("Diagnosis: PPMS vs HC" in text and "< 0.001" in text for text in texts)
    assert any(text.startswith("impossible the model was not fitted") for text in texts)
    row = wanted[wanted["term"] == "edss"].iloc[0]
    assert any(f"t({row['df']:.0f}) = {row['statistic']:.2f}" in text.replace("−", "-") for text in texts)


def test_rows_used_and_dropped_add_up_with_their_reasons(analysis: Analysis) -> None:
    n_rows = len(clinic())
    for fit, row in zip(analysis.fits[:3], rows_table(analysis).rows, strict=False):
        used, dropped = (int(row[place].text) for place in (1, 3))
        assert used + dropped == n_rows
        assert sum(int(n) for n in re.findall(r"\b(\d+) (?:of|where|without)", row[4].text)) == dropped, fit.name
    severity = readings(analysis.fits[1])
    assert any("without EDSS" in sentence and "where diagnosis is not MS or PPMS" in sentence for sentence in severity)
    assert any(sentence.startswith("Per unit of EDSS, brain-PAD was") for sentence in severity)
    assert any("in HC" in sentence for sentence in readings(analysis.fits[2]) if sentence.startswith("Per year"))


def test_readings_name_checks_and_what_an_interaction_changes(analysis: Analysis) -> None:
    assert any(sentence.startswith("Checks: variance inflation at most") for sentence in readings(analysis.fits[0]))
    changes = [sentence for sentence in readings(analysis.fits[2]) if "than in HC" in sentence]
    assert any(re.match(r"Per year, brain-PAD changed by .* (more|less) in PPMS than in HC", text) for text in changes)
    shown = dict(publication_tables(analysis))["random-effects-progression"]
    assert [row[0].text for row in shown.rows] == ["Intercept, by participant", "Residual"]


def test_a_covariance_of_random_effects_is_told_as_a_correlation(analysis: Analysis) -> None:
    values = {"Intercept": 4.0, "years": 0.25, "Intercept:years (covariance)": -0.5, "residual": 1.0}
    table = random_effects_table(replace(analysis.fits[2], random_effects=values))
    assert table is not None
    assert [row[2].text for row in table.rows] == ["2.00", "0.50", "−0.50", "1.00"]


class _Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_names_are_printed_in_every_format_and_obeyed_in_none(analysis: Analysis) -> None:
    hostile = renamed(Analysis(analysis.fits[3:], analysis.effects), HOSTILE)
    for stem, table in publication_tables(hostile):
        page = _Cells()
        page.feed(as_html(table))
        assert "script" not in page.tags
        latex = re.sub(r"(?m)^%.*$", "", as_latex(table, stem))
        assert "\\input" not in latex
        assert not re.search(r"(?<!\\)[#%$]", latex)
        grid = [line for line in as_markdown(table).splitlines() if line.startswith("|")]
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in grid} == {len(table.columns) + 1}
    files = publish(hostile)
    assert all(
        re.fullmatch(r"(tables|figures)/[a-z0-9-]+\.[a-z]+|methods\.(txt|md)|report\.html", name) for name in files
    )
    assert not re.search(rb"(?m)(^|,)=", files["tables/effects.csv"])


def test_latex_tables_compile(analysis: Analysis, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed here")
    tables = dict(publication_tables(renamed(analysis, HOSTILE)))
    long = replace(tables["coefficients"], rows=tables["coefficients"].rows * 6)
    body = "\n".join(as_latex(table, stem) for stem, table in [*tables.items(), ("long", long)])
    packages = r"\usepackage[T1]{fontenc}\usepackage{array,booktabs,longtable}"
    document = rf"\documentclass{{article}}{packages}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "tables.tex").write_text(document, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "tables.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in done.stdout


def test_saved_numbers_are_those_of_the_fits(analysis: Analysis) -> None:
    files = table_files(analysis)
    saved = pd.read_csv(io.BytesIO(files["coefficients.csv"]))
    np.testing.assert_allclose(saved["estimate"], analysis.effects["estimate"], rtol=1e-9)
    np.testing.assert_allclose(saved["q_value"], analysis.effects["q_value"], rtol=1e-9)
    means = pd.read_csv(io.BytesIO(files["adjusted-means-diagnosis.csv"]))
    np.testing.assert_allclose(means["mean"], analysis.fits[0].adjusted_means["mean"], rtol=1e-9)


def test_models_whose_names_differ_by_signs_alone_have_files_of_their_own(analysis: Analysis) -> None:
    fits = [fit for fit in analysis.fits if len(fit.diagnostics)][:3]
    names = ("EDSS, all", "edss all", "EDSS all-2")
    alike = gathered(
        [replace(f, name=n, coefficients=f.coefficients.assign(model=n)) for f, n in zip(fits, names, strict=True)]
    )
    files = table_files(alike)
    for fit, own in zip(fits, ("edss-all", "edss-all-2", "edss-all-2-2"), strict=True):
        saved = pd.read_csv(io.BytesIO(files[f"diagnostics-{own}.csv"]))
        np.testing.assert_allclose(saved["value"], fit.diagnostics["value"].astype(float), rtol=1e-9)


def test_every_kind_of_figure_is_drawn_with_its_data(figures: dict[str, PrintFigure]) -> None:
    kinds = {re.match(r"forest-\w+|partial-regression|[a-z]+", stem)[0] for stem in figures}  # type: ignore[index]
    assert kinds == {"forest-models", "forest-sites", "partial-regression", "groups", "trajectories", "coefficients"}
    for stem, figure in figures.items():
        assert set(figure.files) == {"svg", "pdf", "png", "csv", "json"}
        assert len(pd.read_csv(io.BytesIO(figure.files["csv"]))) == len(figure.drawing.data) > 0, stem
        assert figure.files["pdf"].startswith(b"%PDF")


def test_figures_are_one_column_wide_sharp_and_legible_in_print(figures: dict[str, PrintFigure]) -> None:
    for stem, figure in figures.items():
        picture = Image.open(io.BytesIO(figure.files["png"]))
        assert picture.width == pytest.approx(COLUMN_MM / 25.4 * 300, abs=1), stem
        assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert picture.height / 300 * 25.4 <= 225
        root = ElementTree.fromstring(figure.files["svg"])  # noqa: S314 (made here)
        assert float(root.attrib["width"].removesuffix("pt")) == pytest.approx(COLUMN_MM / 25.4 * 72, abs=0.1)
        sizes = [float(s) for s in re.findall(rb"font(?:-size)?: (?:[a-z]+ )*([\d.]+)px", figure.files["svg"])]
        assert sizes, stem
        assert min(sizes) >= 7
        texts = {"".join(element.itertext()) for element in root.iter(f"{SVG}text")}
        assert texts, stem


def test_equal_analyses_give_equal_bytes(figures: dict[str, PrintFigure]) -> None:
    first, again = (figure_files(figures_of_analysis(one_model())) for _ in range(2))
    assert first == again
    assert not any(re.search(rb"CreationDate|20\d\d-\d\d-\d\d", content) for content in first.values())


def test_partial_regression_has_the_models_slope(analysis: Analysis, figures: dict[str, PrintFigure]) -> None:
    data = figures["partial-regression-severity-edss"].drawing.data
    slope, _ = np.polyfit(data["predictor_adjusted"], data["outcome_adjusted"], 1)
    fit = analysis.fits[1]
    row = fit.coefficients.set_index("term").loc["edss"]
    assert slope == pytest.approx(row["estimate"], rel=1e-7)
    r = np.corrcoef(data["predictor_adjusted"], data["outcome_adjusted"])[0, 1]
    assert r**2 == pytest.approx(row["partial_r2"], rel=1e-7)
    assert data["outcome_adjusted"].mean() == pytest.approx(fit.rows["brain_pad_years"].mean())


def test_points_of_a_group_lie_around_its_adjusted_mean(analysis: Analysis, figures: dict[str, PrintFigure]) -> None:
    data = figures["groups-diagnosis-diagnosis"].drawing.data
    means = analysis.fits[0].adjusted_means.set_index("level")["mean"]
    of_rows = data[data["kind"] == "row"].groupby("group")["adjusted"].mean()
    # Least squares leaves residuals that sum to zero in every level of a factor.
    np.testing.assert_allclose(of_rows, means[of_rows.index], rtol=1e-7)


def test_courses_are_those_of_the_fixed_effects(analysis: Analysis) -> None:
    fit = analysis.fits[2]
    estimates = fit.coefficients.set_index("term")["estimate"]
    for level in ("HC", "PPMS"):
        line, reach = mean_course(fit, {"years_since_baseline": np.array([0.0, 2.0])}, {"diagnosis": level})
        slope = estimates["years_since_baseline"] + estimates.get(f"diagnosis[{level}]:years_since_baseline", 0.0)
        assert (line[1] - line[0]) / 2 == pytest.approx(slope)
        assert (reach > 0).all()


def test_standardised_coefficients_are_the_fits_own_with_intervals_that_agree(analysis: Analysis) -> None:
    for fit in analysis.fits[:3]:
        table = standardised(fit)
        assert table is not None
        own = fit.coefficients.set_index("term").loc[table["term"]]
        np.testing.assert_allclose(table["estimate"], own["beta_standardised"], rtol=1e-6, atol=1e-9)
    table = standardised(analysis.fits[1])
    assert table is not None
    own = analysis.fits[1].coefficients.set_index("term").loc[table["term"]]
    np.testing.assert_allclose(table["ci_high"] / table["estimate"], own["ci_high"] / own["estimate"], rtol=1e-6)


def test_methods_say_what_ran_and_nothing_else(analysis: Analysis) -> None:
    plain = methods_text(analyse([replace(DIAGNOSIS, contrasts="none", sensitivity=())], clinic(60, sessions=1)))
    assert "HC3" in plain
    assert "reference HC" in plain
    assert "adjusted for age, sex and site" in plain
    for word in (
        "mixed",
        "logistic",
        "Cox",
        "meta-analysis",
        "Tukey",
        "Holm",
        "ootstrap",
        "Huber",
        "Spearman",
        "cluster",
    ):
        assert word not in plain, word
    few = methods_text(analyse([replace(DIAGNOSIS, covariance="HC2")], clinic(60, sessions=1)))
    assert "HC2" in few
    assert "Bell" not in plain
    assert "Bell and McCaffrey's degrees of freedom" in few
    everything = methods_text(analysis)
    for word in ("mixed model", "restricted maximum likelihood", "Tukey", "meta-analysis", "could not be fitted"):
        assert word in everything, word
    cited = {int(n) for group in re.findall(r"\[([\d, ]+)\]\.", everything) for n in group.split(",")}
    listed = {int(n) for n in re.findall(r"(?m)^\[(\d+)\]", everything)}
    assert cited == listed == set(range(1, len(listed) + 1))
    nothing = methods_text(gathered([analysis.fits[3]]))
    assert nothing.startswith("None of the declared models could be fitted")
    assert "least squares" not in nothing
