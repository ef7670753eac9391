"""A model fitted apart in each site and combined: what sites that share only estimates could say together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from ...records import AssociationSpec
from ..cohort.problems import examples
from .association_fit import COLUMNS, HETEROGENEITY_COLUMNS, STRATA_COLUMNS, AssociationFit, unfitted
from .design import INTERCEPT, Coding, NotEstimable, as_levels, is_missing, natural
from .formula import Formula, parse
from .meta_analysis import pool
from .outcome import coded_outcome
from .references import reference_of
from .selection import select_rows

# Below months for years; far above what people differ by.
OTHER_UNIT = 6.0
# Its fourth power is a number yet.
LARGEST = 1e70

Fit = Callable[[AssociationSpec, pd.DataFrame], AssociationFit]


def fit_by_stratum(spec: AssociationSpec, table: pd.DataFrame, fit: Fit) -> AssociationFit:
    """Fit a model in every level of a column, and combine its terms by random effects.

    Args:
        spec: The model; `stratify` names the column.
        table: As for `fit_association`.
        fit: What fits one stratum.

    Returns:
        The combined fit: `strata` holds what each level said, `heterogeneity` how much they differ.
    """
    levels = as_levels(table[spec.stratify])
    inside = replace(spec, stratify="")
    in_question = (
        table["cohort"].isin(spec.cohorts) if spec.cohorts and "cohort" in table else levels.map(lambda _: True)
    )
    names = sorted(set(levels[in_question].dropna()), key=natural)
    formula = parse(spec.formula)
    without = unfitted(spec, formula.response.label, (), {})
    try:
        inside = _with_one_outcome(inside, formula, [table[levels == name] for name in names])
    except NotEstimable as cause:
        dropped = {f"{formula.response.label} could not be read": int(in_question.sum())}
        return replace(without, problems=(str(cause),), n_dropped=dropped, groups=spec.stratify)
    parts = {name: fit(inside, table[levels == name]) for name in names}
    fits = list(parts.values())
    rows, others = _against_one_reference(spec, formula, parts)
    used = {row["stratum"] for row in rows}
    said = [f"{spec.stratify} {name}: {sentence}" for name, part in parts.items() for sentence in part.problems]
    lost = int((in_question & levels.isna()).sum())
    base = replace(
        without,
        n_used=sum(part.n_used for name, part in parts.items() if name in used),
        n_subjects=sum(part.n_subjects for name, part in parts.items() if name in used),
        n_dropped=_dropped(spec, parts, used) | ({f"missing {spec.stratify}": lost} if lost else {}),
        problems=(*others, *_of_own_scales(spec, formula), *said),
        notes=("Bootstrap intervals are not made where strata are combined.",) if spec.bootstrap else (),
        groups=spec.stratify,
        n_missing={k: sum(part.n_missing.get(k, 0) for part in fits) for part in fits for k in part.n_missing},
    )
    methods = {part.kind: _without_counts(part.method) for part in reversed(fits) if part.method}
    within = "; ".join(reversed(methods.values()))
    return combine(base, pd.DataFrame(rows), spec.stratify, spec.heterogeneity, within)


def _without_counts(method: str) -> str:
    """A method without what is true of one stratum alone.

    >>> _without_counts("Cox proportional hazards (Efron), 37 events of converted")
    'Cox proportional hazards (Efron), events of converted'
    """
    return re.sub(r"\d+ events", "events", method)


def _dropped(spec: AssociationSpec, parts: Mapping[str, AssociationFit], used: Collection[str]) -> dict[str, int]:
    dropped: Counter[str] = Counter()
    for name, part in parts.items():
        dropped.update(part.n_dropped)
        if part.coefficients.empty:
            dropped[f"{spec.stratify} {name} could not be fitted"] += part.n_used
        elif name not in used:
            dropped[f"{spec.stratify} {name} lacks the reference"] += part.n_used
    return dict(dropped)


def _with_one_outcome(spec: AssociationSpec, formula: Formula, strata: Sequence[pd.DataFrame]) -> AssociationSpec:
    """Fix what the response is and its levels over all strata, so that the event of none is another's opposite.

    Raises:
        NotEstimable: The response holds what the declared kind cannot have, all strata taken together.
    """
    if spec.event or formula.response.function or not strata:
        return spec
    rows = pd.concat([select_rows(spec, part, formula).rows for part in strata])
    if is_missing(rows[formula.response.column]).all():
        return spec
    kind, _, levels = coded_outcome(spec, formula, rows)
    if kind == "linear":
        return replace(spec, outcome="numeric", levels=())
    return replace(spec, outcome="binary" if kind == "logistic" else "ordinal", levels=levels)


def _of_own_scales(spec: AssociationSpec, formula: Formula) -> list[str]:
    factors = [formula.response, *(factor for term in formula.terms for factor in term.factors)]
    scaled = dict.fromkeys(factor.label for factor in factors if factor.function in ("center", "scale"))
    if not scaled:
        return []
    return [
        f"{', '.join(scaled)}: the mean and standard deviation are those of each {spec.stratify}, so a step of one is "
        f"not the same in all of them. Standardise the column of the whole table beforehand if one step is meant."
    ]


def _against_one_reference(
    spec: AssociationSpec, formula: Formula, parts: dict[str, AssociationFit]
) -> tuple[list[dict[Hashable, Any]], list[str]]:
    """Take the coefficients of all strata that are contrasts with the same group.

    A stratum without the reference of the others has another one, and its `phenotype[RRMS]` is another difference.
    """
    codings = {name: part.coding for name, part in parts.items() if part.coding is not None}
    references = _references(codings)
    labels = dict.fromkeys(factor.label for term in formula.terms for factor in term.factors)
    whole = Coding(formula, {label: (references[label],) for label in labels if label in references}, {}, {})
    rows: list[dict[Hashable, Any]] = []
    lost: dict[str, list[str]] = {}
    for name, coding in codings.items():
        owners = coding.terms_of_columns()
        for row in parts[name].coefficients.to_dict("records"):
            if row["reference"] == reference_of(whole, owners[str(row["term"])]):
                rows.append({"stratum": name, "n": parts[name].n_used, **row})
            else:
                lost.setdefault(name, []).append(str(row["term"]))
    said = []
    for label, level in references.items():
        without = [name for name, coding in codings.items() if coding.levels.get(label, (level,))[0] != level]
        terms = dict.fromkeys(term for name in without for term in lost.get(name, ()))
        if terms:
            said.append(
                f"{label}: {spec.stratify} {examples(without)} lack{'s' if len(without) == 1 else ''} the reference "
                f"{level} (or have too few of it), and what depends on it is not taken from there "
                f'({", ".join(terms)}). Another reference is declared as C({label}, ref="...").'
            )
    return rows, said


def _references(codings: Mapping[str, Coding]) -> dict[str, str]:
    """The first level of each factor over all strata, which is that of any stratum that has it."""
    firsts: dict[str, list[str]] = {}
    for coding in codings.values():
        for label, levels in coding.levels.items():
            firsts.setdefault(label, []).append(levels[0])
    return {label: min(levels, key=natural) for label, levels in firsts.items()}


def combine(
    base: AssociationFit,
    estimates: pd.DataFrame,
    what: str,
    method: Literal["REML", "PM"],
    within: str,
) -> AssociationFit:
    """Combine estimates of strata, term by term.

    Args:
        base: The fit to fill: its name, its formula and what was dropped.
        estimates: One row per stratum and term: `stratum, term, estimate, se, n, reference`, maybe `df, of_interest`.
        what: What a stratum is, in words, such as `site`.
        method: Of the variance between strata.
        within: How each stratum was fitted, in words.

    Returns:
        The combined fit; terms of fewer than two strata are left out, and a sentence says so.
    """
    if estimates.empty:
        return replace(base, problems=("Not fitted: no stratum could be fitted.", *base.problems))
    problems, coefficients, strata, between = list(base.problems), [], [], []
    k = estimates["stratum"].nunique()
    for term, rows in estimates.groupby("term", sort=False):
        sound = rows[np.isfinite(rows["estimate"].astype(float)) & (rows["se"].astype(float) > 0)]
        if len(sound) < 2:
            where = ", ".join(map(str, sound["stratum"])) or "none"
            problems.append(f"{term}: only {where} of the strata has an estimate, so there is nothing to combine.")
            continue
        if len(sound) < k:
            who = examples([str(name) for name in sound["stratum"]])
            problems.append(f"{term}: {len(sound)} of {k} levels of {what} estimate it: {who}.")
        if extreme := _of_extremes(sound):
            problems.append(f"{term}: {extreme}")
            continue
        problems += _of_units(str(term), sound) if term != INTERCEPT else []
        pooled = pool(sound["estimate"], sound["se"], method)
        problems += [f"{term}: {sentence}" for sentence in pooled.problems if term != "Intercept"]
        strata += _stratum_rows(str(term), sound, pooled.weights)
        reach = float(stats.t.ppf(0.975, pooled.df)) * pooled.se
        coefficients.append(
            {
                "model": base.name,
                "term": str(term),
                "estimate": pooled.estimate,
                "se": pooled.se,
                "statistic": pooled.estimate / pooled.se,
                "df": pooled.df,
                "p_value": 2 * stats.t.sf(abs(pooled.estimate / pooled.se), pooled.df),
                "ci_low": pooled.estimate - reach,
                "ci_high": pooled.estimate + reach,
                "n_used": int(n) if np.isfinite(n := sound["n"].astype(float).sum(skipna=False)) else np.nan,
                "reference": next((text for text in sound["reference"] if text), ""),
                "of_interest": bool(sound["of_interest"].any()) if "of_interest" in sound else term != "Intercept",
            }
        )
        facts = (term, len(sound), pooled.tau2, pooled.i2, pooled.q, int(pooled.df), pooled.q_p_value)
        between.append((*facts, pooled.prediction_low, pooled.prediction_high, method))
    if not coefficients:
        return replace(base, problems=("Not fitted: no term has estimates of two strata.", *problems))
    tau = "REML" if method == "REML" else "Paule-Mandel"
    table = pd.DataFrame(coefficients).reindex(columns=COLUMNS)
    names = table["term"]
    return replace(
        base,
        kind="meta",
        method=f"random-effects meta-analysis over {k} levels of {what} ({tau} τ², Hartung-Knapp); each: {within}",
        coefficients=table.astype({"of_interest": bool}),
        covariance=pd.DataFrame(np.diag(table["se"].to_numpy() ** 2), index=names, columns=names),
        problems=tuple(dict.fromkeys(problems)),
        strata=pd.DataFrame(strata, columns=STRATA_COLUMNS),
        heterogeneity=pd.DataFrame(between, columns=HETEROGENEITY_COLUMNS),
        notes=(*base.notes, "Each term is combined by itself; the strata's covariances between terms are not used."),
    )


def _of_extremes(rows: pd.DataFrame) -> str:
    """Say which strata are of a size whose squares and their products no computer's number holds."""
    sizes = rows[["estimate", "se"]].astype(float).abs()
    out = (sizes["estimate"] > LARGEST) | (sizes["se"] > LARGEST) | (sizes["se"] < 1 / LARGEST)
    if not out.any():
        return ""
    shown = [f"{row.stratum} {row.estimate:.3g}, SE {row.se:.3g}" for row in rows[out].itertuples()]
    return f"not combined, since its size is beyond what can be computed ({examples(shown)}). Give it in another unit."


