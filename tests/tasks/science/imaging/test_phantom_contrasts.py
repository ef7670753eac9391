"""Sessions of several contrasts must show what their tables say, lie where their truth says, and be honest of gaps."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from tasks.science.imaging.phantom import PhantomScan, PhantomSpec, PhantomTruth, write_phantom
from tasks.science.imaging.phantom_acquisition import acquire
from tasks.science.imaging.phantom_anatomy import Detail, draw_anatomy
from tasks.science.imaging.phantom_contrasts import CONTRASTS, contrast_named, draw_protocol
from tasks.science.imaging.phantom_lesions import draw_lesions, lesion_share
from tasks.science.imaging.phantom_people import ANATOMY, LESIONS, Visit, stream
from tasks.science.imaging.phantom_template import template_head
from tasks.science.imaging.template import mni

THREE = PhantomSpec(
    subjects=3, sites=2, seed=6, sessions=2, patients=0.7, spacing_mm=4.0, contrasts=CONTRASTS, missing=0.3
)
EYE_MM, TEMPORALIS_MM = (33.0, 55.0, -38.0), (68.0, 5.0, -15.0)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def image_at(truth: PhantomTruth, scan: PhantomScan, mni_mm: np.ndarray) -> np.ndarray:
    """A scan's values at MNI positions of shape (3, n), through its true affine."""
    image = nib.load(truth.root / scan.path)
    to_voxel = np.linalg.inv(np.array(scan.scanner_to_mni) @ image.affine)
    at = to_voxel[:3, :3] @ mni_mm + to_voxel[:3, 3:]
    return ndimage.map_coordinates(np.asarray(image.dataobj, dtype=np.float32), at, order=1)


def ball(centre_mm: tuple[float, ...], radius_mm: float) -> np.ndarray:
    """Positions in a ball and in its mirror image, shape (3, n)."""
    steps = np.mgrid[-3:4, -3:4, -3:4].reshape(3, -1) * radius_mm / 3
    inside = steps[:, np.linalg.norm(steps, axis=0) <= radius_mm]
    right = inside + np.reshape(centre_mm, (3, 1))
    return np.concatenate([right, right * [[-1], [1], [1]]], axis=1)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> PhantomTruth:
    return write_phantom(THREE, tmp_path_factory.mktemp("contrasts") / "cohort")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> PhantomTruth:
    spec = replace(THREE, subjects=2, sessions=1, variant="stripped", missing=0.0, spacing_mm=3.0)
    return write_phantom(spec, tmp_path_factory.mktemp("contrasts") / "bare")


ORDER = {
    "T1w": ("csf", "grey", "lesion", "white", "fat"),
    "T2w": ("bone", "muscle", "white", "grey", "lesion", "csf"),
    "FLAIR": ("bone", "csf", "white", "grey", "lesion"),
}


@pytest.mark.parametrize("name", CONTRASTS)
def test_each_contrast_ranks_the_tissues_in_its_own_way(name: str) -> None:
    anatomy = draw_anatomy(stream(1, ANATOMY, 0), "F")
    share = lesion_share(draw_lesions(stream(1, LESIONS, 0)), Visit(0, 0.0, 60.0, 6.0, 20.0, 0.0), anatomy)
    site, contrast = draw_protocol(1, 0, name, False, 2.5, 1.0, False)
    rng = np.random.default_rng(1)
    scan = acquire(anatomy, 60.0, site, rng, False, contrast, Detail({"lesion": share}, True))
    values = scan.data.ravel()[scan.tissues.index].astype(np.float64)
    pure = {part: scan.tissues.fractions[part] > 0.85 for part in {*ORDER[name], "eye", "muscle"}}
    medians = {part: np.median(values[where]) for part, where in pure.items()}
    assert list(ORDER[name]) == sorted(ORDER[name], key=medians.__getitem__)
    assert (medians["eye"] > 3 * medians["muscle"]) == (name == "T2w")
    total = sum(scan.tissues.fractions.values())
    assert total.max() < 1 + 1e-5
    assert min(amount.min() for amount in scan.tissues.fractions.values()) >= -1e-6


