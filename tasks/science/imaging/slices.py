"""What a clinical 2D acquisition would have seen of a 3D scan: thick slices, gaps between them, a head that moves.

A network that is trained on research scans and applied to clinical ones must meet in training what it will meet: the
scan is cut into slices in a random orientation, and brought back by the very interpolation that real slices get.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from ..arrays import Affine, Mask, Volume
from .orientation import apply_affine, nearest_axes, spacing_mm
from .resampling import FWHM_PER_SIGMA, low_pass

SliceOrientation = Literal["axial", "coronal", "sagittal"]
NORMAL: dict[SliceOrientation, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
# Routine clinical T1w is mostly axial; the shares are a choice, no survey.
ORIENTATION_SHARES: dict[SliceOrientation, float] = {"axial": 0.8, "sagittal": 0.1, "coronal": 0.1}
THICKNESS_MM = (3.0, 7.0)
GAP_MM = (0.0, 2.0)
IN_PLANE_MM = (0.6, 1.2)
MOTION_MM = (0.0, 0.6)
MOTION_DEGREES = (0.0, 0.6)
DARK_PERCENTILE = 0.5
PROFILE_REACH_SIGMAS = 2.5
MIN_SLICES = 8
# Between the centres of a volume's first and last plane: any random protocol then has enough slices.
LEAST_REACH_MM = MIN_SLICES * (THICKNESS_MM[1] + GAP_MM[1])


@dataclass(frozen=True)
class SliceProtocol:
    """A 2D acquisition.

    Attributes:
        orientation: Of the slices.
        thickness_mm: Full width at half maximum of the slice profile.
        gap_mm: Between slices: their centres lie thickness + gap apart.
        in_plane_mm: Voxel size within a slice.
        offset_mm: From the volume's first plane to the first slice's centre.
        motion_mm: Spread of each slice's shift within its plane.
        motion_degrees: Spread of each slice's turn within its plane.
        seed: Of the motion.
    """

    orientation: SliceOrientation = "axial"
    thickness_mm: float = 5.0
    gap_mm: float = 1.0
    in_plane_mm: float = 0.9
    offset_mm: float = 0.0
    motion_mm: float = 0.0
    motion_degrees: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {"thickness_mm": (0.5, 12.0), "gap_mm": (0.0, 10.0), "in_plane_mm": (0.2, 8.0)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {low} to {high}")
        if self.orientation not in NORMAL:
            raise ValueError(f"orientation is {self.orientation!r}; expected one of {', '.join(NORMAL)}")

    @property
    def step_mm(self) -> float:
        """Between the centres of slices."""
        return self.thickness_mm + self.gap_mm


def random_protocol(rng: np.random.Generator) -> SliceProtocol:
    """Draw what one of many hospitals might have run.

    Args:
        rng: The scan's own stream.

    Returns:
        Mostly axial, 3 to 7 mm thick, 0 to 2 mm apart.
    """
    names, shares = zip(*ORIENTATION_SHARES.items(), strict=True)
    thickness_mm, gap_mm = float(rng.uniform(*THICKNESS_MM)), float(rng.uniform(*GAP_MM))
    return SliceProtocol(
        orientation=names[int(rng.choice(len(names), p=shares))],
        thickness_mm=thickness_mm,
        gap_mm=gap_mm,
        in_plane_mm=float(rng.uniform(*IN_PLANE_MM)),
        offset_mm=float(rng.uniform(0.0, thickness_mm + gap_mm)),
        motion_mm=float(rng.uniform(*MOTION_MM)),
        motion_degrees=float(rng.uniform(*MOTION_DEGREES)),
        seed=int(rng.integers(2**31)),
    )


def simulate_acquisition(volume: Volume, affine: Affine, protocol: SliceProtocol) -> tuple[Volume, Affine]:
    """Scan a volume again, in 2D.

    Slices are cut along the array axis that runs nearest to the orientation's normal, so that each is a weighted sum
    of the volume's own planes. The volume's own thickness is taken off the profile's, so that the point spread is as
    thick as the protocol says; a volume whose planes are thicker already is only sampled.

    Args:
        volume: A 3D scan or a prepared volume, shape (i, j, k).
        affine: Voxel indices to RAS+ mm.
        protocol: The acquisition.

    Returns:
        The thick volume, float32, on the same axes, and its affine in the same world.

    Raises:
        ValueError: The volume is too thin for so thick slices.
    """
    axis = nearest_axes(affine)[NORMAL[protocol.orientation]]
    others = [which for which in range(3) if which != axis]
    steps_mm = spacing_mm(affine)
    rng = np.random.default_rng(protocol.seed)
    centres, weights = _profile(volume.shape[axis], float(steps_mm[axis]), protocol, rng)
    planes = np.moveaxis(np.asarray(volume, dtype=np.float32), axis, 0)
    slices, zooms = _in_plane(np.stack([_weighted(planes, row) for row in weights]), steps_mm[others], protocol, rng)
    scale, first = np.ones(3), np.zeros(3)
    scale[axis], first[axis] = protocol.step_mm / steps_mm[axis], centres[0]
    scale[others], first[others] = zooms, (zooms - 1) / 2
    placed = np.array(affine, dtype=np.float64)
    placed[:3, 3] = apply_affine(affine, first[None])[0]
    placed[:3, :3] = placed[:3, :3] * scale
    return np.ascontiguousarray(np.moveaxis(slices, 0, axis)), placed


def as_clinical(volume: Volume, affine: Affine, brain: Mask, protocol: SliceProtocol, resolution_mm: float) -> Volume:
    """Show a prepared volume as if it had been acquired in thick slices and prepared then.

    What lies around a brain is dark before the z-score, stripped or not, and slices at its edge mix with that; the
    prepared volume's 0 is its mean, and would brighten them.

    Args:
        volume: Z-scores on the study's grid, 0 outside the brain, shape (i, j, k).
        affine: Of the grid.
        brain: True inside the brain.
        protocol: The acquisition.
        resolution_mm: Of the grid.

    Returns:
        Z-scores anew, since thick slices lower the spread; 0 outside the brain, float32, same grid.
    """
    every = (slice(None, None, 4),) * 3
    dark = np.percentile(volume[every][brain[every]], DARK_PERCENTILE)
    around = np.where(brain, volume, np.float32(dark))
    thick, thick_affine = simulate_acquisition(around, affine, protocol)
    seen = resampled_along_axes(thick, thick_affine, volume.shape, affine, resolution_mm)
    inside = seen[brain]
    seen -= inside.mean()
    seen *= brain / np.float32(max(float(inside.std()), 1e-6))
    return seen


def resampled_along_axes(
    volume: Volume, affine: Affine, shape: tuple[int, ...], target_affine: Affine, resolution_mm: float
) -> Volume:
    """Do what `resample` does between grids with the same axes, one axis at a time: in training it runs at each step.

    Trilinear interpolation is separable; a test holds the two together.

    Args:
        volume: Source, shape (i, j, k).
        affine: Source voxel indices to the common world, mm.
        shape: Of the target grid.
        target_affine: Target voxel indices to the common world; its axes run along the source's.
        resolution_mm: Voxel size of the target.

    Returns:
        Float32 of the target's shape; 0 where the source has no data.
    """
    to_source = np.linalg.inv(affine) @ target_affine
    smooth = low_pass(volume, spacing_mm(affine), resolution_mm)
    # Axes that shrink most first: they leave least to do for the rest.
    for axis in sorted(range(3), key=lambda which: shape[which] / volume.shape[which]):
        places = to_source[axis, axis] * np.arange(shape[axis]) + to_source[axis, 3]
        planes = np.ascontiguousarray(np.moveaxis(smooth, axis, 0))
        smooth = np.moveaxis(_between(planes, places), 0, axis)
    return np.ascontiguousarray(smooth)


def _between(planes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Interpolate planes linearly at fractional indices; beyond the first and last is 0, as `resample` has it."""
    count = len(planes)
    found = np.zeros((len(places), *planes.shape[1:]), dtype=np.float32)
    for row, place in zip(found, places, strict=True):
        low = int(np.floor(place))
        share = np.float32(place - low)
        if 0 <= low < count:
            np.multiply(planes[low], np.float32(1) - share, out=row)
        if 0 <= low + 1 < count and share > 0:
            row += share * planes[low + 1]
    return found


