"""How often the intervals of predicted age hold ages that the model has not seen."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .notation import count, humanise, interval, is_missing, number
from .tables import Cell, Table
from .units import Unit, everything_in_unit


def coverage_table(coverage: pd.DataFrame, cohort: str, unit: Unit) -> Table | None:
    """Set one cohort's coverage, raw and bias-corrected, overall and by group.

    Args:
        coverage: The report's table of coverage.
        cohort: The cohort.
        unit: To show half-widths in.

    Returns:
        The table, or None where there is no interval; a group with one level, and any group of intervals without end,
        would repeat the whole cohort.
    """
    rows = everything_in_unit(coverage[coverage["cohort"] == cohort], unit)
    if rows.empty:
        return None
    body, notes = [], []
    for (correction, group), part in rows.groupby(["correction", "group"], sort=False):
        whole = group == "overall"
        endless = bool(np.isinf(part[f"half_width_{unit}"].astype(float)).all())
        if not whole and (len(part) == 1 or endless):
            continue
        for row in part.to_dict("records"):
            name = "whole cohort" if whole else f"{humanise(str(group)).lower()} {row['level']}"
            body.append(
                (
                    Cell(f"{correction}: {name}"),
                    Cell(count(row["n_subjects"]), numeric=True),
                    Cell(f"± {number(row[f'half_width_{unit}'])}", numeric=True),
                    Cell(f"{row['nominal']:.0%}", numeric=True),
                    Cell(
                        f"{row['coverage']:.0%}",
                        f"{count(row['n_covered'])} of {count(row['n_subjects'])}; "
                        + interval(100 * row["ci_low"], 100 * row["ci_high"], 0),
                        numeric=True,
                    ),
                )
            )
            if whole and not is_missing(row["note"]) and row["note"]:
                notes.append(f"{correction}: {row['note']}")
    columns = ("Intervals of", "Subjects", f"Half-width ({unit})", "Meant to hold", "Held, % [95% interval]")
    return Table(f"{cohort}: coverage of intervals of age", columns, tuple(body), tuple(notes))
