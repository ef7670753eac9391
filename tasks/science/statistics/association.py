"""Declared linear models of brain age and clinical measures, fitted and told with what was used, dropped and doubtful.

Cross-sectional models are ordinary least squares with HC3 standard errors and t intervals, since clinical groups
rarely share a variance (Long & Ervin 2000). Repeated sessions go to a linear mixed model by REML with a random
intercept. A model that cannot be fitted is a result with a reason, never an exception in the middle of a cohort.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.regression.linear_model import OLS

from ...records import AssociationSpec
from .bootstrap import subject_keys
from .declaration import check_spec, names_term
from .design import INTERCEPT, Coding, NotEstimable, categorical, check_rank, is_missing, learn_coding
from .formula import Formula, Term
from .longitudinal import add_baseline_columns
from .mixed_model import fit_mixed
from .selection import Selection, implausible_values, keep_complete, select_rows

COVARIATES = frozenset({"age_years", "age_years_baseline", "sex"})
MIN_SUBJECTS_PER_LEVEL = 3
COLUMNS = [
    "model", "term", "estimate", "se", "statistic", "df", "p_value", "ci_low", "ci_high", "n_used",
    "beta_standardised", "partial_r2", "f2", "of_interest", "q_value",
]  # fmt: skip


@dataclass(frozen=True)
class AssociationFit:
    """One declared model, fitted or not.

    Attributes:
        name: The model's name.
        formula: As declared.
        response: What is explained, in its own unit.
        method: Such as `OLS, HC3`; empty where nothing was fitted.
        coefficients: One row per parameter; empty where nothing was fitted, `problems` then says why.
            `beta_standardised` is the estimate after z-scoring the response and numeric predictors (not dummies).
            `partial_r2` and Cohen's `f2` are of least squares and NaN for mixed models, which have no agreed one.
            All three are NaN for the intercept.
            `q_value` is NaN until `multiplicity.add_fdr`, and stays so outside the family.
        n_used: Rows used.
        n_subjects: Subjects used.
        n_dropped: Reason → rows not used; with `n_used` they add up to the rows of the declared cohorts.
        problems: Plain sentences, the gravest first.
        covariance: Of the estimates, by parameter.
        coding: How rows become columns; None where nothing was fitted.
        centre: Numeric factor → its mean in the rows used.
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


@dataclass(frozen=True)
class _Estimates:
    method: str
    estimate: pd.Series
    covariance: pd.DataFrame
    df: pd.Series
    partial_r2: pd.Series
    problems: tuple[str, ...]


def fit_association(spec: AssociationSpec, table: pd.DataFrame) -> AssociationFit:
    """Fit one declared model.

    Args:
        spec: The model. `sessions="baseline"` takes each subject's first session, by OLS; `sessions="all"`, or a
            `groups` other than the participant, fits a mixed model.
        table: Predictions joined with the clinical table, one row per scan, failed scans left out. A column that the
            formula names with `_baseline` is made from its stem where it is absent.

    Returns:
        The fit; with empty coefficients and a reason among its problems where the rows cannot support the model.

    Raises:
        ValueError: The model is malformed: see `check_spec`.
    """
    formula = check_spec(spec, [str(column) for column in table.columns])
    selection = select_rows(spec, table)
    selection.rows = add_baseline_columns(selection.rows, formula.columns)
    if spec.groups in selection.rows:
        selection.keep(~is_missing(selection.rows[spec.groups]), f"missing {spec.groups}")
    selection.problems += _design_advice(spec, formula)
    values = pd.DataFrame()
    try:
        values = _complete_rows(selection, formula)
        coding, left_out = learn_coding(formula, values)
        selection.problems += left_out
        matrix, response = coding.matrix(values), values[formula.response.label]
        _check_estimable(spec, formula, coding, response)
        selection.problems += check_rank(matrix)
        estimates = _estimate(spec, selection, matrix, response)
    except NotEstimable as reason:
        return _unfitted(spec, formula, selection, str(reason))
    selection.problems += implausible_values(selection.rows, formula.columns)
    standardised = _standardised(coding, values, matrix, estimates.estimate)
    return AssociationFit(
        name=spec.name,
        formula=spec.formula,
        response=formula.response.label,
        method=estimates.method,
        coefficients=_coefficient_table(spec, coding, estimates, standardised, len(values)),
        n_used=len(values),
        n_subjects=int(subject_keys(selection.rows).nunique()),
        n_dropped=dict(selection.dropped),
        problems=(*estimates.problems, *selection.problems),
        covariance=estimates.covariance,
        coding=coding,
        centre={str(name): float(values[name].mean()) for name in values if pd.api.types.is_float_dtype(values[name])},
    )


