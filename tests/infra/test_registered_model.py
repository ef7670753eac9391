"""What a registered model says of a scan: a number with its interval where there is one, else a status and a reason."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from infra.registered_model import FIGURES, BrainAgeModel
from tasks.records import NetworkSpec, Recipe
from tasks.science.imaging.grid import grid_shape

RECIPE = Recipe(resolution_mm=4.0)
INTERVALS = {"raw": {"half_width_years": 6.0}, "corrected": {"half_width_years": None}}


def model_of(*ages_years: float, bias: dict[str, Any] | None = None) -> BrainAgeModel:
    """The registered model's own code around members that give fixed ages."""
    model = BrainAgeModel()
    model.contract = {"age_range_years": [20, 80], "age_bias": bias, "intervals": INTERVALS}
    model._records = importlib.import_module("tasks.records")
    model._grid = importlib.import_module("tasks.science.imaging.grid")
    model._age_bias = importlib.import_module("tasks.science.statistics.age_bias")
    model._inputs = SimpleNamespace(network_input=lambda volumes, spec, channels: volumes)
    model._networks = SimpleNamespace(expected_ages_of=lambda member, spec, batch: torch.tensor([member]))
    model._recipe, model._network, model._members = RECIPE, NetworkSpec(), list(ages_years)
    return model


@pytest.fixture
def prepared(tmp_path: Path) -> pd.DataFrame:
    path = tmp_path / "scan.npy"
    np.save(path, np.zeros((1, *grid_shape(RECIPE)), np.float16))
    return pd.DataFrame({"prepared": [str(path)], "age_years": [50.0]})


def test_a_prediction_has_its_interval_and_spread(prepared: pd.DataFrame) -> None:
    (row,) = model_of(52.0, 56.0).predict(None, prepared).to_dict("records")
    assert row["status"] == "ok"
    assert (row["predicted_age_years"], row["brain_pad_years"]) == (54.0, 4.0)
    assert row["ensemble_spread_years"] == pytest.approx(np.sqrt(8))
    assert (row["interval_low_years"], row["interval_high_years"]) == (48.0, 60.0)
    # Nothing is corrected, so nothing stands where the corrected figures would.
    assert np.isnan([row["corrected_age_years"], row["corrected_interval_low_years"]]).all()


def test_a_corrected_age_without_enough_calibration_subjects_has_no_interval(prepared: pd.DataFrame) -> None:
    bias = {"alpha": 0.8, "beta_years": 10.0, "n_subjects": 4}
    (row,) = model_of(54.0, bias=bias).predict(None, prepared).to_dict("records")
    assert row["corrected_age_years"] == pytest.approx(54.0)
    assert np.isnan(row["corrected_interval_low_years"])
    assert np.isnan(row["ensemble_spread_years"])


@pytest.mark.parametrize(
    ("ages_years", "age_years", "status", "reason"),
    [
        ((4686.0,), 50.0, "implausible-age", "gave 4686 years, far outside"),
        ((-60.0,), 50.0, "implausible-age", "20 to 80"),
        ((50.0, float("nan")), 50.0, "rejected", "no finite age"),
        ((50.0,), 19.0, "outside-age-range", "age 19 is outside"),
    ],
)
def test_what_is_no_age_is_a_reason_and_never_a_number(
    prepared: pd.DataFrame, ages_years: tuple[float, ...], age_years: float, status: str, reason: str
) -> None:
    (row,) = model_of(*ages_years).predict(None, prepared.assign(age_years=age_years)).to_dict("records")
    assert row["status"] == status
    assert reason in row["reason"]
    assert np.isnan([row[name] for name in FIGURES]).all()


def test_a_volume_of_another_grid_or_missing_file_is_unreadable(prepared: pd.DataFrame, tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", np.zeros((1, 4, 4, 4), np.float16))
    paths = [str(tmp_path / "other.npy"), str(tmp_path / "absent.npy")]
    rows = model_of(50.0).predict(None, pd.DataFrame({"prepared": paths}))
    assert rows["status"].tolist() == ["unreadable"] * 2
    assert "the model expects" in rows["reason"][0]
