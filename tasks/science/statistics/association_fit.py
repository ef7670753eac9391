"""What a declared model came to: one record for every kind of model, so that tables and figures need no cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from ...records import AssociationSpec
from .design import Coding

Kind = Literal["", "linear", "logistic", "ordinal", "mixed", "cox", "meta"]

COLUMNS = [
    *("model", "term", "estimate", "se", "statistic", "df", "p_value", "ci_low", "ci_high", "n_used"),
    *("beta_standardised", "partial_r2", "f2", "of_interest", "q_value"),
    *("ratio", "ratio_ci_low", "ratio_ci_high", "power", "e_value", "e_value_ci"),
    *("detectable", "robust_estimate", "robust_se", "robust_p_value"),
    *("spearman_rho", "spearman_ci_low", "spearman_ci_high", "spearman_p_value"),
    *("calibrated_estimate", "calibrated_ci_low", "calibrated_ci_high"),
    *("bootstrap_ci_low", "bootstrap_ci_high", "reference"),
]
MEANS_COLUMNS = ["factor", "level", "mean", "se", "ci_low", "ci_high", "n"]
CONTRAST_COLUMNS = [
    *("factor", "contrast", "estimate", "se", "df", "ci_low", "ci_high", "p_value", "p_adjusted", "adjustment"),
]
STRATA_COLUMNS = ["stratum", "term", "estimate", "se", "df", "ci_low", "ci_high", "n", "weight"]
HETEROGENEITY_COLUMNS = [
    *("term", "k", "tau2", "i2", "q", "q_df", "q_p_value", "prediction_low", "prediction_high", "method"),
]
DIAGNOSTIC_COLUMNS = ["figure", "term", "value", "p_value"]


def unfitted(
    spec: AssociationSpec, response: str, problems: tuple[str, ...], n_dropped: dict[str, int]
) -> AssociationFit:
    """A declared model that could not be fitted, the reason first among its problems."""
    return AssociationFit(
        name=spec.name,
        formula=spec.formula,
        response=response,
        method="",
        coefficients=_empty(COLUMNS).astype({"of_interest": bool, "p_value": float, "q_value": float}),
        n_used=0,
        n_subjects=0,
        n_dropped=n_dropped,
        problems=problems,
        covariance=pd.DataFrame(),
        coding=None,
        centre={},
        family=spec.family,
    )


def _empty(columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(columns=columns)


# Made once: a screen has thousands of fits without details.
NONE_OF = {
    "MEANS": _empty(MEANS_COLUMNS),
    "CONTRAST": _empty(CONTRAST_COLUMNS),
    "DIAGNOSTIC": _empty(DIAGNOSTIC_COLUMNS),
    "STRATA": _empty(STRATA_COLUMNS),
    "HETEROGENEITY": _empty(HETEROGENEITY_COLUMNS),
    "ROWS": pd.DataFrame(),
}


@dataclass(frozen=True)
class AssociationFit:
    """One declared model, fitted or not.

    Attributes:
        name: The model's name.
        formula: As declared.
        response: What is explained, in its own unit.
        method: Such as `OLS, HC3`; empty where nothing was fitted.
        coefficients: One row per parameter, `COLUMNS`; empty where nothing was fitted, `problems` then says why.
            `estimate` is in units of the response, or on the logarithm of odds or hazard, whose `ratio` stands beside.
            `beta_standardised` is the estimate after z-scoring the response and numeric predictors (not dummies), so
            that a slope which is part of a product is that at the other part's mean; `e_value` rests on it.
            `partial_r2` and Cohen's `f2` are of least squares and NaN for other models, which have no agreed one.
            All three are NaN for the intercept.
            `q_value` is NaN until `multiplicity.add_fdr`, and stays so outside the family.
            `power` is that of a 5% test for an effect as large as the one found, at the n used; `detectable` the
            smallest effect that such a test finds with 80% power, in the estimate's unit.
            `robust_*`, `spearman_*` (partial, given the other terms), `calibrated_*` (slope corrected for brain-PAD's
            own error) and `bootstrap_*` are NaN where they were not asked for or do not apply.
            `reference` names the levels that the estimate is to be read against, such as `phenotype = CIS`.
        n_used: Rows used.
        n_subjects: Subjects used.
        n_dropped: Reason → rows not used; with `n_used` they add up to the rows of the declared cohorts.
        problems: Plain sentences, the gravest first.
        notes: Plain sentences about what is to be known and is no problem.
        covariance: Of the estimates, by parameter.
        coding: How rows become columns; None where nothing was fitted.
        centre: Numeric factor → its mean in the rows used.
        kind: What was fitted; empty where nothing was.
        family: Of the false discovery rate; models without a name form one.
        groups: Grouping column of a mixed model; the column of strata of a meta-analysis.
        rows: The rows used: participant_id, session_id, cohort, site, years_since_baseline (those that are there), the
            formula's columns, then `fitted` (with random effects: `fitted_group`), `residual` and, for least squares,
            `leverage` and `cook`. Empty in a screen and where nothing was fitted.
        adjusted_means: `MEANS_COLUMNS`, one row per level of each categorical predictor; for a logistic model
            probabilities.
        contrasts: `CONTRAST_COLUMNS`: pairwise differences of the adjusted means.
        diagnostics: `DIAGNOSTIC_COLUMNS`: one row per figure, with its term where it has one.
        random_effects: Source of variance → variance, in squared units of the response.
        n_missing: Column → how many of the rows in question lack it, before any is dropped for it.
        strata: `STRATA_COLUMNS` of a meta-analysis.
        heterogeneity: `HETEROGENEITY_COLUMNS` of a meta-analysis.
    """

    name: str
    formula: str
    response: str
    method: str
    coefficients: pd.DataFrame
    n_used: int
    n_subjects: int
    n_dropped: dict[str, int]
    problems: tuple[str, ...]
    covariance: pd.DataFrame
    coding: Coding | None
    centre: dict[str, float]
    kind: Kind = ""
    family: str = ""
    groups: str = ""
    notes: tuple[str, ...] = ()
    rows: pd.DataFrame = field(default_factory=lambda: NONE_OF["ROWS"])
    adjusted_means: pd.DataFrame = field(default_factory=lambda: NONE_OF["MEANS"])
    contrasts: pd.DataFrame = field(default_factory=lambda: NONE_OF["CONTRAST"])
    diagnostics: pd.DataFrame = field(default_factory=lambda: NONE_OF["DIAGNOSTIC"])
    random_effects: Mapping[str, float] = field(default_factory=dict)
    n_missing: Mapping[str, int] = field(default_factory=dict)
    strata: pd.DataFrame = field(default_factory=lambda: NONE_OF["STRATA"])
    heterogeneity: pd.DataFrame = field(default_factory=lambda: NONE_OF["HETEROGENEITY"])
