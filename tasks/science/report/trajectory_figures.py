"""Every subject's course beside what the mixed model makes of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
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

Array = NDArray[np.float64]

MOST_SUBJECTS_DRAWN = 120
SUBJECT_SEED = 20210601
GRID_POINTS = 40
MOST_GROUPS = 6
FITTED: Mapping[str, Any] = {"linewidth": 0.5, "alpha": 0.35, "linestyles": "dashed"}
TIME = re.compile(r"year|month|week|day|time|visit|age", re.IGNORECASE)


@dataclass(frozen=True)
class _Split:
    """By what courses are told apart.

    Attributes:
        name: The predictor in words; "" where there is one course.
        of_rows: Which course each row of the fit belongs to.
        at: Course → where the fixed effects are held for it.
    """

    name: str
    of_rows: pd.Series
    at: Mapping[str, Mapping[str, Any]]


def trajectories(fit: AssociationFit, name: str) -> PrintFigure | None:
    """Draw each subject's values over time, thin, and the model's mean course with its band, per group.

    Where time interacts with a number, the courses are those one SD above and below its mean.

    Args:
        fit: A fitted mixed model with its rows.
        name: Of its files.

    Returns:
        The figure, or None where the model has no numeric predictor that changes within a subject.
    """
    time = time_of(fit)
    if time is None:
        return None
    split = _split(fit, time)
    data = _courses(fit, time, split)
    subjects = list(dict.fromkeys(data["subject"]))
    drawn = _some(subjects)
    outcome, over = variable_with_unit(fit.response), variable_with_unit(time)
    colours = dict(zip(split.at, PALETTE, strict=False))
    with print_style():
        figure = column_figure(72)
        axes = figure.subplots()
        for level, colour in colours.items():
            _subjects(axes, data[(data["group"] == level) & data["subject"].isin(drawn)], colour)
        said = []
        for level, colour in colours.items():
            span = data.loc[data["group"] == level, "time"]
            grid = np.linspace(span.min(), span.max(), GRID_POINTS)
            line = _course(axes, mean_course(fit, {time: grid}, split.at[level]), grid, level, colour)
            said.append(f"{level or 'all'}: from {number(line[0])} to {number(line[-1])}")
        axes.set(xlabel=label(over, 44), ylabel=label(outcome, 34))
        if split.name:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=min(3, len(colours)))
        alt = f"Courses of {outcome} over {over} in {plural(len(subjects), 'subject')}, with the fitted course. "
        caption = (
            f"Model “{fit.name}”. Thin: each {variable(_subject_column(fit))}'s values, and dashed what the model fits "
            "to it with its random effects. Thick: the fixed effects at mean covariates with their 95% band"
            f"{' by ' + split.name if split.name else ''}.{_not_drawn(len(drawn), len(subjects))}"
        )
        title = f"Trajectories of {outcome}"
        return printed(figure, name, title, caption, f"{alt}{'; '.join(said)}.", data, fit.name)


def _not_drawn(drawn: int, subjects: int) -> str:
    return "" if drawn == subjects else f" {drawn:,} of {subjects:,} subjects are drawn, chosen at random."


def time_of(fit: AssociationFit) -> str | None:
    """Find the numeric predictor that stands for time: it changes within subjects; of several, its name decides."""
    if fit.kind != "mixed" or fit.coding is None or fit.rows.empty or fit.groups not in fit.rows:
        return None
    factors = {f.column: f for t in fit.coding.formula.terms for f in t.factors if f.label not in fit.coding.levels}
    subjects = _subject(fit)
    found = []
    for column, factor in factors.items():
        of_subject = pd.to_numeric(fit.rows[column], errors="coerce").groupby(subjects)
        if factor.function in ("", "center", "scale") and (of_subject.max() > of_subject.min()).any():
            found.append(column)
    return min(found, key=lambda column: (not TIME.search(column), "age" in column.lower()), default=None)


def _split(fit: AssociationFit, time: str) -> _Split:
    """By what interacts with time, else by a group of interest, else not at all."""
    whole = _Split("", pd.Series("", index=fit.rows.index), {"": {}})
    if fit.coding is None:
        return whole
    levels, terms = fit.coding.levels, fit.coding.formula.terms
    pairs = [t for t in terms if len(t.factors) == 2 and any(f.column == time for f in t.factors)]
    partners = [f.label for t in pairs for f in t.factors if f.column != time]
    wanted = fit.coefficients.loc[fit.coefficients["of_interest"].astype(bool), "term"]
    groups = [name for name in levels if any(str(t).startswith(f"{name}[") for t in wanted)]
    factor = next(iter([*partners, *groups]), None)
    if factor is None:
        return whole
    values = factor_values(fit.coding.formula, fit.rows)[factor]
    if factor in levels:
        shown = levels[factor][:MOST_GROUPS]
        return _Split(variable(factor), values.astype(str), {level: {factor: level} for level in shown})
    mean, sd = float(values.mean()), float(values.std())
    low, high = (f"{variable(factor)} {number(mean + sign * sd, 1)}" for sign in (-1, 1))
    if low == high:
        return whole
    of_rows = pd.Series(np.where(values < mean, low, high), index=values.index)
    return _Split(
        f"{variable(factor)}, one SD below and above its mean",
        of_rows,
        {low: {factor: mean - sd}, high: {factor: mean + sd}},
    )


def _subject_column(fit: AssociationFit) -> str:
    """Whose values a line joins: a participant's where several share a group, as a site."""
    if "participant_id" in fit.rows and fit.rows["participant_id"].nunique() > fit.rows[fit.groups].nunique():
        return "participant_id"
    return fit.groups


def _subject(fit: AssociationFit) -> pd.Series:
    own = fit.rows[_subject_column(fit)].astype(str)
    return fit.rows["cohort"].astype(str) + "/" + own if "cohort" in fit.rows else own


def _courses(fit: AssociationFit, time: str, split: _Split) -> pd.DataFrame:
    values = factor_values(fit.coding.formula, fit.rows) if fit.coding else pd.DataFrame()
    table = pd.DataFrame(
        {
            "subject": _subject(fit),
            "group": split.of_rows,
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


def _course(axes: Axes, course: tuple[Array, Array], grid: Array, level: str, colour: str) -> Array:
    line, reach = course
    axes.fill_between(grid, line - reach, line + reach, color=colour, alpha=0.3, linewidth=0, zorder=3)
    axes.plot(grid, line, "-", color="white", linewidth=3.2, zorder=4)
    axes.plot(grid, line, "-", color=colour, linewidth=1.9, zorder=5, label=label(level, 26) if level else None)
    return line


def mean_course(fit: AssociationFit, over: Mapping[str, Array], at: Mapping[str, Any]) -> tuple[Array, Array]:
    """Predict the fixed effects over a numeric column at mean covariates, other factors averaged with equal weight.

    Args:
        fit: A fitted model with its coding.
        over: The column and the values to predict at, shape (k,).
        at: Factors that are held at a level or a value.

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
    spread = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", total, fit.covariance.to_numpy(dtype=float), total), 0.0))
    return total @ estimates, stats.t.ppf(0.975, fit.coefficients["df"].min()) * spread
