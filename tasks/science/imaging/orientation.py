"""Where voxels are in the head: always from the affine, never from the order of the array."""

from __future__ import annotations

import numpy as np

from ...records import ScanRejected
from ..arrays import Affine, AnyVolume, Points

MIN_SPACING_MM = 0.2
MAX_SPACING_MM = 12.0
MIN_AXIS_ANGLE_SINE = 0.5


def spacing_mm(affine: Affine) -> np.ndarray:
    """Length of one voxel step along each array axis.

    Args:
        affine: Voxel indices to mm, shape (4, 4).

    Returns:
        Three lengths in mm, float64.
    """
    return np.sqrt((np.asarray(affine, dtype=np.float64)[:3, :3] ** 2).sum(axis=0))


def check_affine(affine: Affine) -> None:
    """Refuse an affine that cannot place a brain: everything after it would be plausible and wrong.

    Args:
        affine: Voxel indices to RAS+ mm, shape (4, 4).

    Raises:
        ScanRejected: It is not finite, has absurd voxel sizes, or axes that (nearly) coincide.
    """
    if not np.isfinite(affine).all():
        raise ScanRejected("orientation", "the affine holds NaN or infinite values; convert the scan again")
    sizes = spacing_mm(affine)
    if sizes.min() < MIN_SPACING_MM or sizes.max() > MAX_SPACING_MM:
        found = " × ".join(f"{size:.4g}" for size in sizes)
        raise ScanRejected(
            "orientation",
            f"voxels of {found} mm; {MIN_SPACING_MM} to {MAX_SPACING_MM} mm are accepted: is the unit millimetre?",
        )
    if abs(np.linalg.det(affine[:3, :3] / sizes)) < MIN_AXIS_ANGLE_SINE:
        raise ScanRejected("orientation", "the affine's axes nearly coincide (singular or heavily sheared)")


def to_ras(volume: AnyVolume, affine: Affine) -> tuple[AnyVolume, Affine]:
    """Permute and flip array axes so that each runs nearest to right, anterior and superior; nothing is resampled.

    The same head stored in another axis order then takes the same path through every later step.

    Args:
        volume: Any array on the grid, shape (i, j, k).
        affine: Voxel indices to RAS+ mm, shape (4, 4); may be oblique.

    Returns:
        A contiguous array in RAS+ order and its affine. World coordinates of every voxel are unchanged.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    order = nearest_axes(matrix)
    signs = np.sign([matrix[row, axis] for row, axis in enumerate(order)])
    reordered = np.transpose(volume, order)
    reorder = np.zeros((4, 4))
    reorder[3, 3] = 1.0
    for row, axis in enumerate(order):
        reorder[axis, row] = signs[row]
        if signs[row] < 0:
            reorder[axis, 3] = volume.shape[axis] - 1
    flips = tuple(slice(None, None, -1 if sign < 0 else 1) for sign in signs)
    return np.ascontiguousarray(reordered[flips]), matrix @ reorder


def nearest_axes(affine: Affine) -> tuple[int, int, int]:
    """Assign an array axis to each of right, anterior and superior, one to one, by the largest total cosine.

    Args:
        affine: Voxel indices to RAS+ mm, shape (4, 4).

    Returns:
        For x, y and z the array axis that runs along it.
    """
    cosines = np.abs(np.asarray(affine)[:3, :3] / spacing_mm(affine))
    orders = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    return max(orders, key=lambda order: sum(cosines[row, axis] for row, axis in enumerate(order)))


def apply_affine(affine: Affine, points: Points) -> Points:
    """Map points; einsum rather than BLAS, so that the bits do not depend on the number of threads.

    Args:
        affine: Shape (4, 4).
        points: Shape (n, 3).

    Returns:
        Shape (n, 3), float64.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    return np.einsum("ij,nj->ni", matrix[:3, :3], points) + matrix[:3, 3]
