"""The report's tables, as rows of text that the page sets; and any table as a link that saves it as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from .contents import MODEL, RAW, TISSUE_VOLUMES, overall, predictors
from .disease_figures import first_sessions
from .notation import (
    METRIC_LABELS,
    NOT_ESTIMABLE,
    NOT_GIVEN,
    anything,
    count,
    duration,
    humanise,
    interval,
    is_missing,
    metric_name,
    number,
    plural,
)
from .units import Unit, everything_in_unit, metric_label_in, metrics_in_unit

SUBGROUP_METRICS = ("mae", "gain_over_volumes", "rmse", "bias", "r2", "pearson")
# Within a band of ages there is little age left to explain, so that R² and r would mislead.
AGE_BAND_METRICS = ("mae", "gain_over_volumes", "rmse", "bias")
FACT_LABELS = {
    "n_subjects": "Subjects",
    "n_scans": "Scans",
    "best_epoch": "Best epoch (from 0)",
    "val_mae_years": "Validation MAE (years)",
    "age_range_years": "Training ages (years)",
    "val_mae_months": "Validation MAE (months)",
    "age_range_months": "Training ages (months)",
}


@dataclass(frozen=True)
class Cell:
    """One cell: its text, a quieter second line, and whether it is a number (set flush right) or missing."""

    text: str
    below: str = ""
    numeric: bool = False

    @property
    def is_absent(self) -> bool:
        """Whether the cell says in words that there is no number."""
        return self.text in {NOT_ESTIMABLE, NOT_GIVEN}


@dataclass(frozen=True)
class Table:
    """A table with a caption; the first cell of a row is its header."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def plain_table(frame: pd.DataFrame, caption: str) -> Table:
    """Set a table as it stands, every value written for a reader."""
    numeric = [pd.api.types.is_numeric_dtype(frame[column]) for column in frame.columns]
    rows = tuple(
        tuple(Cell(anything(_native(value)), numeric=flag) for value, flag in zip(row, numeric, strict=True))
        for row in frame.itertuples(index=False, name=None)
    )
    return Table(caption, tuple(humanise(str(column)) for column in frame.columns), rows)