def _profile(
    planes: int, spacing: float, protocol: SliceProtocol, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Where slices are, in planes of the volume, and how much of each plane they take, shape (slices, planes)."""
    reach_mm = (planes - 1) * spacing
    count = int((reach_mm - protocol.offset_mm) // protocol.step_mm) + 1
    if count < MIN_SLICES:
        raise ValueError(
            f"{count} slices of {protocol.thickness_mm:g} mm with gaps of {protocol.gap_mm:g} mm fit the volume's "
            f"{reach_mm + spacing:.0f} mm; at least {MIN_SLICES} are needed: take thinner slices"
        )
    centres_mm = protocol.offset_mm + protocol.step_mm * np.arange(count)
    seen_mm = centres_mm + protocol.motion_mm * rng.standard_normal(count)
    away = seen_mm[:, None] - spacing * np.arange(planes)
    sigma = np.sqrt(max(protocol.thickness_mm**2 - spacing**2, (0.5 * spacing) ** 2)) / FWHM_PER_SIGMA
    reach = max(PROFILE_REACH_SIGMAS * sigma, 1.01 * spacing)
    weights = np.where(np.abs(away) <= reach, np.exp(-0.5 * (away / sigma) ** 2), 0.0)
    return centres_mm / spacing, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _weighted(planes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    used = np.flatnonzero(weights)
    total = planes[used[0]] * weights[used[0]]
    for which in used[1:]:
        total += planes[which] * weights[which]
    return total


def _in_plane(
    slices: np.ndarray, across_mm: np.ndarray, protocol: SliceProtocol, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Give each slice its pixels and its own small motion, in one interpolation; finer pixels than the volume's have
    nothing to show, and are not made."""
    count, *shape = slices.shape
    shifts_mm = protocol.motion_mm * rng.standard_normal((count, 2))
    turns = np.radians(protocol.motion_degrees) * rng.standard_normal(count)
    zooms = np.maximum(protocol.in_plane_mm / across_mm, 1.0)
    if not shifts_mm.any() and not turns.any() and np.all(zooms == 1.0):
        return slices, zooms
    slices = low_pass(slices, np.array([1.0, *across_mm]), np.array([0.0, *(zooms * across_mm)]))
    out = tuple(int(size // zoom) for size, zoom in zip(shape, zooms, strict=True))
    seen = np.empty((count, *out), dtype=np.float32)
    middle_mm = (np.array(shape) - 1) / 2 * across_mm
    for which, (shift_mm, turn) in enumerate(zip(shifts_mm, turns, strict=True)):
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        matrix = rotation * (zooms * across_mm) / across_mm[:, None]
        start_mm = rotation @ ((zooms - 1) / 2 * across_mm - middle_mm) + middle_mm + shift_mm
        ndimage.affine_transform(slices[which], matrix, start_mm / across_mm, out, seen[which], order=1, mode="nearest")
    return seen, zooms
