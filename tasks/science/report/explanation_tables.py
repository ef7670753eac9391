"""What the report says of where the model reads age: the leading regions, and what a map can and cannot show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..imaging.regions import OUTSIDE
from .notation import anything, is_missing, number, plural
from .tables import Cell, Table

LEADING_REGIONS = 12
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# A network that pools much sees the whole brain through few cells.
FEWEST_CELLS_ACROSS = 4
BRAIN_LENGTH_MM = 180.0
METHOD_NAMES = {"smoothgrad": "SmoothGrad", "grad_cam": "Grad-CAM", "grad_ram": "Grad-RAM"}
METHOD_MEANINGS = {
    "smoothgrad": "How strongly the predicted age moves with each voxel's intensity, whatever the direction, averaged "
    "over noisy copies of each scan (Smilkov et al. 2017).",
    "grad_cam": "Where the network's last feature maps raise the predicted age (Selvaraju et al. 2017); what lowers it "
    "is not shown.",
    "grad_ram": "Where the network's last feature maps raise (orange) and lower (blue) the predicted age "
    "(regression activation maps, after Wang & Yang 2017).",
}


def region_tables(regions: pd.DataFrame, method: str) -> list[Table]:
    """Set the leading regions of each set.

    Args:
        regions: As `MapAverage.regions` gives them.
        method: Named in the captions.

    Returns:
        A table per set; what is not shown is in the CSV.
    """
    usual = _mean_in_brain(regions)
    tables = []
    for name, rows in regions.groupby("set", sort=False):
        shown = rows.head(LEADING_REGIONS)
        caption = f"{METHOD_NAMES[method]} by region ({name})"
        if len(shown) < len(rows):
            caption += f": the first {len(shown)} of {len(rows)} by mean magnitude"
        columns = ("Region", "Voxels", "Times the brain's mean", "Mean magnitude", "Mean, signed", "Share of all")
        tables.append(Table(caption, columns, tuple(_region_row(row, usual) for row in shown.to_dict("records"))))
    return tables


def _mean_in_brain(regions: pd.DataFrame) -> float:
    """Mean magnitude over the template's brain, which the tissues fill."""
    tissue = regions[(regions["set"] == "tissue") & (regions["region"] != OUTSIDE) & (regions["n_voxels"] > 0)]
    voxels = tissue["n_voxels"].astype(float)
    return float((tissue["mean_magnitude"].astype(float) * voxels).sum() / voxels.sum()) if len(tissue) else math.nan


def _region_row(row: Mapping[Any, Any], usual: float) -> tuple[Cell, ...]:
    if not int(row["n_voxels"]):
        return (Cell(str(row["region"])), Cell("0", "none on this grid", numeric=True), *[Cell("–", numeric=True)] * 4)
    spread = "" if is_missing(row["sd_over_subjects"]) else f"SD over subjects {_two_digits(row['sd_over_subjects'])}"
    return (
        Cell(str(row["region"])),
        Cell(f"{int(row['n_voxels']):,}", numeric=True),
        Cell(number(float(row["mean_magnitude"]) / usual) if usual > 0 else "–", numeric=True),
        Cell(_two_digits(row["mean_magnitude"]), spread, numeric=True),
        Cell(_two_digits(row["mean_signed"]), numeric=True),
        Cell(f"{_two_digits(100 * float(row['share']))}%", numeric=True),
    )


def _two_digits(value: Any) -> str:
    """Write a number of any size.

    >>> _two_digits(0.0123), _two_digits(-3.3e-05), _two_digits(0)
    ('0.012', '−3.3 × 10⁻⁵', '0')
    """
    digits, _, power = f"{float(value):.2g}".partition("e")
    raised = f" × 10{str(int(power)).translate(SUPERSCRIPTS)}" if power else ""
    return digits.replace("-", "−") + raised


def explanation_caption(facts: Mapping[str, Any]) -> str:
    """Say of whom a map is, how repeatable and how fine.

    Args:
        facts: `method`, `cohort`, `n_subjects`, `age_range`, `age_unit`, `members`, `template`, `cell_mm`, `unit` and
            `repeatability`, which is missing where it is not defined.

    Returns:
        Plain sentences.
    """
    low, high = facts["age_range"]
    r = facts["repeatability"]
    halves = "is not defined" if is_missing(r) or math.isnan(float(r)) else f"is r = {number(r)}"
    members = int(facts["members"])
    model = "the model" if members == 1 else f"the {members} members of the ensemble"
    return (
        f"{METHOD_MEANINGS[facts['method']]} Mean over {plural(int(facts['n_subjects']), 'subject')} of "
        f"{facts['cohort']}, {anything(round(low))} to {anything(round(high))} {facts['age_unit']}, and {model}, in "
        f"{facts['unit']}, on {facts['template']}. The correlation of two halves of the subjects within the brain "
        f"{halves}.{_coarseness(facts['cell_mm'])}"
    )


def _coarseness(cell_mm: list[float]) -> str:
    if max(cell_mm) * FEWEST_CELLS_ACROSS <= BRAIN_LENGTH_MM:
        return ""
    size = " × ".join(f"{length:.0f}" for length in cell_mm)
    return (
        f" The map is made of cells of {size} mm: it tells lobes apart at best, no small region, and the correlation "
        "rests on so few of them that it says little."
    )