def _native(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def flow_table(flow: pd.DataFrame) -> Table:
    """Count scans by cohort and fate."""
    keys = ("indexed", "unused", "prepared", "excluded", "missing")
    rows = tuple(
        (Cell(str(row["cohort"])), Cell(str(row["role"])), *(Cell(count(row[key]), numeric=True) for key in keys))
        for row in flow.to_dict("records")
    )
    return Table("Scans by cohort", ("Cohort", "Role", *(key.capitalize() for key in keys)), rows)


def exclusion_counts(exclusions: pd.DataFrame) -> Table:
    """Count exclusions by cohort, stage and reason, the most frequent first."""
    # Each scan's own value belongs to the list; the count is by figure.
    by_figure = exclusions["reason"].where(
        exclusions["stage"] != "quality", exclusions["reason"].astype(str).str.partition(" is ")[0]
    )
    exclusions = exclusions.assign(reason=by_figure)
    counts = exclusions.groupby(["cohort", "stage", "reason"], sort=True, dropna=False).size().reset_index(name="n")
    counts = counts.sort_values(["cohort", "n"], ascending=[True, False], kind="stable")
    rows = tuple(
        (*(Cell(anything(row[key])) for key in ("cohort", "stage", "reason")), Cell(count(row["n"]), numeric=True))
        for row in counts.to_dict("records")
    )
    return Table("Exclusions by reason", ("Cohort", "Stage", "Reason", "Scans"), rows)


def metrics_table(metrics: pd.DataFrame, cohort: str, correction: str, unit: Unit = "years") -> Table | None:
    """Set one cohort's metrics, a row per predictor and a column per metric, the model first.

    Args:
        metrics: The report's metrics.
        cohort: The cohort.
        correction: `raw` or `bias-corrected`.
        unit: To show errors in.

    Returns:
        The table, or None where there is no such row.
    """
    rows = overall(metrics)
    rows = rows[(rows["cohort"] == cohort) & (rows["correction"] == correction)]
    if rows.empty:
        return None
    caption = f"{cohort}, whole cohort, {correction}: estimate and 95% interval"
    return _pivot(rows, "predictor", predictors(rows), _metrics_in_order(rows), caption, "Predictor", unit)


def subgroup_tables(metrics: pd.DataFrame, cohort: str, unit: Unit = "years") -> list[Table]:
    """Set the model's raw metrics of one cohort by site, sex, age band or whatever groups were computed.

    Beside the error stands its difference from that of tissue volumes, level by level.
    """
    rows = metrics[(metrics["cohort"] == cohort) & (metrics["correction"] == RAW)]
    gain = rows[(rows["predictor"] == TISSUE_VOLUMES) & (rows["metric"] == "mae_difference")]
    model = rows[rows["predictor"] == MODEL]
    rows = pd.concat([model, gain.assign(metric="gain_over_volumes")]) if len(gain) else model
    rows = rows.drop(index=overall(rows).index) if len(rows) else rows
    tables = []
    for group in sorted(rows["group"].unique(), key=lambda name: (str(name) != "site", str(name))):
        part = rows[rows["group"] == group]
        wanted = AGE_BAND_METRICS if group == "age_band" else SUBGROUP_METRICS
        chosen = [name for name in _metrics_in_order(part) if metric_name(name) in wanted]
        caption = f"{cohort} by {humanise(str(group)).lower()}, model, raw: estimate and 95% interval"
        levels = list(dict.fromkeys(part["level"]))
        shown, corner = chosen or _metrics_in_order(part), humanise(str(group))
        tables.append(_pivot(part, "level", levels, shown, caption, corner, unit))
    return tables


def _metrics_in_order(rows: pd.DataFrame) -> list[str]:
    known = list(METRIC_LABELS)
    names = dict.fromkeys(str(metric) for metric in rows["metric"])
    return sorted(names, key=lambda metric: known.index(metric_name(metric)) if metric_name(metric) in known else 99)


def _pivot(
    rows: pd.DataFrame, key: str, levels: Sequence[Any], metrics: Sequence[str], caption: str, corner: str, unit: Unit
) -> Table:
    rows = metrics_in_unit(rows, unit)
    cells: dict[tuple[Any, str], Mapping[Any, Any]] = {
        (row[key], str(row["metric"])): row for row in rows.to_dict("records")
    }
    body = []
    for level in levels:
        found = [cells.get((level, metric)) for metric in metrics]
        some: Mapping[Any, Any] = next((row for row in found if row is not None), {})
        size = Cell(count(some.get("n_subjects")), _scans(some.get("n_scans")), numeric=True)
        body.append((Cell(anything(level)), size, *(_estimate_cell(row) for row in found)))
    columns = (corner, "Subjects", *(metric_label_in(metric, unit) for metric in metrics))
    return Table(caption, columns, tuple(body), _notes(rows[rows["metric"].isin(list(metrics))], key, unit))


def _scans(n: Any) -> str:
    return "" if is_missing(n) else plural(int(n), "scan")


def _notes(rows: pd.DataFrame, key: str, unit: Unit) -> tuple[str, ...]:
    """Say each remark once, with the rows and metrics of the table that it concerns."""
    metrics: dict[tuple[str, str], list[str]] = {}
    for row in rows.to_dict("records"):
        note = "" if is_missing(row["note"]) else str(row["note"]).strip()
        if note:
            metrics.setdefault((anything(row[key]), note), []).append(metric_label_in(row["metric"], unit))
    levels: dict[tuple[str, str], list[str]] = {}
    for (level, note), names in metrics.items():
        levels.setdefault((", ".join(names), note), []).append(level)
    return tuple(f"{', '.join(those)}: {note} ({names})" for (names, note), those in levels.items())


def _estimate_cell(row: Mapping[Any, Any] | None) -> Cell:
    if row is None:
        return Cell("–", numeric=True)
    return Cell(number(row["estimate"]), interval(row["ci_low"], row["ci_high"]), numeric=True)


def group_table(predictions: pd.DataFrame, group_column: str, unit: Unit = "years") -> Table | None:
    """Describe brain-PAD by group over each participant's first usable session, raw first and corrected apart."""
    rows = everything_in_unit(first_sessions(predictions, group_column), unit)
    if rows.empty:
        return None
    body = []
    for group in dict.fromkeys(rows[group_column]):
        part = rows[rows[group_column] == group]
        ages, pads = part[f"age_{unit}"].astype(float), part[f"brain_pad_{unit}"].astype(float)
        middle_half = f"IQR {number(pads.quantile(0.25))} to {number(pads.quantile(0.75))}"
        corrected = part[f"corrected_brain_pad_{unit}"].astype(float).dropna()
        body.append(
            (
                Cell(str(group)),
                Cell(count(len(part)), numeric=True),
                Cell(number(ages.mean(), 1), f"SD {number(ages.std(), 1)}", numeric=True),
                Cell(number(pads.mean()), f"SD {number(pads.std())}", numeric=True),
                Cell(number(pads.median()), middle_half, numeric=True),
                Cell(number(corrected.mean()), f"SD {number(corrected.std())}", numeric=True),
            )
        )
    columns = ("Group", "Subjects", f"Age ({unit})", "Brain-PAD, raw: mean", "Brain-PAD, raw: median")
    return Table(f"Brain-PAD by {group_column}, {unit}", (*columns, "Brain-PAD, bias-corrected: mean"), tuple(body))


def facts_table(facts: Mapping[str, Any], caption: str) -> Table | None:
    """Set keys and values of unknown kinds; a mapping among the values gives a row per key of its own.

    Args:
        facts: Keys in snake case with their units.
        caption: The table's caption.

    Returns:
        The table, or None without facts.
    """
    rows = tuple((Cell(name), Cell(text)) for name, text in _flattened(facts))
    return Table(caption, ("What", "Value"), rows) if rows else None


def _flattened(facts: Mapping[str, Any], parent: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in facts.items():
        own = FACT_LABELS.get(str(key), humanise(str(key)).removesuffix(" (s)"))
        name = f"{parent}: {key}" if parent else own
        if isinstance(value, Mapping) and value:
            rows += _flattened(value, name)
        else:
            rows.append((name, _fact(str(key), value)))
    return rows


def _fact(key: str, value: Any) -> str:
    if is_missing(value) or not isinstance(value, (int, float)) or isinstance(value, bool):
        return " to ".join(map(anything, value)) if key.endswith(("range_years", "range_months")) else anything(value)
    if key.endswith("_s") and not key.endswith("_per_s"):
        return duration(float(value))
    return number(value) if key.endswith(("_years", "_months")) else anything(value)
