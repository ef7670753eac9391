"""What the report says of image quality: each figure's range per cohort, and the scans that stand out."""

from __future__ import annotations

import pandas as pd

from ..cohort.outliers import FIGURES
from .notation import anything, number, plural
from .tables import Cell, Table

LOW, HIGH = 0.05, 0.95


def quality_table(quality: pd.DataFrame) -> Table | None:
    """Set each figure's median and middle nine tenths, a column per cohort.

    Args:
        quality: One row per scan: `cohort`, `scan_id`, a column per figure, and `absent`: why one is missing.

    Returns:
        The table; None where no scan was measured.
    """
    names = [name for name in FIGURES if name in quality]
    if quality.empty or not names:
        return None
    cohorts = list(dict.fromkeys(quality["cohort"]))
    rows = []
    for name in names:
        parts = [quality.loc[quality["cohort"] == cohort, name].astype(float) for cohort in cohorts]
        figure = FIGURES[name]
        rows.append((Cell(name), Cell(figure.label), Cell(_worse(figure.bad)), *map(_range_cell, parts)))
    columns = ("Figure", "What it is", "Worse when", *map(str, cohorts))
    caption = "Median of each figure, with the range of the middle nine tenths of the scans"
    return Table(caption, columns, tuple(rows), _absences(quality))


def _worse(bad: str) -> str:
    return {"low": "low", "high": "high", "either": "low or high"}[bad]


def _range_cell(values: pd.Series) -> Cell:
    known = values.dropna()
    if known.empty:
        return Cell("not measured", numeric=True)
    decimals = 3 if known.abs().median() < 2 else 1
    low, middle, high = (number(known.quantile(share), decimals) for share in (LOW, 0.5, HIGH))
    missing = f"; {len(values) - len(known):,} not measured" if len(known) < len(values) else ""
    return Cell(middle, f"{low} to {high}{missing}", numeric=True)


def _absences(quality: pd.DataFrame) -> tuple[str, ...]:
    """Say why figures are missing, once per cohort and reason."""
    if "absent" not in quality:
        return ()
    lacking = quality[quality["absent"].fillna("") != ""]
    counts = lacking.groupby(["cohort", "absent"], sort=True).size().reset_index(name="n")
    return tuple(
        f"{row['cohort']}: not measured in {plural(int(row['n']), 'scan')}: {row['absent']}"
        for row in counts.to_dict("records")
    )


def flag_counts(flags: pd.DataFrame) -> Table | None:
    """Count what was flagged by cohort, rule and figure."""
    if flags.empty:
        return None
    counts = flags.groupby(["cohort", "rule", "figure"], sort=True).size().reset_index(name="n")
    rows = tuple(
        (
            *(Cell(anything(row[key])) for key in ("cohort", "rule")),
            Cell(str(row["figure"]), FIGURES[str(row["figure"])].label),
            Cell(f"{int(row['n']):,}", numeric=True),
        )
        for row in counts.to_dict("records")
    )
    return Table("Findings by figure", ("Cohort", "Rule", "Figure", "Scans"), rows)
