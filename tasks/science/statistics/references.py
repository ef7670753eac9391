"""Against which group a coefficient is to be read: two of one name are one quantity only against one group."""

from __future__ import annotations

from .design import Coding
from .formula import Term


def reference_of(coding: Coding, term: Term | None) -> str:
    """Name the reference levels that a coefficient's value depends on.

    Another reference changes the contrasts of its own factor, the intercept, and, where the factor stands in a product,
    the slope of what it is multiplied with, which is the slope in the reference group.

    Args:
        coding: How factors become columns.
        term: The coefficient's term; None for the intercept.

    Returns:
        Such as `phenotype = CIS; sex = F`, in the order of the formula; empty where no reference matters.
    """
    own = frozenset() if term is None else term.key
    columns = coding.terms_of_columns()
    # Without an intercept one factor has a column for each level: these are no contrasts, and stand for the intercept.
    whole = [label for label, levels in coding.levels.items() if f"{label}[{levels[0]}]" in columns]
    if whole and own == {whole[0]}:
        own, relevant = frozenset(), [label for label in coding.levels if label != whole[0]]
    else:
        relevant = list(coding.levels)
    depends = [
        label for label in relevant if any(label in other.key and own <= other.key for other in coding.formula.terms)
    ]
    return "; ".join(f"{label} = {coding.levels[label][0]}" for label in depends)
