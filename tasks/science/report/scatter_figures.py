"""Figures of single rows beside a model: partial regression, groups with their adjusted means, and trajectories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy import stats

from ..statistics.association_fit import AssociationFit
from ..statistics.design import INTERCEPT, factor_values
from .association_words import capital, p_equals, term, variable, variable_with_unit
from .notation import decimals_for, interval, is_missing, label, number, plural
from .print_figures import PrintFigure, column_figure, print_style, printed
from .svg import INK, MARKERS, PALETTE

MOST_VECTOR_POINTS = 2000
FEWEST_POINTS_OF_A_CLOUD = 8
JITTER_SEED = 20210601
BAND_POINTS = 60


def partial_regression(fit: AssociationFit, parameter: str, name: str) -> PrintFigure | None:
    """Draw one numeric effect as the model sees it: outcome and predictor, both adjusted for the other predictors.

    The slope through the points is the model's estimate exactly (Frisch-Waugh-Lovell); means are added back, so that
    the axes carry the variables' own values. The band is the 95% interval of the line at the covariates' means, from
    the model's own covariance of the estimates.

    Args:
        fit: A fitted linear model with its rows.
        parameter: The coefficient to draw.
        name: Of its files.

    Returns:
        The figure, or None where the model holds no rows or is of another kind.
    """
    design = design_of(fit)
    if design is None or fit.kind != "linear" or parameter not in design:
        return None
    x, others = design[parameter].to_numpy(), design.drop(columns=parameter).to_numpy()
    row = _coefficient(fit, parameter)
    residual = fit.rows["residual"].to_numpy(dtype=float)
    observed = fit.rows["fitted"].to_numpy(dtype=float) + residual
    adjusted = x - others @ np.linalg.lstsq(others, x, rcond=None)[0]
    slope = float(row["estimate"])
    # By construction this is what is left of the outcome once the other predictors have explained what they can.
    left = slope * adjusted + residual
    data = pd.DataFrame({"predictor_adjusted": adjusted + x.mean(), "outcome_adjusted": left + observed.mean()})
    data = pd.concat([_identity(fit.rows), data], axis=1)
    grid = np.linspace(data["predictor_adjusted"].min(), data["predictor_adjusted"].max(), BAND_POINTS)
    line, reach = _line(fit, design, parameter, grid, observed.mean())
    words = term(parameter, fit.coding.levels if fit.coding else None)
    of, outcome = variable_with_unit(parameter), variable_with_unit(fit.response)
    with print_style():
        figure = column_figure(66)
        axes = figure.subplots()
        _points(axes, data["predictor_adjusted"], data["outcome_adjusted"], PALETTE[0])
        axes.fill_between(grid, line - reach, line + reach, color=PALETTE[1], alpha=0.22, linewidth=0)
        axes.plot(grid, line, color=PALETTE[1], linewidth=1.4)
        axes.set(xlabel=f"{label(of, 40)}, adjusted", ylabel=f"{label(outcome, 32)}, adjusted")
        figures = f"β = {_with_interval(row)}, {p_equals(row['p_value'])}"
        axes.set_title(figures)
        alt = (
            f"Scatter of {outcome} against {of}, both adjusted for the other predictors, {plural(len(data), 'row')}, "
            f"with the fitted line and its 95% band. {figures}."
        )
        caption = (
            f"{words}: each point is a row of the model “{fit.name}” after both variables are adjusted for the other "
            "predictors and set back at their means. The slope is the model's β; the band is the line's 95% interval."
        )
        return printed(figure, name, f"Partial regression, {words}", caption, alt, data, fit.name)


def _line(
    fit: AssociationFit, design: pd.DataFrame, parameter: str, grid: NDArray[np.float64], mean: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The fitted line over a predictor at the covariates' means, and the half-width of its interval."""
    row = _coefficient(fit, parameter)
    weights = np.tile(design.mean().to_numpy(), (len(grid), 1))
    weights[:, list(design.columns).index(parameter)] = grid
    covariance = fit.covariance.loc[design.columns, design.columns].to_numpy(dtype=float)
    spread = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", weights, covariance, weights), 0.0))
    line = mean + float(row["estimate"]) * (grid - float(design[parameter].mean()))
    return line, stats.t.ppf(0.975, float(row["df"])) * spread


