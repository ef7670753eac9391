"""Figures of the models that a study compares: error per model, folds, training size, associations."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from ..statistics.arms import ArmComparison
from .contents import RAW
from .figures import Drawing, draw_interval, new_figure
from .notation import estimate_with_interval, is_missing, label, metric_name, missing_cells, number, term_label
from .svg import INK, MARKERS, PALETTE, QUIET, house_style, inline_svg
from .units import Unit, in_unit
from .verdict import FALSE_DISCOVERY_RATE

LINES = ("-", "--", "-.", ":")


def error_by_model(comparison: ArmComparison, unit: Unit) -> Drawing | None:
    """Draw each model's raw MAE with its interval, one panel per cohort; the primary model stands out.

    Returns:
        The drawing, or None where no error was estimated.
    """
    rows = comparison.metrics
    rows = rows[(rows["metric"].map(lambda name: metric_name(str(name))) == "mae") & (rows["correction"] == RAW)]
    rows = rows[~missing_cells(rows["estimate"])].rename(columns={"estimate": "mae_years"})
    if rows.empty:
        return None
    columns = ["cohort", "role", "model", "n_subjects", "n_scans", "mae_years", "ci_low", "ci_high"]
    data = in_unit(rows[columns].reset_index(drop=True), ("mae_years", "ci_low", "ci_high"), unit)
    panels = list(data.groupby("cohort", sort=False))
    with house_style():
        heights = [0.5 + 0.23 * len(part) for _, part in panels]
        figure = new_figure(sum(heights) + 0.35)
        grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights})
        for axes, (cohort, part) in zip(grid[:, 0], panels, strict=True):
            for place, row in enumerate(part.to_dict("records")):
                look = (PALETTE[0], "o") if row["model"] == comparison.primary else (PALETTE[1], "s")
                draw_interval(axes, place, row[f"mae_{unit}"], row["ci_low"], row["ci_high"], *look)
            axes.set_yticks(range(len(part)), [f"{label(r.model)} (n = {r.n_subjects:,})" for r in part.itertuples()])
            axes.set(ylim=(len(part) - 0.4, -0.6), title=label(f"{cohort} ({part['role'].iloc[0]})", 60))
            axes.grid(visible=False, axis="y")
        grid[-1, 0].set_xlim(left=0)
        grid[-1, 0].set_xlabel(f"MAE, raw ({unit}); lower is better")
        lines = [
            f"{row['cohort']}, {row['model']}: "
            + estimate_with_interval(row[f"mae_{unit}"], row["ci_low"], row["ci_high"], unit)
            for row in data.to_dict("records")
        ]
        svg = inline_svg(figure, "figure-models", f"Dot plot of the models' errors. {'; '.join(lines)}.")
    caption = (
        f"Raw mean absolute error with 95% intervals; {label(comparison.primary)}, the primary model, as a blue disc. "
        "Intervals of two models overlap long before their difference is in doubt: read the paired tests below."
    )
    return Drawing("figure-models", "Error by model", caption, svg, data)


def folds_by_model(comparison: ArmComparison, unit: Unit) -> Drawing | None:
    """Draw every fold's MAE by model, the same fold joined by a line, and the mean.

    Returns:
        The drawing, or None without folds.
    """
    folds = comparison.folds[~missing_cells(comparison.folds["mae"])]
    if folds.empty:
        return None
    data = in_unit(
        folds[["model", "repeat", "fold", "n", "mae"]].rename(columns={"mae": "mae_years"}), ["mae_years"], unit
    )
    models = [name for name in comparison.models if name in set(data["model"])]
    table = data.pivot(index=["repeat", "fold"], columns="model", values=f"mae_{unit}")[models]
    with house_style():
        figure = new_figure(3.0)
        axes = figure.subplots()
        for _, values in table.iterrows():
            axes.plot(range(len(models)), values, "-", color="#c9c9c4", linewidth=0.7, zorder=1)
        for place, name in enumerate(models):
            colour, marker = PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)]
            values = table[name].dropna()
            look = {"markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.5}
            axes.plot([place] * len(values), values, marker, color=colour, zorder=2, **look)  # type: ignore[arg-type]
            axes.plot([place - 0.2, place + 0.2], [values.mean()] * 2, "-", color=INK, linewidth=1.6, zorder=3)
        names = [f"{label(name, 18)}\n{table[name].count()} folds" for name in models]
        axes.set_xticks(range(len(models)), names, rotation=0 if len(models) <= 7 else 60)
        axes.set(xlim=(-0.5, len(models) - 0.5), ylabel=f"MAE of a fold ({unit})")
        axes.set_ylim(bottom=0)
        axes.grid(visible=False, axis="x")
        means = "; ".join(f"{name}: mean {number(table[name].mean())} {unit}" for name in models)
        svg = inline_svg(figure, "figure-folds", f"Errors of cross-validation folds by model. {means}.")
    caption = (
        "Each point is a fold's raw MAE on scans that its network has not seen; grey lines join the same fold, bars "
        "are means. Folds share training scans, so that their scatter understates what another cohort would change."
    )
    return Drawing("figure-folds", "Errors over folds", caption, svg, data.reset_index(drop=True))


def error_by_training_size(comparison: ArmComparison, unit: Unit) -> Drawing | None:
    """Draw MAE against the number of training subjects, one line per way of training, one panel per cohort.

    Returns:
        The drawing, or None where no error was estimated.
    """
    rows = comparison.curve[~missing_cells(comparison.curve["mae"])].rename(columns={"mae": "mae_years"})
    if rows.empty:
        return None
    columns = ["cohort", "family", "n_train", "model", "n_subjects", "mae_years", "ci_low", "ci_high"]
    data = in_unit(rows[columns].reset_index(drop=True), ("mae_years", "ci_low", "ci_high"), unit)
    families = list(dict.fromkeys(comparison.arms["family"]))
    panels = list(data.groupby("cohort", sort=False))
    with house_style():
        figure = new_figure(2.7 * -(-len(panels) // 2) + 0.3)
        width = min(2, len(panels))
        grid = figure.subplots(-(-len(panels) // width), width, squeeze=False, sharey=True).ravel()
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        for axes, (cohort, part) in zip(grid, panels, strict=False):
            _curves(axes, part, families, unit)
            axes.set(title=label(cohort, 40), xlabel="training subjects")
        grid[0].set(ylabel=f"MAE, raw ({unit})")
        grid[0].set_ylim(bottom=0)
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, len(families)))
        lines = [
            f"{row['cohort']}, {row['family']}, {int(row['n_train'])} subjects: {number(row[f'mae_{unit}'])} {unit}"
            for row in data.to_dict("records")
        ]
        svg = inline_svg(figure, "figure-curve", f"Line charts of error by training size. {'; '.join(lines)}.")
    caption = (
        "Raw mean absolute error by number of training subjects, with 95% intervals over test subjects. Smaller "
        "training sets are parts of larger ones; points of one size are set beside one another so that intervals show."
    )
    return Drawing("figure-curve", "Learning curve", caption, svg, data)


def _curves(axes: Axes, part: pd.DataFrame, families: list[str], unit: Unit) -> None:
    sizes = sorted(set(part["n_train"].astype(int)))
    axes.set_xscale("log")
    for place, family in enumerate(families):
        rows = part[part["family"] == family].sort_values("n_train")
        if rows.empty:
            continue
        colour, marker = PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)]
        # On a logarithmic axis a shift is a factor.
        x = rows["n_train"].astype(float) * 1.03 ** (place - (len(families) - 1) / 2)
        line = LINES[place % len(LINES)]
        axes.plot(
            x, rows[f"mae_{unit}"], line + marker, color=colour, markersize=4.5, linewidth=1.3, label=label(family)
        )
        for at, low, high in zip(x, rows["ci_low"], rows["ci_high"], strict=True):
            if not (is_missing(low) or is_missing(high)):
                axes.plot([at, at], [low, high], "-", color=colour, linewidth=1.1)
    # Two ways of training may have lost a few different scans; one label is enough for both.
    apart = [size for size, above in zip(sizes, [*sizes[1:], math.inf], strict=True) if above / max(size, 1) > 1.2]
    axes.set_xticks(apart, [f"{size:,}" for size in apart], rotation=0 if len(apart) <= 6 else 60)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(6))


def associations_by_model(comparison: ArmComparison) -> Drawing | None:
    """Draw each term of interest for every model's brain-PAD, one panel and scale per term.

    Returns:
        The drawing, or None where no term could be estimated.
    """
    rows = comparison.associations[~missing_cells(comparison.associations["estimate"])]
    if rows.empty:
        return None
    columns = ["association", "term", "model", "estimate", "ci_low", "ci_high", "p_value", "q_value", "n_used"]
    data = rows[columns].reset_index(drop=True)
    panels = list(data.groupby(["association", "term"], sort=False))
    with house_style():
        heights = [0.5 + 0.23 * len(part) for _, part in panels]
        figure = new_figure(sum(heights) + 0.35)
        grid = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
        for axes, ((association, term), part) in zip(grid[:, 0], panels, strict=True):
            _terms(axes, part, comparison.primary)
            axes.set_title(label(f"{association}, {term_label(str(term))}", 70))
        grid[-1, 0].set_xlabel("estimate, in the outcome's unit per unit of the term, 95% interval")
        lines = [
            f"{row['association']}, {row['term']}, {row['model']}: "
            + estimate_with_interval(row["estimate"], row["ci_low"], row["ci_high"])
            for row in data.to_dict("records")
        ]
        svg = inline_svg(figure, "figure-model-associations", f"Estimates by model. {'; '.join(lines)}.")
    caption = (
        "The same association with each model's brain-PAD. Filled: q < "
        f"{FALSE_DISCOVERY_RATE:g} within that model's terms. One found and another not found do not differ for that."
    )
    return Drawing("figure-model-associations", "Associations by model", caption, svg, data)


def _terms(axes: Axes, part: pd.DataFrame, primary: str) -> None:
    for place, row in enumerate(part.to_dict("records")):
        found = not is_missing(row["q_value"]) and row["q_value"] < FALSE_DISCOVERY_RATE
        colour = (PALETTE[0] if row["model"] == primary else PALETTE[1]) if found else QUIET
        marker = "o" if row["model"] == primary else "s"
        draw_interval(axes, place, row["estimate"], row["ci_low"], row["ci_high"], colour, marker)
        if not found:
            axes.plot([row["estimate"]], [place], marker, color="white", markersize=5, markeredgecolor=colour)
    axes.axvline(0, color=INK, linewidth=0.9, linestyle="--")
    axes.set_yticks(range(len(part)), [f"{label(row.model)} (n = {row.n_used:,})" for row in part.itertuples()])
    axes.set_ylim(len(part) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