def test_reference_tissues_lie_outside_the_brain_where_they_are_expected(cohort: PhantomTruth) -> None:
    template = mni()
    to_voxel = np.linalg.inv(template.affine)
    for centre, radius in ((EYE_MM, 8.0), (TEMPORALIS_MM, 3.0)):
        voxels = np.round(to_voxel[:3, :3] @ ball(centre, radius) + to_voxel[:3, 3:]).astype(int)
        assert not template.brain[tuple(voxels)].any()
    for scan in cohort.scans:
        eye, muscle = (np.median(image_at(cohort, scan, ball(c, r))) for c, r in ((EYE_MM, 8), (TEMPORALIS_MM, 2)))
        assert (eye > 2 * muscle) if scan.contrast.name == "T2w" else (eye < muscle)


def test_the_true_alignment_brings_the_contrasts_of_a_session_together(bare: PhantomTruth) -> None:
    """Measured on the masks of stripped images, with the planted move and without it."""
    moves = []
    with_truth, without = [], []
    for first in (scan for scan in bare.scans if scan.contrast.name == "T1w"):
        np.testing.assert_array_equal(first.to_reference, np.eye(4))
        fixed = nib.load(bare.root / first.path)
        for scan in bare.scans:
            if scan.participant_id != first.participant_id or scan is first:
                continue
            move = np.array(scan.to_reference)
            moves.append(move)
            np.testing.assert_allclose(np.array(first.scanner_to_mni) @ move, scan.scanner_to_mni, atol=1e-5)
            np.testing.assert_allclose(move[:3, :3] @ move[:3, :3].T, np.eye(3), atol=1e-6)
            moving = nib.load(bare.root / scan.path)
            for found, motion in ((with_truth, move), (without, np.eye(4))):
                to_voxel = np.linalg.inv(motion @ moving.affine) @ fixed.affine
                seen = ndimage.affine_transform(
                    (np.asarray(moving.dataobj) > 0).astype(np.float32),
                    to_voxel[:3, :3],
                    to_voxel[:3, 3],
                    output_shape=fixed.shape,
                    order=1,
                )
                brain = np.asarray(fixed.dataobj) > 0
                found.append(2 * (brain & (seen > 0.5)).sum() / (brain.sum() + (seen > 0.5).sum()))
    assert all(np.abs(move - np.eye(4)).max() > 0.1 for move in moves)
    assert len(moves) == 4
    assert np.mean(with_truth) > max(0.95, np.mean(without) + 0.005)


def test_contrasts_differ_in_grid_gain_field_and_offset() -> None:
    drawn = [draw_protocol(3, 1, name, False, 2.0, 1.0, False) for name in CONTRASTS]
    for field in ("orientation", "voxel_mm", "gain", "bias_terms", "noise_sd"):
        assert len({getattr(site, field) for site, _ in drawn}) == 3
    assert len({contrast.offset for _, contrast in drawn}) == 3
    other = [draw_protocol(3, 2, name, False, 2.0, 1.0, False)[1].offset for name in CONTRASTS]
    assert not set(other) & {contrast.offset for _, contrast in drawn}


def test_truth_tables_tell_every_scan_and_every_gap(cohort: PhantomTruth) -> None:
    folder = cohort.root / "derivatives" / "phantom-truth"
    on_disk = {path.relative_to(cohort.root).as_posix() for path in cohort.root.glob("sub-*/ses-*/anat/*.nii.gz")}
    assert {row["path"] for row in rows(folder / "scans.tsv")} == on_disk == {scan.path for scan in cohort.scans}
    assert set(json.loads((folder / "truth.json").read_text())["left_out"]) == set(cohort.left_out)
    sessions = {(scan.participant_id, scan.session_id) for scan in cohort.scans}
    every = {f"{p}/{s}/anat/{p}_{s}_{c}.nii.gz" for p, s in sessions for c in CONTRASTS}
    assert len(sessions) == 6
    assert every == on_disk | set(cohort.left_out)
    assert not on_disk & set(cohort.left_out)
    assert cohort.left_out
    assert not any(path.endswith("T1w.nii.gz") for path in cohort.left_out)
    for scan in cohort.scans:
        name, entities = scan.contrast.name, f"{scan.participant_id}_{scan.session_id}"
        source = "scanner" if name == "T1w" else name
        written = np.loadtxt(folder / "transforms" / f"{entities}_from-{source}_to-MNI152NLin2009aSym.txt")
        np.testing.assert_allclose(written, scan.scanner_to_mni, atol=1e-8)
        if name != "T1w":
            moved = np.loadtxt(folder / "transforms" / f"{entities}_from-{name}_to-T1w.txt")
            np.testing.assert_allclose(moved, scan.to_reference, atol=1e-8)


