"""Tables beside the effects: how large they are, and what other estimators make of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..statistics.analysis import Analysis
from .association_tables import bounds, effects_of, estimate, levels_by_model, percent, set_if, term_of, triple
from .notation import decimals_for, is_missing, number, p_value
from .tables import Cell, Table

SIZE_NOTES = {
    "beta_standardised": (
        "Standardised β: outcome and numeric predictors in SDs; of a group, its difference in SDs of the outcome; of "
        "odds and hazards, their logarithm per SD of the predictor. Of an effect that is part of an interaction, at "
        "the other part's mean, where β is at its zero."
    ),
    "power": (
        "Power: of a 5% two-sided test at this n, were the true effect as large as the one found; it restates p."
    ),
    "detectable": "Detectable: the smallest effect that such a test finds with 80% power, in the unit of β.",
    "e_value": (
        "E-value: how strongly, as a risk ratio, an unmeasured confounder would have to go with both predictor and "
        "outcome to explain the estimate away (VanderWeele & Ding 2017, doi:10.7326/M16-2607)."
    ),
}


def effect_sizes_table(analysis: Analysis) -> Table | None:
    """Set standardised β, partial R², f², power at the observed n and E-values of the effects of interest."""
    columns = {
        "beta_standardised": "Standardised β",
        "partial_r2": "Partial R²",
        "f2": "Cohen's f²",
        "power": "Power at this n",
        "detectable": "Detectable with 80% power",
        "e_value": "E-value",
        "e_value_ci": "E-value of the interval's end",
    }
    rows = effects_of(analysis)
    shown = _with_numbers(rows, list(columns))
    body = _named(analysis, rows[rows["term"].notna()], lambda row: [_size(name, row[name]) for name in shown])
    notes = [text for name, text in SIZE_NOTES.items() if name in shown]
    return set_if("Effect sizes", ("Model", "Effect", *(columns[name] for name in shown)), body, notes, bool(shown))


def sensitivity_table(analysis: Analysis) -> Table | None:
    """Set what other estimators make of the same effects."""
    parts = {
        "robust_estimate": "Robust β (SE)",
        "spearman_rho": "Partial Spearman ρ [95% CI]",
        "calibrated_estimate": "β corrected for measurement error [95% CI]",
        "bootstrap_ci_low": "Bootstrap 95% CI",
    }
    rows = effects_of(analysis)
    shown = _with_numbers(rows, list(parts))

    def cells(row: Mapping[Any, Any]) -> list[str]:
        made = {
            "robust_estimate": _robust(row),
            "spearman_rho": triple(row, "spearman_rho", "spearman_ci_low", "spearman_ci_high"),
            "calibrated_estimate": triple(row, "calibrated_estimate", "calibrated_ci_low", "calibrated_ci_high"),
            "bootstrap_ci_low": bounds(row["bootstrap_ci_low"], row["bootstrap_ci_high"]),
        }
        return [estimate(row), *(made[name] for name in shown)]

    body = _named(analysis, rows[rows["term"].notna()], cells)
    columns = ("Model", "Effect", "β [95% CI]", *(parts[name] for name in shown))
    return set_if("Sensitivity: other estimators of the same effects", columns, body, (), bool(shown))


def _robust(row: Mapping[Any, Any]) -> str:
    if is_missing(row["robust_estimate"]):
        return "–"
    value, se = float(row["robust_estimate"]), row["robust_se"]
    decimals = decimals_for(value) if is_missing(se) else decimals_for(value - 2 * se, value + 2 * se)
    return f"{number(value, decimals)} ({number(se, decimals)}), p {p_value(row['robust_p_value'])}"


def _size(name: str, value: Any) -> str:
    if is_missing(value):
        return "–"
    if name == "detectable":
        return number(value, decimals_for(0, value))
    if name == "power" and value > 0.995:
        return "> 99%"
    return percent(value) if name == "power" else number(value, 3 if name in ("partial_r2", "f2") else 2)


def _with_numbers(rows: pd.DataFrame, columns: list[str]) -> list[str]:
    return [name for name in columns if name in rows and rows[name].notna().any()]


def _named(analysis: Analysis, rows: pd.DataFrame, cells: Any) -> list[tuple[Cell, ...]]:
    levels = levels_by_model(analysis)
    return [
        (
            Cell(str(row["model"])),
            Cell(term_of(row, levels)),
            *(Cell(text, numeric=True) for text in cells(row)),
        )
        for row in rows.to_dict("records")
    ]
