"""A declared model beside the rows that it uses."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from ...records import AssociationSpec
from .association_fit import Kind
from .bootstrap import subject_keys
from .declaration import names_term
from .design import Coding
from .formula import Formula, Term
from .selection import Selection

COVARIATES = frozenset({"age_years", "age_years_baseline", "age", "age_baseline", "sex"})


@dataclass(frozen=True)
class Case:
    """A declared model beside the rows that it uses.

    Attributes:
        spec: The model.
        formula: Its formula.
        selection: Its rows and the account of the others.
        kind: What the response asks for.
        levels: Names of the response's codes; empty for numbers.
        values: One column per factor label.
        coding: How factors become columns.
        matrix: The design.
    """

    spec: AssociationSpec
    formula: Formula
    selection: Selection
    kind: Kind
    levels: tuple[str, ...]
    values: pd.DataFrame
    coding: Coding
    matrix: pd.DataFrame

    @property
    def response(self) -> pd.Series:
        """Values, shape (n,)."""
        return self.values[self.formula.response.label]

    @property
    def subjects(self) -> pd.Series:
        """Each row's subject."""
        return subject_keys(self.selection.rows)

    @property
    def groups(self) -> pd.Series:
        """Each row's group of a mixed model, or cluster."""
        if self.spec.groups == "participant_id":
            return self.subjects.rename("participant_id")
        return self.selection.rows[self.spec.groups]

    def is_of_interest(self, column: str, term: Term | None) -> bool:
        """Whether a parameter belongs to the FDR family."""
        if term is None:
            return False
        effects = self.spec.effects
        if not effects:
            return not {factor.column for factor in term.factors} <= COVARIATES
        return any(names_term(effect, term) and ("[" not in effect or effect == column) for effect in effects)
