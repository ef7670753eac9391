"""Figures of the fit and of its accuracy, each with a description for those who do not see it, and its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .contents import MODEL, TISSUE_VOLUMES, headline, predictors, usable
from .notation import estimate_with_interval, is_missing, label, number, plural
from .svg import INK, MARKERS, PALETTE, QUIET, WIDTH_INCHES, house_style, inline_svg
from .units import Unit, everything_in_unit, in_unit

MOST_VECTOR_POINTS = 2000
MOST_SITES_NAMED = 12
LEGEND_COLUMNS = 4


@dataclass(frozen=True)
class Drawing:
    """A figure as it stands in the page.

    Attributes:
        name: Unique within the page.
        title: A short title.
        caption: What is drawn, and how to read it.
        svg: The element.
        data: The rows that are drawn, in the figure's own units.
    """

    name: str
    title: str
    caption: str
    svg: Markup
    data: pd.DataFrame


def new_figure(height_inches: float) -> Figure:
    """Make a figure of the page's width."""
    return Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")


def training_curves(curves: pd.DataFrame, best_epoch: int | None, unit: Unit = "years") -> Drawing | None:
    """Draw the losses and the validation error over epochs, so that over-fitting shows.

    Args:
        curves: One row per epoch: losses (unitless) and validation MAE (years).
        best_epoch: The epoch whose weights were kept, in the numbering of `curves`.
        unit: To show ages in.

    Returns:
        The drawing, or None without epochs.
    """
    if curves.empty:
        return None
    seeds = ["seed"] if "seed" in curves.columns else []
    data = curves[[*seeds, "epoch", "train_loss", "val_loss", "val_mae_years"]].astype({"epoch": int})
    data, error = everything_in_unit(data, unit), f"val_mae_{unit}"
    members = [member for _, member in data.groupby("seed")] if seeds else [data]
    with house_style():
        figure = new_figure(2.7)
        losses, errors = figure.subplots(1, 2)
        for place, member in enumerate(members):
            # Matplotlib leaves names that begin with an underscore out of the legend: one entry for all members.
            train, validation = ("training", "validation") if place == 0 else ("_training", "_validation")
            losses.plot(member["epoch"], member["train_loss"], "-", color=PALETTE[0], linewidth=1.3, label=train)
            losses.plot(member["epoch"], member["val_loss"], "--", color=PALETTE[1], linewidth=1.3, label=validation)
            errors.plot(member["epoch"], member[error], "--", color=PALETTE[1], linewidth=1.3)
        for axes, title in ((losses, "Loss"), (errors, f"Validation MAE ({unit})")):
            axes.set(xlabel="epoch", title=title)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if best_epoch is not None:
                axes.axvline(best_epoch, color=QUIET, linewidth=0.8, linestyle=":", label="best epoch")
        losses.legend()
        last = data.iloc[-1]
        kept = "" if best_epoch is None else f"; the best epoch is {best_epoch}"
        alt = (
            f"Two line charts over {plural(len(members[0]), 'epoch')}. At the end the training loss is "
            f"{number(last['train_loss'])}, the validation loss {number(last['val_loss'])} and the validation error "
            f"{number(last[error])} {unit}{kept}."
        )
        svg = inline_svg(figure, "figure-training", alt)
    caption = "By epoch, counted from 0. A validation loss that rises while training falls means over-fitting."
    return Drawing("figure-training", "Training curves", caption, svg, data.reset_index(drop=True))


