"""What validation computes beside metrics, from tables as the steps write them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from infra.storage import Store
from infra.study import CohortSpec
from tasks.science.statistics.controls import are_controls
from tasks.steps.validate import measured, predictions_of
from tasks.steps.validation_tables import agreement_points, coverage_of

from .test_compare import scored_cohort, stored_model, with_folds


@pytest.fixture
def rows(tmp_path: Path) -> pd.DataFrame:
    """Four people each of an external and a clinical cohort, of whom one has no prediction; offsets of 4 years."""
    store = Store(str(tmp_path / "store"), tmp_path / "cache")
    model = stored_model(store, with_folds(0).arms[0], 1.0)
    specs = (CohortSpec("external", "external", "external"), CohortSpec("clinic", "clinical", "clinic"))
    tables = [
        measured(predictions_of(store, model.fit_key, scored_cohort(store, model, spec, "T1w", 4.0))) for spec in specs
    ]
    rows = pd.concat(tables, ignore_index=True).assign(diagnosis=[None] * 3 + ["HC", "MS", "MS"])
    return rows.assign(is_control=are_controls(rows, {"diagnosis": ("HC",)}))


def test_coverage_is_of_healthy_people_and_by_the_models_own_intervals(rows: pd.DataFrame) -> None:
    few = {"half_width_years": None, "level": 0.95, "n_subjects": 9, "note": "too few"}
    for half_width_years, held in ((4.5, 3), (3.5, 0)):
        raw = {"half_width_years": half_width_years, "level": 0.9, "n_subjects": 30, "note": ""}
        table = coverage_of(rows, {"raw": raw, "corrected": few}, ("site", "age_band"))
        # Nobody has a corrected age, so that nothing is said of it; of the patients nothing is said either.
        assert set(table["correction"]) == {"raw"}
        overall = table[table["group"] == "overall"].set_index("cohort")
        assert overall["n_subjects"].to_dict() == {"external": 3, "clinic": 1}
        assert overall.loc["external", "n_covered"] == held
        assert overall.loc["external", "nominal"] == pytest.approx(0.9)


def test_points_are_against_the_target_and_hold_what_the_figure_draws(rows: pd.DataFrame) -> None:
    points = agreement_points(rows)
    assert points["target_years"].tolist() == [31.0, 40.0, 50.0] * 2
    assert points["difference_years"].tolist() == pytest.approx([4.0] * 6)
    assert points["mean_years"].tolist() == pytest.approx([33.0, 42.0, 52.0] * 2)