def _of_units(term: str, rows: pd.DataFrame) -> list[str]:
    """Ask about a stratum that is many times the others in both its estimate and its error: months, not years?"""
    if len(rows) < 3:
        return []
    sizes = rows[["estimate", "se"]].astype(float).abs().replace(0.0, np.nan).apply(np.log)
    said = []
    for place, name in enumerate(rows["stratum"]):
        # On the logarithm, or one large stratum of two others would make the third look small.
        times = np.exp(sizes.iloc[place] - sizes.drop(index=sizes.index[place]).median()).to_numpy()
        if (times > OTHER_UNIT).all() or (times < 1 / OTHER_UNIT).all():
            said.append(
                f"{term}: {name} has {times[0]:.2g} times the estimate and {times[1]:.2g} times the standard error of "
                "the others (medians): is it in another unit, such as months for years?"
            )
    return said


def _stratum_rows(term: str, rows: pd.DataFrame, weights: np.ndarray) -> list[tuple[object, ...]]:
    df = rows["df"].astype(float).fillna(np.inf) if "df" in rows else pd.Series(np.inf, index=rows.index)
    reach = stats.t.ppf(0.975, df) * rows["se"].astype(float)
    return [
        (row.stratum, term, row.estimate, row.se, freedom, row.estimate - half, row.estimate + half, row.n, weight)
        for row, freedom, half, weight in zip(rows.itertuples(), df, reach, weights, strict=True)
    ]
