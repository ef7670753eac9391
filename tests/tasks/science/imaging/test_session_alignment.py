"""Images of one session come to lie over each other, and a header that lies about its axes is said."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tasks.records import ScanRejected
from tasks.science.imaging.nifti import read_volume
from tasks.science.imaging.orientation import apply_affine, to_ras
from tasks.science.imaging.resampling import block_mean, resample
from tasks.science.imaging.rigid_fit import Level, RigidPair, region_around
from tasks.science.imaging.session_alignment import SessionAlignment, align_to, axis_turns
from tasks.science.imaging.template import mni

WORKING_MM = 2.0
Pair = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@cache
def template_pair() -> Pair:
    """A T1w and, of the same head, what a T2w makes of it: bright CSF, white darker than grey."""
    template = mni()
    grey, white, t1 = (
        block_mean(layer, template.affine, WORKING_MM)[0] for layer in (template.grey, template.white, template.t1)
    )
    brain, affine = block_mean(template.brain.astype(np.float32), template.affine, WORKING_MM)
    t2 = brain * (1000 - 650 * np.clip(white, 0, 1) - 450 * np.clip(grey, 0, 1))
    noise = np.random.default_rng(0).normal(0, 10, t2.shape)
    return t1, affine, brain > 0.5, np.where(brain > 0.5, t2 + noise, 0).astype(np.float32)


def motion(degrees: tuple[float, float, float], shift_mm: tuple[float, float, float]) -> np.ndarray:
    moved = np.eye(4)
    moved[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    moved[:3, 3] = shift_mm
    return moved


def about_middle(turn: np.ndarray, volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Another way to lay the same voxels into the world, as a wrong header does."""
    middle = apply_affine(affine, (np.array([volume.shape]) - 1) / 2)[0]
    lied = np.eye(4)
    lied[:3, :3] = turn
    lied[:3, 3] = middle - turn @ middle
    return lied @ affine


def error_mm(found: SessionAlignment, truth: np.ndarray, brain: np.ndarray, affine: np.ndarray) -> float:
    """Mean distance over the reference's brain."""
    points = apply_affine(affine, np.argwhere(brain)[::200])
    return float(np.linalg.norm(apply_affine(found.to_reference @ truth, points) - points, axis=1).mean())


@pytest.mark.parametrize(
    ("degrees", "shift_mm"), [((0, 0, 0), (0, 0, 0)), ((4, -3, 5), (3, -6, 4)), ((-15, 6, 9), (20, 10, -25))]
)
def test_planted_motion_is_found(degrees: tuple[float, float, float], shift_mm: tuple[float, float, float]) -> None:
    t1, affine, brain, t2 = template_pair()
    truth = motion(degrees, shift_mm)
    # Resampled onto an oblique grid with thick slices, so that no voxel lies on another.
    grid = np.diag([1.9, 1.7, 4.0, 1.0])
    grid[:3, 3] = truth[:3, 3] + [-95, -130, -80]
    thick = resample(t2, truth @ affine, (105, 135, 44), grid, 4.0)
    found = align_to(t1, affine, brain, thick, grid, 0)
    assert error_mm(found, truth, brain, affine) < 0.4
    assert np.linalg.det(found.to_reference[:3, :3]) == pytest.approx(1.0, abs=1e-9)


def test_same_images_give_the_same_bytes() -> None:
    t1, affine, brain, t2 = template_pair()
    first, second = (align_to(t1, affine, brain, t2, motion((3, 1, 2), (2, 3, 4)) @ affine, 5) for _ in range(2))
    assert first.to_reference.tobytes() == second.to_reference.tobytes()
    assert first.correlation_ratio == second.correlation_ratio


