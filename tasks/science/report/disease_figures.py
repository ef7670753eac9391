"""Figures of what brain-PAD has to do with disease: by group, ."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from .contents import usable
from .figures import MOST_VECTOR_POINTS, Drawing, new_figure
from .notation import anything, label, missing_cells, number
from .svg import INK, MARKERS, PALETTE, house_style, inline_svg
from .units import Unit, everything_in_unit

FEWEST_POINTS_OF_A_VIOLIN = 8
JITTER_SEED = 20210601
CONTROL_NAMES = ("control", "controls", "hc", "cn", "healthy", "hv", "healthy control", "healthy controls", "nc")
CONTENT = "sha256"
SESSION_ORDER = ("cohort", "participant_id", "years_since_baseline", "session_id", "scan_id")


def first_sessions(predictions: pd.DataFrame, group_column: str) -> pd.DataFrame:
    """Take each participant's first usable scan that has a group, so that no subject counts twice.

    Args:
        predictions: All predictions; sessions go by `years_since_baseline` where there is such a column, else by name.
            With `sha256`, a scan that stands in two cohorts counts once.
        group_column: The column of groups.

    Returns:
        One row per participant, groups as text, controls first where a name says so.
    """
    if predictions.empty or group_column not in predictions.columns:
        return predictions.iloc[:0].assign(**{group_column: pd.Series(dtype=str)})
    rows = usable(predictions)
    rows = rows[~missing_cells(rows[group_column])]
    order = [column for column in SESSION_ORDER if column in rows.columns]
    rows = rows.sort_values(order, kind="stable", na_position="first")
    if CONTENT in rows:
        # Controls of a clinic that are a cohort of their own, too, are no more people for it.
        rows = rows[~rows.duplicated(CONTENT) | missing_cells(rows[CONTENT])]
    rows = rows.drop_duplicates(["cohort", "participant_id"])
    rows = rows.assign(**{group_column: rows[group_column].map(anything)})
    controls_first = rows[group_column].map(lambda name: (name.lower() not in CONTROL_NAMES, name))
    return rows.loc[controls_first.sort_values(kind="stable").index].reset_index(drop=True)


def brain_pad_by_group(predictions: pd.DataFrame, group_column: str, unit: Unit = "years") -> Drawing | None:
    """Draw raw brain-PAD by group: every subject, the box, and the density where there are enough.

    Args:
        predictions: All predictions; brain-PAD in years.
        group_column: The column of groups.
        unit: To show brain-PAD in.

    Returns:
        The drawing, or None where no usable scan has a group.
    """
    rows = first_sessions(predictions, group_column)
    if rows.empty:
        return None
    columns = ("cohort", "participant_id", "session_id", "scan_id", group_column, "age_years", "brain_pad_years")
    data = everything_in_unit(rows[list(columns)].reset_index(drop=True), unit)
    pads = {
        str(group): part[f"brain_pad_{unit}"].to_numpy(float) for group, part in data.groupby(group_column, sort=False)
    }
    with house_style():
        figure = new_figure(3.4)
        _groups(figure.subplots(), pads, group_column, unit)
        medians = "; ".join(
            f"{name}: n {len(pad)}, median {number(np.median(pad))} {unit}" for name, pad in pads.items()
        )
        svg = inline_svg(figure, "figure-groups", f"Raw brain-PAD by {group_column}. {medians}.")
    caption = (
        f"Raw brain-PAD by {group_column}. Each point is a participant's first usable session; boxes show median and "
        "quartiles, whiskers reach at most 1.5 box heights, and densities are drawn from "
        f"{FEWEST_POINTS_OF_A_VIOLIN} participants on. Groups may differ in age; the models below adjust for it, this "
        "figure does not."
    )
    return Drawing("figure-groups", "Brain-PAD by group", caption, svg, data)


def _groups(axes: Axes, pads: dict[str, np.ndarray], group_column: str, unit: Unit) -> None:
    generator = np.random.default_rng(JITTER_SEED)
    for place, values in enumerate(pads.values()):
        colour, marker = PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)]
        if len(values) >= FEWEST_POINTS_OF_A_VIOLIN and np.ptp(values) > 0:
            _density(axes, place, values, colour)
        _points(axes, place + generator.uniform(-0.33, -0.11, len(values)), values, colour, marker)
        _box(axes, place, values)
    axes.axhline(0, color=INK, linewidth=0.9, linestyle="--")
    names = [f"{label(name, 18)}\nn = {len(values):,}" for name, values in pads.items()]
    axes.set_xticks(range(len(pads)), names, rotation=0 if len(pads) <= 8 else 60)
    axes.set(xlim=(-0.6, len(pads) - 0.4), ylabel=f"brain-PAD, raw ({unit})", xlabel=label(group_column))
    axes.grid(visible=False, axis="x")


def _density(axes: Axes, place: int, values: np.ndarray, colour: str) -> None:
    halves = axes.violinplot(values, [place], widths=0.8, showextrema=False, side="high")["bodies"]
    for half in halves:  # type: ignore[attr-defined]
        half.set(facecolor=colour, alpha=0.22, linewidth=0)


def _points(axes: Axes, places: np.ndarray, values: np.ndarray, colour: str, marker: str) -> None:
    axes.plot(
        places,
        values,
        marker,
        color=colour,
        markersize=3.4,
        markeredgecolor="white",
        markeredgewidth=0.3,
        alpha=0.85,
        rasterized=len(values) > MOST_VECTOR_POINTS,
    )


def _box(axes: Axes, place: int, values: np.ndarray) -> None:
    axes.boxplot(
        values,
        positions=[place],
        widths=0.13,
        showfliers=False,
        manage_ticks=False,
        patch_artist=True,
        boxprops={"facecolor": "white", "edgecolor": INK, "linewidth": 0.9},
        medianprops={"color": INK, "linewidth": 1.8},
        whiskerprops={"color": INK, "linewidth": 0.9},
        capprops={"color": INK, "linewidth": 0.9},
    )
