"""A simulated 2D acquisition sees what a thick slice sees, where it is, and nothing else."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tasks.science.imaging.intensity import zscore_within_mask
from tasks.science.imaging.nifti import read_volume
from tasks.science.imaging.orientation import apply_affine, nearest_axes, spacing_mm, to_ras
from tasks.science.imaging.resampling import block_mean, resample
from tasks.science.imaging.slices import (
    NORMAL,
    SliceProtocol,
    as_clinical,
    random_protocol,
    resampled_along_axes,
    simulate_acquisition,
)
from tasks.science.imaging.template import mni

FWHM_PER_SIGMA = np.sqrt(8 * np.log(2))


def centre_of_mass_mm(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    voxels = np.indices(volume.shape).reshape(3, -1).T
    return np.average(apply_affine(affine, voxels), axis=0, weights=volume.ravel())


@cache
def blob() -> tuple[np.ndarray, np.ndarray]:
    """A smooth ball, far from the edges, on an oblique grid of 1.0 × 1.1 × 0.9 mm."""
    shape = (90, 100, 110)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (7, -4, 11), degrees=True).as_matrix() * [1.0, 1.1, 0.9]
    affine[:3, 3] = (12, -30, 8)
    away = [
        (np.arange(size) - middle) * step
        for size, middle, step in zip(shape, (46.3, 51.1, 57.7), (1.0, 1.1, 0.9), strict=True)
    ]
    x, y, z = np.meshgrid(*away, indexing="ij")
    return np.exp(-0.5 * (x**2 + y**2 + z**2) / 12.0**2).astype(np.float32), affine


def protocols(motion: bool = True) -> st.SearchStrategy[SliceProtocol]:
    return st.builds(
        SliceProtocol,
        orientation=st.sampled_from(sorted(NORMAL)),
        thickness_mm=st.floats(3, 7),
        gap_mm=st.floats(0, 2),
        in_plane_mm=st.floats(0.6, 1.6),
        offset_mm=st.floats(0, 5),
        motion_mm=st.floats(0, 0.6) if motion else st.just(0.0),
        motion_degrees=st.floats(0, 0.6) if motion else st.just(0.0),
        seed=st.integers(0, 100),
    )


@settings(max_examples=15, deadline=None)
@given(protocols())
def test_constant_stays_constant(protocol: SliceProtocol) -> None:
    volume, affine = np.full((80, 90, 100), 7.0, dtype=np.float32), blob()[1]
    thick, _ = simulate_acquisition(volume, affine, protocol)
    np.testing.assert_allclose(thick, 7.0, rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(protocols(motion=False))
def test_amount_and_place_are_kept(protocol: SliceProtocol) -> None:
    volume, affine = blob()
    thick, thick_affine = simulate_acquisition(volume, affine, protocol)
    before, after = (
        v.sum(dtype=np.float64) * abs(np.linalg.det(a[:3, :3])) for v, a in ((volume, affine), (thick, thick_affine))
    )
    assert after == pytest.approx(before, rel=0.01)
    away = centre_of_mass_mm(thick, thick_affine) - centre_of_mass_mm(volume, affine)
    assert np.linalg.norm(away) < 0.1


@pytest.mark.parametrize("orientation", sorted(NORMAL))
def test_affine_of_the_thick_volume_is_the_protocols(orientation: str) -> None:
    volume, affine = blob()
    protocol = SliceProtocol(orientation, 4.0, 1.5, 1.3, offset_mm=2.0)  # type: ignore[arg-type]
    thick, thick_affine = simulate_acquisition(volume, affine, protocol)
    axis = nearest_axes(affine)[NORMAL[protocol.orientation]]
    expected = np.full(3, 1.3)
    expected[axis] = 5.5
    np.testing.assert_allclose(spacing_mm(thick_affine), expected)
    # The first slice's plane lies 2 mm from the first plane of the volume, along the slice axis.
    normal = affine[:3, axis] / spacing_mm(affine)[axis]
    assert (thick_affine[:3, 3] - affine[:3, 3]) @ normal == pytest.approx(2.0)
    assert thick.shape[axis] == int((volume.shape[axis] - 1) * spacing_mm(affine)[axis] - 2.0) // 5.5 + 1


@pytest.mark.parametrize("thickness_mm", [3.0, 5.0, 7.0])
def test_point_spread_is_as_wide_as_the_slice_is_thick(thickness_mm: float) -> None:
    depth = np.arange(120.0)
    # What a volume of 1 mm shows of a point: its own profile is 1 mm wide.
    point = np.exp(-0.5 * ((depth - 60) * FWHM_PER_SIGMA) ** 2)
    volume = np.broadcast_to(point.astype(np.float32), (8, 8, 120))
    places, seen = [], []
    for offset_mm in np.arange(0, thickness_mm, 0.25):
        protocol = SliceProtocol("axial", thickness_mm, 0.0, 1.0, offset_mm=float(offset_mm))
        thick, affine = simulate_acquisition(volume, np.eye(4), protocol)
        places.extend(affine[2, 3] + affine[2, 2] * np.arange(thick.shape[2]))
        seen.extend(thick[4, 4])
    order = np.argsort(places)
    place, value = np.array(places)[order], np.array(seen)[order]
    half, peak = value.max() / 2, int(value.argmax())
    first = np.interp(half, value[: peak + 1], place[: peak + 1])
    last = np.interp(-half, -value[peak:], place[peak:])
    assert last - first == pytest.approx(thickness_mm, abs=0.1)


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not() -> None:
    volume, affine = blob()
    protocol = random_protocol(np.random.default_rng(3))
    again = random_protocol(np.random.default_rng(3))
    assert protocol == again
    first, second = (simulate_acquisition(volume, affine, p)[0] for p in (protocol, again))
    assert first.tobytes() == second.tobytes()
    other = simulate_acquisition(volume, affine, random_protocol(np.random.default_rng(4)))[0]
    assert first.shape != other.shape or first.tobytes() != other.tobytes()


def test_protocols_are_drawn_within_their_limits_and_mostly_axial() -> None:
    drawn = [random_protocol(np.random.default_rng(seed)) for seed in range(300)]
    assert 0.7 < np.mean([p.orientation == "axial" for p in drawn]) < 0.9
    assert {p.orientation for p in drawn} == set(NORMAL)
    assert all(3 <= p.thickness_mm <= 7 and 0 <= p.gap_mm <= 2 for p in drawn)


def test_callers_mistakes_are_said() -> None:
    with pytest.raises(ValueError, match="thickness_mm is 50"):
        SliceProtocol(thickness_mm=50)
    with pytest.raises(ValueError, match="take thinner slices"):
        simulate_acquisition(np.ones((20, 20, 20), np.float32), np.eye(4), SliceProtocol(thickness_mm=6.0))


def test_clinical_view_stays_on_the_grid_and_blurs_only_through_the_slices() -> None:
    brain = mni().brain
    volume = zscore_within_mask(mni().t1, brain)
    seen = as_clinical(volume, mni().affine, brain, SliceProtocol("axial", 6.0, 0.0, 1.0), 1.0)
    assert seen.shape == volume.shape
    assert not seen[~brain].any()
    assert seen[brain].std() == pytest.approx(1.0, abs=1e-3)
    middle = tuple(slice(size // 3, 2 * size // 3) for size in volume.shape)
    rough = [[float((np.diff(v[middle], axis=axis) ** 2).mean()) for axis in range(3)] for v in (volume, seen)]
    kept = [after / before for before, after in zip(*rough, strict=True)]
    assert kept[2] < 0.5 * min(kept[:2])


@settings(max_examples=8, deadline=None)
@given(protocols())
def test_way_back_is_the_way_that_real_slices_take(protocol: SliceProtocol) -> None:
    volume, affine = blob()
    thick, thick_affine = simulate_acquisition(volume, affine, protocol)
    real = resample(thick, thick_affine, volume.shape, affine, 1.0)
    back = resampled_along_axes(thick, thick_affine, volume.shape, affine, 1.0)
    np.testing.assert_allclose(back, real, atol=2e-5)


def finest_along_slices(volume: np.ndarray, affine: np.ndarray) -> float:
    """Power at 6 to 8 mm per cycle across slices, over that within them, in the middle 60 mm of a brain."""
    small, small_affine = block_mean(*to_ras(volume, affine), 2.0)
    steps = spacing_mm(small_affine)
    lit = np.argwhere(small > small.mean())
    low, high = (np.rint(lit.mean(axis=0) + sign * 30 / steps).astype(int) for sign in (-1, 1))
    cube = small[tuple(slice(first, last) for first, last in zip(low, high, strict=True))]
    powers = []
    for axis, step_mm in enumerate(steps):
        lines = np.moveaxis(cube, axis, 2) - np.moveaxis(cube, axis, 2).mean(axis=2, keepdims=True)
        power = (np.abs(np.fft.rfft(lines * np.hanning(lines.shape[2]), axis=2)) ** 2).mean(axis=(0, 1))
        frequency = np.fft.rfftfreq(lines.shape[2], step_mm)
        powers.append(step_mm / lines.shape[2] * power[(frequency > 1 / 8) & (frequency < 1 / 6)].mean())
    return float(powers[2] / np.sqrt(powers[0] * powers[1]))


def test_spectrum_across_slices_falls_like_that_of_real_slices(shared_data: Path) -> None:
    folder = shared_data / "open_ms" / "longitudinal"
    thick = [read_volume(path.read_bytes()) for path in sorted(folder.glob("*/ses-*/anat/*_T1w.nii.gz"))]
    names = ("sub-04", "sub-31", "sub-57")
    sharp = [
        to_ras(*read_volume((shared_data / "ds002748" / name / "anat" / f"{name}_T1w.nii.gz").read_bytes()))
        for name in names
    ]
    protocol = SliceProtocol("axial", 3.0, 0.0, 0.8, motion_mm=0.4, motion_degrees=0.4)
    real = np.median([finest_along_slices(*scan) for scan in thick])
    simulated = np.median([finest_along_slices(*simulate_acquisition(*scan, protocol)) for scan in sharp])
    third = np.diag([1.0, 1.0, 3.0, 1.0])
    left_out = np.median([finest_along_slices(volume[:, :, ::3], affine @ third) for volume, affine in sharp])
    # Every third 1 mm plane of a 3D scan folds detail in that no thick slice shows.
    assert abs(np.log(simulated / real)) < 0.5 * abs(np.log(left_out / real))
    assert 0.7 < simulated / real < 1.4
