"""Every subject's course beside what the mixed model makes of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray
from scipy import stats

from ..statistics.association_fit import AssociationFit
from ..statistics.design import factor_values
from .association_words import variable, variable_with_unit
from .notation import label, number, plural
from .print_figures import PrintFigure, column_figure, print_style, printed
from .svg import PALETTE

MOST_SUBJECTS_DRAWN = 120
SUBJECT_SEED = 20210601
GRID_POINTS = 40
MOST_GROUPS = 6
FITTED: Mapping[str, Any] = {"linewidth": 0.5, "alpha": 0.35, "linestyles": "dashed"}
TIME = re.compile(r"year|month|week|day|time|visit|age", re.IGNORECASE)


def trajectories(fit: AssociationFit, name: str) -> PrintFigure | None:
    """Draw each subject's values over time, thin, and the model's mean course with its band, per group.

    Args:
        fit: A fitted mixed model with its rows.
        name: Of the figure, unique within a page.

    Returns:
        The figure, or None where the model has no numeric predictor that changes within a subject.
    """
    time = time_of(fit)
    if time is None:
        return None
    factor = _grouping(fit, time)
    data = _courses(fit, time, factor)
    levels = list(fit.coding.levels[factor])[:MOST_GROUPS] if factor and fit.coding else [""]
    subjects = list(dict.fromkeys(data["subject"]))
    drawn = _some(subjects)
    outcome, over = variable_with_unit(fit.response), variable_with_unit(time)
    with print_style():
        figure = column_figure(72)
        axes = figure.subplots()
        lines = []
        for place, level in enumerate(levels):
            mine = data[(data["group"] == level) & data["subject"].isin(drawn)]
            _subjects(axes, mine, PALETTE[place % len(PALETTE)])
        for place, level in enumerate(levels):
            span = data.loc[data["group"] == level, "time"]
            grid = np.linspace(span.min(), span.max(), GRID_POINTS)
            lines.append(_course(axes, fit, {time: grid}, factor, level, PALETTE[place % len(PALETTE)]))
        axes.set(xlabel=label(over, 44), ylabel=label(outcome, 34))
        if factor:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=min(3, len(levels)))
        said = "; ".join(
            f"{level or 'all'}: from {number(y[0])} to {number(y[-1])}" for level, y in zip(levels, lines, strict=True)
        )
        alt = f"Courses of {outcome} over {over} in {plural(len(subjects), 'subject')}, with the fitted course. {said}."
        some = (
            ""
            if len(drawn) == len(subjects)
            else f" {len(drawn)} of {len(subjects):,} subjects are drawn, chosen at random."
        )
        caption = (
            f"Model “{fit.name}”. Thin: each {variable(fit.groups or 'subject')}'s values, and dashed what the model "
            "fits to it with its random effects. Thick: the fixed effects at mean covariates with their 95% band"
            f"{' by ' + variable(factor) if factor else ''}.{some}"
        )
        return printed(figure, name, f"Trajectories of {outcome}", caption, alt, data)


def time_of(fit: AssociationFit) -> str | None:
    """Find the numeric predictor that stands for time: it changes within subjects; of several, its name decides."""
    if fit.kind != "mixed" or fit.coding is None or fit.rows.empty or fit.groups not in fit.rows:
        return None
    factors = {f.column: f for t in fit.coding.formula.terms for f in t.factors if f.label not in fit.coding.levels}
    found = []
    for column, factor in factors.items():
        values = pd.to_numeric(fit.rows[column], errors="coerce")
        within = values.groupby(_subject(fit)).agg(np.ptp)
        if factor.function in ("", "center", "scale") and (within > 0).any():
            found.append(column)
    return min(found, key=lambda column: (not TIME.search(column), "age" in column.lower()), default=None)


def _grouping(fit: AssociationFit, time: str) -> str | None:
    """The categorical predictor whose courses are compared: the one that interacts with time, else one of interest."""
    if fit.coding is None:
        return None
    levels = fit.coding.levels
    pairs = [t for t in fit.coding.formula.terms if len(t.factors) == 2 and any(f.column == time for f in t.factors)]
    partners = [f.label for t in pairs for f in t.factors if f.label in levels]
    wanted = fit.coefficients.loc[fit.coefficients["of_interest"].astype(bool), "term"]
    interesting = [name for name in levels if any(str(t).startswith(f"{name}[") for t in wanted)]
    return next(iter([*partners, *interesting]), None)


def _subject(fit: AssociationFit) -> pd.Series:
    own = fit.rows[fit.groups].astype(str)
    return fit.rows["cohort"].astype(str) + "/" + own if "cohort" in fit.rows else own


def _courses(fit: AssociationFit, time: str, factor: str | None) -> pd.DataFrame:
    values = factor_values(fit.coding.formula, fit.rows) if fit.coding else pd.DataFrame()
    table = pd.DataFrame(
        {
            "subject": _subject(fit),
            "group": values[factor].astype(str) if factor else "",
            "time": pd.to_numeric(fit.rows[time], errors="coerce").astype(float),
            "observed": values[fit.response].astype(float),
            "fitted_subject": fit.rows.get("fitted_group", fit.rows["fitted"]).astype(float),
            "fitted_mean": fit.rows["fitted"].astype(float),
        }
    )
    return table.sort_values(["subject", "time"], kind="stable").reset_index(drop=True)


def _some(subjects: list[str]) -> set[str]:
    if len(subjects) <= MOST_SUBJECTS_DRAWN:
        return set(subjects)
    chosen = np.random.default_rng(SUBJECT_SEED).choice(len(subjects), MOST_SUBJECTS_DRAWN, replace=False)
    return {subjects[place] for place in chosen}


def _subjects(axes: Axes, rows: pd.DataFrame, colour: str) -> None:
    courses = [sessions for _, sessions in rows.groupby("subject", sort=False)]
    for column, look in (("observed", {"linewidth": 0.5, "alpha": 0.4}), ("fitted_subject", FITTED)):
        lines = [sessions[["time", column]].to_numpy(dtype=float) for sessions in courses]
        axes.add_collection(LineCollection(lines, colors=[colour], **look))
    axes.autoscale_view()


def _course(
    axes: Axes,
    fit: AssociationFit,
    over: Mapping[str, NDArray[np.float64]],
    factor: str | None,
    level: str,
    colour: str,
) -> NDArray[np.float64]:
    line, reach = mean_course(fit, over, {factor: level} if factor else {})
    grid = next(iter(over.values()))
    axes.fill_between(grid, line - reach, line + reach, color=colour, alpha=0.3, linewidth=0, zorder=3)
    axes.plot(grid, line, "-", color="white", linewidth=3.2, zorder=4)
    axes.plot(grid, line, "-", color=colour, linewidth=1.9, zorder=5, label=label(level, 20) if level else None)
    return line


def mean_course(
    fit: AssociationFit, over: Mapping[str, NDArray[np.float64]], at: Mapping[Any, str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Predict the fixed effects over a numeric column at mean covariates, other factors averaged with equal weight.

    Args:
        fit: A fitted model with its coding.
        over: The column and the values to predict at, shape (k,).
        at: Factors that are held at a level.

    Returns:
        The mean and the half-width of its 95% interval, each of shape (k,).
    """
    if fit.coding is None:
        raise ValueError(f"{fit.name} was not fitted, so it predicts no course; see its problems.")
    column, grid = next(iter(over.items()))
    labels = {f.label: f.column for t in fit.coding.formula.terms for f in t.factors}
    free = {name: levels for name, levels in fit.coding.levels.items() if name not in at}
    total = np.zeros((len(grid), len(fit.covariance)))
    combinations = list(product(*free.values()))
    for chosen in combinations:
        held = {**fit.centre, **dict(zip(free, chosen, strict=True)), **at}
        rows = pd.DataFrame({name: [held[name]] * len(grid) for name in labels if name in held})
        rows = rows.assign(**{name: grid for name, of in labels.items() if of == column})
        total += fit.coding.matrix(rows)[list(fit.covariance.columns)].to_numpy() / len(combinations)
    estimates = fit.coefficients["estimate"].to_numpy(dtype=float)
    spread = np.sqrt(np.einsum("ij,jk,ik->i", total, fit.covariance.to_numpy(dtype=float), total))
    return total @ estimates, stats.t.ppf(0.975, fit.coefficients["df"].min()) * spread
