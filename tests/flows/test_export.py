"""`padflow export` on phantoms: nibabel and nilearn open what it writes, and no scan goes unmentioned."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn import datasets, image

from flows.export import export_study
from flows.workspace import Workspace, open_workspace
from infra import layout
from tasks.records import Excluded, PreparedScan
from tasks.steps.index import index_cohort
from tasks.steps.prepare import prepare_one, write_exclusion
from tests.command_line import CommandLine
from tests.flows.test_study import snapshot
from tests.tiny_study import STUDY

MNI = "MNI152NLin2009aSym"
TWO_CHANNELS = ["T1w", "ratio"]


def enter(home: Path, data: Path) -> None:
    """Set what flags would set; the fixture below takes it back."""
    os.environ.update(PADFLOW_HOME=str(home), PADFLOW_DATA=str(data), PADFLOW_STORE="", PADFLOW_WORKERS="2")


def indexed(home: Path, data: Path, study: str = STUDY) -> Workspace:
    """The tiny study with its cohorts indexed and nothing prepared."""
    home.mkdir()
    (home / "tiny.toml").write_text(study)
    enter(home, data)
    workspace = open_workspace(str(home / "tiny.toml"))
    for spec in workspace.study.cohorts:
        index_cohort(workspace.store, spec.name, str(data / spec.root))
    return workspace


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PADFLOW_HOME", "PADFLOW_DATA", "PADFLOW_STORE", "PADFLOW_WORKERS"):
        monkeypatch.setenv(name, "")


@pytest.fixture(scope="module")
def exported(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, Path, Any]]:
    """Two sessions of one person really prepared, a third scan excluded, all others left; then exported."""
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PADFLOW_HOME", "PADFLOW_DATA", "PADFLOW_STORE", "PADFLOW_WORKERS"):
            patch.setenv(name, "")
        workspace = indexed(folder / "home", phantoms)
        store, key = workspace.store, workspace.recipe_key
        clinical = workspace.stored_states()[2].missing
        for scan in clinical[:2]:
            outcome = prepare_one(store.url, str(store.cache), scan, workspace.study.recipe, key)
            assert isinstance(outcome, PreparedScan)
        write_exclusion(store, key, Excluded(clinical[2].scan_id, clinical[2].sha256, "read", "cut\tshort"))
        result = export_study(str(folder / "home" / "tiny.toml"), str(folder / "out"))
        yield workspace, folder / "out", result


def test_nibabel_and_nilearn_open_the_scan_on_the_templates_grid(exported: tuple[Workspace, Path, Any]) -> None:
    workspace, out, _ = exported
    state = workspace.stored_states()[2]
    template = datasets.load_mni152_template(resolution=2)
    for row in state.prepared.to_dict("records"):
        stem = (
            out
            / "ms"
            / row["participant_id"]
            / row["session_id"]
            / "anat"
            / row["scan_id"].split("/")[1][: -len("_T1w")]
        )
        path = Path(f"{stem}_space-{MNI}_desc-preproc_T1w.nii.gz")
        loaded = nib.nifti1.load(path)
        stored = np.load(io.BytesIO(workspace.store.read(layout.prepared_volume(workspace.recipe_key, row["sha256"]))))
        np.testing.assert_array_equal(np.asarray(loaded.dataobj), stored[0].astype(np.float32))
        assert nib.orientations.aff2axcodes(loaded.affine) == ("R", "A", "S")
        assert int(loaded.header["sform_code"]) == int(loaded.header["qform_code"]) == 4
        sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        np.testing.assert_array_equal(loaded.affine, sidecar["Padflow"]["affine"])
        scan = image.load_img(path)
        brain = image.load_img(f"{stem}_space-{MNI}_desc-brain_mask.nii.gz")
        on_grid = image.resample_to_img(template, scan, force_resample=True, copy_header=True)
        inside = brain.get_fdata() > 0
        assert 500 < inside.sum() * 4**3 / 1000 < 2500
        assert not scan.get_fdata()[~inside].any()
        assert np.corrcoef(scan.get_fdata()[inside], on_grid.get_fdata()[inside])[0, 1] > 0.5


def test_the_notes_beside_an_image_say_where_it_comes_from(
    exported: tuple[Workspace, Path, Any], phantoms: Path
) -> None:
    _, out, _ = exported
    for path in sorted((out / "ms").rglob("*_T1w.json")):
        notes = json.loads(path.read_text())
        assert notes["SkullStripped"] is True
        assert notes["SpatialReference"] == MNI
        assert notes["Resolution"] == "4 mm isotropic"
        source = notes["Sources"][0].removeprefix("bids:raw:")
        assert (phantoms / "clinical" / source).is_file()
        assert np.isfinite(notes["Padflow"]["quality"]["snr"])
    description = json.loads((out / "ms" / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["DatasetLinks"]["raw"] == (phantoms / "clinical").as_uri()


def test_every_indexed_scan_stands_in_one_of_two_tables(exported: tuple[Workspace, Path, Any]) -> None:
    workspace, out, result = exported
    (cohort,) = result["cohorts"]
    assert (cohort["name"], cohort["prepared"], cohort["written"], cohort["missing"]) == ("ms", 2, 2, 9)
    quality = pd.read_csv(out / "ms" / "quality.tsv", sep="\t")
    excluded = pd.read_csv(out / "ms" / "excluded.tsv", sep="\t")
    manifest = workspace.stored_states()[2].indexed.tables.manifest
    assert sorted([*quality["scan_id"], *excluded["scan_id"]]) == sorted(manifest["scan_id"])
    assert excluded["stage"].value_counts().to_dict() == {"missing": 9, "read": 1}
    assert all((out / "ms" / file).is_file() for file in quality["file"])
    assert quality["snr"].notna().all()
    people = pd.read_csv(out / "ms" / "participants.tsv", sep="\t")
    sessions = pd.read_csv(next((out / "ms").glob("sub-*/*_sessions.tsv")), sep="\t")
    assert people["participant_id"].tolist() == sorted(
        {scan.split("/")[1].split("_")[0] for scan in quality["scan_id"]}
    )
    assert len(sessions) == 2
    assert sessions["age"].is_monotonic_increasing


def test_a_second_export_writes_no_image(exported: tuple[Workspace, Path, Any], phantoms: Path) -> None:
    workspace, out, _ = exported
    enter(workspace.settings.home, phantoms)
    images = {name: mark for name, mark in snapshot(out).items() if "/anat/" in name}
    assert len(images) == 12
    again = export_study(str(workspace.settings.home / "tiny.toml"), str(out))
    assert (again["cohorts"][0]["written"], again["cohorts"][0]["there_already"]) == (0, 2)
    assert {name: mark for name, mark in snapshot(out).items() if "/anat/" in name} == images


def made_up(
    home: Path, data: Path, channels: list[str] = TWO_CHANNELS, size: int = 20, study: str = STUDY
) -> Workspace:
    """The tiny study with every scan of its external cohort prepared, in a blink: noise instead of brains."""
    workspace = indexed(home, data, study)
    fill(workspace, channels, size)
    return workspace


def fill(workspace: Workspace, channels: list[str], size: int) -> None:
    """Put noise into the store as prepared scans."""
    random = np.random.default_rng(3)
    sidecar = {
        **{"space": MNI, "affine": np.diag([8.0, 8, 8, 1]).tolist(), "mask_kind": "template"},
        **{"native_to_mni": np.eye(4).tolist(), "native_affine": np.eye(4).tolist(), "quality": {"snr": 7.5}},
        **{"channels": channels, "reference": "T1w"},
    }
    for scan in workspace.stored_states()[1].missing:
        buffer = io.BytesIO()
        np.save(buffer, random.normal(size=(len(channels), size, size, size)).astype(np.float16))
        workspace.store.write(layout.prepared_volume(workspace.recipe_key, scan.key), buffer.getvalue())
        workspace.store.write_json(layout.prepared_sidecar(workspace.recipe_key, scan.key), sidecar)


def test_each_channel_is_an_image_of_its_own(phantoms: Path, tmp_path: Path) -> None:
    workspace = made_up(tmp_path / "home", phantoms)
    export_study(str(tmp_path / "home" / "tiny.toml"), str(tmp_path / "out"), ["external"])
    row = workspace.stored_states()[1].prepared.iloc[0]
    volume = np.load(io.BytesIO(workspace.store.read(layout.prepared_volume(workspace.recipe_key, row["sha256"]))))
    folder = tmp_path / "out" / "external" / row["participant_id"] / "anat"
    for channel, suffix in enumerate(("T1w", "T1wT2wratio")):
        (path,) = folder.glob(f"*_space-{MNI}_desc-preproc_{suffix}.nii.gz")
        np.testing.assert_array_equal(np.asarray(nib.nifti1.load(path).dataobj), volume[channel].astype(np.float32))
        assert path.with_name(path.name.replace(".nii.gz", ".json")).is_file()


def test_notes_name_every_image_of_the_session(phantoms: Path, tmp_path: Path) -> None:
    shutil.copytree(phantoms, tmp_path / "data")
    for path in (tmp_path / "data").glob("*/sub-*/**/anat/*_T1w.nii.gz"):
        path.with_name(path.name.replace("_T1w", "_T2w")).write_bytes(path.read_bytes() + b"another image")
    study = STUDY.replace("[recipe]", '[recipe]\nname = "t1w_t2w_ratio"')
    made_up(tmp_path / "home", tmp_path / "data", ["ratio"], study=study)
    export_study(str(tmp_path / "home" / "tiny.toml"), str(tmp_path / "out"))
    notes = sorted((tmp_path / "out" / "external").rglob("*_T1wT2wratio.json"))
    assert len(notes) == 5
    for path in notes:
        sources = [uri.removeprefix("bids:raw:") for uri in json.loads(path.read_text())["Sources"]]
        assert [source.rsplit("_", 1)[1] for source in sources] == ["T1w.nii.gz", "T2w.nii.gz"]
        assert all((tmp_path / "data" / "external" / source).is_file() for source in sources)
    people = (tmp_path / "out" / "external" / "participants.tsv").read_text().splitlines()
    assert {"companions", "template", "image_sha256"}.isdisjoint(people[0].split("\t"))
    assert len((tmp_path / "out" / "external" / "excluded.tsv").read_text().splitlines()) == 1 + 5


def test_an_image_that_was_lost_or_changed_recipe_is_written_again(phantoms: Path, tmp_path: Path) -> None:
    workspace = made_up(tmp_path / "home", phantoms)
    study, out = str(tmp_path / "home" / "tiny.toml"), tmp_path / "out"
    export_study(study, str(out), ["external"])
    lost = sorted(out.rglob("*_mask.nii.gz"))[0]
    lost.unlink()
    mark = sorted(out.rglob("*_T1w.json"))[1]
    other = json.loads(mark.read_text())
    other["Padflow"]["made_from"] = "0" * 64
    mark.write_text(json.dumps(other))
    result = export_study(study, str(out), ["external"])["cohorts"][0]
    assert (result["written"], result["there_already"]) == (2, 3)
    assert lost.is_file()
    gone = workspace.stored_states()[1].prepared.iloc[0]
    workspace.store.delete(layout.prepared_sidecar(workspace.recipe_key, gone["sha256"]))
    result = export_study(study, str(out), ["external"])["cohorts"][0]
    assert result["prepared"] == 4
    assert result["missing"] == 1
    assert len(result["left_over"]) == 8
    assert all(name.startswith(f"{gone['participant_id']}/anat/") for name in result["left_over"])


def test_a_url_is_a_destination_too(phantoms: Path, tmp_path: Path) -> None:
    made_up(tmp_path / "home", phantoms)
    study, out = str(tmp_path / "home" / "tiny.toml"), f"memory://{tmp_path.name}/derivatives/"
    first = export_study(study, out)["cohorts"][0]
    assert (first["written"], first["folder"]) == (5, f"memory://{tmp_path.name}/derivatives/external")
    bucket = fsspec.filesystem("memory")
    held = {path: bucket.modified(path) for path in bucket.find(f"/{tmp_path.name}") if "/anat/" in path}
    assert len(held) == 5 * 8
    again = export_study(study, out)["cohorts"][0]
    assert (again["written"], again["left_over"]) == (0, [])
    assert {path: bucket.modified(path) for path in held} == held


@pytest.mark.parametrize("held", ["participants.tsv", "dataset_description.json"])
def test_another_data_set_is_never_written_over(phantoms: Path, tmp_path: Path, held: str) -> None:
    made_up(tmp_path / "home", phantoms)
    target = tmp_path / "out" / "external"
    target.mkdir(parents=True)
    (target / held).write_text('{"Name": "raw", "BIDSVersion": "1.8.0"}')
    with pytest.raises(ValueError, match="nothing was written"):
        export_study(str(tmp_path / "home" / "tiny.toml"), str(tmp_path / "out"))
    assert [path.name for path in target.iterdir()] == [held]


def test_mistakes_are_answered_in_words(phantoms: Path, tmp_path: Path) -> None:
    indexed(tmp_path / "home", phantoms)
    study = str(tmp_path / "home" / "tiny.toml")
    with pytest.raises(ValueError, match=r"nothing to export.*padflow preprocess"):
        export_study(study, str(tmp_path / "out"))
    with pytest.raises(ValueError, match="no such cohort; there are: healthy, external, ms"):
        export_study(study, str(tmp_path / "out"), ["extern"])
    fill(open_workspace(study), TWO_CHANNELS, 8)
    with pytest.raises(ValueError, match="must not hold credentials"):
        export_study(study, "s3://key:secret@bucket/x")
    assert not (tmp_path / "out").exists()


def test_a_killed_export_leaves_no_half_file_and_is_continued(phantoms: Path, tmp_path: Path) -> None:
    made_up(tmp_path / "home", phantoms, size=120)
    padflow = CommandLine(tmp_path / "home", str(phantoms))
    study, out = str(tmp_path / "home" / "tiny.toml"), tmp_path / "out"
    process = padflow.start("export", study, str(out), "--workers", "1")
    deadline = time.monotonic() + 240
    while not list(out.rglob("*_T1w.json")):
        assert process.poll() is None, padflow.stderr
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = sorted(out.rglob("*_T1w.json"))
    assert len(done) < 5
    for path in out.rglob("[!.]*.nii.gz"):
        assert np.isfinite(np.asarray(nib.nifti1.load(path).dataobj)).all()
    before = {path: path.stat().st_mtime_ns for path in done}
    result = json.loads(padflow("export", study, str(out), "--json"))["cohorts"][0]
    assert (result["written"], result["there_already"]) == (5 - len(done), len(done))
    assert {path: path.stat().st_mtime_ns for path in done} == before
    assert len(list(out.rglob("*_T1w.json"))) == 5
