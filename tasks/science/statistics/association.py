"""Declared models of brain age and clinical measures, fitted and told with what was used, dropped and doubtful.

Cross-sectional models are ordinary least squares with HC3 standard errors and t intervals, since clinical groups
rarely share a variance (Long & Ervin 2000); logistic, proportional-odds and Cox models where the outcome asks for them.
Repeated sessions go to a linear mixed model. A model that cannot be fitted is a result with a reason, never an
exception in the middle of a cohort.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from ...records import AssociationSpec
from ..cohort.problems import examples
from .adjusted_means import MOST_COMPARED, adjusted_means, pairwise_contrasts
from .association_fit import AssociationFit, Kind, unfitted
from .bootstrap import subject_keys
from .case import Case
from .categorical_outcome import logistic, ordinal
from .coefficient_table import coefficient_table
from .declaration import check_spec
from .design import INTERCEPT, NotEstimable, categorical, check_rank, learn_coding
from .diagnostics import diagnose, normality
from .formula import Formula
from .least_squares import EXACT, EXACT_FIT, least_squares
from .mixed_model import fit_mixed
from .model_estimates import Estimates, Figure
from .outcome import coded_outcome
from .selection import (
    IDENTITY,
    Selection,
    SharedRows,
    drop_impossible,
    keep_complete,
    refuse_people_without_names,
)
from .strata import fit_by_stratum
from .survival import YEARS, cox

MIN_SUBJECTS_PER_LEVEL = 3
MOST_LEVELS_NAMED, MOST_NAMED = 5, 12
# Squares of what lies beyond these overflow, or vanish.
READABLE_SIZES = (1e-100, 1e100)
SURE = 0.001
# From here on 95% intervals of a random-slope model hold what they say (`tests/benchmarks/association_coverage.py`).
FEW_FOR_A_SLOPE = 50
# What a fit knows of each row, beside the table's own columns.
OF_ROWS = frozenset({"fitted", "fitted_group", "residual", "leverage", "cook"})
FREEDOM = "Satterthwaite df, at most between-within"


def fit_association(spec: AssociationSpec, table: pd.DataFrame, shared: SharedRows | None = None) -> AssociationFit:
    """Fit one declared model.

    Args:
        spec: The model. `sessions="baseline"` takes each subject's first session, by least squares or the outcome's
            own model; `sessions="all"`, or a `groups` other than the participant, fits a mixed model; `stratify`
            combines fits of its levels.
        table: Predictions joined with the clinical table, one row per scan, failed scans left out. A column that the
            formula names with `_baseline` or `_per_year` is made from its stem where it is absent. Without
            `participant_id`, the `groups` of repeated rows are the people, else each row is one.
        shared: What other models have selected from this very table already.

    Returns:
        The fit; with empty coefficients and a reason among its problems where the rows cannot support the model.

    Raises:
        ValueError: The model is malformed: see `check_spec`; or people repeat under another name than participant_id.
    """
    knows_people = "participant_id" in table
    refuse_people_without_names(spec, table)
    table = table if knows_people else _with_people(spec, table)
    formula = check_spec(spec, [str(column) for column in table.columns])
    if spec.stratify:
        return fit_by_stratum(spec, table, fit_association)
    rows = shared if shared is not None and shared.table is table else SharedRows(table, knows_people)
    return _fit_one(spec, formula, rows)


def _with_people(spec: AssociationSpec, table: pd.DataFrame) -> pd.DataFrame:
    repeated = spec.sessions == "all" and spec.groups in table
    people = table[spec.groups] if repeated else pd.Series(np.arange(len(table)), index=table.index).astype(str)
    return table.assign(participant_id=people)


def _fit_one(spec: AssociationSpec, formula: Formula, shared: SharedRows) -> AssociationFit:
    selection = shared.select(spec, formula)
    selection.problems += _design_advice(spec, formula, selection.rows)
    if not shared.knows_people:
        selection.problems += _who_is_a_person(spec, shared.table)
    try:
        drop_impossible(selection, formula)
        case = _case(spec, formula, selection)
        estimates = _estimate(case)
    except NotEstimable as reason:
        return _unfitted(spec, formula, selection, str(reason))
    coefficients, problems, notes = coefficient_table(case, estimates)
    fit = AssociationFit(
        name=spec.name,
        formula=spec.formula,
        response=formula.response.label,
        method=estimates.method,
        coefficients=coefficients,
        n_used=len(case.values),
        n_subjects=int(case.subjects.nunique()) if selection.repeats else len(case.values),
        n_dropped=dict(selection.dropped),
        problems=(*estimates.problems, *selection.problems, *problems),
        covariance=estimates.covariance,
        coding=case.coding,
        centre={
            str(name): float(case.values[name].mean())
            for name in case.values
            if pd.api.types.is_float_dtype(case.values[name])
        },
        kind=estimates.kind,
        family=spec.family,
        groups=spec.groups if estimates.kind == "mixed" else "",
        random_effects=estimates.random_effects,
        n_missing=selection.missing,
        notes=tuple(notes),
    )
    return _in_full(case, estimates, fit) if spec.details is not False else fit


def _who_is_a_person(spec: AssociationSpec, table: pd.DataFrame) -> list[str]:
    """Say whom rows are taken for where the table does not say whose they are, and may hold several of one person."""
    sessions = [name for name in ("session_id", YEARS) if name in table and table[name].nunique() > 1]
    if spec.sessions != "all" and not sessions:
        return []
    if spec.groups != "participant_id" and spec.sessions == "all":
        return [f"The table has no participant_id: {spec.groups} stands for the person."]
    seen = f", though {sessions[0]} tells of several sessions" if sessions else ""
    return [f"The table has no participant_id: each row counts as a person{seen}."]


def _in_full(case: Case, estimates: Estimates, fit: AssociationFit) -> AssociationFit:
    """Add what figures and readers need, and a screen of a thousand models does not."""
    robust = estimates.kind != "linear" or case.spec.covariance != "nonrobust"
    figures, said, notes = diagnose(estimates, case.matrix, case.subjects, robust)
    rows = case.selection.rows
    kept = [name for name in dict.fromkeys([*IDENTITY, case.spec.groups, *case.formula.columns]) if name in rows]
    kept += [case.spec.event] if case.spec.event and case.spec.event not in kept else []
    fit = replace(
        fit,
        rows=pd.concat([rows[kept], estimates.by_row], axis=1).reset_index(drop=True),
        diagnostics=figures,
        problems=(*fit.problems, *said),
        notes=(*fit.notes, *notes),
    )
    means = adjusted_means(fit, df_of=estimates.df_of)
    many = [name for name, levels in case.coding.levels.items() if len(levels) > MOST_COMPARED]
    if many and case.spec.contrasts != "none":
        said_of = f"{examples(many)}: more than {MOST_COMPARED} levels are not compared with one another."
        fit = replace(fit, notes=(*fit.notes, said_of))
    return replace(fit, adjusted_means=means, contrasts=pairwise_contrasts(fit, case.spec.contrasts, estimates.df_of))


def _design_advice(spec: AssociationSpec, formula: Formula, rows: pd.DataFrame) -> list[str]:
    advice = []
    reads_brain_age = any(name.startswith(("brain_pad", "corrected_", "predicted_age")) for name in formula.columns)
    if reads_brain_age and not any(name.startswith("age") for name in formula.columns):
        advice.append("Age is no covariate: brain age errors depend on age, corrected or not. Add age_years.")
    if spec.sessions == "all" and not (rows["participant_id"].astype(str) == rows[spec.groups].astype(str)).all():
        advice.append(f"Sessions of one subject count as independent within {spec.groups}.")
    return advice


def _case(spec: AssociationSpec, formula: Formula, selection: Selection) -> Case:
    kind, rows, levels = coded_outcome(spec, formula, selection.rows)
    if rows is not selection.rows:
        selection.rows, selection.known = rows, {}
    values = _complete_rows(spec, selection, formula)
    if levels:
        kind, levels, values = _levels_left(kind, levels, formula.response.label, selection, values)
    if kind == "cox":
        follow_up = values[formula.response.label] > 0
        selection.keep(follow_up, "no time after baseline")
        values = values[follow_up]
    taken = [name for name in (*formula.columns, spec.event) if name in OF_ROWS]
    if taken:
        raise NotEstimable(f"Not fitted: {taken[0]} is what a fit calls a figure of its own; rename the column.")
    coding, left_out = learn_coding(formula, values)
    selection.problems += [*left_out, *_thin_cells(selection, coding.formula, values)]
    case = Case(spec, formula, selection, kind, levels, values, coding, coding.matrix(values))
    _check_estimable(case)
    selection.problems += check_rank(case.matrix)
    return case


def _levels_left(
    kind: Kind, levels: tuple[str, ...], label: str, selection: Selection, values: pd.DataFrame
) -> tuple[Kind, tuple[str, ...], pd.DataFrame]:
    """Count an outcome's levels anew where some stood in incomplete rows alone."""
    codes = np.unique(values[label])
    if len(codes) in (1, len(levels)):
        return kind, levels, values
    anew = values[label].map({code: float(place) for place, code in enumerate(codes)})
    selection.rows = selection.rows.assign(**{label: anew})
    left = tuple(levels[int(code)] for code in codes)
    lost = [level for level in levels if level not in left]
    selection.problems.append(f"{label}: no complete row is {' or '.join(lost)}; the levels are {', '.join(left)}.")
    return "logistic" if len(left) == 2 else kind, left, values.assign(**{label: anew})


