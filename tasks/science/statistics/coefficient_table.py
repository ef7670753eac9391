"""From estimates to the table of effects: intervals, sizes, power, and what each finding leans on."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from .association_fit import COLUMNS
from .case import Case
from .coefficient_bootstrap import (
    percentile_intervals,
    resampled_counts,
    resampled_least_squares,
    resampled_logistic,
    resampled_mixed,
)
from .design import INTERCEPT, learn_coding
from .formula import BASELINE, PER_YEAR, Term
from .measurement_error import calibration
from .model_estimates import Estimates
from .references import reference_of
from .sensitivity import detectable, e_values, huber, partial_spearman, power_of, risk_ratios

BRAIN_PAD = ("brain_pad_years", "corrected_brain_pad_years")
SPREAD = "ensemble_spread_years"
RATIO_KINDS = ("logistic", "ordinal", "cox")


def coefficient_table(case: Case, estimates: Estimates) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Lay out every parameter of a fit.

    Args:
        case: The model and its rows.
        estimates: What they gave.

    Returns:
        `COLUMNS` but for `q_value`, one row per parameter; sentences about problems; notes.
    """
    problems: list[str] = []
    notes: list[str] = []
    table = _basic(case, estimates)
    if case.spec.details is not False:
        table = table.join(_sensitivity(case, estimates, notes)) if estimates.kind == "linear" else table
        table = table.join(_calibrated(case, estimates, table, notes))
        table = table.join(_bootstrapped(case, estimates, problems)) if case.spec.bootstrap else table
    return table.reindex(columns=COLUMNS).reset_index(drop=True), problems, notes


def _basic(case: Case, estimates: Estimates) -> pd.DataFrame:
    names, owners = estimates.estimate.index, case.coding.terms_of_columns()
    estimate = estimates.estimate.to_numpy(dtype=np.float64)
    df = estimates.df.to_numpy(dtype=np.float64)
    se = np.sqrt(np.diag(estimates.covariance))
    statistic, reach = estimate / se, stats.t.ppf(0.975, df) * se
    intercept = np.where(names == INTERCEPT, np.nan, 1.0)
    standardised, standard_error = _standardised(case, estimates)
    partial_r2 = estimates.partial_r2.reindex(names).to_numpy() * intercept
    columns = {
        "model": case.spec.name,
        "term": names,
        "estimate": estimate,
        "se": se,
        "statistic": statistic,
        "df": df,
        "p_value": 2 * stats.t.sf(np.abs(statistic), df),
        "ci_low": estimate - reach,
        "ci_high": estimate + reach,
        "n_used": len(case.values),
        "beta_standardised": standardised * intercept,
        "partial_r2": partial_r2,
        "f2": partial_r2 / (1 - partial_r2),
        "reference": [reference_of(case.coding, owners[name]) for name in names],
        "of_interest": [case.is_of_interest(name, owners[name]) for name in names],
        "power": power_of(statistic, df) * intercept,
        "detectable": detectable(se, df) * intercept,
    }
    if estimates.kind in RATIO_KINDS:
        for name, source in (("ratio", "estimate"), ("ratio_ci_low", "ci_low"), ("ratio_ci_high", "ci_high")):
            columns[name] = np.exp(np.clip(columns[source], -700, 700))
    if estimates.kind != "ordinal":
        # An outcome's own spread makes a difference comparable; log odds and hazards are so already.
        far = stats.t.ppf(0.975, df) * standard_error
        ends = np.stack([standardised, standardised - far, standardised + far]) * intercept
        with np.errstate(all="ignore"):
            risks = risk_ratios(np.clip(ends, -300, 300), estimates.kind, _share(case, estimates))
            columns["e_value"], columns["e_value_ci"] = e_values(*risks)
    return pd.DataFrame(columns, index=names)


def _share(case: Case, estimates: Estimates) -> float:
    if estimates.kind == "cox":
        return float(case.selection.rows[case.spec.event].mean())
    return float(case.response.mean()) if estimates.kind == "logistic" else 0.5


def _standardised(case: Case, estimates: Estimates) -> tuple[np.ndarray, np.ndarray]:
    """The estimates and standard errors of the same surface in z-scored variables, which needs no second fit.

    With products, a slope is that at the mean of what it is multiplied by, where the estimate's own is that at zero.
    """
    values, coding = case.values, case.coding
    estimate, error = estimates.estimate.to_numpy(dtype=np.float64), np.sqrt(np.diag(estimates.covariance))
    names = estimates.estimate.index
    if estimates.kind in RATIO_KINDS:
        scale = _spreads(case).reindex(names).to_numpy()
        return estimate * scale, error * scale
    label = coding.formula.response.label
    if all(len(term.factors) == 1 and not term.factors[0].function for term in coding.formula.terms):
        # Without products a slope merely changes its unit.
        scale = _spreads(case).reindex(names).fillna(1.0).to_numpy() / float(values[label].std())
        return estimate * scale, error * scale
    numeric = [name for name in values if pd.api.types.is_float_dtype(values[name])]
    spread = values[numeric].std().replace(0.0, 1.0)
    centre = values[numeric].mean() if coding.formula.intercept else spread * 0.0
    scaled = values.assign(**((values[numeric] - centre) / spread))
    coded = learn_coding(coding.formula, scaled)[0].matrix(scaled)
    # Linear in the estimates but for the intercept, which takes the response's mean and is not told.
    change = np.linalg.lstsq(coded.to_numpy(), case.matrix.to_numpy() / spread[label], rcond=None)[0]
    return change @ estimate, np.sqrt(np.diag(change @ estimates.covariance.to_numpy() @ change.T))