def test_volumes_do_not_depend_on_the_contrast_that_they_were_measured_on(bare: PhantomTruth) -> None:
    for person in ("sub-0001", "sub-0002"):
        of = [scan.volumes_ml for scan in bare.scans if scan.participant_id == person]
        for name in ("grey", "white", "csf", "ventricles"):
            values = [volumes[name] for volumes in of]
            assert max(values) < 1.03 * min(values)
        assert 900 < of[0]["grey"] + of[0]["white"] < 1300
        assert of[0]["csf"] > of[0]["ventricles"] > 0
    written = rows(bare.root / "derivatives" / "phantom-truth" / "volumes.tsv")
    assert [row["participant_id"] for row in written] == ["sub-0001", "sub-0002"]
    assert float(written[0]["grey_ml"]) == bare.scans[0].volumes_ml["grey"]


def test_lesions_come_with_disease_stay_and_keep_to_white_matter() -> None:
    anatomy, lesions = draw_anatomy(stream(2, ANATOMY, 0), "M"), draw_lesions(stream(2, LESIONS, 0))
    healthy, early, late = (
        lesion_share(lesions, Visit(0, 0.0, 40.0, edss, years, 0.0), anatomy).values
        for edss, years in ((None, None), (1.0, 2.0), (4.0, 12.0))
    )
    assert np.all(late >= early)
    assert late.sum() > 1.5 * early.sum() > 1.5 * healthy.sum()
    old = lesion_share(lesions, Visit(0, 0.0, 85.0, None, None, 0.0), anatomy).values
    assert old.sum() > 5 * healthy.sum()
    far = template_head().ventricle.values[::2, ::2, ::2] > 15
    assert old[far].max() == 0
    assert min(old.min(), late.min()) >= 0
    assert max(old.max(), late.max()) <= 1


def test_thick_slices_are_axial_tilted_and_integrate_through_their_profile(tmp_path: Path) -> None:
    spec = PhantomSpec(subjects=2, sites=2, seed=5, slices="thick", in_plane_mm=3.0)
    truth = write_phantom(spec, tmp_path / "thick")
    for scan in truth.scans:
        image = nib.load(truth.root / scan.path)
        assert nib.aff2axcodes(image.affine)[2] in "SI"
        assert np.rad2deg(nib.affines.obliquity(image.affine)).max() > 4
        in_plane, _, pitch = image.header.get_zooms()
        assert 2.7 <= in_plane <= 3.0
        assert 6.0 <= pitch <= 7.0
        assert scan.contrast.thickness_mm == 5.0
    site, thick = draw_protocol(5, 0, "T1w", True, 2.0, 3.0, False)
    quiet, anatomy = replace(site, noise_sd=0.0, integers=False), draw_anatomy(stream(5, ANATOMY, 0), "F")
    slab, thin = (
        acquire(anatomy, 50.0, quiet, np.random.default_rng(0), False, contrast)
        for contrast in (thick, replace(contrast_named("T1w"), offset=thick.offset))
    )
    np.testing.assert_array_equal(slab.affine, thin.affine)
    assert slab.data.shape == thin.data.shape
    np.testing.assert_allclose(slab.scanner_to_mni, thin.scanner_to_mni)
    assert np.corrcoef(slab.data.ravel(), thin.data.ravel())[0, 1] > 0.95
    steps = [np.abs(np.diff(scan.data.astype(np.float64), axis=2)).mean() / scan.data.mean() for scan in (slab, thin)]
    assert steps[0] < 0.95 * steps[1]


def test_mixed_cohorts_hold_thick_and_3d_scans(tmp_path: Path) -> None:
    spec = PhantomSpec(subjects=6, sites=1, seed=2, slices="mixed", spacing_mm=6.0, in_plane_mm=6.0)
    kinds = [scan.contrast.thickness_mm for scan in write_phantom(spec, tmp_path / "mixed").scans]
    assert {kind is None for kind in kinds} == {True, False}


def test_misuse_of_contrasts_is_said() -> None:
    for wrong in ((), ("T1w", "T1w"), ("PD",)):
        with pytest.raises(ValueError, match="expected some of T1w, T2w, FLAIR, each once"):
            PhantomSpec(subjects=1, contrasts=wrong)
    with pytest.raises(ValueError, match=r"missing is 1\.2, expected a fraction"):
        PhantomSpec(subjects=1, missing=1.2)
    with pytest.raises(ValueError, match=r"within 0 to 2 for infants"):
        PhantomSpec(subjects=1, population="infants")
