"""Tables of one model beside its effects: adjusted means and their differences, variances, and sites."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ..statistics.association_fit import AssociationFit
from ..statistics.design import INTERCEPT
from .association_tables import bounds, estimate, levels_of, p_or_dash, percent, set_if, spread, triple
from .association_words import capital, term, variable, variable_with_unit
from .notation import count, decimals_for, is_missing, number
from .tables import Cell, Table

COVARIANCE = " (covariance)"


def means_table(fit: AssociationFit) -> Table | None:
    """Set the adjusted means of a model's groups."""
    body = [
        (
            Cell(capital(variable(str(row["factor"])))),
            Cell(str(row["level"])),
            Cell("–" if is_missing(row["n"]) else count(row["n"]), numeric=True),
            Cell(triple(row, "mean", "ci_low", "ci_high"), numeric=True),
            Cell(spread(row["se"], row), numeric=True),
        )
        for row in fit.adjusted_means.to_dict("records")
    ]
    what = "Adjusted probability" if fit.kind == "logistic" else "Adjusted mean"
    columns = ("Factor", "Group", "n (rows)", f"{what} [95% CI]", "SE")
    note = "Numeric covariates at their means, other factors averaged over their levels with equal weight."
    return set_if(f"{fit.name}: adjusted means of {variable_with_unit(fit.response)}", columns, body, (note,))


def contrasts_table(fit: AssociationFit) -> Table | None:
    """Set the pairwise differences of the adjusted means."""
    rows = fit.contrasts.to_dict("records")
    body = [
        (
            Cell(capital(variable(str(row["factor"])))),
            Cell(str(row["contrast"])),
            Cell(estimate(row), numeric=True),
            Cell(spread(row["se"], row), numeric=True),
            Cell(p_or_dash(row["p_value"]), numeric=True),
            Cell(p_or_dash(row["p_adjusted"]), numeric=True),
        )
        for row in rows
    ]
    names = dict.fromkeys(str(row["adjustment"]) for row in rows if str(row["adjustment"]) != "none")
    how = {"tukey": "Tukey's method, intervals included", "holm": "Holm's method; intervals are of single comparisons"}
    notes = tuple(f"Adjusted p: {how.get(name, name)}." for name in names)
    scale = " on the log-odds scale" if fit.kind == "logistic" else ""
    columns = ("Factor", "Difference", "Estimate [95% CI]", "SE", "p", "Adjusted p")
    return set_if(f"{fit.name}: pairwise differences of adjusted means{scale}", columns, body, notes)


def random_effects_table(fit: AssociationFit) -> Table | None:
    """Set the variances of a mixed model; where there is no slope, with the share that lies between its groups."""
    values = dict(fit.random_effects)
    body = [
        (
            Cell(_variance_name(name, fit)),
            Cell(number(value, decimals_for(0, value)), numeric=True),
            Cell(_spread_of(name, values), numeric=True),
        )
        for name, value in values.items()
    ]
    notes = []
    if set(values) == {INTERCEPT, "residual"} and sum(values.values()) > 0:
        share = values[INTERCEPT] / sum(values.values())
        notes.append(f"Intraclass correlation, given the fixed effects: {number(share)}.")
    has_covariance = any(name.endswith(COVARIANCE) for name in values)
    columns = ("Source", "Variance", "SD") if not has_covariance else ("Source", "(Co)variance", "SD or correlation")
    return set_if(f"{fit.name}: random effects", columns, body, tuple(notes))


def _spread_of(name: str, values: Mapping[str, float]) -> str:
    """A variance's standard deviation; of a covariance the correlation."""
    if not name.endswith(COVARIANCE):
        return number(math.sqrt(values[name])) if values[name] >= 0 else number(None)
    product = math.prod(values[part] for part in name.removesuffix(COVARIANCE).split(":", 1))
    return number(values[name] / math.sqrt(product)) if product > 0 else number(None)


def _variance_name(name: str, fit: AssociationFit) -> str:
    if name == "residual":
        return "Residual"
    if name.endswith(COVARIANCE):
        return " and ".join(variable(part) for part in name.removesuffix(COVARIANCE).split(":", 1))
    what = "Intercept" if name == INTERCEPT else f"Slope of {variable(name)}"
    return f"{what}, by {variable(fit.groups)}" if fit.groups else what


def heterogeneity_table(fit: AssociationFit) -> Table | None:
    """Set how far the sites of a meta-analysis differ."""
    levels = levels_of(fit)
    body = [
        (
            Cell(term(str(row["term"]), levels)),
            Cell(count(row["k"]), numeric=True),
            Cell(number(row["tau2"], decimals_for(0, row["tau2"])), numeric=True),
            Cell(percent(row["i2"]), numeric=True),
            Cell(f"Q({count(row['q_df'])}) = {number(row['q'])}", numeric=True),
            Cell(p_or_dash(row["q_p_value"]), numeric=True),
            Cell(bounds(row["prediction_low"], row["prediction_high"]), numeric=True),
        )
        for row in fit.heterogeneity.to_dict("records")
    ]
    methods = ", ".join(dict.fromkeys(str(m) for m in fit.heterogeneity["method"]))
    columns = ("Effect", "Sites", "τ²", "I²", "Q (df)", "p of Q", "95% prediction interval")
    notes = (f"{methods}. The prediction interval is where the effect at another site is expected.",)
    return set_if(f"{fit.name}: differences between sites", columns, body, notes)


def diagnostics_table(fit: AssociationFit) -> Table | None:
    """Set the figures that say whether a model's assumptions hold."""
    levels = levels_of(fit)
    body = [
        (
            Cell(capital(str(row["figure"]))),
            Cell(term(str(row["term"]), levels) if row["term"] else "the model"),
            Cell(number(row["value"], 0 if float(row["value"]).is_integer() else 3), numeric=True),
            Cell(p_or_dash(row["p_value"]), numeric=True),
        )
        for row in fit.diagnostics.to_dict("records")
        if not is_missing(row["value"])
    ]
    return set_if(f"{fit.name}: diagnostics", ("Figure", "Of", "Value", "p"), body, ())


MODEL_TABLES: dict[str, Callable[[AssociationFit], Table | None]] = {
    "adjusted-means": means_table,
    "contrasts": contrasts_table,
    "random-effects": random_effects_table,
    "heterogeneity": heterogeneity_table,
    "diagnostics": diagnostics_table,
}
"""File name → what sets it."""
