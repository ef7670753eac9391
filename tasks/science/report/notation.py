"""How numbers and names are written in the report: few decimals, a true minus sign, words where there is no number."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

NOT_ESTIMABLE = "not estimable"
NOT_GIVEN = "not given"
MOST_DECIMALS = 12
LABEL_CHARACTERS = 34

METRIC_LABELS = {
    "mae": "MAE (years)",
    "mae_difference": "Model minus this, MAE (years)",
    "gain_over_volumes": "Minus tissue volumes (years)",
    "rmse": "RMSE (years)",
    "r2": "R²",
    "pearson": "Pearson r",
    "spearman": "Spearman ρ",
    "slope": "Calibration slope",
    "intercept": "Calibration intercept (years)",
    "bias": "Mean brain-PAD (years)",
    "icc": "ICC(2,1)",
}
_METRIC_ALIASES = {
    "mean_absolute_error": "mae",
    "root_mean_squared_error": "rmse",
    "r_squared": "r2",
    "pearson_r": "pearson",
    "r": "pearson",
    "spearman_rho": "spearman",
    "rho": "spearman",
    "calibration_slope": "slope",
    "calibration_intercept": "intercept",
    "mean_brain_pad": "bias",
    "mean_pad": "bias",
    "mean_error": "bias",
    "icc_2_1": "icc",
    "icc21": "icc",
}


def is_missing(value: Any) -> bool:
    """Tell whether a single cell holds nothing: None, NaN, NaT or pandas' NA."""
    if isinstance(value, (float, np.floating)):
        return math.isnan(value)
    return value is None or value is pd.NaT or value is pd.NA


def missing_cells(column: pd.Series) -> pd.Series:
    """Mark the cells that hold nothing, whatever the column's type, an empty column's included."""
    return column.map(is_missing).astype(bool)


def metric_name(metric: str) -> str:
    """Reduce a metric's column name to one spelling, so that tables and cautions find it.

    >>> metric_name("mae_years"), metric_name("calibration_slope"), metric_name("coverage_95")
    ('mae', 'slope', 'coverage_95')
    """
    plain = metric.strip().lower().removesuffix("_years")
    return _METRIC_ALIASES.get(plain, plain)


def metric_label(metric: str) -> str:
    """Write a metric for a reader; one that is not known keeps its name.

    >>> metric_label("rmse_years"), metric_label("coverage_95")
    ('RMSE (years)', 'Coverage 95')
    """
    return METRIC_LABELS.get(metric_name(metric), humanise(metric))


def humanise(name: str) -> str:
    """Turn a key into words, units in brackets.

    >>> humanise("best_epoch"), humanise("duration_s"), humanise("age_years"), humanise("n_scans")
    ('Best epoch', 'Duration (s)', 'Age (years)', 'N scans')
    """
    words = name.replace("_", " ").strip()
    for unit in ("years", "months", "mm", "s"):
        if words.endswith(f" {unit}") and not words.endswith(" per s"):
            words = f"{words.removesuffix(unit).strip()} ({unit})"
            break
    return words[:1].upper() + words[1:]


def number(value: Any, decimals: int = 2) -> str:
    """Write one number; what is no number is said in words.

    >>> number(-1.234), number(-0.001), number(float("nan")), number(12345.6, 1), number(float("inf"))
    ('−1.23', '0.00', 'not estimable', '12,345.6', 'infinite')
    """
    if is_missing(value):
        return NOT_ESTIMABLE
    real = float(value)
    if math.isnan(real):
        return NOT_ESTIMABLE
    if math.isinf(real):
        return "infinite" if real > 0 else "−infinite"
    text = f"{real:,.{decimals}f}"
    return text.lstrip("-") if float(f"{real:.{decimals}f}") == 0 else text.replace("-", "−")