def raincloud(fit: AssociationFit, factor: str, name: str) -> PrintFigure | None:
    """Draw the outcome by group: every row, its density, and the adjusted mean with its interval.

    Points are adjusted as the means are, so that both lie on one scale: the adjusted mean plus the row's residual.

    Args:
        fit: A fitted linear or mixed model; another kind draws means alone.
        factor: A categorical predictor.
        name: Of its files.

    Returns:
        The figure, or None where there are no adjusted means.
    """
    means = fit.adjusted_means[fit.adjusted_means["factor"] == factor]
    if means.empty:
        return None
    is_probability = fit.kind == "logistic"
    values = _adjusted_values(fit, means, factor)
    shown = means.reset_index(drop=True)
    outcome = variable_with_unit(fit.response)
    with print_style():
        figure = column_figure(70)
        axes = figure.subplots()
        generator = np.random.default_rng(JITTER_SEED)
        for place, row in enumerate(shown.to_dict("records")):
            mine = values.loc[values["group"] == row["level"], "adjusted"].to_numpy(dtype=float)
            _cloud(axes, place, mine, generator)
            _mean(axes, place, row)
        names = [_group_name(row) for row in shown.to_dict("records")]
        crowded = len(names) > 5 or max(len(part) for text in names for part in text.split("\n")) * len(names) > 44
        axes.set_xticks(range(len(names)), names, rotation=35 if crowded else 0, ha="right" if crowded else "center")
        what = f"Probability of {label(outcome, 24)}" if is_probability else f"{label(outcome, 30)}, adjusted"
        axes.set(xlim=(-0.65, len(names) - 0.35), ylabel=what)
        axes.grid(visible=False, axis="x")
        if not is_probability and values["adjusted"].min() < 0 < values["adjusted"].max():
            axes.axhline(0, color=INK, linewidth=0.7, linestyle="--", zorder=1)
        said = "; ".join(
            f"{row['level']}: {_with_interval(dict(row) | {'estimate': row['mean']})}"
            for row in shown.to_dict("records")
        )
        alt = f"Adjusted means of {outcome} by {variable(factor)} with 95% intervals. {said}."
        data = pd.concat([values.assign(kind="row"), _means_as_rows(shown)], ignore_index=True)
        points = (
            "Each point is a row, set where it would lie with mean covariates; densities from "
            f"{FEWEST_POINTS_OF_A_CLOUD} rows on. "
            if len(values)
            else ""
        )
        what = f"{capital(variable(factor))} in the model “{fit.name}”"
        caption = f"{what}. {points}Black: adjusted mean with its 95% interval."
        return printed(figure, name, f"{outcome} by {variable(factor)}", caption, alt, data, fit.name)


def _coefficient(fit: AssociationFit, parameter: str) -> dict[str, Any]:
    rows = fit.coefficients[fit.coefficients["term"] == parameter].to_dict("records")
    return {str(name): value for name, value in rows[0].items()}


def _adjusted_values(fit: AssociationFit, means: pd.DataFrame, factor: str) -> pd.DataFrame:
    empty = pd.DataFrame({"group": pd.Series(dtype=str), "adjusted": pd.Series(dtype=float)})
    if fit.rows.empty or "residual" not in fit.rows or fit.kind not in ("linear", "mixed") or fit.coding is None:
        return empty
    groups = factor_values(fit.coding.formula, fit.rows)[factor].astype(str)
    # In a mixed model the subject's own level belongs to what varies within the group.
    around = fit.rows["fitted"] if "fitted_group" in fit.rows else None
    spread = fit.rows["residual"] + (0.0 if around is None else fit.rows["fitted_group"] - around)
    centre = groups.map(means.set_index("level")["mean"]).astype(float)
    table = pd.DataFrame({"group": groups, "adjusted": centre + spread})
    return pd.concat([_identity(fit.rows), table], axis=1).dropna(subset=["adjusted"])


def _means_as_rows(means: pd.DataFrame) -> pd.DataFrame:
    renamed = means[["level", "mean", "ci_low", "ci_high"]].rename(columns={"level": "group", "mean": "adjusted"})
    return renamed.assign(kind="adjusted mean")


def _cloud(axes: Axes, place: int, values: NDArray[np.float64], generator: np.random.Generator) -> None:
    if not len(values):
        return
    colour = PALETTE[place % len(PALETTE)]
    if len(values) >= FEWEST_POINTS_OF_A_CLOUD and np.ptp(values) > 0:
        density = stats.gaussian_kde(values)
        beyond = 2.5 * float(np.sqrt(density.covariance[0, 0]))
        heights = np.linspace(values.min() - beyond, values.max() + beyond, BAND_POINTS)
        width = 0.36 * density(heights) / density(heights).max()
        axes.fill_betweenx(heights, place + 0.12, place + 0.12 + width, color=colour, alpha=0.35, linewidth=0)
    places = place - 0.12 - generator.uniform(0, 0.26, len(values))
    _points(axes, places, values, colour, MARKERS[place % len(MARKERS)])


def _mean(axes: Axes, place: int, row: dict[Any, Any]) -> None:
    axes.plot([place, place], [row["ci_low"], row["ci_high"]], "-", color=INK, linewidth=1.5, zorder=4)
    axes.plot([place], [row["mean"]], "D", color=INK, markersize=4.2, markeredgecolor="white", zorder=5)


def _group_name(row: dict[Any, Any]) -> str:
    n = "" if is_missing(row["n"]) else f"\nn = {int(row['n']):,}"
    return f"{label(row['level'], 16)}{n}"


def design_of(fit: AssociationFit) -> pd.DataFrame | None:
    """Code the rows of a fit as the model saw them, or None where it holds none.

    Returns:
        Shape (n, p), one column per coefficient.
    """
    if fit.coding is None or fit.rows.empty:
        return None
    matrix = fit.coding.matrix(factor_values(fit.coding.formula, fit.rows))
    return matrix if INTERCEPT in matrix and set(matrix) <= set(fit.covariance.columns) else None


def _points(axes: Axes, x: Any, y: Any, colour: str, marker: str = "o") -> None:
    axes.plot(
        np.asarray(x, dtype=float),
        np.asarray(y, dtype=float),
        marker,
        color=colour,
        markersize=2.8,
        markeredgecolor="white",
        markeredgewidth=0.25,
        alpha=0.75,
        rasterized=len(x) > MOST_VECTOR_POINTS,
    )


def _identity(rows: pd.DataFrame) -> pd.DataFrame:
    kept = [name for name in ("participant_id", "session_id", "cohort", "site") if name in rows]
    return rows[kept].reset_index(drop=True)


def _with_interval(row: Any) -> str:
    decimals = decimals_for(row["estimate"], row["ci_low"], row["ci_high"])
    bounds = interval(row["ci_low"], row["ci_high"], decimals)
    return " ".join(filter(None, [number(row["estimate"], decimals), bounds]))
