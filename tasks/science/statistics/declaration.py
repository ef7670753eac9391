"""A declared model before there is data: whether its formula, columns and effects can be what they say.

Apart from the fitting, so that a study file is read without loading what fits models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...records import AssociationSpec
from .formula import BASELINE, Formula, Term, check_columns, nearest, parse


def check_spec(spec: AssociationSpec, columns: Iterable[str] | None = None) -> Formula:
    """Refuse a malformed model before any scan is processed.

    Args:
        spec: The declared model.
        columns: Columns of the table, where they are known already.

    Returns:
        The parsed formula.

    Raises:
        ValueError: The formula, a column, a filter or an effect of interest is not what it could be; names the nearest.
    """
    formula = parse(spec.formula)
    for effect in spec.effects:
        if not any(names_term(effect, term) for term in formula.terms):
            known = [term.label for term in formula.terms]
            raise ValueError(f"Association {spec.name}: {effect!r} is no term of its formula; {nearest(effect, known)}")
    if columns is not None:
        stems = {f"{column}{BASELINE}" for column in columns}
        check_columns(formula, [*columns, *(column for column in formula.columns if column in stems)])
        for column in (spec.groups, *spec.where):
            if column not in columns:
                raise ValueError(f"Association {spec.name}: no column {column!r}; {nearest(column, columns)}")
    return formula


def names_term(effect: str, term: Term) -> bool:
    """Whether an effect of interest, as a user writes it, is a term or a coefficient of it."""
    parts = re.sub(r"C\(\s*`?([^,)`]+?)`?\s*(,[^)]*)?\)", r"\1", re.sub(r"\[[^\]]*\]", "", effect)).replace("`", "")
    return frozenset(part.strip() for part in parts.split(":")) == term.key
