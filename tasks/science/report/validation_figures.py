"""Figures of validation beside the scatter of ages: agreement, calibration, sites, coverage, retest, robustness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from .contents import MODEL, RAW, overall
from .figures import MOST_VECTOR_POINTS, Drawing, draw_interval, new_figure
from .notation import estimate_with_interval, humanise, is_missing, label, metric_name, missing_cells, number, plural
from .svg import INK, MARKERS, PALETTE, QUIET, house_style, inline_svg
from .units import Unit, everything_in_unit, in_unit

LIMITS = ("lower limit", "bias", "upper limit")
MOST_LEVELS = 30


def agreement(
    points: pd.DataFrame, limits: pd.DataFrame, cohort: str, position: int, target: str, unit: Unit
) -> Drawing | None:
    """Draw Bland and Altman's plot: the difference of predicted and true age against their mean.

    Args:
        points: One row per scan, in years.
        limits: Bias and limits of agreement with their intervals, in years.
        cohort: The cohort to draw.
        position: Its place in the page, for the figure's name.
        target: What the model learns, in words.
        unit: To show ages in.

    Returns:
        The drawing, or None where nothing was measured.
    """
    rows = points[points["cohort"] == cohort] if len(points) else points
    if rows.empty:
        return None
    data = everything_in_unit(rows.reset_index(drop=True), unit)
    lengths = in_unit(limits[limits["cohort"] == cohort], ("estimate", "ci_low", "ci_high"), unit)
    own: dict[str, Mapping[Any, Any]] = {row["figure"]: row for row in lengths.to_dict("records")}
    slope = limits[(limits["cohort"] == cohort) & (limits["figure"] == "slope")].iloc[0]
    x, y, name = f"mean_{unit}", f"difference_{unit}", f"figure-agreement-{position}"
    with house_style():
        figure = new_figure(2.9)
        axes = figure.subplots()
        for which in LIMITS:
            row = own[which]
            if is_missing(row["estimate"]):
                continue
            if not is_missing(row["ci_low"]):
                axes.axhspan(row["ci_low"], row["ci_high"], color=PALETTE[5], alpha=0.25, linewidth=0)
            axes.axhline(row["estimate"], color=INK, linewidth=1.0, linestyle="-" if which == "bias" else "--")
            _name_line(axes, row["estimate"], f"{which} {number(row['estimate'], 1)}")
        _scatter(axes, data[x], data[y])
        axes.axhline(0, color=QUIET, linewidth=0.7, linestyle=":")
        axes.set(xlabel=f"mean of predicted and true {target} ({unit})", ylabel=f"predicted − true ({unit})")
        said = "; ".join(f"{which} {_in_words(own[which], unit)}" for which in LIMITS)
        svg = inline_svg(figure, name, f"Bland-Altman plot of {plural(len(data), 'scan')} of {cohort}: {said}.")
    caption = (
        "Raw predictions. Solid: mean difference; dashed: limits of agreement, within which 95% of differences lie "
        "where they are normal; bands: 95% intervals over subjects. The difference changes by "
        f"{_in_words(slope)} per {unit.removesuffix('s')} of the mean."
    )
    return Drawing(name, f"Agreement (Bland-Altman), {cohort}", caption, svg, data)


def calibration(
    bins: pd.DataFrame, metrics: pd.DataFrame, cohort: str, position: int, target: str, unit: Unit
) -> Drawing | None:
    """Draw the mean prediction of each bin of age against its mean age, and the calibration line.

    Args:
        bins: From `calibration_bins`, in years.
        metrics: The report's metrics, for the line.
        cohort: The cohort to draw.
        position: Its place in the page, for the figure's name.
        target: What the model learns, in words.
        unit: To show ages in.

    Returns:
        The drawing, or None without bins.
    """
    rows = bins[bins["cohort"] == cohort] if len(bins) else bins
    if rows.empty:
        return None
    data = in_unit(everything_in_unit(rows.reset_index(drop=True), unit), ("ci_low", "ci_high"), unit)
    x, y, name = data[f"age_mean_{unit}"], data[f"predicted_mean_{unit}"], f"figure-calibration-{position}"
    line = _line(everything_in_unit(metrics, unit), cohort)
    with house_style():
        figure = new_figure(3.3)
        axes = figure.subplots()
        edges = _edges(np.concatenate([x, y, data["ci_low"].dropna(), data["ci_high"].dropna()]).astype(float))
        axes.plot(edges, edges, color=INK, linewidth=0.9, linestyle="--", label=f"predicted = {target}")
        if line is not None:
            slope, intercept = line
            axes.plot(
                edges,
                [slope * edge + intercept for edge in edges],
                color=PALETTE[1],
                linewidth=1.3,
                label=f"calibration line, slope {number(slope)}",
            )
        for at, low, high in zip(x, data["ci_low"], data["ci_high"], strict=True):
            if not is_missing(low):
                axes.plot([at, at], [low, high], "-", color=PALETTE[0], linewidth=1.3)
        axes.plot(x, y, "o", color=PALETTE[0], markersize=5.5, markeredgecolor="white", label=f"bins of {target}")
        axes.set(xlim=edges, ylim=edges, xlabel=f"mean {target} of the bin ({unit})")
        axes.set_ylabel(f"mean predicted ({unit})")
        axes.legend(loc="upper left")
        said = "; ".join(f"at {number(a, 1)} predicted {number(b, 1)}" for a, b in zip(x, y, strict=True))
        svg = inline_svg(figure, name, f"Calibration of {cohort} in {plural(len(data), 'bin')}, {unit}: {said}.")
    caption = (
        f"Mean raw prediction with its 95% interval in bins of {target} of about equally many scans. Bins that leave "
        "the line show a bend that slope and intercept hide."
    )
    return Drawing(name, f"Calibration, {cohort}", caption, svg, data)


def error_by_level(metrics: pd.DataFrame, group: str, position: int, unit: Unit) -> Drawing | None:
    """Draw the model's raw MAE of every level of a group, a panel per cohort, with the whole cohort's as a line.

    Args:
        metrics: The report's metrics.
        group: `site`, `scanner`, …
        position: Its place in the page, for the figure's name.
        unit: To show errors in.

    Returns:
        The drawing, or None where no cohort has two levels.
    """
    rows = metrics[(metrics["predictor"] == MODEL) & (metrics["correction"] == RAW)]
    rows = rows[(rows["metric"].map(lambda name: metric_name(str(name))) == "mae") & ~missing_cells(rows["estimate"])]
    whole = overall(rows).set_index("cohort")["estimate"] if len(rows) else pd.Series(dtype=float)
    own = rows[rows["group"] == group]
    own = own[own["cohort"].map(own["cohort"].value_counts()).fillna(0) > 1] if len(own) else own
    if own.empty:
        return None
    columns = ["cohort", "level", "n_subjects", "n_scans", "estimate", "ci_low", "ci_high", "note"]
    data = own[columns].rename(columns={"estimate": "mae_years"}).assign(whole_cohort_years=own["cohort"].map(whole))
    data = in_unit(data.reset_index(drop=True), ("mae_years", "ci_low", "ci_high", "whole_cohort_years"), unit)
    panels = [(cohort, _shown(part)) for cohort, part in data.groupby("cohort", sort=False)]
    error, name = f"mae_{unit}", f"figure-levels-{position}"
    with house_style():
        heights = [0.5 + 0.21 * len(part) for _, part in panels]
        figure = new_figure(sum(heights) + 0.35)
        grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights})
        for axes, (cohort, part) in zip(grid[:, 0], panels, strict=True):
            for place, row in enumerate(part.to_dict("records")):
                draw_interval(axes, place, row[error], row["ci_low"], row["ci_high"], PALETTE[0], "o")
            axes.axvline(part[f"whole_cohort_{unit}"].iloc[0], color=INK, linewidth=0.9, linestyle="--")
            axes.set_yticks(range(len(part)), [f"{label(r.level)} (n = {r.n_subjects:,})" for r in part.itertuples()])
            axes.set(ylim=(len(part) - 0.4, -0.6), title=label(str(cohort), 60))
            axes.grid(visible=False, axis="y")
        grid[-1, 0].set_xlim(left=0)
        grid[-1, 0].set_xlabel(f"MAE, raw ({unit}); dashed: the whole cohort")
        said = "; ".join(
            f"{row['cohort']}, {row['level']}: "
            + estimate_with_interval(row[error], row["ci_low"], row["ci_high"], unit)
            for row in data.to_dict("records")
        )
        svg = inline_svg(figure, name, f"Dot plot of errors by {group}. {said}.")
    left = sum(len(part) for _, part in data.groupby("cohort")) - sum(len(part) for _, part in panels)
    caption = (
        "Raw mean absolute error with 95% intervals over subjects; a level of fewer than 3 subjects has none. Ages "
        f"differ between levels, and errors with them.{f' The {left} smallest are in the data below.' if left else ''}"
    )
    return Drawing(name, f"Error by {humanise(group).lower()}", caption, svg, data)


def _shown(part: pd.DataFrame) -> pd.DataFrame:
    return part if len(part) <= MOST_LEVELS else part.nlargest(MOST_LEVELS, "n_subjects").sort_index()


def coverage_by_level(coverage: pd.DataFrame) -> Drawing | None:
    """Draw how often raw intervals held the age, by cohort, site and age band, beside what they promise.

    Returns:
        The drawing, or None without intervals of finite width.
    """
    rows = coverage[coverage["correction"] == RAW] if len(coverage) else coverage
    rows = rows[np.isfinite(rows["half_width_years"].astype(float))] if len(rows) else rows
    if rows.empty:
        return None
    sizes = rows.groupby(["cohort", "group"])["level"].transform("size")
    columns = ["cohort", "group", "level", "n_subjects", "n_covered", "nominal", "coverage", "ci_low", "ci_high"]
    data = rows.loc[(rows["group"] == "overall") | (sizes > 1), columns].reset_index(drop=True)
    shown = pd.concat([_shown(part) for _, part in data.groupby("cohort", sort=False)])
    with house_style():
        figure = new_figure(0.8 + 0.21 * len(shown))
        axes = figure.subplots()
        for place, row in enumerate(shown.to_dict("records")):
            whole = row["group"] == "overall"
            look = (PALETTE[0], "o") if whole else (PALETTE[5], MARKERS[1])
            draw_interval(axes, place, row["coverage"], row["ci_low"], row["ci_high"], *look)
        axes.axvline(float(data["nominal"].iloc[0]), color=INK, linewidth=0.9, linestyle="--")
        axes.set_yticks(range(len(shown)), [_coverage_label(row) for row in shown.to_dict("records")])
        axes.set(ylim=(len(shown) - 0.4, -0.6), xlim=(0, 1.02), xlabel="intervals that held the true value")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(visible=False, axis="y")
        said = "; ".join(f"{_coverage_label(row)}: {row['coverage']:.0%}" for row in data.to_dict("records"))
        svg = inline_svg(figure, "figure-coverage", f"Dot plot of coverage. {said}.")
    caption = (
        "How often raw intervals of age held it in healthy people, one scan each, with exact 95% intervals. Left of "
        "the dashed line, which says how often they are meant to, the intervals are too narrow."
    )
    return Drawing("figure-coverage", "Coverage of intervals", caption, svg, data)


def _coverage_label(row: Mapping[Any, Any]) -> str:
    what = "all" if row["group"] == "overall" else f"{humanise(str(row['group'])).lower()} {row['level']}"
    return f"{label(row['cohort'], 18)}, {label(what, 24)} (n = {row['n_subjects']:,})"


def error_growth(growth: pd.DataFrame, unit: Unit) -> Drawing | None:
    """Draw how much the error grows by degradation and strength, a panel per cohort.

    Returns:
        The drawing, or None where nothing was scored.
    """
    rows = growth[~missing_cells(growth["growth_years"])] if len(growth) else growth
    if rows.empty:
        return None
    data = in_unit(everything_in_unit(rows.reset_index(drop=True), unit), ("ci_low", "ci_high"), unit)
    panels = list(data.groupby("cohort", sort=False))
    with house_style():
        heights = [0.5 + 0.21 * len(part) for _, part in panels]
        figure = new_figure(sum(heights) + 0.35)
        grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights})
        for axes, (cohort, part) in zip(grid[:, 0], panels, strict=True):
            colours = {kind: PALETTE[place % len(PALETTE)] for place, kind in enumerate(dict.fromkeys(data["kind"]))}
            for place, row in enumerate(part.to_dict("records")):
                look = (colours[row["kind"]], MARKERS[list(colours).index(row["kind"]) % len(MARKERS)])
                draw_interval(axes, place, row[f"growth_{unit}"], row["ci_low"], row["ci_high"], *look)
            axes.axvline(0, color=INK, linewidth=0.9, linestyle="--")
            names = [f"{degradation_label(r.kind, r.strength)} (n = {r.n_scored:,})" for r in part.itertuples()]
            axes.set_yticks(range(len(part)), names)
            axes.set(ylim=(len(part) - 0.4, -0.6), title=label(str(cohort), 60))
            axes.grid(visible=False, axis="y")
        grid[-1, 0].set_xlabel(f"MAE minus that of the same scans as they were ({unit})")
        said = "; ".join(
            f"{row['cohort']}, {degradation_label(row['kind'], row['strength'])}: "
            + estimate_with_interval(row[f"growth_{unit}"], row["ci_low"], row["ci_high"], unit)
            for row in data.to_dict("records")
        )
        svg = inline_svg(figure, "figure-robustness", f"Dot plot of growing errors. {said}.")
    caption = "Paired differences with 95% intervals over subjects; right of the dashed line the error is larger."
    return Drawing("figure-robustness", "Error on scans made worse", caption, svg, data)


def degradation_label(kind: Any, strength: Any) -> str:
    """Write a degradation for a reader.

    >>> degradation_label("thicker_slices", 5.0), degradation_label("noise", 0.1), degradation_label("bias_field", 0.4)
    ('slices of 5 mm', 'noise of 10%', 'bias field, SD of log 0.4')
    """
    words = {
        "thicker_slices": f"slices of {float(strength):g} mm",
        "noise": f"noise of {100 * float(strength):g}%",
        "bias_field": f"bias field, SD of log {float(strength):g}",
        "header_turn": f"header turned by {float(strength):g}°",
    }
    return words.get(str(kind), f"{humanise(str(kind)).lower()} {float(strength):g}")


def _in_words(row: Mapping[Any, Any] | pd.Series, unit: str = "") -> str:
    return estimate_with_interval(row["estimate"], row["ci_low"], row["ci_high"], unit)


def _line(metrics: pd.DataFrame, cohort: str) -> tuple[float, float] | None:
    rows = overall(metrics)
    rows = rows[(rows["cohort"] == cohort) & (rows["predictor"] == MODEL) & (rows["correction"] == RAW)]
    found = {metric_name(str(row["metric"])): row["estimate"] for row in rows.to_dict("records")}
    line = [found.get(name) for name in ("slope", "intercept")]
    return None if any(map(is_missing, line)) else (float(line[0]), float(line[1]))  # type: ignore[arg-type]


def _scatter(axes: Axes, x: pd.Series, y: pd.Series) -> None:
    axes.plot(
        x.astype(float),
        y.astype(float),
        "o",
        color=PALETTE[0],
        markersize=4.2,
        markeredgecolor="white",
        markeredgewidth=0.4,
        alpha=0.85,
        rasterized=len(x) > MOST_VECTOR_POINTS,
    )


def _name_line(axes: Axes, height: float, text: str) -> None:
    axes.annotate(
        text,
        (1.0, height),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
    )


def _edges(values: np.ndarray) -> tuple[float, float]:
    margin = 0.05 * max(float(np.ptp(values)), 1.0)
    return float(values.min()) - margin, float(values.max()) + margin