def _complete_rows(spec: AssociationSpec, selection: Selection, formula: Formula) -> pd.DataFrame:
    """Keep complete rows, then drop levels of fewer than three subjects, whose spread nobody knows."""
    values = keep_complete(spec, selection, formula)
    while small := _rare_levels(selection, formula, values):
        label, level, n = small[0]
        levels = [name for other, name, _ in small if other == label]
        who = f"{n} subject{'s' if n > 1 else ''}"
        needed = f"at least {MIN_SUBJECTS_PER_LEVEL} are needed"
        if len(levels) <= MOST_LEVELS_NAMED:
            levels = [level]
            said, reason = f"{label} = {level} left out: it has {who}, {needed}.", f"{label} = {level} has {who}"
        else:
            said = f"{label}: {len(levels)} levels left out, since {needed} in each: {examples(levels)}."
            reason = f"{label} has fewer than {MIN_SUBJECTS_PER_LEVEL} subjects in a level"
        selection.problems.append(said)
        kept = ~values[label].isin(levels)
        selection.keep(kept, reason)
        values = values[kept]
    if values.empty:
        raise NotEstimable("Not fitted: no complete rows are left.")
    return values


def _rare_levels(selection: Selection, formula: Formula, values: pd.DataFrame) -> list[tuple[str, str, int]]:
    rare = []
    for factor in categorical(formula, values):
        levels = values[factor.label]
        if selection.repeats:
            pairs = pd.DataFrame({"level": levels, "subject": subject_keys(selection.rows)})
            levels = pairs.drop_duplicates()["level"]
        sizes = levels.value_counts()
        rare += [(factor.label, str(level), int(n)) for level, n in sizes.items() if n < MIN_SUBJECTS_PER_LEVEL]
    return sorted(rare, key=lambda item: item[2])


