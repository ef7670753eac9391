"""The unit in which the report shows ages: years inside; at the page's edge those of an infant study become months."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd

from .notation import metric_label, metric_name

Unit = Literal["years", "months"]
PER_YEAR: dict[Unit, float] = {"years": 1.0, "months": 12.0}
# Metrics that are lengths of time; the others have no unit.
METRICS_IN_YEARS = frozenset({"mae", "rmse", "bias", "intercept", "mae_difference"})


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


def metrics_in_unit(table: pd.DataFrame, unit: Unit) -> pd.DataFrame:
    """Convert a long table of metrics: `estimate`, `ci_low` and `ci_high` of those that are lengths of time."""
    if unit == "years" or table.empty:
        return table
    factor = table["metric"].map(lambda name: PER_YEAR[unit] if metric_name(str(name)) in METRICS_IN_YEARS else 1.0)
    return table.assign(**{name: table[name].astype(float) * factor for name in ("estimate", "ci_low", "ci_high")})


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
