"""Estimates with intervals, row by row: forest plots across models and across sites, and coefficients of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Polygon
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from .notation import decimals_for, interval, is_missing, label, number
from .print_figures import COLUMN_MM, MM_PER_INCH, POINTS, TALLEST_MM, limits
from .svg import INK, PALETTE, QUIET

ROW_MM = 7.4
MARGIN_MM = 3.5
PANEL_MM = 10.5
TITLE_MM = 4.0
GAP_MM = 2.5
WIDTH_POINTS = (COLUMN_MM - 2 * MARGIN_MM) / MM_PER_INCH * 72
# Bold letters are wider.
BOLD = 1.15
MOST_CHARACTERS = 80
RATIO_TICKS = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100])
# An interval this many times as wide as the median one is cut, so that the others can be read.
WIDEST = 8.0


@dataclass(frozen=True)
class IntervalRow:
    """One row: a name and its estimate; with a weight it is a site, with `pooled` the sites together.

    Attributes:
        name: On the left.
        estimate: Point; on a ratio's axis a ratio.
        low: Lower end of the interval.
        high: Upper end.
        found: Whether it is filled: q below the rate that is called.
        weight: Share of a pooled estimate, 0–1; NaN without.
        pooled: Whether a diamond shows it.
        prediction: Interval in which another site is expected.
    """

    name: str
    estimate: float
    low: float
    high: float
    found: bool = True
    weight: float = float("nan")
    pooled: bool = False
    prediction: tuple[float, float] | None = None


@dataclass(frozen=True)
class IntervalPanel:
    """Rows that share a scale.

    Attributes:
        title: Above the rows.
        axis: Below them.
        rows: From top to bottom.
        is_ratio: Whether the scale is a ratio's: logarithmic, without effect at 1.
    """

    title: str
    axis: str
    rows: Sequence[IntervalRow]
    is_ratio: bool = False


def interval_figure(panels: Sequence[IntervalPanel]) -> Figure:
    """Draw panels of estimates below each other; a row's name and figures stand above its interval.

    So that long names are read in a narrow column, they take the whole width.

    Args:
        panels: At least one, each with at least one row.
    """
    around = [PANEL_MM + (TITLE_MM if panel.title else 0) for panel in panels]
    n_rows = sum(len(panel.rows) for panel in panels)
    row_mm = min(ROW_MM, (TALLEST_MM - sum(around)) / n_rows)
    total = sum(around) + row_mm * n_rows
    figure = Figure(figsize=(COLUMN_MM / MM_PER_INCH, total / MM_PER_INCH))
    top = total
    for panel, extra in zip(panels, around, strict=True):
        rows_mm = row_mm * len(panel.rows)
        height = rows_mm + extra
        bottom = top - height + PANEL_MM - GAP_MM
        axes = figure.add_axes((MARGIN_MM / COLUMN_MM, bottom / total, 1 - 2 * MARGIN_MM / COLUMN_MM, rows_mm / total))
        _panel(axes, panel)
        top -= height
    return figure


def figures_of(row: IntervalRow) -> str:
    """Write an estimate and its interval.

    >>> figures_of(IntervalRow("x", 1.234, 0.5, 2.0))
    '1.23 [0.50, 2.00]'
    """
    decimals = decimals_for(row.estimate, row.low, row.high)
    return " ".join(filter(None, [number(row.estimate, decimals), interval(row.low, row.high, decimals)]))


def width_points(text: str) -> float:
    """Width of a text in print, in points."""
    return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=POINTS), ismath=False)[0])


def fitted(text: str, room_points: float) -> str:
    """Shorten a text until it fits, with an ellipsis where something is cut.

    >>> fitted("EDSS", 100.0), fitted("a name that goes on and on", 60.0)
    ('EDSS', 'a name that…')
    """
    whole = label(text, MOST_CHARACTERS)
    kept = whole
    while len(kept) > 1 and width_points(kept) > room_points:
        kept = f"{kept.removesuffix('…')[:-1].rstrip()}…"
    return kept


def _panel(axes: Axes, panel: IntervalPanel) -> None:
    if panel.is_ratio:
        axes.set_xscale("log")
    null = 1.0 if panel.is_ratio else 0.0
    low, high = _range(panel, null)
    axes.set_xlim(low, high)
    axes.set_ylim(len(panel.rows) - 0.12, -0.28)
    axes.axvline(null, color=INK, linewidth=0.8, linestyle="--", zorder=1)
    for place, row in enumerate(panel.rows):
        _row(axes, place + 0.42, row, (low, high))
        _words(axes, place, row)
    if panel.is_ratio:
        ticks = RATIO_TICKS[(low <= RATIO_TICKS) & (high >= RATIO_TICKS)]
        axes.xaxis.set_major_locator(FixedLocator([*ticks]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.locator_params(axis="x", nbins=6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="x", length=2.5, pad=1.5)
    axes.set_xlabel(fitted(panel.axis, WIDTH_POINTS), labelpad=1.5)
    if panel.title:
        axes.set_title(fitted(panel.title, 0.9 * WIDTH_POINTS), pad=2.5, fontweight="bold")


def _range(panel: IntervalPanel, null: float) -> tuple[float, float]:
    to = np.log if panel.is_ratio else np.asarray
    points = to(np.array([row.estimate for row in panel.rows], dtype=float))
    ends = np.array([(row.low, row.high) for row in panel.rows], dtype=float)
    ends = to(np.where(ends > 0, ends, np.nan)) if panel.is_ratio else ends
    half = np.abs(ends - points[:, None])
    typical = float(np.nanmedian(half)) if np.isfinite(half).any() else 1.0
    reach = np.clip(ends, (points - WIDEST * typical)[:, None], (points + WIDEST * typical)[:, None])
    predicted = [end for row in panel.rows if row.prediction for end in row.prediction]
    others = to(np.array([end for end in predicted if not panel.is_ratio or end > 0], dtype=float))
    low, high = limits(np.concatenate([points, reach.ravel(), others, [to(np.array(null))]]), 0.04)
    return (float(np.exp(low)), float(np.exp(high))) if panel.is_ratio else (low, high)


def _row(axes: Axes, height: float, row: IntervalRow, ends: tuple[float, float]) -> None:
    colour = PALETTE[0] if row.found else QUIET
    if row.prediction:
        axes.plot(row.prediction, [height, height], "-", color=PALETTE[1], linewidth=1.1, zorder=2)
    if is_missing(row.low) or is_missing(row.high):
        axes.plot([row.estimate], [height], "o", color=colour, markersize=4)
        return
    if row.pooled:
        corners = [(row.low, height), (row.estimate, height - 0.17), (row.high, height), (row.estimate, height + 0.17)]
        axes.add_patch(Polygon(corners, closed=True, facecolor=PALETTE[0], edgecolor=INK, linewidth=0.5, zorder=3))
        return
    axes.plot([max(row.low, ends[0]), min(row.high, ends[1])], [height, height], "-", color=colour, linewidth=1.2)
    for cut, end, mark in ((row.low < ends[0], ends[0], "<"), (row.high > ends[1], ends[1], ">")):
        if cut:
            axes.plot([end], [height], mark, color=colour, markersize=4, clip_on=False)
    size = 4.2 if is_missing(row.weight) else 3.0 + 5.0 * float(np.sqrt(row.weight))
    face = colour if row.found else "white"
    marker = "o" if is_missing(row.weight) else "s"
    axes.plot([row.estimate], [height], marker, color=face, markersize=size, markeredgecolor=colour, zorder=3)


def _words(axes: Axes, place: int, row: IntervalRow) -> None:
    figures = figures_of(row)
    share = "" if is_missing(row.weight) else f" ({row.weight:.0%})"
    widening = BOLD if row.pooled else 1.0
    room = WIDTH_POINTS / widening - width_points(f"{share}  {figures}")
    options: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center"}
    # White behind the words keeps the lines of the grid out of them.
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    weight = "bold" if row.pooled else "normal"
    axes.text(0, place, fitted(row.name, room) + share, ha="left", fontweight=weight, bbox=behind, **options)
    axes.text(1, place, figures, ha="right", fontweight=weight, bbox=behind, **options)
