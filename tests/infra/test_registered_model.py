"""What a registered model says of a scan: a number with its interval where there is one, else a status and a reason."""

from __future__ import annotations

import importlib
import io
import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from infra.model_table import COLUMNS, FIGURES, NO_AGE, NOT_JUDGED, QUALITY_COLUMNS
from infra.registered_model import HTTP_SERVER, MODULES, BrainAgeModel
from tasks.records import NetworkSpec, Recipe
from tasks.science.imaging.grid import grid_shape

RECIPE = Recipe(resolution_mm=4.0)
OWN = {name: place for name, place in MODULES.items() if not place.startswith("networks.")}
INTERVALS = {"raw": {"half_width_years": 6.0}, "corrected": {"half_width_years": None, "note": "3 are too few"}}


CONTRACT = {
    "age_range_years": [20, 80],
    "intervals": INTERVALS,
    "recipe": asdict(RECIPE),
    "network": asdict(NetworkSpec()),
    "fit_key": "f1",
    "why_no_age_bias": "",
    "quality_bounds": {"snr": {"low": 1e6, "high": None, "label": "signal to noise"}},
}


def model_of(*ages_years: float, bias: dict[str, Any] | None = None, roots: str = "/") -> BrainAgeModel:
    """The registered model's own code around members that give fixed ages."""
    model = BrainAgeModel()
    here = {"records": "tasks.records", **{name: f"infra.{name}" for name in ("model_table", "image_roots")}}
    modules = {name: importlib.import_module(here.get(place, f"tasks.{place}")) for name, place in OWN.items()}
    modules["inputs"] = SimpleNamespace(network_input=lambda volumes, spec, channels: volumes)
    modules["networks"] = SimpleNamespace(expected_ages_of=lambda member, spec, batch: torch.tensor([member]))
    model.assemble(Path(), {**CONTRACT, "age_bias": bias}, modules, [roots])
    model._members = list(ages_years)
    return model


@pytest.fixture
def prepared(tmp_path: Path) -> pd.DataFrame:
    path = tmp_path / "scan.npy"
    np.save(path, np.ones((1, *grid_shape(RECIPE)), np.float16))
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


def test_no_figure_is_left_out_in_silence(prepared: pd.DataFrame) -> None:
    bias = {"alpha": 0.8, "beta_years": 10.0, "n_subjects": 4}
    one, two = model_of(54.0), model_of(54.0, 55.0, bias=bias)
    one.contract["intervals"], one.contract["why_no_age_bias"] = {}, "2 subjects are too few"
    (row,) = one.predict(None, prepared).to_dict("records")
    assert row["absent"].split("; ") == [
        "spread: the model is one network",
        "interval: the fit has none",
        "corrected age: 2 subjects are too few",
    ]
    (row,) = two.predict(None, prepared).to_dict("records")
    assert row["absent"] == "interval of the corrected age: 3 are too few"
    (row,) = two.predict(None, prepared.assign(age_years=None)).to_dict("records")
    assert row["absent"] == "brain-PAD and corrected age: no age was given"


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


def saved(path: Path, volume: np.ndarray) -> str:
    np.save(path, volume, allow_pickle=True)
    return str(path)


def test_what_no_volume_can_be_read_from_is_a_reason(prepared: pd.DataFrame, tmp_path: Path) -> None:
    shape = (1, *grid_shape(RECIPE))
    good = np.load(prepared["prepared"][0])
    with_nan, huge = good.copy(), good.copy()
    with_nan[0, 1, 1, 1], huge[0, 1, 1, 1] = np.nan, 6e4
    whole = Path(prepared["prepared"][0]).read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-9])
    claims = io.BytesIO()
    np.lib.format.write_array_header_1_0(claims, {"descr": "<f4", "fortran_order": False, "shape": (10**6,) * 3})
    (tmp_path / "claims.npy").write_bytes(claims.getvalue())
    (tmp_path / "pickle.npy").write_bytes(b"\x80\x04N.")
    expected = {
        saved(tmp_path / "other.npy", np.ones((1, 4, 4, 4), np.float16)): ("rejected", "the model expects"),
        str(tmp_path / "absent.npy"): ("unreadable", "No such file"),
        saved(tmp_path / "nan.npy", with_nan): ("rejected", "1 voxels of the prepared volume are not finite"),
        saved(tmp_path / "huge.npy", huge): ("rejected", "beyond ±1000"),
        saved(tmp_path / "empty.npy", np.zeros(shape, np.float16)): ("rejected", "0 everywhere"),
        saved(tmp_path / "objects.npy", np.full(shape, None)): ("rejected", "holds object"),
        saved(tmp_path / "text.npy", np.full(shape, "a")): ("rejected", "holds <U1"),
        str(tmp_path / "cut.npy"): ("rejected", "cut short"),
        str(tmp_path / "claims.npy"): ("rejected", "shape (1000000, 1000000, 1000000)"),
        str(tmp_path / "pickle.npy"): ("rejected", "no .npy file"),
    }
    rows = model_of(50.0).predict(None, pd.DataFrame({"prepared": list(expected)}))
    for row, (status, reason) in zip(rows.to_dict("records"), expected.values(), strict=True):
        assert row["status"] == status, row
        assert reason in row["reason"]
    assert rows[list(FIGURES)].isna().all(axis=None)


