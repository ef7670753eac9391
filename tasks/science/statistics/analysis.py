"""Several declared models on one table: fitted one by one, corrected together, told in one table of effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ...records import AssociationSpec
from .association import fit_association
from .association_fit import COLUMNS, AssociationFit
from .multiplicity import add_fdr

EFFECT_COLUMNS = [*COLUMNS, "response", "formula", "kind", "method", "family", "n_subjects", "n_dropped", "problems"]


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
        specs: The models.
        table: One row per scan: brain ages joined with the clinical table, failed scans left out.

    Returns:
        The fits and their effects.

    Raises:
        ValueError: A model is malformed: see `check_spec`.
    """
    return gathered([fit_association(spec, table) for spec in specs])


def gathered(fits: Sequence[AssociationFit], problems: Sequence[str] = ()) -> Analysis:
    """Correct fits for their number and lay their effects out in one table."""
    corrected = tuple(add_fdr(fits))
    tables = [_effects(fit) for fit in corrected]
    effects = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=EFFECT_COLUMNS)
    return Analysis(corrected, effects, tuple(problems))


def _effects(fit: AssociationFit) -> pd.DataFrame:
    rows = fit.coefficients
    if rows.empty:
        rows = pd.DataFrame([{"model": fit.name, "term": None, "of_interest": True, "n_used": fit.n_used}])
    table = rows.reindex(columns=COLUMNS).assign(
        response=fit.response,
        formula=fit.formula,
        kind=fit.kind,
        method=fit.method,
        family=fit.family,
        n_subjects=fit.n_subjects,
        n_dropped=sum(fit.n_dropped.values()),
        problems=pd.Series([list(fit.problems)] * len(rows), index=rows.index),
    )
    numeric = [name for name in COLUMNS if name not in ("model", "term", "of_interest", "n_used")]
    return table.astype(dict.fromkeys(numeric, "float64"))[EFFECT_COLUMNS]
