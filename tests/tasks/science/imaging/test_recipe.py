"""The whole path from bytes to a prepared volume, on heads whose truth is known and on real scans."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy.spatial.transform import Rotation

from tasks.records import Recipe, ScanRejected, TemplateSpec
from tasks.science.imaging.orientation import apply_affine
from tasks.science.imaging.phantom import PhantomScan, PhantomSpec, write_phantom
from tasks.science.imaging.recipe import Prepared, prepare_scan, recipe_digest
from tasks.science.imaging.resampling import block_mean
from tasks.science.imaging.template import given_template, mni

RECIPE = Recipe(resolution_mm=4.0)
REPOSITORY = Path(__file__).resolve().parents[4]
Cohort = dict[str, list[tuple[bytes, PhantomScan]]]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    made: Cohort = {}
    for variant in ("head", "stripped"):
        spec = PhantomSpec(subjects=3, sites=3, variant=variant)  # type: ignore[arg-type]
        root = tmp_path_factory.mktemp("phantom") / variant
        truth = write_phantom(spec, root)
        made[variant] = [((root / scan.path).read_bytes(), scan) for scan in truth.scans]
    return made


@pytest.fixture(scope="module")
def prepared(cohort: Cohort) -> dict[str, list[Prepared]]:
    return {name: [prepare_scan(content, RECIPE) for content, _ in scans] for name, scans in cohort.items()}


def stored(volume: np.ndarray, affine: np.ndarray) -> bytes:
    image = nib.Nifti1Image(volume, affine)
    image.set_sform(affine, 1)
    image.set_qform(None, 0)
    return image.to_bytes()


def loaded(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
    return np.asarray(image.dataobj, dtype=np.float32), image.affine


def target_error_mm(found: np.ndarray, truth: np.ndarray) -> float:
    points = apply_affine(mni().affine, np.argwhere(mni().brain[::8, ::8, ::8]) * 8)
    return float(np.linalg.norm(apply_affine(found @ np.linalg.inv(truth), points) - points, axis=1).mean())


@pytest.mark.parametrize(("variant", "kind"), [("head", "template"), ("stripped", "provided")])
def test_planted_affine_is_recovered(
    cohort: Cohort, prepared: dict[str, list[Prepared]], variant: str, kind: str
) -> None:
    for (_, scan), result in zip(cohort[variant], prepared[variant], strict=True):
        error_mm = target_error_mm(np.array(result.sidecar["native_to_mni"]), np.array(scan.scanner_to_mni))
        assert error_mm < 2.0
        assert result.sidecar["mask_kind"] == kind
        assert result.quality["fov_cut_fraction"] < 0.05


def test_output_is_as_documented(prepared: dict[str, list[Prepared]]) -> None:
    result = prepared["head"][0]
    brain = result.volume != 0
    assert result.volume.dtype == np.float16
    assert result.volume.shape == (1, 40, 48, 40)
    assert result.volume[brain].astype(np.float64).mean() == pytest.approx(0, abs=0.01)
    assert result.volume[brain].astype(np.float64).std() == pytest.approx(1, abs=0.01)
    assert all(isinstance(value, float) and np.isfinite(value) for value in result.quality.values())
    assert json.loads(json.dumps(result.sidecar, allow_nan=False))["recipe"]["resolution_mm"] == 4.0
    assert {"snr", "cnr", "brain_volume_ml", "brain_fraction", "registration_ncc"} <= result.quality.keys()


def test_same_bytes_give_same_bytes_in_any_process_order_and_thread_count(
    cohort: Cohort, prepared: dict[str, list[Prepared]], tmp_path: Path
) -> None:
    """Two scans, in the other order, by another process with two threads: as on another worker."""
    scans = [cohort["head"][0][0], cohort["stripped"][1][0]]
    paths = [tmp_path / f"scan-{number}.nii.gz" for number in range(2)]
    for path, content in zip(paths, scans, strict=True):
        path.write_bytes(content)
    program = (
        "import sys, hashlib, pathlib; from tasks.records import Recipe; "
        "from tasks.science.imaging.recipe import prepare_scan\n"
        "for name in sys.argv[1:]:\n"
        "    done = prepare_scan(pathlib.Path(name).read_bytes(), Recipe(resolution_mm=4.0))\n"
        "    print(hashlib.sha256(done.volume.tobytes() + repr(sorted(done.quality.items())).encode()).hexdigest())"
    )
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "PYTHONPATH": path}
    command = [sys.executable, "-c", program, *map(str, reversed(paths))]
    elsewhere = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
    here = [prepared["stripped"][1], prepared["head"][0]]
    expected = [done.volume.tobytes() + repr(sorted(done.quality.items())).encode() for done in here]
    assert elsewhere.stdout.split() == [hashlib.sha256(content).hexdigest() for content in expected]


@pytest.mark.parametrize("codes", ["LPS", "PIR", "SAL"])
def test_storage_order_does_not_matter(cohort: Cohort, prepared: dict[str, list[Prepared]], codes: str) -> None:
    volume, affine = loaded(cohort["head"][1][0])
    change = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(codes)))
    again = prepare_scan(stored(apply_orientation(volume, change), affine @ inv_ornt_aff(change, volume.shape)), RECIPE)
    first = prepared["head"][1].volume.astype(np.float32)
    assert np.abs(again.volume.astype(np.float32) - first).mean() < 0.02


def test_scanner_gain_does_not_matter(cohort: Cohort, prepared: dict[str, list[Prepared]]) -> None:
    volume, affine = loaded(cohort["stripped"][0][0])
    again = prepare_scan(stored(volume * 7.3, affine), RECIPE)
    first = prepared["stripped"][0].volume.astype(np.float32)
    assert np.abs(again.volume.astype(np.float32) - first).mean() < 0.02


def test_thick_slices_register_too(cohort: Cohort) -> None:
    content, scan = cohort["head"][2]
    volume, affine = loaded(content)
    axis = int(np.argmax(np.abs(affine[2, :3])))
    factors = [1, 1, 1]
    factors[axis] = 3
    kept = volume.shape[axis] // 3 * 3
    thick = np.take(volume, range(kept), axis)
    parts = thick.reshape(*thick.shape[:axis], kept // 3, 3, *thick.shape[axis + 1 :])
    moved = affine @ np.diag([*factors, 1.0])
    moved[:3, 3] = affine[:3, 3] + affine[:3, axis]
    result = prepare_scan(stored(parts.mean(axis=axis + 1).astype(np.float32), moved), RECIPE)
    assert target_error_mm(np.array(result.sidecar["native_to_mni"]), np.array(scan.scanner_to_mni)) < 2.5


def test_noise_and_cut_and_skull_are_refused(cohort: Cohort) -> None:
    rng = np.random.default_rng(0)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -100
    with pytest.raises(ScanRejected) as noise:
        prepare_scan(stored(rng.normal(100, 10, (50, 50, 50)).astype(np.float32), affine), RECIPE)
    assert noise.value.stage == "registration"
    with pytest.raises(ScanRejected, match="skull was not removed"):
        prepare_scan(cohort["head"][0][0], replace(RECIPE, mask="provided"))


def test_digest_follows_every_field_of_the_recipe() -> None:
    changed = [
        replace(RECIPE, name="flair"),
        replace(RECIPE, name="flair", reference="FLAIR"),
        replace(RECIPE, name="multichannel"),
        replace(RECIPE, name="multichannel", channels=("T1w", "ratio")),
        replace(RECIPE, resolution_mm=2.0),
        replace(RECIPE, field_of_view_mm=(176.0, 208.0, 176.0)),
        replace(RECIPE, mask="template"),
        replace(RECIPE, bias_correction=False),
        replace(RECIPE, clip_percentiles=(1.0, 99.0)),
        replace(RECIPE, seed=1),
    ]
    assert len({recipe_digest(recipe) for recipe in (RECIPE, *changed)}) == 11
    assert recipe_digest(RECIPE) == recipe_digest(Recipe(resolution_mm=4.0))
    assert recipe_digest(replace(RECIPE, channels=("T1w",))) == recipe_digest(RECIPE)


def test_a_template_is_its_bytes_wherever_it_lies() -> None:
    given = TemplateSpec("newborn", "t1.nii", "grey.nii", "white.nii", sha256="1" * 64)
    here, elsewhere = (replace(RECIPE, templates=(replace(given, t1=place),)) for place in ("t1.nii", "s3://b/t1.nii"))
    assert recipe_digest(here) == recipe_digest(elsewhere) != recipe_digest(RECIPE)
    assert recipe_digest(replace(RECIPE, templates=(replace(given, sha256="2" * 64),))) != recipe_digest(here)
    with pytest.raises(ValueError, match="newborn"):
        recipe_digest(replace(RECIPE, templates=(replace(given, sha256=""),)))


def test_a_given_template_takes_the_place_of_mni(cohort: Cohort) -> None:
    """MNI in halved voxels and stored in another order: registration must find the same place in the same space."""
    files = {}
    for which, layer in (("t1", mni().t1), ("grey", mni().grey), ("white", mni().white)):
        small, small_affine = block_mean(layer, mni().affine, 2.0)
        files[which] = stored(small[::-1], small_affine @ np.array(FLIP_X) + _shift(small.shape[0], small_affine))
    template = given_template("halved", files)
    content, scan = cohort["head"][0]
    result = prepare_scan(content, RECIPE, template)
    assert result.sidecar["space"] == "halved"
    assert target_error_mm(np.array(result.sidecar["native_to_mni"]), np.array(scan.scanner_to_mni)) < 2.5
    with pytest.raises(ValueError, match="different grids"):
        given_template("mixed", {**files, "grey": stored(mni().grey, mni().affine)})


FLIP_X = np.diag([-1.0, 1.0, 1.0, 1.0])


def _shift(size: int, affine: np.ndarray) -> np.ndarray:
    move = np.zeros((4, 4))
    move[:3, 3] = affine[:3, 0] * (size - 1)
    return move


REAL_SCANS = {
    "open_ms/longitudinal/sub-long01/ses-1/anat/sub-long01_ses-1_T1w.nii.gz": ("template", 0.45),
    "open_ms/cross_sectional/sub-cross07/anat/sub-cross07_T1w.nii.gz": ("provided", 0.45),
    "ds002748/sub-06/anat/sub-06_T1w.nii.gz": ("provided", 0.45),
}


@pytest.mark.parametrize("name", REAL_SCANS)
def test_real_scans_lie_on_the_template(shared_data: Path, name: str) -> None:
    if not (shared_data / name).is_file():
        pytest.skip(f"{name} is absent from the real data")
    kind, least_ncc = REAL_SCANS[name]
    result = prepare_scan((shared_data / name).read_bytes(), RECIPE)
    assert result.sidecar["mask_kind"] == kind
    assert result.quality["registration_ncc"] > least_ncc
    assert 1.0 < result.quality["registration_determinant"] < 2.0
    assert 800 < result.quality["brain_volume_ml"] < 1500


def filled_share(result: Prepared, low_mm: tuple[float, ...], high_mm: tuple[float, ...]) -> float:
    to_voxels = np.linalg.inv(result.affine)
    low, high = np.rint(apply_affine(to_voxels, np.array([low_mm, high_mm]))).astype(int)
    return float((result.volume[0][tuple(slice(*ends) for ends in zip(low, high, strict=True))] != 0).mean())


def test_infants_whose_header_turns_them_around_face_forward(shared_data: Path) -> None:
    name = "infant/sub-month12/anat/sub-month12_T1w.nii.gz"
    if not (shared_data / name).is_file():
        pytest.skip(f"{name} is absent from the real data")
    result = prepare_scan((shared_data / name).read_bytes(), RECIPE)
    assert result.quality["header_turn_degrees"] == 180
    # The cerebellum is not in these scans: its place is empty, and the frontal lobe's underside across from it is not.
    cerebellum, frontal = ((-20, -75, -25), (20, -45, -15)), ((-20, 15, -25), (20, 45, -15))
    assert filled_share(result, *cerebellum) < 0.2
    assert filled_share(result, *frontal) > 0.8


@pytest.mark.parametrize("angles", [(0, 0, 180), (90, 0, 0)])
def test_a_real_scan_with_an_edited_header_is_found_and_said(shared_data: Path, angles: tuple[float, ...]) -> None:
    name = "ds002748/sub-06/anat/sub-06_T1w.nii.gz"
    if not (shared_data / name).is_file():
        pytest.skip(f"{name} is absent from the real data")
    volume, affine = loaded((shared_data / name).read_bytes())
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix().round()
    result = prepare_scan(stored(volume, turn @ affine), RECIPE)
    assert result.quality["header_turn_degrees"] == abs(max(angles, key=abs))
    assert result.quality["registration_ncc"] > 0.45


def test_a_mask_tool_is_asked_for_and_its_version_is_part_of_the_key(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for SynthStrip, since its weights cannot be part of a test: it keeps what is bright."""
    recipe = replace(RECIPE, mask="synthstrip")
    with pytest.raises(ValueError, match="mri_synthstrip"):
        recipe_digest(recipe)
    tool = tmp_path / "mri_synthstrip"
    tool.write_text(
        f"#!{sys.executable}\nimport sys, nibabel as nib, numpy as np\n"
        "options = dict(zip(sys.argv[1:], sys.argv[2:]))\nimage = nib.load(options['-i'])\n"
        "middle = np.abs(np.indices(image.shape) - np.array(image.shape).reshape(3, 1, 1, 1) / 2)\n"
        "inside = (middle * np.array(image.header.get_zooms()).reshape(3, 1, 1, 1)).max(axis=0) < 45\n"
        "nib.save(nib.Nifti1Image(inside.astype(np.uint8), image.affine), options['-m'])\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    first = recipe_digest(recipe)
    result = prepare_scan(cohort["head"][0][0], recipe)
    assert result.sidecar["mask_kind"] == "synthstrip"
    assert result.sidecar["mask_tool"].startswith("mri_synthstrip")
    determinant = result.quality["registration_determinant"]
    assert (result.volume != 0).sum() * 0.064 / determinant == pytest.approx(0.09**3 * 1e6, rel=0.05)
    tool.write_text(tool.read_text() + "# another version\n")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert recipe_digest(recipe) != first


def test_a_recipe_that_keeps_the_skull_shows_the_head_as_it_shows_the_brain(cohort: Cohort) -> None:
    content = cohort["head"][0][0]
    stripped, whole = (prepare_scan(content, replace(RECIPE, skull_strip=strip)) for strip in (True, False))
    brain = stripped.volume[0] != 0
    assert (whole.volume[0] != 0).sum() > 1.5 * brain.sum()
    # Judged by the brain alike; the same intensities, on another scale.
    assert whole.quality == stripped.quality
    assert np.corrcoef(whole.volume[0][brain], stripped.volume[0][brain])[0, 1] > 0.98
    assert recipe_digest(RECIPE) != recipe_digest(replace(RECIPE, skull_strip=False))