@pytest.mark.parametrize(
    ("age", "status", "reason"),
    [
        (None, "ok", NO_AGE),
        (float("nan"), "ok", NO_AGE),
        ("", "ok", NO_AGE),
        (pd.NA, "ok", NO_AGE),
        ("50", "ok", ""),
        (np.int64(50), "ok", ""),
        (-3.0, "rejected", "age_years is -3, expected 0 to 125 years"),
        (float("inf"), "rejected", "age_years is inf"),
        (600, "rejected", "age_years is 600"),
        ("fifty", "rejected", "age_years is 'fifty', expected a number"),
        (True, "rejected", "age_years is True"),
        ([50], "rejected", "age_years is [50]"),
    ],
)
def test_an_age_that_is_none_is_a_reason(prepared: pd.DataFrame, age: Any, status: str, reason: str) -> None:
    table = pd.DataFrame({"prepared": [*prepared["prepared"]] * 2, "age_years": pd.Series([age, 50.0], dtype=object)})
    rows = model_of(54.0).predict(None, table)
    assert rows["status"][0] == status
    assert rows["reason"][0].startswith(reason)
    assert bool(rows["reason"][0]) == bool(reason)
    assert (rows["status"][1], rows["brain_pad_years"][1]) == ("ok", 4.0)
    assert np.isnan(rows["predicted_age_years"][0]) == (status != "ok")


def test_what_names_no_image_is_a_reason(tmp_path: Path) -> None:
    table = pd.DataFrame({"image": pd.Series([None, float("nan"), "", 7, pd.NA, ["a.nii"]], dtype=object)})
    rows = model_of(50.0).predict(None, table)
    assert (rows["status"] == "rejected").all()
    assert rows["reason"].str.contains("the row lacks `image` or `prepared`").all()
    with pytest.raises(ValueError, match="none of the columns"):
        model_of(50.0).predict(None, pd.DataFrame(index=[0, 1]))


def test_images_and_prepared_volumes_outside_the_roots_are_refused(prepared: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    model = model_of(50.0, roots=str(tmp_path / "root"))
    places = [prepared["prepared"][0], f"{tmp_path}/root/../scan.npy", "http://localhost/a.nii", "s3://b/a.nii"]
    for column in ("prepared", "image", "T1w"):
        rows = model.predict(None, pd.DataFrame({column: places}))
        assert (rows["status"] == "refused").all(), rows["reason"].tolist()
        assert rows[list(FIGURES)].isna().all(axis=None)


def test_roots_of_the_environment_are_added(prepared: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(Path(prepared["prepared"][0]).parent)
    assert model_of(50.0, roots="/nowhere").predict(None, prepared)["status"][0] == "refused"
    monkeypatch.setenv("PADFLOW_IMAGE_ROOTS", place)
    assert model_of(50.0, roots="/nowhere").predict(None, prepared)["status"][0] == "ok"


def test_a_raw_scan_comes_with_its_quality_and_a_fault_of_ours_costs_its_neighbours_nothing(
    prepared: pd.DataFrame, tmp_path: Path
) -> None:
    (tmp_path / "scan.nii").write_bytes(b"image")
    model = model_of(50.0)
    quality = {"snr": 3.0, "cnr": 2.0, "registration_correlation_ratio": 0.6, "fov_cut_fraction": 0.0}
    scan = SimpleNamespace(volume=np.load(prepared["prepared"][0]), quality={**quality, "header_turn_degrees": 90.0})
    model._preparing = SimpleNamespace(prepare_scan=lambda *_: scan, MAX_Z=1000.0)
    table = pd.DataFrame({"image": [str(tmp_path / "scan.nii"), None], "prepared": [None, prepared["prepared"][0]]})
    rows = model.predict(None, table)
    assert rows["status"].tolist() == ["ok", "ok"]
    assert rows.loc[0, list(QUALITY_COLUMNS)].tolist() == [3.0, 2.0, 0.6, 0.0, 90.0]
    assert rows["quality_flags"].tolist() == [
        "snr (signal to noise) is 3, usual here is at least 1e+06",
        NOT_JUDGED,
    ]
    assert rows["fit_key"].tolist() == ["f1", "f1"]
    model._preparing.prepare_scan = lambda *_: 1 / 0
    broken = model.predict(None, table)
    assert broken["status"].tolist() == ["rejected", "ok"]
    assert "unexpected ZeroDivisionError" in broken["reason"][0]


def test_undefined_cells_are_nan_in_a_table_and_null_over_http(
    prepared: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(50.0)
    table = model.predict(None, prepared)
    assert table.columns.tolist() == list(COLUMNS)
    assert np.isnan(table["corrected_age_years"][0])
    monkeypatch.setitem(sys.modules, HTTP_SERVER, SimpleNamespace())
    records = model.predict(None, prepared).to_dict("records")
    assert records[0]["corrected_age_years"] is None
    assert json.loads(json.dumps(records, allow_nan=False)) == records
