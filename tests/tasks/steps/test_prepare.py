"""Whose fault it is when a scan cannot be prepared: the scan's, the recipe's, or ours."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from flows.prepare import prepare_study
from infra import layout
from infra.storage import Store
from tasks.records import Excluded, Recipe, ScanRef
from tasks.science.imaging.phantom import PhantomSpec, write_phantom
from tasks.science.imaging.recipe import recipe_digest
from tasks.steps import prepare
from tests.tiny_study import STUDY

RECIPE = Recipe(resolution_mm=8.0)
NARROW_MM = (100.0, 192.0, 160.0)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("prepare") / "train"
    write_phantom(PhantomSpec(subjects=1, sites=1, seed=1, patients=0.0, spacing_mm=4.0), root)
    return root


@pytest.fixture
def scan(cohort: Path) -> ScanRef:
    path = next(cohort.glob("sub-*/anat/*.nii.gz"))
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    return ScanRef("train/sub", "train", "sub", "", "", "T1w", str(path), len(content), sha256)


def test_a_grid_that_cuts_the_brain_is_no_scans_fault(scan: ScanRef, tmp_path: Path) -> None:
    recipe = Recipe(resolution_mm=8.0, field_of_view_mm=NARROW_MM)
    store = Store(str(tmp_path / "store"), tmp_path / "cache")
    with pytest.raises(ValueError, match="enlarge field_of_view_mm"):
        prepare.prepare_one(store.url, str(store.cache), scan, recipe, recipe_digest(recipe))
    assert not list((tmp_path / "store").rglob("*.json"))


def test_it_is_refused_before_any_scan_and_before_a_server_starts(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, rest = STUDY.split("[[cohorts]]", 1)
    cut = f"resolution_mm = 4.0\nfield_of_view_mm = {list(NARROW_MM)}"
    settings = rest[rest.index("[recipe]") : rest.index("[[associations]]")].replace("resolution_mm = 4.0", cut)
    study = tmp_path / "narrow.toml"
    study.write_text(f"{head}[[cohorts]]{rest.split('[[cohorts]]', 1)[0]}{settings}")
    monkeypatch.setenv("PADFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PADFLOW_DATA", str(cohort.parent))
    monkeypatch.setenv("PADFLOW_STORE", "")

    def no_server() -> None:
        raise AssertionError("a server was started")

    monkeypatch.setattr("flows.prepare.start_embedded_server", no_server)
    with pytest.raises(ValueError, match="cuts the brain of MNI152NLin2009aSym"):
        prepare_study(str(study))
    assert not list((tmp_path / "home").rglob("excluded*"))


def test_a_fault_in_drawing_the_montage_is_counted_with_its_reason(
    scan: ScanRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise ZeroDivisionError("no slice to draw")

    monkeypatch.setattr(prepare, "prepared_montage", broken)
    store, key = Store(str(tmp_path / "store"), tmp_path / "cache"), recipe_digest(RECIPE)
    outcome = prepare.prepare_one(store.url, str(store.cache), scan, RECIPE, key)
    assert isinstance(outcome, Excluded)
    assert outcome.stage == "unexpected"
    assert "ZeroDivisionError: no slice to draw" in outcome.reason
    assert json.loads(store.read(layout.excluded_scan(key, scan.key)))["reason"] == outcome.reason
    assert not store.exists(layout.prepared_volume(key, scan.key))


def test_an_image_over_the_limit_is_excluded_before_it_is_read(scan: ScanRef, tmp_path: Path) -> None:
    store, key = Store(str(tmp_path / "store"), tmp_path / "cache"), recipe_digest(RECIPE)
    huge = replace(scan, uri="/nowhere/sub_T1w.nii.gz", size_bytes=200 * 2**30)
    outcome = prepare.prepare_one(store.url, str(store.cache), huge, RECIPE, key)
    assert isinstance(outcome, Excluded)
    assert (outcome.stage, outcome.reason.split(",")[0]) == ("read", "the file is larger than 2 GiB")
