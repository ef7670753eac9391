"""The registration's gradient is right, and a known pose is found again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

from tasks.records import ScanRejected
from tasks.science.imaging.bias_field import log_bias_field
from tasks.science.imaging.brain_mask import is_stripped, provided_mask
from tasks.science.imaging.correlation_ratio import Scene, unexplained
from tasks.science.imaging.mutual_information import BINS, IntensityBins, bins_at, mutual_information
from tasks.science.imaging.orientation import apply_affine
from tasks.science.imaging.quality import fov_cut_fraction
from tasks.science.imaging.registration import (
    COARSE,
    FINE,
    LAST,
    derivatives_of,
    find_head,
    parameters_of,
    refine,
    transform_of,
)
from tasks.science.imaging.resampling import block_mean, low_pass
from tasks.science.imaging.template import mni
from tasks.science.imaging.template_points import distance_from_brain_mm, template_points

STEPS_MM = np.array([3.0, 3.0, 3.0])


def small_template() -> tuple[np.ndarray, np.ndarray]:
    return block_mean(mni().t1, mni().affine, 3.0)


def brain_points() -> np.ndarray:
    return apply_affine(mni().affine, np.argwhere(mni().brain[::10, ::10, ::10]) * 10)


def posed(angles: tuple[float, float, float], scale: float, shift: tuple[float, float, float]) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * scale
    pose[:3, 3] = shift
    return pose


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-15, 15), min_size=12, max_size=12))
def test_parameters_and_transform_are_each_others_inverse(parameters: list[float]) -> None:
    np.testing.assert_allclose(parameters_of(transform_of(np.array(parameters), mni()), mni()), parameters, atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([7, 12]), st.lists(st.floats(-60, 60), min_size=12, max_size=12))
def test_derivatives_are_those_of_the_transform(dof: int, numbers: list[float]) -> None:
    parameters, step = np.array(numbers[:dof]), 1e-3
    moves = np.eye(dof) * step
    ahead = np.stack([transform_of(parameters + move, mni()) for move in moves])
    behind = np.stack([transform_of(parameters - move, mni()) for move in moves])
    expected = (ahead - behind)[:, :3] / (2 * step)
    np.testing.assert_allclose(derivatives_of(parameters, mni()), expected, atol=1e-7)


def test_a_scale_beyond_its_limit_no_longer_changes_the_transform() -> None:
    assert not derivatives_of(np.full(12, 1e5), mni())[6:9].any()
    assert not derivatives_of(np.full(7, 1e5), mni())[6].any()


@pytest.mark.parametrize("step", [1e5, -1e5])
def test_no_step_of_a_line_search_is_too_far(step: float) -> None:
    volume, affine = small_template()
    transform = transform_of(np.full(12, step), mni())
    assert np.isfinite(transform).all()
    assert unexplained(Scene(volume, affine), template_points(mni(), 8.0, 0), transform)[0] == 1.0


MEASURES = {
    "correlation ratio": lambda scene, points, bins, transform: unexplained(scene, points, transform),
    "mutual information": mutual_information,
}


@pytest.mark.parametrize("measure", MEASURES)
def test_gradient_agrees_with_finite_differences(measure: str) -> None:
    volume, affine = small_template()
    scene = Scene(low_pass(volume, STEPS_MM, 6.0), affine)
    points = template_points(mni(), 8.0, 0)
    transform = transform_of(np.array([3.0, -4.0, 5.0, 6.0, 4.0, -3.0, 5.0, -4.0, 3.0, 2.0, 1.0, -2.0]), mni())
    bins = bins_at(scene, points, transform)
    _, gradient, _ = MEASURES[measure](scene, points, bins, transform)
    for row, column in np.ndindex(3, 4):
        # Small enough that few of the points leave their cell, where the interpolation has a kink.
        step = 1e-3 if column == 3 else 1e-5
        moved = [transform.copy(), transform.copy()]
        moved[0][row, column] += step
        moved[1][row, column] -= step
        ahead, behind = (MEASURES[measure](scene, points, bins, each)[0] for each in moved)
        scale = np.abs(gradient[:, column]).max()
        assert (ahead - behind) / (2 * step) == pytest.approx(gradient[row, column], abs=0.01 * scale)


def test_look_up_is_linear_interpolation() -> None:
    volume, affine = small_template()
    rng = np.random.default_rng(0)
    points_mm = apply_affine(affine, rng.uniform(-3, np.array(volume.shape) + 2, (500, 3)))
    values, _, weights = Scene(volume, affine).look_up(points_mm)
    voxels = apply_affine(np.linalg.inv(affine), points_mm)
    inside = ((voxels >= 0) & (voxels <= np.array(volume.shape) - 1)).all(axis=1)
    expected = ndimage.map_coordinates(volume, voxels.T, np.float64, order=1, mode="nearest")
    np.testing.assert_allclose(values[inside], expected[inside], atol=1e-5 * volume.max())
    assert (weights[~inside] == 0).all()


@given(st.lists(st.floats(-0.2, 1.2), min_size=1, max_size=20))
def test_bins_share_out_every_value_by_a_cubic_b_spline(values: list[float]) -> None:
    bins = IntensityBins(0.0, 1.0)
    first, shares, _, per_unit = bins.place(np.array(values))
    np.testing.assert_allclose(shares.sum(axis=0), 1.0, atol=1e-12)
    spline = BSpline.basis_element(np.arange(5) - 2.0, extrapolate=False)
    for value, bin_, share in zip(values, first, shares.T, strict=True):
        at = np.clip(value * per_unit, 0, BINS - 4 - 1e-6)
        expected = np.nan_to_num(spline(at - (bin_ + np.arange(-1, 3))))
        np.testing.assert_allclose(share, expected, atol=1e-9)


def test_mutual_information_does_not_care_which_tissue_is_bright() -> None:
    volume, affine = small_template()
    points = template_points(mni(), 8.0, 0)
    found = []
    for each in (volume, 40.0 - 3.0 * volume):
        scene = Scene(each, affine)
        bins = IntensityBins(float(each.min()), float(each.max()))
        found.append(mutual_information(scene, points, bins, np.eye(4))[0])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    shuffled = Scene(np.random.default_rng(0).permutation(volume.ravel()).reshape(volume.shape), affine)
    assert mutual_information(shuffled, points, bins_at(shuffled, points, np.eye(4)), np.eye(4))[0] < 0.1 * found[0]


@pytest.mark.parametrize(
    ("angles", "scale", "shift"),
    [((0, 0, 0), 0.9, (0, 0, 0)), ((-30, 8, 12), 0.85, (40, -70, 200)), ((25, -10, -9), 0.95, (-15, 60, -90))],
)
def test_known_pose_is_found_from_nothing(
    angles: tuple[float, float, float], scale: float, shift: tuple[float, float, float]
) -> None:
    volume, affine = small_template()
    to_scan = posed(angles, scale, shift)
    scan_affine = to_scan @ affine
    found = refine(volume, scan_affine, mni(), find_head(volume, scan_affine, mni(), 0), (COARSE, FINE, LAST), 0)
    back = apply_affine(found.to_mni @ to_scan, brain_points())
    # A third of a 3 mm voxel.
    assert np.linalg.norm(back - brain_points(), axis=1).mean() < 1.0
    assert found.header_turn_degrees == 0


def test_scalp_is_what_tells_a_head_from_a_stripped_scan() -> None:
    volume, affine = small_template()
    distance = block_mean(distance_from_brain_mm(mni()), mni().affine, 3.0)[0]
    head = np.where((distance > 7) & (distance < 16), volume.max(), volume)
    ringing = volume + np.random.default_rng(0).normal(0, 0.02 * volume.max(), volume.shape)
    assert is_stripped(volume, affine, mni(), np.eye(4))
    assert is_stripped(ringing, affine, mni(), np.eye(4))
    assert not is_stripped(head, affine, mni(), np.eye(4))


@pytest.mark.parametrize("angles", [(0, 0, 180), (180, 10, 0), (5, 180, 0), (90, 0, 0), (0, 0, -90)])
def test_a_brain_that_lies_otherwise_than_its_affine_says_is_found_and_said(angles: tuple[float, float, float]) -> None:
    volume, affine = small_template()
    to_scan = posed(angles, 0.9, (10, -20, 30))
    scan_affine = to_scan @ affine
    found = refine(volume, scan_affine, mni(), find_head(volume, scan_affine, mni(), 0), (COARSE,), 0)
    back = apply_affine(found.to_mni @ to_scan, brain_points())
    assert np.linalg.norm(back - brain_points(), axis=1).mean() < 2.0
    assert found.header_turn_degrees == abs(max(angles, key=abs))


def test_provided_mask_survives_ringing_and_refuses_a_skull() -> None:
    volume, _ = small_template()
    template_mask = block_mean(mni().brain.astype(np.float32), mni().affine, 3.0)[0] > 0.5
    ringing = np.where(volume > 0, volume, np.random.default_rng(0).normal(0, 0.005 * volume.max(), volume.shape))
    found = provided_mask(ringing, 3.0, template_mask)
    dice = 2 * (found & template_mask).sum() / (found.sum() + template_mask.sum())
    assert dice > 0.95
    with pytest.raises(ScanRejected, match="skull was not removed"):
        provided_mask(np.where(volume > 0, volume, volume.max()), 3.0, template_mask)
    with pytest.raises(ScanRejected, match="almost nothing"):
        provided_mask(np.zeros_like(volume), 3.0, template_mask)


def test_bias_field_of_a_known_shape_is_taken_off() -> None:
    volume, affine = block_mean(mni().t1, mni().affine, 6.0)
    brain = block_mean(mni().brain.astype(np.float32), mni().affine, 6.0)[0] > 0.5
    where = np.moveaxis(np.indices(volume.shape), 0, -1).reshape(-1, 3)
    ramp = (apply_affine(affine, where) @ [0.004, 0.0, 0.003]).reshape(volume.shape)
    plain, _ = log_bias_field(volume, affine, brain)
    field, field_affine = log_bias_field((volume * np.exp(ramp)).astype(np.float32), affine, brain)
    start = np.rint(apply_affine(np.linalg.inv(affine), field_affine[None, :3, 3])[0]).astype(int)
    part = tuple(slice(low, low + size) for low, size in zip(start, field.shape, strict=True))
    inside, truth = brain[part], ramp[part] - ramp[brain].mean()
    # N4 sees a field in the average brain too; what the ramp adds is what it must find.
    left = (field - plain - truth)[inside].std()
    assert left < 0.6 * truth[inside].std()
    assert field[inside].mean() == pytest.approx(0, abs=1e-4)


def test_bias_field_refuses_a_z_scored_brain() -> None:
    volume, affine = block_mean(mni().t1, mni().affine, 6.0)
    brain = volume > 20
    with pytest.raises(ScanRejected, match="z-score"):
        log_bias_field(np.where(brain, volume - volume[brain].mean(), 0), affine, brain)


def test_cut_fraction_counts_the_brain_below_the_first_slice() -> None:
    volume, affine = (mni().t1, mni().affine)
    assert fov_cut_fraction(volume.shape, affine, mni(), np.eye(4)) < 0.01
    above = affine.copy()
    above[2, 3] += 60
    share = 1 - mni().brain[:, :, 60:].sum() / mni().brain.sum()
    assert fov_cut_fraction((197, 233, 129), above, mni(), np.eye(4)) == pytest.approx(float(share), abs=0.02)


def test_air_is_refused_for_want_of_a_brain() -> None:
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    with pytest.raises(ScanRejected, match="no place in the scan"):
        find_head(np.zeros((30, 30, 30), np.float32), affine, mni(), 0)
