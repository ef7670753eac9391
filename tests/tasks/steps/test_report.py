"""What the report's step computes on its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from infra.storage import Store
from infra.study import CohortSpec
from tasks.steps.report import coverage_of

from .test_compare import scored_cohort, stored_model, with_folds


def test_coverage_is_of_healthy_people_of_other_cohorts_and_by_the_models_own_intervals(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), tmp_path / "cache")
    model = stored_model(store, with_folds(0).arms[0], 1.0)
    specs = (
        CohortSpec("external", "external", "external"),
        CohortSpec("clinic", "clinical", "clinic"),
        CohortSpec("abnormal", "external", "clinic", apart=True),
    )
    states = [scored_cohort(store, model, spec, "T1w", 4.0) for spec in specs]
    few = {"half_width_years": None, "level": 0.95, "n_subjects": 9, "note": "too few"}
    for half_width_years, held in ((4.5, 3), (3.5, 0)):
        raw = {"half_width_years": half_width_years, "level": 0.9, "n_subjects": 30, "note": ""}
        record = {**model.record, "intervals": {"raw": raw, "corrected": few}}
        table = coverage_of(store, replace(model, states=states, record=record))
        # Of four people one has no prediction; nobody has a corrected age, so that nothing is said of it.
        assert set(table["cohort"]) == {"external"}
        assert set(table["correction"]) == {"raw"}
        overall = table[table["group"] == "overall"].iloc[0]
        assert (overall["n_subjects"], overall["n_covered"]) == (3, held)
        assert overall["nominal"] == pytest.approx(0.9)