def _is_of_interest(spec: AssociationSpec, column: str, term: Term | None) -> bool:
    if term is None:
        return False
    if not spec.effects:
        return not {factor.column for factor in term.factors} <= COVARIATES
    return any(names_term(effect, term) and ("[" not in effect or effect == column) for effect in spec.effects)


def _design_advice(spec: AssociationSpec, formula: Formula) -> list[str]:
    advice = []
    reads_brain_age = any(name.startswith(("brain_pad", "corrected_", "predicted_age")) for name in formula.columns)
    if reads_brain_age and not any(name.startswith("age") for name in formula.columns):
        advice.append("Age is no covariate: brain age errors depend on age, corrected or not. Add age_years.")
    if spec.sessions == "all" and spec.groups != "participant_id":
        advice.append(f"Sessions of one subject count as independent within {spec.groups}.")
    return advice


def _complete_rows(selection: Selection, formula: Formula) -> pd.DataFrame:
    """Keep complete rows, then drop levels of one subject, whose HC3 error does not exist, until none is left."""
    values = keep_complete(selection, formula)
    while single := _rare_levels(selection, formula, values, below=2):
        label, level, _ = single[0]
        selection.problems.append(f"{label} = {level} left out: it has 1 subject.")
        kept = values[label] != level
        selection.keep(kept, f"{label} = {level} has 1 subject")
        values = values[kept]
    for label, level, n in _rare_levels(selection, formula, values, below=MIN_SUBJECTS_PER_LEVEL):
        selection.problems.append(f"{label} = {level} has only {n} subjects.")
    if values.empty:
        raise NotEstimable("Not fitted: no complete rows are left.")
    return values


def _rare_levels(
    selection: Selection, formula: Formula, values: pd.DataFrame, below: int
) -> list[tuple[str, str, int]]:
    subjects = subject_keys(selection.rows)
    rare = []
    for factor in categorical(formula, values):
        sizes = subjects.groupby(values[factor.label].astype(str)).nunique()
        rare += [(factor.label, str(level), int(n)) for level, n in sizes.items() if n < below]
    return rare


def _check_estimable(spec: AssociationSpec, formula: Formula, coding: Coding, response: pd.Series) -> None:
    if np.ptp(response.to_numpy()) == 0:
        raise NotEstimable(f"Not fitted: {formula.response.label} is {response.iloc[0]:g} in all rows used.")
    columns = coding.terms_of_columns()
    if formula.terms and not any(_is_of_interest(spec, column, term) for column, term in columns.items()):
        wanted = ", ".join(spec.effects) or "the terms of interest"
        if spec.effects or len(coding.formula.terms) < len(formula.terms):
            raise NotEstimable(f"Not fitted: nothing is left of {wanted} in the {len(response)} rows used.")


def _estimate(spec: AssociationSpec, selection: Selection, matrix: pd.DataFrame, response: pd.Series) -> _Estimates:
    if spec.sessions == "baseline" and spec.groups == "participant_id":
        return _least_squares(selection, matrix, response)
    groups = subject_keys(selection.rows) if spec.groups == "participant_id" else selection.rows[spec.groups]
    if groups.is_unique:
        estimates = _least_squares(selection, matrix, response)
        sentence = f"No {spec.groups} has two rows, so ordinary least squares stands in for the mixed model."
        return replace(estimates, problems=(sentence, *estimates.problems))
    fit = fit_mixed(response, matrix, groups)
    return _Estimates(
        method=f"LMM REML, random intercept per {spec.groups}",
        estimate=fit.fixed,
        covariance=fit.covariance,
        df=fit.df,
        partial_r2=pd.Series(np.nan, index=matrix.columns),
        problems=fit.problems,
    )


