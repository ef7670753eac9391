"""One judge for every tool: similarity over the template's brain, and distances between transforms in mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tasks.science.imaging.orientation import apply_affine

BINS = 64
PERCENTILES = (0.5, 99.5)
POINT_STEP_MM = 6


@dataclass(frozen=True)
class Reference:
    """The template: intensities on its own 1 mm grid, its affine to MNI RAS+ mm, and its brain."""

    volume: np.ndarray
    affine: np.ndarray
    brain: np.ndarray


def similarity(
    scan: np.ndarray, affine: np.ndarray, transforms: dict[str, np.ndarray], reference: Reference
) -> dict[str, tuple[float, float]]:
    """Judge several registrations of one scan alike: same voxels, same interpolation (linear), same intensity bins.

    Args:
        scan: As stored, without bias correction, shape (i, j, k).
        affine: Its voxel indices to RAS+ mm.
        transforms: By tool, the scan's RAS+ mm to MNI RAS+ mm.
        reference: The template.

    Returns:
        By tool, normalised correlation and mutual information (nats) over the voxels of the template's brain that lie
        in the scan's field of view under every transform.
    """
    points = apply_affine(reference.affine, np.argwhere(reference.brain))
    template = reference.volume[reference.brain].astype(np.float64)
    seen = np.ones(len(points), dtype=bool)
    values = {}
    for tool, to_mni in transforms.items():
        voxels = apply_affine(np.linalg.inv(to_mni @ affine), points)
        seen &= ((voxels >= 0) & (voxels <= np.array(scan.shape) - 1)).all(axis=1)
        values[tool] = ndimage.map_coordinates(scan, voxels.T, np.float64, order=1, mode="nearest")
    range_ = np.percentile(np.concatenate([found[seen] for found in values.values()]), PERCENTILES)
    return {
        tool: (correlation(found[seen], template[seen]), mutual_information(found[seen], template[seen], range_))
        for tool, found in values.items()
    }


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's r."""
    return float(np.corrcoef(first, second)[0, 1])


def mutual_information(values: np.ndarray, template: np.ndarray, range_: np.ndarray) -> float:
    """Mutual information in nats from a joint histogram of 64 × 64 bins."""
    clipped = np.clip(values, *range_)
    limits = np.percentile(template, PERCENTILES)
    joint, _, _ = np.histogram2d(clipped, np.clip(template, *limits), BINS, (tuple(range_), tuple(limits)))
    joint /= joint.sum()
    product = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    filled = joint > 0
    return float((joint[filled] * np.log(joint[filled] / product[filled])).sum())


def distance_mm(first: np.ndarray, second: np.ndarray, reference: Reference) -> tuple[float, float]:
    """How far two transforms of one scan put the same points of the brain apart.

    Args:
        first: The scan's RAS+ mm to MNI RAS+ mm.
        second: Likewise.
        reference: The template, whose brain gives the points.

    Returns:
        Mean and largest distance in mm, in MNI.
    """
    every = (slice(None, None, POINT_STEP_MM),) * 3
    points = apply_affine(reference.affine, np.argwhere(reference.brain[every]) * POINT_STEP_MM)
    apart = np.linalg.norm(apply_affine(first @ np.linalg.inv(second), points) - points, axis=1)
    return float(apart.mean()), float(apart.max())