def _thin_cells(selection: Selection, formula: Formula, values: pd.DataFrame) -> list[str]:
    """Name the combinations of levels on which an interaction rests with fewer than three subjects."""
    labels = {factor.label for factor in categorical(formula, values)}
    said = []
    for term in formula.terms:
        crossed = [factor.label for factor in term.factors if factor.label in labels]
        if len(crossed) < 2:
            continue
        subjects = subject_keys(selection.rows) if selection.repeats else pd.Series(values.index, index=values.index)
        cells = values[crossed].astype(str).assign(subject=subjects).drop_duplicates().groupby(crossed).size()
        thin = cells[cells < MIN_SUBJECTS_PER_LEVEL]
        said += [
            f"{' × '.join(crossed)}: {', '.join(map(str, levels))} has {n} subject{'s' if n > 1 else ''}, on which the "
            "interaction rests."
            for levels, n in zip(thin.index.to_list(), thin.to_list(), strict=True)
        ]
    return said


def _check_estimable(case: Case) -> None:
    spec, formula, coding, response = case.spec, case.formula, case.coding, case.response
    if np.ptp(response.to_numpy()) == 0 and case.kind != "cox":
        value = case.levels[int(response.iloc[0])] if case.levels else f"{response.iloc[0]:g}"
        raise NotEstimable(f"Not fitted: {formula.response.label} is {value} in all rows used.")
    size = float(np.abs(response.to_numpy()).max())
    if not READABLE_SIZES[0] < size < READABLE_SIZES[1]:
        raise NotEstimable(f"Not fitted: {formula.response.label} is of the size {size:.1g}; change its unit.")
    columns = coding.terms_of_columns()
    if formula.terms and not any(case.is_of_interest(column, term) for column, term in columns.items()):
        wanted = ", ".join(spec.effects) or "the terms of interest"
        if spec.effects or len(coding.formula.terms) < len(formula.terms):
            there = ", ".join([name for name, term in columns.items() if term is not None][:MOST_NAMED])
            raise NotEstimable(
                f"Not fitted: nothing is left of {wanted} in the {len(response)} rows used; the model's "
                f"coefficients are {there or 'none'}."
            )


