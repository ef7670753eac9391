"""What every kind of model gives back, before it becomes a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from .association_fit import Kind
from .profiled_deviance import Array, Profile

Figure = tuple[str, str, float, float]
"""A diagnostic figure: name, term ("" for the whole model), value, p value (NaN where it is no test)."""


@dataclass(frozen=True)
class Estimates:
    """A fitted model.

    Attributes:
        kind: What was fitted.
        method: In words, as tables show it.
        estimate: By parameter.
        covariance: Of the estimates.
        df: Degrees of freedom of each estimate's t; infinite for a normal reference.
        problems: Plain sentences.
        by_row: Per row used: `fitted`, `residual`, and what else the kind knows (`leverage`, `cook`, `fitted_group`).
        partial_r2: By parameter; empty where there is no agreed one.
        random_effects: Source of variance → variance.
        diagnostics: Figures.
        df_of: Degrees of freedom of sums of the parameters: weights of shape (m, p) → shape (m,); None where each of
            them has those of any parameter.
        profile: Of a mixed model: its deviance and where that is smallest.
    """

    kind: Kind
    method: str
    estimate: pd.Series
    covariance: pd.DataFrame
    df: pd.Series
    problems: tuple[str, ...] = ()
    by_row: pd.DataFrame = field(default_factory=pd.DataFrame)
    partial_r2: pd.Series = field(default_factory=lambda: pd.Series(dtype="float64"))
    random_effects: Mapping[str, float] = field(default_factory=dict)
    diagnostics: tuple[Figure, ...] = ()
    df_of: Callable[[Array], Array] | None = None
    profile: tuple[Profile, Array] | None = None
