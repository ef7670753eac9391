"""Recipes that need several images of a session, on heads whose truth is known and on real sessions."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tasks.records import RatioCalibration, Recipe, ScanRejected
from tasks.science.imaging.grid import study_grid, template_on_grid
from tasks.science.imaging.orientation import apply_affine
from tasks.science.imaging.phantom import PhantomScan, write_phantom
from tasks.science.imaging.phantom_spec import PhantomSpec
from tasks.science.imaging.recipe import Prepared, prepare_scan
from tasks.science.imaging.template import mni

MULTI = Recipe(name="multichannel", channels=("T1w", "T2w", "FLAIR", "ratio"), resolution_mm=4.0)
Session = dict[str, tuple[bytes, PhantomScan]]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    root = tmp_path_factory.mktemp("contrasts")
    spec = PhantomSpec(subjects=1, sites=1, seed=3, patients=0.0, spacing_mm=3.0, contrasts=("T1w", "T2w", "FLAIR"))
    truth = write_phantom(spec, root)
    return {scan.contrast.name: ((root / scan.path).read_bytes(), scan) for scan in truth.scans}


def images(session: Session) -> dict[str, bytes]:
    return {name: content for name, (content, _) in session.items()}


@pytest.fixture(scope="module")
def prepared(session: Session) -> Prepared:
    return prepare_scan(images(session), MULTI)


def error_mm(found: list[list[float]], scan: PhantomScan) -> float:
    points = apply_affine(mni().affine, np.argwhere(mni().brain[::8, ::8, ::8]) * 8)
    back = np.array(found) @ np.linalg.inv(np.array(scan.scanner_to_mni))
    return float(np.linalg.norm(apply_affine(back, points) - points, axis=1).mean())


def test_every_contrast_lies_where_it_was_planted(session: Session, prepared: Prepared) -> None:
    places = {"T1w": prepared.sidecar, **prepared.sidecar["companions"]}
    assert prepared.volume.shape == (4, 40, 48, 40)
    assert prepared.sidecar["channels"] == ["T1w", "T2w", "FLAIR", "ratio"]
    for name, place in places.items():
        assert error_mm(place["native_to_mni"], session[name][1]) < 2.0, name
    assert all(np.isfinite(value) for value in prepared.quality.values())
    assert {"T2w_alignment", "FLAIR_moved_mm", "ratio_median", "ratio_defined"} <= prepared.quality.keys()


def test_tissues_have_the_order_of_their_contrast(prepared: Prepared) -> None:
    _, grey, white, brain = template_on_grid(mni(), *study_grid(MULTI, mni()))
    sure_white, sure_csf = brain & (white > 0.9), brain & (grey + white < 0.1)
    t1w, t2w, flair, ratio = prepared.volume.astype(np.float32)
    assert t1w[sure_white].mean() > t1w[sure_csf].mean() + 1
    assert t2w[sure_white].mean() < t2w[sure_csf].mean() - 1
    assert flair[sure_white].mean() > flair[sure_csf].mean() + 1
    assert ratio[sure_white].mean() > 1.5 * ratio[sure_csf].mean()


def test_channels_do_not_depend_on_which_others_are_asked_for(session: Session, prepared: Prepared) -> None:
    two = prepare_scan(images(session), replace(MULTI, channels=("FLAIR", "T1w", "T2w")))
    np.testing.assert_array_equal(two.volume, prepared.volume[[2, 0, 1]])


def test_flair_goes_through_t1w_or_straight_and_the_key_tells(session: Session) -> None:
    through = prepare_scan(images(session), Recipe(name="flair", resolution_mm=4.0))
    straight = prepare_scan({"FLAIR": session["FLAIR"][0]}, Recipe(name="flair", reference="FLAIR", resolution_mm=4.0))
    assert through.sidecar["recipe_digest"] != straight.sidecar["recipe_digest"]
    assert error_mm(through.sidecar["companions"]["FLAIR"]["native_to_mni"], session["FLAIR"][1]) < 2.0
    assert error_mm(straight.sidecar["native_to_mni"], session["FLAIR"][1]) < 3.0
    assert through.volume.shape == straight.volume.shape == (1, 40, 48, 40)


def test_calibration_makes_one_scale_of_two_scanners(session: Session) -> None:
    """Another gain and offset of T2w, as another scanner's: the calibrated ratio stays, the plain one does not."""
    calibration = RatioCalibration(t1w_modes=(30.0, 45.0), t2w_modes=(250.0, 50.0))
    plain = Recipe(name="t1w_t2w_ratio", resolution_mm=4.0, bias_correction=False)
    image = nib.Nifti1Image.from_bytes(gzip.decompress(session["T2w"][0]))
    other = nib.Nifti1Image(3.0 * np.asarray(image.dataobj, dtype=np.float32) + 150.0, image.affine)
    scanners = [images(session), {**images(session), "T2w": other.to_bytes()}]
    medians = {}
    for name, recipe in (("plain", plain), ("calibrated", replace(plain, ratio_calibration=calibration))):
        results = [prepare_scan(contents, recipe) for contents in scanners]
        medians[name] = [result.quality["ratio_median"] for result in results]
        assert [result.quality["ratio_calibrated"] for result in results] == [float(name == "calibrated")] * 2
    assert medians["plain"][1] < 0.5 * medians["plain"][0]
    assert medians["calibrated"][1] == pytest.approx(medians["calibrated"][0], rel=0.03)


