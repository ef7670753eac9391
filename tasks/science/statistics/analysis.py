"""Several declared models on one table: fitted one by one, corrected together, told in one table of effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from ...records import AssociationSpec
from .association import fit_association
from .association_fit import COLUMNS, AssociationFit, unfitted
from .declaration import expanded
from .formula import parse
from .model_tables import ModelTables, as_typed, declared_rows
from .multiplicity import add_fdr
from .outcome import two_categories
from .selection import refuse_people_without_names

EFFECT_COLUMNS = [
    *COLUMNS,
    "response",
    "formula",
    "kind",
    "method",
    "family",
    "n_subjects",
    "n_dropped",
    "problems",
    "notes",
]


@dataclass(frozen=True)
class Analysis:
    """What a table says to the declared models.

    Attributes:
        fits: One per model, in the order declared, with q values.
        effects: `EFFECT_COLUMNS`: one row per parameter of every model; a model that was not fitted is a row without a
            term, whose `problems` (a list of sentences) say why.
        problems: Plain sentences about the table itself.
    """

    fits: tuple[AssociationFit, ...]
    effects: pd.DataFrame
    problems: tuple[str, ...] = ()


def analyse(specs: Sequence[AssociationSpec], table: pd.DataFrame) -> Analysis:
    """Fit every declared model on a table, and correct for their number by declared family.

    Args:
        specs: The models; a screen stands for many.
        table: One row per scan: brain ages joined with the clinical table, failed scans left out.

    Returns:
        The fits and their effects.

    Raises:
        ValueError: A formula is malformed, or two models have one name. A model that reads a column which the table
            lacks is a row with its reason.
    """
    models = [as_typed(spec, table) for spec in expanded(specs)]
    tables = ModelTables(models, table)
    fits = []
    for spec in models:
        shared, sentences = tables.of(spec)
        spec, said = _with_outcome(spec, shared.table)
        sentences += said
        try:
            refuse_people_without_names(spec, table)
            tables.refuse_unreadable(spec)
            fit = fit_association(spec, shared.table, shared)
        except ValueError as error:
            # A table that lacks one model's column still answers the others.
            fit = unfitted(
                spec, parse(spec.formula).response.label, (f"Not fitted: {error}",), {"not read": len(table)}
            )
        fits.append(replace(fit, problems=(*fit.problems, *sentences)) if sentences else fit)
    return gathered(fits, list(tables.said))


def _with_outcome(spec: AssociationSpec, table: pd.DataFrame) -> tuple[AssociationSpec, list[str]]:
    response = parse(spec.formula).response.column
    if response not in table:
        return spec, []
    spec, said = two_categories(spec, table.loc[declared_rows(spec, table), response])
    return spec, [said] if said else []


def gathered(fits: Sequence[AssociationFit], problems: Sequence[str] = ()) -> Analysis:
    """Correct fits for their number and lay their effects out in one table."""
    corrected = tuple(add_fdr(fits))
    return Analysis(corrected, _effects(corrected), tuple(problems))


def _effects(fits: Sequence[AssociationFit]) -> pd.DataFrame:
    if not fits:
        return pd.DataFrame(columns=EFFECT_COLUMNS)
    tables = [fit.coefficients if len(fit.coefficients) else _without_term(fit) for fit in fits]
    table = pd.concat(tables, ignore_index=True).reindex(columns=COLUMNS)
    numeric = [name for name in COLUMNS if name not in ("model", "term", "of_interest", "n_used", "reference")]
    table = table.astype(dict.fromkeys(numeric, "float64"))
    owners = [fit for fit, rows in zip(fits, tables, strict=True) for _ in range(len(rows))]
    facts: dict[str, list[object]] = {
        "response": [fit.response for fit in owners],
        "formula": [fit.formula for fit in owners],
        "kind": [fit.kind for fit in owners],
        "method": [fit.method for fit in owners],
        "family": [fit.family for fit in owners],
        "n_subjects": [fit.n_subjects for fit in owners],
        "n_dropped": [sum(fit.n_dropped.values()) for fit in owners],
        "problems": [list(fit.problems) for fit in owners],
        "notes": [list(fit.notes) for fit in owners],
    }
    return pd.concat([table, pd.DataFrame(facts, index=table.index)], axis=1)[EFFECT_COLUMNS]


def _without_term(fit: AssociationFit) -> pd.DataFrame:
    row = {name: float("nan") for name in COLUMNS} | {"model": fit.name, "term": None, "of_interest": True}
    return pd.DataFrame([row | {"n_used": fit.n_used}])