def decimals_for(*bounds: Any) -> int:
    """Choose the decimals that show two digits of the narrowest distance between an estimate and its bounds.

    >>> decimals_for(9.1, 7.2, 11.0), decimals_for(0.0031, 0.0011, 0.0052), decimals_for(1.0)
    (2, 4, 2)
    """
    finite = [float(bound) for bound in bounds if not is_missing(bound) and math.isfinite(float(bound))]
    width = max(finite) - min(finite) if finite else 0.0
    if width <= 0:
        return 2
    return min(MOST_DECIMALS, max(2, 1 - math.floor(math.log10(width / 2))))


def interval(ci_low: Any, ci_high: Any, decimals: int = 2) -> str:
    """Write a confidence interval, or nothing where neither end could be had.

    >>> interval(7.2, 11), interval(float("nan"), float("nan"))
    ('[7.20, 11.00]', '')
    """
    if is_missing(ci_low) and is_missing(ci_high):
        return ""
    return f"[{number(ci_low, decimals)}, {number(ci_high, decimals)}]"


def estimate_with_interval(estimate: Any, ci_low: Any, ci_high: Any, unit: str = "") -> str:
    """Write an estimate and its interval in one line of prose.

    >>> estimate_with_interval(9.1, 7.2, 11.0, "y")
    '9.10 y [7.20, 11.00]'
    """
    decimals = decimals_for(estimate, ci_low, ci_high)
    return " ".join(part for part in (number(estimate, decimals), unit, interval(ci_low, ci_high, decimals)) if part)


def p_value(value: Any) -> str:
    """Write a p or q value: three decimals, never zero.

    >>> p_value(0.00004), p_value(0.0421), p_value(None)
    ('< 0.001', '0.042', 'not estimable')
    """
    if is_missing(value) or math.isnan(float(value)):
        return NOT_ESTIMABLE
    return "< 0.001" if float(value) < 0.001 else f"{float(value):.3f}"


def count(value: Any) -> str:
    """Write a whole number with thousands separated."""
    return NOT_GIVEN if is_missing(value) else f"{int(value):,}"


def plural(n: int, noun: str) -> str:
    """Write a counted noun.

    >>> plural(1, "scan"), plural(1200, "scan")
    ('1 scan', '1,200 scans')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def duration(seconds: float) -> str:
    """Write a duration in the unit that a reader would choose.

    >>> duration(42.31), duration(750), duration(9000)
    ('42.3 s', '12.5 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def anything(value: Any) -> str:
    """Write a value of unknown kind: a cell of a table, a version, a list.

    >>> anything(None), anything(True), anything(0.123456), anything((1, 2)), anything({"train": 80})
    ('not given', 'yes', '0.1235', '1, 2', 'train: 80')
    """
    if is_missing(value):
        return NOT_GIVEN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value, 0) if value.is_integer() else _significant(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {anything(item)}" for key, item in value.items()) or NOT_GIVEN
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        return ", ".join(anything(item) for item in items) or NOT_GIVEN
    return str(value) or NOT_GIVEN


def _significant(value: float) -> str:
    """Four significant digits, as plain decimals where these are short."""
    if not math.isfinite(value):
        return number(value)
    size = abs(value)
    return f"{value:.3g}" if size < 1e-3 else number(value, max(0, 3 - math.floor(math.log10(size))))


def label(text: Any, characters: int = LABEL_CHARACTERS) -> str:
    """Make a name fit for a figure: printable, on one line and short enough not to push the axes aside."""
    printable = "".join(character if character.isprintable() else " " for character in str(text)).strip()
    return printable if len(printable) <= characters else f"{printable[: characters - 1]}…"


def term_label(term: str) -> str:
    """Write a model's term for a figure: a treatment contrast as `column: level`.

    >>> term_label("C(diagnosis)[T.MS]"), term_label("group[T.depr]"), term_label("edss"), term_label("a:b")
    ('diagnosis: MS', 'group: depr', 'edss', 'a × b')
    """
    plain = re.sub(r"C\(([^,()]+)[^()]*(?:\([^()]*\))?\)", r"\1", term)
    factors = [re.sub(r"^(.*?)\[(?:T\.)?(.+)\]$", r"\1: \2", factor) for factor in re.split(r":(?![^\[]*\])", plain)]
    return label(" × ".join(factors))