def _spreads(case: Case) -> pd.Series:
    """Standard deviation of each numeric main effect's column; 1 for dummies, NaN for products."""
    deviations = case.matrix.to_numpy().std(axis=0, ddof=1)
    places = {name: place for place, name in enumerate(case.matrix.columns)}
    spreads = {}
    for name, term in case.coding.terms_of_columns().items():
        if term is not None and len(term.factors) == 1:
            is_level = term.factors[0].label in case.coding.levels
            spreads[name] = 1.0 if is_level else float(deviations[places[name]])
    return pd.Series(spreads, dtype="float64")


def _sensitivity(case: Case, estimates: Estimates, notes: list[str]) -> pd.DataFrame:
    table = pd.DataFrame(index=estimates.estimate.index)
    wanted = case.spec.sensitivity
    if wanted and case.spec.covariance == "cluster" and not case.groups.is_unique:
        notes.append(
            f"Robust regression and rank correlation would take rows of one {case.groups.name} for independent; they "
            "are not given."
        )
        return table
    if "robust" in wanted:
        table = table.join(huber(case.response, case.matrix))
    if "spearman" in wanted:
        names = ["spearman_rho", "spearman_ci_low", "spearman_ci_high", "spearman_p_value"]
        owners = case.coding.terms_of_columns()
        rows = {
            column: partial_spearman(case.response, case.matrix, column, _controls(column, term, owners))
            for column, term in owners.items()
            if term is not None and len(term.factors) == 1 and case.is_of_interest(column, term)
        }
        table = table.join(pd.DataFrame.from_dict(rows, orient="index", columns=names))
    return table


def _controls(column: str, term: Term, owners: dict[str, Term | None]) -> list[str]:
    """Columns that do not hold the predictor's own factor, main effects alone."""
    own = term.factors[0].label
    return [
        name
        for name, other in owners.items()
        if name != column
        and other is not None
        and len(other.factors) == 1
        and (other.factors[0].label != own or "[" in name)
    ]


def _calibrated(case: Case, estimates: Estimates, table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    spec, result = case.spec, pd.DataFrame(index=table.index)
    response = case.formula.response.column
    if response.removesuffix(BASELINE).removesuffix(PER_YEAR) in BRAIN_PAD:
        notes.append(f"{response} is the outcome: its own error widens intervals and does not bias the slopes.")
    owners = case.coding.terms_of_columns()
    labels = {
        factor.label
        for term in owners.values()
        if term is not None
        for factor in term.factors
        if factor.column.removesuffix(BASELINE) in BRAIN_PAD and factor.function in ("", "center")
    }
    sd, source = spec.measurement_sd_years, "declared"
    if labels and not sd and not spec.reliability and SPREAD in case.selection.rows:
        spread = pd.to_numeric(case.selection.rows[SPREAD], errors="coerce")
        sd, source = float(np.sqrt((spread**2).mean())), "spread of the ensemble's members"
    if labels and not sd > 0 and not spec.reliability:
        notes.append(
            f"{sorted(labels)[0]} is a predictor with an error of its own, which pulls its slope towards zero; give "
            "measurement_sd_years (test and retest) to see the corrected slope."
        )
        return result
    for label in sorted(labels):
        holds = [c for c, term in owners.items() if term is not None and label in term.key]
        if label not in case.matrix:
            continue
        if estimates.kind == "mixed" and (case.matrix[label].groupby(case.groups.to_numpy()).nunique() > 1).any():
            notes.append(
                f"{label} changes within {case.groups.name}, where its own error weighs more than between them; its "
                f"slope is not corrected for it. {label}{BASELINE} is."
            )
            continue
        others = case.matrix.drop(columns=holds).to_numpy(dtype=np.float64)
        found = calibration(case.matrix[label], others, label, sd, spec.reliability, source)
        notes.append(found.note)
        for name, column in (("estimate", "estimate"), ("ci_low", "ci_low"), ("ci_high", "ci_high")):
            result.loc[holds, f"calibrated_{name}"] = table.loc[holds, column] / found.reliability
    return result


def _bootstrapped(case: Case, estimates: Estimates, problems: list[str]) -> pd.DataFrame:
    spec = case.spec
    x, y = case.matrix.to_numpy(dtype=np.float64), case.response.to_numpy(dtype=np.float64)
    of_groups = estimates.kind == "mixed" or spec.covariance == "cluster"
    codes, names = pd.factorize(case.groups if of_groups else case.subjects)
    counts = resampled_counts(len(names), spec.bootstrap, spec.seed)
    if estimates.kind == "linear":
        draws = resampled_least_squares(x, y, codes, counts)
    elif estimates.kind == "logistic":
        draws = resampled_logistic(x, y, codes, counts)
    elif estimates.kind == "mixed" and estimates.profile is not None:
        draws = resampled_mixed(*estimates.profile, counts)
    else:
        problems.append("No bootstrap intervals: they are made for least squares, logistic and mixed models.")
        return pd.DataFrame(index=estimates.estimate.index)
    table, lost = percentile_intervals(draws, estimates.estimate.index)
    if lost:
        problems.append(f"{lost} of {spec.bootstrap} resamples gave no estimate and are left out of the bootstrap.")
    return table
