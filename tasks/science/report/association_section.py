"""The report's section on associations, and the page that it makes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..statistics.analysis import Analysis
from ..statistics.association_fit import AssociationFit
from .association_methods import methods_text
from .association_readings import readings
from .association_tables import effects_of, effects_table, method_of, rows_table
from .effect_size_tables import effect_sizes_table, sensitivity_table
from .model_tables import MODEL_TABLES
from .notation import plural
from .page_parts import (
    MOST_ROWS_SHOWN,
    Data,
    Figure,
    SavedFile,
    pictures,
    render,
    saved_file,
    saved_table,
    with_files,
)
from .print_figures import PrintFigure, read_figure
from .tables import Table

MOST_MODELS_SHOWN = 40


@dataclass(frozen=True)
class ModelPart:
    """What the page shows of one model."""

    name: str
    formula: str
    method: str
    readings: tuple[str, ...]
    problems: tuple[str, ...]
    figures: tuple[Figure, ...]
    coefficients: Table
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class AssociationSection:
    """What the page shows of declared models.

    Attributes:
        problems: Of the table that they were fitted on.
        effects: One row per effect of interest.
        n_more: Effects that are not shown.
        saved: The table of effects in every format.
        across: Figures of several models.
        tables: Beside the effects: their sizes, other estimators, rows used and dropped.
        models: One by one.
        n_more_models: Models that are not shown one by one.
        methods: The paragraph and its references, to be pasted.
        every: All coefficients, with their CSV.
    """

    problems: tuple[str, ...]
    effects: Table
    n_more: int
    saved: tuple[SavedFile, ...]
    across: tuple[Figure, ...]
    tables: tuple[Table, ...]
    models: tuple[ModelPart, ...]
    n_more_models: int
    methods: tuple[str, ...]
    every: Data | None


def association_section(analysis: Analysis, publication: Mapping[str, bytes]) -> AssociationSection | None:
    """Set an analysis for a page.

    Args:
        analysis: The models.
        publication: What `publish` wrote of them; without it there are no figures.

    Returns:
        The section, or None where no model was declared.
    """
    if not analysis.fits and analysis.effects.empty:
        return None
    drawn = [read_figure(stem, files) for stem, files in pictures(publication).items()]
    shown, n_more = _most_telling(analysis)
    tables = (effect_sizes_table(shown), sensitivity_table(shown), rows_table(_first(analysis)))
    methods = publication.get("methods.txt", b"").decode() or methods_text(analysis)
    return AssociationSection(
        problems=analysis.problems,
        effects=effects_table(shown),
        n_more=n_more,
        saved=tuple(
            saved_file(content, name.removeprefix("tables/"))
            for name, content in publication.items()
            if name.startswith("tables/effects.")
        ),
        across=_figures(drawn, ""),
        tables=tuple(table for table in tables if table is not None),
        models=tuple(_model(analysis, fit, drawn) for fit in analysis.fits[:MOST_MODELS_SHOWN]),
        n_more_models=max(0, len(analysis.fits) - MOST_MODELS_SHOWN),
        methods=tuple(line for line in methods.splitlines() if line.strip()),
        every=saved_table(analysis.effects, "All terms", "associations"),
    )


def association_report(
    analysis: Analysis, publication: Mapping[str, bytes], title: str = "Clinical association"
) -> str:
    """Set an analysis as a page of its own that needs nothing beside it.

    Args:
        analysis: The models.
        publication: What `publish` wrote of them.
        title: Of the page.

    Returns:
        HTML, UTF-8 when written; equal inputs give equal bytes.
    """
    n_fitted = sum(bool(fit.kind) for fit in analysis.fits)
    return render(
        "association_report.html",
        title=title,
        subtitle=f"{plural(len(analysis.fits), 'declared model')}, {n_fitted:,} fitted",
        associations=association_section(analysis, publication),
    )


def _most_telling(analysis: Analysis) -> tuple[Analysis, int]:
    """Of a large screen, the effects with the smallest p, in the order declared."""
    rows = effects_of(analysis)
    if len(rows) <= MOST_ROWS_SHOWN:
        return analysis, 0
    kept = rows.loc[rows["p_value"].sort_values(kind="stable").index[:MOST_ROWS_SHOWN]].sort_index()
    return Analysis(analysis.fits, kept, analysis.problems), len(rows) - len(kept)


def _first(analysis: Analysis) -> Analysis:
    return Analysis(analysis.fits[:MOST_ROWS_SHOWN], analysis.effects, analysis.problems)


def _model(analysis: Analysis, fit: AssociationFit, drawn: list[PrintFigure]) -> ModelPart:
    own = analysis.effects[analysis.effects["model"] == fit.name]
    every = effects_table(Analysis((fit,), own), of_interest=False, with_model=False)
    tables = (table_of(fit) for table_of in MODEL_TABLES.values())
    return ModelPart(
        name=fit.name,
        formula=fit.formula,
        method=method_of(fit),
        readings=readings(fit),
        problems=fit.problems if fit.kind else fit.problems[1:],
        figures=_figures(drawn, fit.name),
        coefficients=replace(every, caption=f"{fit.name}: every coefficient", notes=()),
        tables=tuple(table for table in tables if table is not None),
    )


def _figures(drawn: list[PrintFigure], model: str) -> tuple[Figure, ...]:
    return tuple(shown for one in drawn if one.model == model and (shown := with_files(one)) is not None)
