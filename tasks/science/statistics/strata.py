"""A model fitted apart in each site and combined: what sites that share only estimates could say together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from ...records import AssociationSpec
from .association_fit import COLUMNS, HETEROGENEITY_COLUMNS, STRATA_COLUMNS, AssociationFit, unfitted
from .design import as_levels, natural
from .meta_analysis import pool

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
    own_cohorts = table["cohort"].isin(spec.cohorts) if spec.cohorts and "cohort" in table else levels.notna()
    names = sorted(set(levels[own_cohorts].dropna()), key=natural)
    parts = {name: fit(inside, table[levels == name]) for name in names}
    fits = list(parts.values())
    dropped: dict[str, int] = {}
    for name, part in parts.items():
        for reason, n in part.n_dropped.items():
            dropped[reason] = dropped.get(reason, 0) + n
        if part.coefficients.empty:
            reason = f"{spec.stratify} {name} could not be fitted"
            dropped[reason] = dropped.get(reason, 0) + part.n_used
    lost = int((own_cohorts & levels.isna()).sum())
    if lost:
        dropped[f"missing {spec.stratify}"] = lost
    said = [f"{spec.stratify} {name}: {sentence}" for name, part in parts.items() for sentence in part.problems]
    rows = [
        {"stratum": name, "n": part.n_used, **row}
        for name, part in parts.items()
        for row in part.coefficients.to_dict("records")
    ]
    base = replace(
        unfitted(spec, spec.formula.split("~")[0].strip(), tuple(said), dropped),
        n_used=sum(part.n_used for part in fits if len(part.coefficients)),
        n_subjects=sum(part.n_subjects for part in fits if len(part.coefficients)),
        groups=spec.stratify,
        n_missing={k: sum(part.n_missing.get(k, 0) for part in fits) for part in fits for k in part.n_missing},
    )
    kinds = [part.method for part in fits if part.method]
    return combine(base, pd.DataFrame(rows), spec.stratify, spec.heterogeneity, kinds[0] if kinds else "")


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
        estimates: One row per stratum and term: `stratum, term, estimate, se, n`, and where known `df, of_interest`.
        what: What a stratum is, in words, such as `site`.
        method: Of the variance between strata.
        within: How each stratum was fitted, in words.

    Returns:
        The combined fit; terms of fewer than two strata are left out, and a sentence says so.
    """
    if estimates.empty:
        return replace(base, problems=("Not fitted: no stratum could be fitted.", *base.problems))
    problems, coefficients, strata, between = list(base.problems), [], [], []
    for term, rows in estimates.groupby("term", sort=False):
        sound = rows[np.isfinite(rows["estimate"].astype(float)) & (rows["se"].astype(float) > 0)]
        if len(sound) < 2:
            where = ", ".join(map(str, sound["stratum"])) or "none"
            problems.append(f"{term}: only {where} of the strata has an estimate, so there is nothing to combine.")
            continue
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
                "n_used": int(sound["n"].sum()),
                "of_interest": bool(sound["of_interest"].any()) if "of_interest" in sound else term != "Intercept",
            }
        )
        facts = (term, len(sound), pooled.tau2, pooled.i2, pooled.q, int(pooled.df), pooled.q_p_value)
        between.append((*facts, pooled.prediction_low, pooled.prediction_high, method))
    if not coefficients:
        return replace(base, problems=("Not fitted: no term has estimates of two strata.", *problems))
    k = estimates["stratum"].nunique()
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


def _stratum_rows(term: str, rows: pd.DataFrame, weights: np.ndarray) -> list[tuple[object, ...]]:
    df = rows["df"].astype(float).fillna(np.inf) if "df" in rows else pd.Series(np.inf, index=rows.index)
    reach = stats.t.ppf(0.975, df) * rows["se"].astype(float)
    return [
        (row.stratum, term, row.estimate, row.se, freedom, row.estimate - half, row.estimate + half, row.n, weight)
        for row, freedom, half, weight in zip(rows.itertuples(), df, reach, weights, strict=True)
    ]