def predicted_against_age(
    predictions: pd.DataFrame, cohort: str, position: int, unit: Unit = "years", target: str = "age"
) -> Drawing | None:
    """Draw predicted age and raw brain-PAD against age, by site, so that bias and site offsets show.

    A model that learns something else than age, as what a reader has seen in the scan, is drawn against that.

    Args:
        predictions: All predictions; ages in years.
        cohort: The cohort to draw.
        position: Its place in the page, for the figure's name.
        unit: To show ages in.
        target: What the model learns, in words.

    Returns:
        The drawing, or None where the cohort has no usable prediction.
    """
    rows = usable(predictions)
    rows = rows[rows["cohort"] == cohort]
    truth = "age_years" if target == "age" else "target_years"
    rows = rows[rows[truth].notna()]
    if rows.empty:
        return None
    difference = rows["predicted_age_years"].astype(float) - rows[truth].astype(float)
    columns = ["scan_id", "participant_id", "session_id", "site", truth, "predicted_age_years", "difference_years"]
    table = rows.assign(difference_years=difference)[columns].sort_values("scan_id", kind="stable")
    data = everything_in_unit(table.reset_index(drop=True), unit)
    x, predicted, away = f"{truth.removesuffix('_years')}_{unit}", f"predicted_age_{unit}", f"difference_{unit}"
    pad = "brain-PAD" if target == "age" else f"predicted − {target}"
    name = f"figure-ages-{position}"
    with house_style():
        figure, left, right = _square_pair(n_legend_rows=-(-_n_marks(data) // LEGEND_COLUMNS))
        _by_site(left, data, x, predicted)
        _by_site(right, data, x, away)
        edges = _padded(np.concatenate([data[x], data[predicted]]).astype(float))
        left.plot(edges, edges, color=INK, linewidth=0.9, linestyle="--", label=f"predicted = {label(target)}")
        left.set(xlim=edges, ylim=edges, xlabel=f"{target} ({unit})", title=f"Predicted {target}")
        left.set_ylabel(f"predicted {target}, raw ({unit})")
        right.axhline(0, color=INK, linewidth=0.9, linestyle="--")
        right.set(xlabel=f"{target} ({unit})", ylabel=f"{pad}, raw ({unit})", title=pad[:1].upper() + pad[1:])
        figure.legend(*left.get_legend_handles_labels(), loc="lower center", ncols=LEGEND_COLUMNS)
        against = "chronological age" if target == "age" else target
        alt = (
            f"Two scatter plots of {plural(len(data), 'scan')} of {cohort}. Left, predicted against {against} "
            f"with the line of identity; Pearson r is {_correlation(data[x], data[predicted])}. Right, raw {pad} "
            f"against {target}."
        )
        svg = inline_svg(figure, name, alt)
    caption = (
        f"{plural(len(data), 'scan')}, raw predictions. On the dashed lines predicted {target} equals {target}. A "
        "downward slope on the right is regression to the mean: young brains look too old and old ones too young."
    )
    return Drawing(name, f"Predicted and {against}, {cohort}", caption, svg, data)


def _square_pair(n_legend_rows: int) -> tuple[Figure, Axes, Axes]:
    """Two square axes side by side over a legend, placed by hand: equal scales need equal sides."""
    side, below = 2.92, 0.55 + 0.19 * n_legend_rows
    height = below + side + 0.3
    figure = Figure(figsize=(WIDTH_INCHES, height))
    left, right = (
        figure.add_axes((x / WIDTH_INCHES, below / height, side / WIDTH_INCHES, side / height)) for x in (0.55, 4.2)
    )
    return figure, left, right


def _n_marks(data: pd.DataFrame) -> int:
    return min(data["site"].nunique(dropna=False), MOST_SITES_NAMED + 1) + 1


def _padded(values: np.ndarray) -> tuple[float, float]:
    margin = 0.05 * max(float(np.ptp(values)), 1.0)
    return float(values.min()) - margin, float(values.max()) + margin


def _correlation(age: pd.Series, predicted_age: pd.Series) -> str:
    ages, predicted = age.to_numpy(float), predicted_age.to_numpy(float)
    if len(ages) < 3 or np.ptp(ages) == 0 or np.ptp(predicted) == 0:
        return number(None)
    return number(np.corrcoef(ages, predicted)[0, 1])


def _by_site(axes: Axes, data: pd.DataFrame, age: str, column: str) -> None:
    sites = data["site"].map(lambda site: "site not given" if is_missing(site) else str(site))
    order = sorted(sites.unique(), key=lambda site: (-int((sites == site).sum()), site))
    for index, site in enumerate(order[:MOST_SITES_NAMED]):
        colour, marker = PALETTE[index % len(PALETTE)], MARKERS[(index + index // len(PALETTE)) % len(MARKERS)]
        _points(axes, data[sites == site], age, column, colour, marker, label(site))
    others = data[sites.isin(order[MOST_SITES_NAMED:])]
    if len(others):
        _points(axes, others, age, column, "#9a9a9a", ".", f"{len(order) - MOST_SITES_NAMED} other sites")


def _points(axes: Axes, rows: pd.DataFrame, age: str, column: str, colour: str, marker: str, name: str) -> None:
    axes.plot(
        rows[age].astype(float),
        rows[column].astype(float),
        marker,
        color=colour,
        markersize=4.2,
        markeredgecolor="white",
        markeredgewidth=0.4,
        alpha=0.85,
        label=f"{name} ({len(rows):,})",
        rasterized=len(rows) > MOST_VECTOR_POINTS,
    )


def error_against_baselines(metrics: pd.DataFrame, cohorts: Sequence[str], unit: Unit = "years") -> Drawing | None:
    """Draw the raw MAE of the model beside those of the baselines: what a network adds to no network.

    Args:
        metrics: The report's metrics.
        cohorts: The cohorts to draw, in order.
        unit: To show errors in.

    Returns:
        The drawing, or None where no MAE was estimated.
    """
    found = []
    for cohort in cohorts:
        for predictor in predictors(metrics):
            mae = headline(metrics, cohort, "mae", predictor)
            if mae is not None and not is_missing(mae.estimate):
                found.append({"cohort": cohort, "predictor": predictor, **mae._asdict()})
    if not found:
        return None
    data = pd.DataFrame(found).rename(columns={"estimate": "mae_years"})
    data, error = in_unit(data, ("mae_years", "ci_low", "ci_high"), unit), f"mae_{unit}"
    looks = {MODEL: (PALETTE[0], "o"), TISSUE_VOLUMES: (PALETTE[1], "D")}
    with house_style():
        figure = new_figure(0.75 + 0.24 * len(data))
        axes = figure.subplots()
        for place, (_, row) in enumerate(data.iterrows()):
            colour, marker = looks.get(row["predictor"], (PALETTE[6], "s"))
            draw_interval(axes, place, row[error], row["ci_low"], row["ci_high"], colour, marker)
        axes.set_yticks(range(len(data)), [f"{label(row.cohort)}: {row.predictor}" for row in data.itertuples()])
        axes.set(xlabel=f"MAE, raw ({unit}); lower is better", ylim=(len(data) - 0.4, -0.6))
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
        lines = [
            f"{row['cohort']}, {row['predictor']}: "
            + estimate_with_interval(row[error], row["ci_low"], row["ci_high"], unit)
            for _, row in data.iterrows()
        ]
        svg = inline_svg(figure, "figure-baselines", f"Dot plot of raw mean absolute errors. {'; '.join(lines)}.")
    caption = (
        "Raw mean absolute error with 95% intervals. A model that does not lie clearly to the left of “mean age” "
        "has not been shown to read age from the brain."
    )
    return Drawing("figure-baselines", "Model and baselines", caption, svg, data)


def draw_interval(axes: Axes, place: int, estimate: float, low: float, high: float, colour: str, marker: str) -> None:
    """Draw an estimate at a place of the vertical axis, with its interval where there is one."""
    if not (is_missing(low) or is_missing(high)):
        axes.plot([low, high], [place, place], "-", color=colour, linewidth=1.4, solid_capstyle="butt")
    axes.plot([estimate], [place], marker, color=colour, markersize=5.5, markeredgecolor="white", markeredgewidth=0.5)