def _least_squares(selection: Selection, matrix: pd.DataFrame, response: pd.Series) -> _Estimates:
    orthonormal = np.linalg.qr(matrix.to_numpy())[0]
    leverage = (orthonormal**2).sum(axis=1)
    if leverage.max() > 1 - 1e-9:
        alone = subject_keys(selection.rows).iloc[int(leverage.argmax())]
        raise NotEstimable(f"Not fitted: {alone} alone determines a coefficient, so it has no HC3 standard error.")
    fit = OLS(response, matrix).fit(cov_type="HC3")
    plain_t2 = fit.params**2 / (fit.scale * np.diag(np.asarray(fit.normalized_cov_params)))
    return _Estimates(
        method="OLS, HC3",
        estimate=fit.params,
        covariance=fit.cov_params(),
        df=pd.Series(float(fit.df_resid), index=matrix.columns),
        partial_r2=plain_t2 / (plain_t2 + fit.df_resid),
        problems=(),
    )


def _standardised(coding: Coding, values: pd.DataFrame, matrix: pd.DataFrame, estimate: pd.Series) -> pd.Series:
    """Re-express the fitted surface in z-scored variables: the same model, so no second fit is needed."""
    label = coding.formula.response.label
    numeric = [name for name in values if pd.api.types.is_float_dtype(values[name])]
    spread = values[numeric].std().replace(0.0, 1.0)
    centre = values[numeric].mean() if coding.formula.intercept else spread * 0.0
    scaled = values.assign(**((values[numeric] - centre) / spread))
    target = (matrix @ estimate - centre[label]) / spread[label]
    coded = learn_coding(coding.formula, scaled)[0].matrix(scaled)
    return pd.Series(np.linalg.lstsq(coded.to_numpy(), target.to_numpy(), rcond=None)[0], index=coded.columns)


def _coefficient_table(
    spec: AssociationSpec, coding: Coding, estimates: _Estimates, standardised: pd.Series, n_used: int
) -> pd.DataFrame:
    estimate, df = estimates.estimate, estimates.df
    se = pd.Series(np.sqrt(np.diag(estimates.covariance)), index=estimate.index)
    statistic = estimate / se
    partial_r2 = estimates.partial_r2.where(estimate.index != INTERCEPT)
    reach = pd.Series(stats.t.ppf(0.975, df), index=estimate.index) * se
    table = pd.DataFrame(
        {
            "model": spec.name,
            "term": estimate.index,
            "estimate": estimate,
            "se": se,
            "statistic": statistic,
            "df": df,
            "p_value": 2 * stats.t.sf(statistic.abs(), df),
            "ci_low": estimate - reach,
            "ci_high": estimate + reach,
            "n_used": n_used,
            "beta_standardised": standardised.where(standardised.index != INTERCEPT),
            "partial_r2": partial_r2,
            "f2": partial_r2 / (1 - partial_r2),
            "of_interest": [_is_of_interest(spec, name, term) for name, term in coding.terms_of_columns().items()],
            "q_value": np.nan,
        }
    )
    return table[COLUMNS].reset_index(drop=True)


def _unfitted(spec: AssociationSpec, formula: Formula, selection: Selection, reason: str) -> AssociationFit:
    return AssociationFit(
        name=spec.name,
        formula=spec.formula,
        response=formula.response.label,
        method="",
        coefficients=pd.DataFrame(columns=COLUMNS).astype({"of_interest": bool, "p_value": float, "q_value": float}),
        n_used=len(selection.rows),
        n_subjects=int(subject_keys(selection.rows).nunique()),
        n_dropped=dict(selection.dropped),
        problems=(reason, *selection.problems),
        covariance=pd.DataFrame(),
        coding=None,
        centre={},
    )
