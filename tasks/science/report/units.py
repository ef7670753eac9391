"""The unit in which the report shows ages: years inside; at the page's edge those of an infant study become months."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from .notation import estimate_with_interval, metric_label, metric_name

Unit = Literal["years", "months"]
PER_YEAR: dict[Unit, float] = {"years": 1.0, "months": 12.0}
# Metrics that are lengths of time; the others have no unit.
METRICS_IN_YEARS = frozenset({"mae", "rmse", "bias", "intercept", "mae_difference", "gain_over_volumes"})


def in_unit(table: pd.DataFrame, columns: Sequence[str], unit: Unit) -> pd.DataFrame:
    """Convert columns of years, and name those that say their unit anew.

    Args:
        table: Any table.
        columns: Columns of years; those that are absent are passed over.
        unit: The unit to show.

    Returns:
        A table in the same order of columns; `x_years` becomes `x_months`.

    >>> table = pd.DataFrame({"age_years": [0.5], "mae": [0.25], "n": [3]})
    >>> in_unit(table, ["age_years", "mae"], "months").to_dict("list")
    {'age_months': [6.0], 'mae': [3.0], 'n': [3]}
    """
    present = [name for name in columns if name in table]
    if unit == "years" or not present:
        return table
    converted = table.assign(**{name: table[name].astype(float) * PER_YEAR[unit] for name in present})
    return converted.rename(columns={name: _renamed(name, unit) for name in present})


def everything_in_unit(table: pd.DataFrame, unit: Unit) -> pd.DataFrame:
    """Convert every column that says it is in years, by its name or as the estimate of such a metric."""
    named = [str(name) for name in table if str(name).endswith("_years") and pd.api.types.is_numeric_dtype(table[name])]
    return in_unit(metrics_in_unit(table, unit) if "metric" in table else table, named, unit)


def facts_in_unit(facts: Mapping[str, Any], unit: Unit) -> dict[str, Any]:
    """Convert facts whose name says that they are in years, those within facts too.

    >>> facts_in_unit({"age_range_years": [0, 2], "age_bias": {"beta_years": 0.5, "alpha": 0.9}}, "months")
    {'age_range_months': [0.0, 24.0], 'age_bias': {'beta_months': 6.0, 'alpha': 0.9}}
    """
    if unit == "years":
        return dict(facts)
    return {
        _renamed(name, unit): facts_in_unit(value, unit)
        if isinstance(value, Mapping)
        else _scaled(value, unit)
        if name.endswith("_years")
        else value
        for name, value in facts.items()
    }


def _scaled(value: Any, unit: Unit) -> Any:
    if isinstance(value, (list, tuple)):
        return [_scaled(item, unit) for item in value]
    return float(value) * PER_YEAR[unit] if isinstance(value, (int, float)) else value


def metrics_in_unit(table: pd.DataFrame, unit: Unit) -> pd.DataFrame:
    """Convert a long table of metrics: `estimate`, `ci_low` and `ci_high` of those that are lengths of time."""
    if unit == "years" or table.empty:
        return table
    factor = table["metric"].map(lambda name: PER_YEAR[unit] if metric_name(str(name)) in METRICS_IN_YEARS else 1.0)
    return table.assign(**{name: table[name].astype(float) * factor for name in ("estimate", "ci_low", "ci_high")})


def error_in_words(estimate_years: float, ci_low_years: float, ci_high_years: float, unit: Unit) -> str:
    """Write an error and its interval in one line of prose.

    >>> error_in_words(0.5, 0.25, 1.0, "months"), error_in_words(0.5, 0.25, 1.0, "years")
    ('6.00 months [3.00, 12.00]', '0.50 y [0.25, 1.00]')
    """
    estimate, low, high = (value * PER_YEAR[unit] for value in (estimate_years, ci_low_years, ci_high_years))
    return estimate_with_interval(estimate, low, high, "y" if unit == "years" else unit)


def worded(text: str, unit: Unit) -> str:
    """Name the unit in a label that was written for years.

    >>> worded("MAE (years)", "months"), worded("R²", "months"), worded("MAE (years)", "years")
    ('MAE (months)', 'R²', 'MAE (years)')
    """
    return text if unit == "years" else text.replace("(years)", f"({unit})").replace(", years", f", {unit}")


def metric_label_in(metric: Any, unit: Unit) -> str:
    """Write a metric for a reader, in the unit shown.

    >>> metric_label_in("rmse", "months"), metric_label_in("r2", "months")
    ('RMSE (months)', 'R²')
    """
    return worded(metric_label(str(metric)), unit)


def _renamed(name: str, unit: Unit) -> str:
    return f"{name.removesuffix('_years')}_{unit}" if name.endswith("_years") else name