def test_fit_ends_where_no_small_move_explains_more() -> None:
    t1, affine, brain, t2 = template_pair()
    pair = RigidPair(t1, affine, t2, motion((5, 4, -3), (4, 3, 5)) @ affine, region_around(brain, affine), 0)
    fit = pair.fit(np.eye(4), Level(8.0, 6.0, 8.0, 40))
    judge = Level(8.0, 6.0, 8.0, 0)
    for axis, sign in product(range(3), (0.5, -0.5)):
        for moved in (
            motion(tuple(sign * np.eye(3)[axis]), (0, 0, 0)),
            motion((0, 0, 0), tuple(sign * np.eye(3)[axis])),
        ):
            assert pair.fit(fit.to_moving @ moved, judge).unexplained > fit.unexplained


def test_header_that_lies_about_its_axes_is_said() -> None:
    t1, affine, brain, t2 = template_pair()
    turns = axis_turns()
    assert len(turns) == 24
    np.testing.assert_array_equal(turns[0], np.eye(3))
    quarter = Rotation.from_euler("x", 90, degrees=True).as_matrix()
    with pytest.raises(ScanRejected, match=r"disagrees .* turn of 90° about x"):
        align_to(t1, affine, brain, t2, about_middle(quarter, t2, affine), 0)
    half = Rotation.from_euler("z", 180, degrees=True).as_matrix()
    with pytest.raises(ScanRejected, match=r"disagrees .* turn of 180° about z"):
        align_to(t1, affine, brain, t2, about_middle(half, t2, affine), 0)


def test_image_of_nothing_is_refused() -> None:
    t1, affine, brain, _ = template_pair()
    noise = np.random.default_rng(0).normal(100, 10, t1.shape).astype(np.float32)
    with pytest.raises(ScanRejected, match="another part of the body"):
        align_to(t1, affine, brain, noise, affine, 0)
    with pytest.raises(ScanRejected, match="brain lies outside"):
        align_to(t1, affine, np.zeros_like(brain), t1, affine, 0)


def infant(shared_data: Path, month: str) -> tuple[Pair, np.ndarray]:
    folder = shared_data / "infant" / f"sub-month{month}" / "anat"
    t1, t2 = (
        block_mean(*to_ras(*read_volume((folder / f"sub-month{month}_{contrast}.nii.gz").read_bytes())), WORKING_MM)
        for contrast in ("T1w", "T2w")
    )
    return (t1[0], t1[1], t1[0] > 0, t2[0]), t2[1]


def test_real_pair_is_aligned_and_left_is_told_from_right(shared_data: Path) -> None:
    (t1, affine, brain, t2), t2_affine = infant(shared_data, "12")
    still = align_to(t1, affine, brain, t2, t2_affine, 0)
    assert still.moved_mm < 0.6  # The pair was aligned by its authors, on one grid of 0.8 mm.
    assert still.mirror_margin > 1.5
    truth = motion((6, -4, 8), (5, 8, -6))
    grid = motion((0, 0, 0), (-130, -150, -130)) @ np.diag([2.0, 2.0, 2.0, 1.0])
    moved = resample(t2, truth @ t2_affine, (130, 150, 130), grid, 2.0)
    found = align_to(t1, affine, brain, moved, grid, 0)
    assert error_mm(found, truth @ np.linalg.inv(still.to_reference), brain, affine) < 0.5
    with pytest.raises(ScanRejected, match="left and right"):
        align_to(t1, affine, brain, t2, about_middle(np.diag([-1.0, 1.0, 1.0]), t2, t2_affine), 0)
    # The same when the whole session lies turned by a quarter, where the head's right is the world's y.
    turn = np.array([[0.0, -1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    right = (0.0, 1.0, 0.0)
    assert align_to(t1, turn @ affine, brain, t2, turn @ t2_affine, 0, right).mirror_margin > 1.5
    mirrored = turn @ about_middle(np.diag([-1.0, 1.0, 1.0]), t2, t2_affine)
    with pytest.raises(ScanRejected, match="left and right"):
        align_to(t1, turn @ affine, brain, t2, mirrored, 0, right)