def _estimate(case: Case) -> Estimates:
    spec, groups = case.spec, case.groups
    clustered = not groups.is_unique and (spec.sessions == "all" or spec.covariance == "cluster")
    _refuse_what_a_kind_has_not(case, clustered)
    if case.kind == "cox":
        return cox(case.response, case.selection.rows[spec.event], case.matrix)
    if case.kind == "ordinal":
        return ordinal(case.response, case.matrix, case.levels)
    if case.kind == "logistic":
        event = f"{case.formula.response.label} = {case.levels[1]}"
        return logistic(case.response, case.matrix, event, groups if clustered else None)
    if spec.covariance == "cluster" or (spec.sessions == "baseline" and spec.groups == "participant_id"):
        return least_squares(case.response, case.matrix, spec.covariance, case.subjects, groups)
    if groups.is_unique:
        estimates = least_squares(case.response, case.matrix, spec.covariance, case.subjects, groups)
        sentence = f"No {spec.groups} has two rows, so ordinary least squares stands in for the mixed model."
        return replace(estimates, problems=(sentence, *estimates.problems))
    return _mixed(case, groups)


def _refuse_what_a_kind_has_not(case: Case, clustered: bool) -> None:
    """A setting that would be left aside is refused: without it the errors are other ones than were asked for."""
    spec = case.spec
    if case.kind == "linear":
        return
    what = {"logistic": "a logistic", "ordinal": "an ordinal", "cox": "a Cox"}[str(case.kind)] + " model"
    if spec.random_slope:
        raise NotEstimable(f"Not fitted: random_slope is not offered for {what}; leave it out.")
    if case.kind != "logistic" and clustered:
        rows = "repeated sessions" if spec.sessions == "all" else f"rows that share their {case.groups.name}"
        raise NotEstimable(
            f"Not fitted: {what} of {rows} is not offered; take first sessions and leave covariance out."
        )
    if spec.groups != "participant_id" and not clustered and not case.groups.is_unique:
        way = ' covariance = "cluster" takes them as clusters.' if case.kind == "logistic" else ""
        raise NotEstimable(
            f"Not fitted: random effects of {spec.groups} are not offered for {what}; leave groups out.{way}"
        )


def _mixed(case: Case, groups: pd.Series) -> Estimates:
    spec = case.spec
    slope = spec.random_slope or None
    if slope and slope not in case.matrix:
        raise NotEstimable(f"Not fitted: the random slope {slope} is no numeric term of the formula; add it as a term.")
    fit = fit_mixed(case.response, case.matrix, groups, slope, spec.estimator, spec.correlated)
    fitted = case.matrix @ fit.fixed
    own = fit.random_values.reindex(groups)
    design = case.matrix.assign(**{INTERCEPT: 1.0})[list(fit.random_values)]
    fitted_group = fitted + (own.to_numpy() * design.to_numpy()).sum(axis=1)
    if float(np.var(case.response - fitted)) < EXACT * float(np.var(case.response)):
        raise NotEstimable(EXACT_FIT.format(response=case.formula.response.label))
    covariance = fit.random_covariance.to_numpy()
    effects = {str(name): float(covariance[k, k]) for k, name in enumerate(fit.random_covariance)}
    if slope and spec.correlated:
        effects[f"{INTERCEPT}:{slope} (covariance)"] = float(covariance[0, 1])
    with_slope = f" and {'' if spec.correlated else 'uncorrelated '}slope of {slope}" if slope else ""
    figures: list[Figure] = [("deviance", "", fit.deviance, np.nan), ("groups", "", float(fit.n_groups), np.nan)]
    problems = [*fit.problems]
    if slope and fit.n_groups < FEW_FOR_A_SLOPE:
        problems.append(
            f"{fit.n_groups} {spec.groups} are few for a random slope: its 95% intervals hold the truth in 94% of "
            "seeded tables at 12 and 20, a little less than they say."
        )
    for name in fit.random_values:
        w, p_value = normality(fit.random_values[name].to_numpy())
        figures.append(("random-effect normality (Shapiro-Wilk W)", str(name), w, p_value))
        if p_value < SURE:
            problems.append(
                f"Random effects of {name} are not normal (Shapiro-Wilk p = {p_value:.1g}): look for outliers."
            )
    return Estimates(
        kind="mixed",
        method=f"LMM {spec.estimator}, random intercept{with_slope} per {spec.groups}, {FREEDOM}",
        estimate=fit.fixed,
        covariance=fit.covariance,
        df=fit.df,
        df_of=fit.df_of,
        problems=tuple(problems),
        by_row=pd.DataFrame({"fitted": fitted, "fitted_group": fitted_group, "residual": case.response - fitted_group}),
        random_effects={**effects, "residual": fit.residual_variance},
        diagnostics=tuple(figures),
        profile=(fit.profile, fit.theta),
    )


def _unfitted(spec: AssociationSpec, formula: Formula, selection: Selection, reason: str) -> AssociationFit:
    return replace(
        unfitted(spec, formula.response.label, (reason, *selection.problems), dict(selection.dropped)),
        n_used=len(selection.rows),
        n_subjects=int(subject_keys(selection.rows).nunique()),
        n_missing=selection.missing,
    )
