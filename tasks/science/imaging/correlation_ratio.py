"""How well a template's tissue classes explain a scan's intensities, and which way to move to explain them better.

The correlation ratio asks only that a scan be about constant within a class of the template, so T1w, T2w and FLAIR
register alike. Against mutual information it needs no histogram of the scan, so its gradient is exact and cheap.

References: Roche et al. 1998, doi:10.1007/BFb0056301; Jenkinson & Smith 2001, doi:10.1016/S1361-8415(01)00036-6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

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
    """A scan and its slopes, ready to be looked up anywhere.

    Args:
        volume: Intensities, shape (i, j, k).
        affine: Voxel indices to the scan's RAS+ mm, shape (4, 4).
    """

    def __init__(self, volume: Volume, affine: Affine) -> None:
        self.to_voxels = np.linalg.inv(affine)
        self.last = np.array(volume.shape, dtype=np.float64) - 1
        self._layers = [np.ascontiguousarray(volume, dtype=np.float32)]
        self._layers += [np.ascontiguousarray(slope, dtype=np.float32) for slope in np.gradient(self._layers[0])]

    def look_up(self, points_mm: Points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Interpolate intensity and slope.

        Args:
            points_mm: Shape (n, 3), the scan's RAS+ mm.

        Returns:
            Intensities (n,), slopes per mm (n, 3), and weights (n,) that fall to 0 at the edge of the field of view,
            so that the measure does not jump when a point leaves it.
        """
        voxels = apply_affine(self.to_voxels, points_mm)
        inside = np.minimum(voxels, self.last - voxels).min(axis=1)
        weights = np.clip(inside / EDGE_VOXELS, 0.0, 1.0)
        rows = voxels.T
        found = [ndimage.map_coordinates(layer, rows, np.float64, order=1, mode="nearest") for layer in self._layers]
        slopes = np.einsum("an,ab->nb", np.stack(found[1:]), self.to_voxels[:3, :3])
        return found[0], slopes, weights


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
    by_point = by_value[:, None] * slopes
    gradient = np.empty((3, 4))
    gradient[:, :3] = np.einsum("na,nb->ab", by_point, template.points_mm)
    gradient[:, 3] = by_point.sum(axis=0)
    return ratio, gradient, overlap
