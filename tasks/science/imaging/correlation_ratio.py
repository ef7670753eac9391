"""How well a template's tissue classes explain a scan's intensities, and which way to move to explain them better.

The correlation ratio asks only that a scan be about constant within a class of the template, so T1w, T2w and FLAIR
register alike. Against mutual information it needs no histogram of the scan, so its gradient is exact and cheap.

References: Roche et al. 1998, doi:10.1007/BFb0056301; Jenkinson & Smith 2001, doi:10.1016/S1361-8415(01)00036-6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import Affine, Points, Volume
from .orientation import apply_affine

EDGE_VOXELS = 1.0


@dataclass(frozen=True)
class ClassifiedPoints:
    """Points of the template and the intensity class of each.

    Attributes:
        points_mm: Shape (n, 3), MNI RAS+ mm.
        classes: Shape (n,), integers from 0.
        n_classes: How many classes there are.
    """

    points_mm: Points
    classes: np.ndarray
    n_classes: int


class Scene:
    """A scan, ready to be looked up anywhere with its slopes.

    Args:
        volume: Intensities, shape (i, j, k).
        affine: Voxel indices to the scan's RAS+ mm, shape (4, 4).
    """

    def __init__(self, volume: Volume, affine: Affine) -> None:
        self.to_voxels = np.linalg.inv(affine)
        self.last = np.array(volume.shape, dtype=np.int64)[:, None] - 1
        self._values = np.ascontiguousarray(volume, dtype=np.float32).ravel()
        self._steps = (volume.shape[1] * volume.shape[2], volume.shape[2])

    def look_up(self, points_mm: Points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Interpolate linearly. The slopes are the interpolation's own: with any others a line search stops too early.

        Args:
            points_mm: Shape (n, 3), the scan's RAS+ mm.

        Returns:
            Intensities (n,), slopes per mm (n, 3), and weights (n,) that fall to 0 at the edge of the field of view,
            so that the measure does not jump when a point leaves it.
        """
        voxels = np.einsum("ij,nj->in", self.to_voxels[:3, :3], points_mm) + self.to_voxels[:3, 3:]
        weights = np.clip(np.minimum(voxels, self.last - voxels).min(axis=0) / EDGE_VOXELS, 0.0, 1.0)
        voxels = np.clip(voxels, 0, self.last)
        lowest = np.minimum(voxels.astype(np.int64), self.last - 1)
        values, slopes = self._between(lowest, (voxels - lowest).astype(np.float32))
        return values, np.einsum("an,ab->nb", slopes, self.to_voxels[:3, :3]), weights

    def _between(self, lowest: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Intensities and slopes per voxel within cells, given each cell's lowest corner and where in it."""
        (i_step, j_step), (di, dj, dk) = self._steps, share
        corner = lowest[0] * i_step + lowest[1] * j_step + lowest[2]
        edges = [self._along_k(corner + offset, dk) for offset in (0, j_step, i_step, i_step + j_step)]
        (low_low, k_low_low), (low_high, k_low_high), (high_low, k_high_low), (high_high, k_high_high) = edges
        j_low, j_high = low_high - low_low, high_high - high_low
        low, high = low_low + dj * j_low, high_low + dj * j_high
        k_low, k_high = k_low_low + dj * (k_low_high - k_low_low), k_high_low + dj * (k_high_high - k_high_low)
        slopes = np.stack([high - low, j_low + di * (j_high - j_low), k_low + di * (k_high - k_low)])
        return low + di * slopes[0], slopes

    def _along_k(self, index: np.ndarray, dk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first = self._values[index]
        slope = self._values[index + 1] - first
        return first + dk * slope, slope


def unexplained(scene: Scene, template: ClassifiedPoints, transform: Affine) -> tuple[float, Affine, float]:
    """One minus the correlation ratio, and its gradient with respect to the transform.

    Args:
        scene: The scan.
        template: Points in MNI and their classes.
        transform: MNI RAS+ mm to the scan's RAS+ mm, shape (4, 4).

    Returns:
        Unexplained part of the variance, 0 to 1; its derivative by the upper rows of the transform, shape (3, 4); the
        part of the points that lie in the scan's field of view, 0 to 1.
    """
    values, slopes, weights = scene.look_up(apply_affine(transform, template.points_mm))
    total = weights.sum()
    overlap = float(total / len(weights))
    counts = np.bincount(template.classes, weights, template.n_classes)
    sums = np.bincount(template.classes, weights * values, template.n_classes)
    class_means = sums / np.maximum(counts, 1e-9)
    mean = sums.sum() / max(total, 1e-9)
    from_class, from_mean = values - class_means[template.classes], values - mean
    within, variance = (weights * from_class**2).sum(), (weights * from_mean**2).sum()
    if variance <= 1e-12 * max(1.0, mean**2) or overlap < 1e-3:
        return 1.0, np.zeros((3, 4)), overlap
    ratio = float(within / variance)
    by_value = 2 * weights * (from_class - ratio * from_mean) / variance
    return ratio, by_matrix(by_value, slopes, template.points_mm), overlap


def by_matrix(by_value: np.ndarray, slopes: np.ndarray, points_mm: Points) -> Affine:
    """Carry derivatives by each point's intensity over to the transform that moves the points.

    Args:
        by_value: Shape (n,).
        slopes: Intensity per mm, shape (n, 3).
        points_mm: Before the transform, shape (n, 3).

    Returns:
        Derivative by the upper rows of the transform, shape (3, 4).
    """
    by_point = by_value[:, None] * slopes
    return np.column_stack([np.einsum("na,nb->ab", by_point, points_mm), by_point.sum(axis=0)])
