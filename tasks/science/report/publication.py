"""Everything that an analysis gives to a manuscript, as files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from ..statistics.analysis import Analysis
from .association_figures import figures_of_analysis
from .association_methods import methods_markdown, methods_text
from .association_section import association_report
from .association_tables import effects_of, effects_table, rows_table
from .association_words import slug
from .csv_files import csv_text
from .effect_size_tables import effect_sizes_table, sensitivity_table
from .model_tables import MODEL_TABLES
from .print_figures import PrintFigure
from .table_formats import as_html, as_latex, as_markdown
from .tables import Table

CSV_DIGITS = 10


def publish(analysis: Analysis, figures: bool = True) -> dict[str, bytes]:
    """Write tables, figures and methods for a manuscript.

    Args:
        analysis: The models, fitted or not.
        figures: Whether to draw, which takes most of the time.

    Returns:
        File name → content: `tables/NAME.{html,tex,md,csv}`, `figures/NAME.{svg,pdf,png,csv,json}`, `methods.txt`,
        `methods.md` and `report.html`, which shows all of it. Equal analyses give equal bytes.
    """
    files = {f"tables/{name}": content for name, content in table_files(analysis).items()}
    files |= figure_files(figures_of_analysis(analysis)) if figures else {}
    files["methods.txt"] = methods_text(analysis).encode()
    files["methods.md"] = methods_markdown(analysis).encode()
    files["report.html"] = association_report(analysis, files).encode()
    return files


def figure_files(figures: Mapping[str, PrintFigure]) -> dict[str, bytes]:
    """Name the files of figures."""
    return {f"figures/{stem}.{kind}": content for stem, f in figures.items() for kind, content in f.files.items()}


def table_files(analysis: Analysis) -> dict[str, bytes]:
    """Write every table in every format; the CSV holds numbers as they were computed, not as they are printed."""
    texts: dict[str, str] = {}
    for stem, table in publication_tables(analysis):
        texts[f"{stem}.html"] = as_html(table)
        texts[f"{stem}.tex"] = as_latex(table, stem)
        texts[f"{stem}.md"] = as_markdown(table)
    texts["effects.csv"] = _numbers(effects_of(analysis))
    texts["coefficients.csv"] = _numbers(analysis.effects)
    for fit, own in zip(analysis.fits, _file_names(analysis), strict=True):
        for name in ("adjusted_means", "contrasts", "diagnostics", "strata", "heterogeneity"):
            numbers = getattr(fit, name)
            if len(numbers):
                texts[f"{name.replace('_', '-')}-{own}.csv"] = csv_text(numbers, CSV_DIGITS)
    return {name: text.encode() for name, text in texts.items()}


def _numbers(effects: pd.DataFrame) -> str:
    plain = effects.assign(problems=effects["problems"].map(" ".join), notes=effects["notes"].map(" ".join))
    return csv_text(plain.dropna(axis="columns", how="all"), CSV_DIGITS)


def publication_tables(analysis: Analysis) -> Iterator[tuple[str, Table]]:
    """Set every table of an analysis, the effects of interest first."""
    yield "effects", effects_table(analysis)
    yield "coefficients", effects_table(analysis, of_interest=False)
    for stem, made in (("effect-sizes", effect_sizes_table(analysis)), ("sensitivity", sensitivity_table(analysis))):
        if made is not None:
            yield stem, made
    yield "rows", rows_table(analysis)
    for fit, own in zip(analysis.fits, _file_names(analysis), strict=True):
        for stem, table_of in MODEL_TABLES.items():
            made = table_of(fit)
            if made is not None:
                yield f"{stem}-{own}", made


def _file_names(analysis: Analysis) -> list[str]:
    """Each model's name as a file may have it; models whose names differ by signs alone are numbered."""
    names: list[str] = []
    for fit in analysis.fits:
        own = slug(fit.name)
        number = 1
        while own in names:
            number += 1
            own = f"{slug(fit.name)}-{number}"
        names.append(own)
    return names