def test_a_missing_contrast_and_a_wrong_header_are_told(session: Session) -> None:
    with pytest.raises(ValueError, match=r"needs T1w, T2w of a session; found T1w: give T2w too"):
        prepare_scan({"T1w": session["T1w"][0]}, Recipe(name="t1w_t2w_ratio"))
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    with pytest.raises(ScanRejected, match=r"T2w beside T1w: its header's orientation disagrees") as said:
        prepare_scan({**images(session), "T2w": turned(session["T2w"][0], mirror)}, MULTI)
    assert said.value.stage == "session"


def turned(content: bytes, turn: np.ndarray) -> bytes:
    """The same voxels under a header that turns or mirrors the head about its middle."""
    image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
    middle = apply_affine(image.affine, (np.array(image.shape)[None] - 1) / 2)[0]
    move = turn.copy()
    move[:3, 3] = middle - turn[:3, :3] @ middle
    again = nib.Nifti1Image(np.asarray(image.dataobj), move @ image.affine)
    again.set_sform(move @ image.affine, 1)
    again.set_qform(None, 0)
    return again.to_bytes()


def test_white_matter_overtakes_cortex_while_phantom_infants_myelinate(tmp_path: Path) -> None:
    """The ratio's white matter over grey matter, by the true age, from 0 to 24 months: below 1, then above, rising."""
    spec = PhantomSpec(
        subjects=3, sites=1, seed=5, patients=0.0, spacing_mm=3.0, population="infants", age_range_years=(0.0, 2.0),
        contrasts=("T1w", "T2w"), slices="3d", variant="stripped",
    )  # fmt: skip
    truth = write_phantom(spec, tmp_path)
    recipe = Recipe(name="t1w_t2w_ratio", resolution_mm=4.0)
    _, grey, white, _ = template_on_grid(mni(), *study_grid(recipe, mni()))
    contents: dict[str, dict[str, bytes]] = {}
    ages = {}
    for scan in truth.scans:
        contents.setdefault(scan.participant_id, {})[scan.contrast.name] = (tmp_path / scan.path).read_bytes()
        ages[scan.participant_id] = scan.age_years
    by_age = []
    for subject in sorted(contents, key=lambda name: ages[name]):
        ratio = prepare_scan(contents[subject], recipe).volume[0].astype(np.float32)
        tissue = [np.median(ratio[(layer > 0.8) & (ratio > 0)]) for layer in (white, grey)]
        by_age.append(float(tissue[0] / tissue[1]))
    assert by_age[0] < 1 < by_age[2]
    assert by_age == sorted(by_age)


def test_real_infants_white_matter_turns_from_dark_to_bright(shared_data: Path) -> None:
    recipe = Recipe(name="t1w_t2w_ratio", resolution_mm=4.0)
    _, grey, white, _ = template_on_grid(mni(), *study_grid(recipe, mni()))
    contrast = []
    for month in ("00", "12"):
        folder = shared_data / "infant" / f"sub-month{month}" / "anat"
        files = {name: (folder / f"sub-month{month}_{name}.nii.gz").read_bytes() for name in ("T1w", "T2w")}
        ratio = prepare_scan(files, recipe).volume[0].astype(np.float32)
        white_level, grey_level = (np.median(ratio[(layer > 0.8) & (ratio > 0)]) for layer in (white, grey))
        contrast.append(float(white_level / grey_level))
    assert contrast[0] < 1 < contrast[1]


def test_a_real_session_of_thick_slices_is_aligned(shared_data: Path) -> None:
    name = "open_ms/longitudinal/sub-long03/ses-2/anat/sub-long03_ses-2_"
    files = {contrast: (shared_data / f"{name}{contrast}.nii.gz").read_bytes() for contrast in ("T1w", "T2w", "FLAIR")}
    result = prepare_scan(files, replace(MULTI, resolution_mm=2.0))
    # Between these two acquisitions the patient moved by 6 mm, by the headers.
    assert 4 < result.quality["T2w_moved_mm"] < 8
    assert result.quality["FLAIR_moved_mm"] == pytest.approx(result.quality["T2w_moved_mm"], abs=1.0)
    t1w, t2w, flair, _ = result.volume.astype(np.float32)
    brain = t1w != 0
    # CSF is dark in T1w and FLAIR and bright in T2w; unaligned images lose this.
    csf = brain & (t2w > 2.5)
    assert csf.mean() > 0.005
    assert t1w[csf].mean() < -1
    assert flair[csf].mean() < -1
