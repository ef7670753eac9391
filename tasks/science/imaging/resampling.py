"""Interpolation onto another grid, once, without aliasing."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..arrays import Affine, Volume
from .orientation import apply_affine, spacing_mm

FWHM_PER_SIGMA = float(np.sqrt(8 * np.log(2)))
BLUR_REACH_SIGMAS = 3.0


def resample(
    volume: Volume, affine: Affine, shape: tuple[int, int, int], target_affine: Affine, resolution_mm: float
) -> Volume:
    """Look a volume up on another grid in the same world, in a single interpolation.

    Interpolation is linear: a cubic B-spline rings at the hard edge of a stripped brain and across thick slices,
    which would put false dark and bright rims into the very cortex that carries age. Axes that are sampled more
    finely than the target are first low-pass filtered to its resolution, else fine detail folds into noise.

    Args:
        volume: Source, shape (i, j, k).
        affine: Source voxel indices to the common world, mm.
        shape: Of the target grid.
        target_affine: Target voxel indices to the common world, mm.
        resolution_mm: Voxel size of the target, measured in the source's mm.

    Returns:
        Float32 of the target's shape; 0 where the source has no data.
    """
    to_source = np.linalg.inv(affine) @ target_affine
    cropped, start = _crop(volume, to_source, shape, spacing_mm(affine), resolution_mm)
    if min(cropped.shape) == 0:
        return np.zeros(shape, dtype=np.float32)
    smooth = low_pass(cropped, spacing_mm(affine), resolution_mm)
    return ndimage.affine_transform(
        smooth, to_source[:3, :3], to_source[:3, 3] - start, shape, np.float32, order=1, mode="grid-constant"
    )


def low_pass(volume: Volume, spacing: np.ndarray, resolution_mm: float | np.ndarray) -> Volume:
    """Blur each axis from its own resolution to a coarser one; finer targets leave it alone.

    Args:
        volume: Shape (i, j, k).
        spacing: Voxel size per axis, mm.
        resolution_mm: Full width at half maximum to reach; one for all axes, or one per axis.

    Returns:
        Float32, same shape.
    """
    smooth = np.asarray(volume, dtype=np.float32)
    for axis, (step_mm, fwhm_mm) in enumerate(zip(spacing, np.broadcast_to(resolution_mm, 3), strict=True)):
        if fwhm_mm > 1.25 * step_mm:
            sigma_voxels = float(np.sqrt(fwhm_mm**2 - step_mm**2) / FWHM_PER_SIGMA / step_mm)
            smooth = ndimage.gaussian_filter1d(smooth, sigma_voxels, axis, mode="nearest", truncate=BLUR_REACH_SIGMAS)
    return smooth


def block_mean(volume: Volume, affine: Affine, resolution_mm: float) -> tuple[Volume, Affine]:
    """Shrink by whole factors per axis, which is cheap and does not alias; for working copies, never for output.

    Args:
        volume: Shape (i, j, k).
        affine: Voxel indices to mm.
        resolution_mm: Voxel size to come near to; coarser axes stay as they are.

    Returns:
        The smaller volume, float32, and its affine; trailing voxels that fill no block are left out.
    """
    factors = [max(1, round(resolution_mm / step_mm)) for step_mm in spacing_mm(affine)]
    kept = [size // factor for size, factor in zip(volume.shape, factors, strict=True)]
    small = np.asarray(volume, dtype=np.float32)
    for axis, (size, factor) in enumerate(zip(kept, factors, strict=True)):
        if factor > 1:
            small = np.moveaxis(small, axis, 0)[: size * factor]
            small = sum(small[offset::factor] for offset in range(factor)) / np.float32(factor)  # type: ignore[assignment]
            small = np.moveaxis(small, 0, axis)
    scaled = np.array(affine, dtype=np.float64)
    scaled[:3, 3] = apply_affine(affine, (np.array([factors]) - 1) / 2)[0]
    scaled[:3, :3] = scaled[:3, :3] * factors
    return np.ascontiguousarray(small), scaled


def _crop(
    volume: Volume, to_source: Affine, shape: tuple[int, int, int], spacing: np.ndarray, resolution_mm: float
) -> tuple[Volume, np.ndarray]:
    """Keep only what the target can see; a head with its neck is mostly air and shoulders."""
    corners = np.array([[i, j, k] for i in (0, shape[0] - 1) for j in (0, shape[1] - 1) for k in (0, shape[2] - 1)])
    margin = np.ceil(BLUR_REACH_SIGMAS * resolution_mm / FWHM_PER_SIGMA / spacing).astype(int) + 2
    seen = apply_affine(to_source, corners)
    low = np.clip(np.floor(seen.min(axis=0)).astype(int) - margin, 0, volume.shape)
    high = np.clip(np.ceil(seen.max(axis=0)).astype(int) + margin + 1, 0, volume.shape)
    return volume[low[0] : high[0], low[1] : high[1], low[2] : high[2]], low.astype(np.float64)
