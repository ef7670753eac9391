"""Figures hold what their names promise for awkward analyses: many models, long names, moderators, odds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tasks.records import AssociationSpec
from tasks.science.report.association_section import association_section
from tasks.science.report.association_words import slug
from tasks.science.report.forest_figures import MOST_FOREST_ROWS, forest_across_models
from tasks.science.report.interval_figures import IntervalPanel, IntervalRow, interval_figure
from tasks.science.report.print_figures import print_style
from tasks.science.report.scatter_figures import raincloud
from tasks.science.report.trajectory_figures import trajectories
from tasks.science.statistics.analysis import Analysis, analyse

from .made_up_analysis import clinic

MARKERS = 30


@pytest.fixture(scope="module")
def screen() -> Analysis:
    """Thirty markers, one of which goes with brain-PAD, and a model with an interaction."""
    table = clinic(120, sessions=1)
    rng = np.random.default_rng(5)
    markers = pd.DataFrame(rng.normal(size=(len(table), MARKERS)), columns=[f"marker_{i}" for i in range(MARKERS)])
    markers["marker_7"] += 0.5 * table["brain_pad_years"].to_numpy()
    specs = [
        AssociationSpec(f"screen {name}", f"brain_pad_years ~ {name} + age_years", effects=(name,)) for name in markers
    ]
    crossed = AssociationSpec("crossed", "brain_pad_years ~ sex * age_years", effects=("sex",))
    return analyse([*specs, crossed], pd.concat([table, markers], axis=1))


def test_a_screen_shows_its_strongest_effects_on_one_scale(screen: Analysis) -> None:
    figure = forest_across_models(screen, "forest-models")
    assert figure is not None
    data = figure.drawing.data
    assert len(data) <= MOST_FOREST_ROWS
    assert "marker_7" in set(data["term"])
    # A main effect beside an interaction is standardised by no single factor.
    assert "crossed" not in set(data["model"])
    own = screen.effects.set_index("term").loc[data["term"], "beta_standardised"]
    np.testing.assert_allclose(data["estimate"], own, rtol=1e-6)
    assert ((data["ci_low"] < data["estimate"]) & (data["estimate"] < data["ci_high"])).all()
    assert f"of {MARKERS + 1}" in figure.drawing.caption


def test_names_and_figures_of_a_row_never_overlap() -> None:
    names = ["EDSS", "a name of a model that nobody will ever read to its end", "WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW", ""]
    rows = [IntervalRow(name, -1234.5, -2345.6, 345.6, weight=0.25) for name in names]
    rows.append(IntervalRow("Pooled over a great many sites of the world", 1.0, 0.5, 1.5, pooled=True))
    with print_style():
        figure = interval_figure([IntervalPanel("", "difference", rows)])
        figure.draw_without_rendering()
        (axes,) = figure.axes
        boxes = [text.get_window_extent() for text in axes.texts]
    whole = figure.bbox
    for left, right in zip(boxes[::2], boxes[1::2], strict=True):
        assert left.x1 <= right.x0
        assert whole.x0 <= left.x0
        assert right.x1 <= whole.x1


def test_courses_are_told_apart_by_a_number_that_time_interacts_with() -> None:
    table = clinic(60, sessions=3)
    spec = AssociationSpec(
        "edss progression",
        "edss ~ brain_pad_years_baseline * years_since_baseline + age_years_baseline",
        sessions="all",
        effects=("brain_pad_years_baseline:years_since_baseline",),
    )
    (fit,) = analyse([spec], table).fits
    figure = trajectories(fit, "trajectories")
    assert figure is not None
    groups = set(figure.drawing.data["group"])
    assert len(groups) == 2
    assert all(group.startswith("brain-PAD at baseline ") for group in groups)
    assert "one SD below and above its mean" in figure.drawing.caption


def test_groups_of_a_binary_outcome_are_probabilities_without_points() -> None:
    table = clinic(160, sessions=1).assign(progressive=lambda t: (t["brain_pad_years"] > 4).astype(int))
    spec = AssociationSpec("progressive", "progressive ~ sex + age_years", effects=("sex",), outcome="binary")
    (fit,) = analyse([spec], table).fits
    figure = raincloud(fit, "sex", "groups")
    assert figure is not None
    data = figure.drawing.data
    assert set(data["kind"]) == {"adjusted mean"}
    assert data["adjusted"].between(0, 1).all()
    assert raincloud(replace(fit, adjusted_means=fit.adjusted_means.iloc[:0]), "sex", "groups") is None


def test_a_page_of_many_models_says_what_it_leaves_out(screen: Analysis) -> None:
    many = Analysis(screen.fits * 3, pd.concat([screen.effects] * 12, ignore_index=True))
    section = association_section(many, {})
    assert section is not None
    wanted = int(many.effects["of_interest"].astype(bool).sum())
    assert len(section.effects.rows) + section.n_more == wanted
    assert section.n_more > 0
    assert len(section.models) + section.n_more_models == len(many.fits)


def test_file_names_hold_no_path() -> None:
    assert {slug(text) for text in ("../../etc/passwd", "..", "", "a/b\\c", "大")} == {"etc-passwd", "unnamed", "a-b-c"}
