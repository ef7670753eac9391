"""Declared models of brain age and clinical measures, fitted and told with what was used, dropped and doubtful.

Cross-sectional models are ordinary least squares with HC3 standard errors and t intervals, since clinical groups
rarely share a variance (Long & Ervin 2000). Repeated sessions go to a linear mixed model by REML with a random
intercept. A model that cannot be fitted is a result with a reason, never an exception in the middle of a cohort.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from ...records import AssociationSpec
from .adjusted_means import adjusted_means, pairwise_contrasts
from .association_fit import COLUMNS, AssociationFit
from .bootstrap import subject_keys
from .declaration import check_spec, names_term
from .design import INTERCEPT, Coding, NotEstimable, categorical, check_rank, is_missing, learn_coding
from .formula import Formula, Term
from .least_squares import least_squares
from .longitudinal import add_baseline_columns
from .mixed_model import fit_mixed
from .model_estimates import Estimates
from .selection import Selection, implausible_values, keep_complete, select_rows

COVARIATES = frozenset({"age_years", "age_years_baseline", "sex"})
IDENTITY = ("participant_id", "session_id", "scan_id", "cohort", "site", "years_since_baseline")
MIN_SUBJECTS_PER_LEVEL = 3


@dataclass(frozen=True)
class _Case:
    """A declared model beside the rows that it uses."""

    spec: AssociationSpec
    formula: Formula
    selection: Selection
    values: pd.DataFrame
    coding: Coding
    matrix: pd.DataFrame

    @property
    def response(self) -> pd.Series:
        return self.values[self.formula.response.label]

    @property
    def subjects(self) -> pd.Series:
        return subject_keys(self.selection.rows)

    @property
    def groups(self) -> pd.Series:
        named = self.spec.groups == "participant_id"
        return self.subjects.rename("participant_id") if named else self.selection.rows[self.spec.groups]


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
    n_missing = {name: int(is_missing(selection.rows[name]).sum()) for name in formula.columns}
    try:
        values = _complete_rows(selection, formula)
        coding, left_out = learn_coding(formula, values)
        selection.problems += left_out
        case = _Case(spec, formula, selection, values, coding, coding.matrix(values))
        _check_estimable(case)
        selection.problems += check_rank(case.matrix)
        estimates = _estimate(case)
    except NotEstimable as reason:
        return replace(_unfitted(spec, formula, selection, str(reason)), n_missing=n_missing)
    selection.problems += implausible_values(selection.rows, formula.columns)
    fit = AssociationFit(
        name=spec.name,
        formula=spec.formula,
        response=formula.response.label,
        method=estimates.method,
        coefficients=_coefficient_table(case, estimates),
        n_used=len(values),
        n_subjects=int(case.subjects.nunique()),
        n_dropped=dict(selection.dropped),
        problems=(*estimates.problems, *selection.problems),
        covariance=estimates.covariance,
        coding=coding,
        centre={str(name): float(values[name].mean()) for name in values if pd.api.types.is_float_dtype(values[name])},
        kind=estimates.kind,
        family=spec.family,
        groups=spec.groups if estimates.kind == "mixed" else "",
        rows=_rows(case, estimates),
        random_effects=estimates.random_effects,
        n_missing=n_missing,
    )
    return replace(fit, adjusted_means=adjusted_means(fit), contrasts=pairwise_contrasts(fit, spec.contrasts))


def _rows(case: _Case, estimates: Estimates) -> pd.DataFrame:
    rows = case.selection.rows
    kept = [name for name in dict.fromkeys([*IDENTITY, case.spec.groups, *case.formula.columns]) if name in rows]
    return pd.concat([rows[kept], estimates.by_row], axis=1).reset_index(drop=True)


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


def _check_estimable(case: _Case) -> None:
    spec, formula, coding, response = case.spec, case.formula, case.coding, case.response
    if np.ptp(response.to_numpy()) == 0:
        raise NotEstimable(f"Not fitted: {formula.response.label} is {response.iloc[0]:g} in all rows used.")
    columns = coding.terms_of_columns()
    if formula.terms and not any(_is_of_interest(spec, column, term) for column, term in columns.items()):
        wanted = ", ".join(spec.effects) or "the terms of interest"
        if spec.effects or len(coding.formula.terms) < len(formula.terms):
            raise NotEstimable(f"Not fitted: nothing is left of {wanted} in the {len(response)} rows used.")


def _estimate(case: _Case) -> Estimates:
    spec, groups = case.spec, case.groups
    if spec.sessions == "baseline" and (spec.groups == "participant_id" or spec.covariance == "cluster"):
        return least_squares(case.response, case.matrix, spec.covariance, case.subjects, groups)
    if groups.is_unique:
        estimates = least_squares(case.response, case.matrix, spec.covariance, case.subjects, groups)
        sentence = f"No {spec.groups} has two rows, so ordinary least squares stands in for the mixed model."
        return replace(estimates, problems=(sentence, *estimates.problems))
    return _mixed(case, groups)


def _mixed(case: _Case, groups: pd.Series) -> Estimates:
    spec = case.spec
    fit = fit_mixed(case.response, case.matrix, groups)
    fitted = case.matrix @ fit.fixed
    fitted_group = fitted + fit.random_values[INTERCEPT].reindex(groups).to_numpy()
    return Estimates(
        kind="mixed",
        method=f"LMM REML, random intercept per {spec.groups}",
        estimate=fit.fixed,
        covariance=fit.covariance,
        df=fit.df,
        problems=fit.problems,
        by_row=pd.DataFrame({"fitted": fitted, "fitted_group": fitted_group, "residual": case.response - fitted_group}),
        random_effects={INTERCEPT: float(fit.random_covariance.to_numpy()[0, 0]), "residual": fit.residual_variance},
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


def _coefficient_table(case: _Case, estimates: Estimates) -> pd.DataFrame:
    estimate, df = estimates.estimate, estimates.df
    standardised = _standardised(case.coding, case.values, case.matrix, estimate)
    se = pd.Series(np.sqrt(np.diag(estimates.covariance)), index=estimate.index)
    statistic = estimate / se
    partial_r2 = estimates.partial_r2.reindex(estimate.index).where(estimate.index != INTERCEPT)
    reach = pd.Series(stats.t.ppf(0.975, df), index=estimate.index) * se
    owners = case.coding.terms_of_columns()
    table = pd.DataFrame(
        {
            "model": case.spec.name,
            "term": estimate.index,
            "estimate": estimate,
            "se": se,
            "statistic": statistic,
            "df": df,
            "p_value": 2 * stats.t.sf(statistic.abs(), df),
            "ci_low": estimate - reach,
            "ci_high": estimate + reach,
            "n_used": len(case.values),
            "beta_standardised": standardised.where(standardised.index != INTERCEPT),
            "partial_r2": partial_r2,
            "f2": partial_r2 / (1 - partial_r2),
            "of_interest": [_is_of_interest(case.spec, name, owners[name]) for name in estimate.index],
        }
    )
    return table.reindex(columns=COLUMNS).reset_index(drop=True)


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
        family=spec.family,
    )
