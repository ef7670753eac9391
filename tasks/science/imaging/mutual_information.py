"""How much a scan's intensities tell of the template's, and which way to move for them to tell more.

Where the correlation ratio asks that a class of the template be of one intensity, mutual information asks only that the
two go together, so that partial volumes, lesions and another contrast pull less on the last tenths of a millimetre. It
needs a start that is close.

Reference: Mattes et al. 2003, doi:10.1109/TMI.2003.809072; Thévenaz & Unser 2000, doi:10.1109/83.887976.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import Affine
from .correlation_ratio import ClassifiedPoints, Scene, by_matrix
from .orientation import apply_affine

BINS = 32
BOUNDS_PERCENTILES = (0.5, 99.5)
EMPTY = 1e-12


@dataclass(frozen=True)
class IntensityBins:
    """Where a scan's intensities fall; fixed during a fit, lest the measure change under it.

    Attributes:
        low: Intensity at the first bin; lower ones count as it.
        high: Intensity at the last bin; higher ones count as it.
    """

    low: float
    high: float

    def place(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Spread each value over the four nearest bins by a cubic B-spline, which is smooth in the value.

        Args:
            values: Shape (n,).

        Returns:
            The first of the four bins (n,); shares of the four (4, n) and their slopes by bin (4, n), the slopes 0 for
            values out of bounds; bins per unit of intensity.
        """
        per_unit = (BINS - 4) / max(self.high - self.low, 1e-20)
        bins = (values - self.low) * per_unit
        bounded = np.clip(bins, 0.0, BINS - 4 - 1e-6)
        first = bounded.astype(np.int64)
        t = bounded - first
        u = 1.0 - t
        shares = np.stack([u**3, 3 * t**3 - 6 * t**2 + 4, 3 * u**3 - 6 * u**2 + 4, t**3]) / 6
        slopes = np.stack([-(u**2), 3 * t**2 - 4 * t, 4 * u - 3 * u**2, t**2]) / 2
        return first, shares, slopes * (bins == bounded), per_unit


def bins_at(scene: Scene, template: ClassifiedPoints, transform: Affine) -> IntensityBins:
    """Choose bins by the intensities that the template's brain meets where a fit starts.

    Args:
        scene: The scan.
        template: Points and their classes; class 0 is outside the brain.
        transform: The template's RAS+ mm to the scan's, shape (4, 4).

    Returns:
        Bins from nearly the lowest to nearly the highest intensity.
    """
    values, _, weights = scene.look_up(apply_affine(transform, template.points_mm))
    seen = values[weights > 0]
    inside = values[(weights > 0) & (template.classes > 0)]
    if not inside.size:
        return IntensityBins(0.0, 1.0)
    return IntensityBins(
        float(np.percentile(seen, BOUNDS_PERCENTILES[0])), float(np.percentile(inside, BOUNDS_PERCENTILES[1]))
    )


def mutual_information(
    scene: Scene, template: ClassifiedPoints, bins: IntensityBins, transform: Affine
) -> tuple[float, Affine, float]:
    """Mutual information of scan and template, and its gradient with respect to the transform.

    Args:
        scene: The scan.
        template: Points in the template's RAS+ mm and their classes.
        bins: Of the scan's intensities.
        transform: The template's RAS+ mm to the scan's, shape (4, 4).

    Returns:
        Nats, 0 or more; its derivative by the upper rows of the transform, shape (3, 4); the part of the points that
        lie in the scan's field of view, 0 to 1.
    """
    values, slopes, weights = scene.look_up(apply_affine(transform, template.points_mm))
    total = max(float(weights.sum()), 1e-9)
    first, shares, share_slopes, per_unit = bins.place(values)
    cells = template.classes * BINS + first + np.arange(4)[:, None]
    joint = np.bincount(cells.ravel(), (weights * shares).ravel(), template.n_classes * BINS) / total
    joint = joint.reshape(template.n_classes, BINS)
    by_class, by_bin = joint.sum(axis=1, keepdims=True), joint.sum(axis=0)
    # The classes' own shares hardly move, so that the derivative needs the odds of a class within a bin only.
    log_odds = np.log((joint + EMPTY) / (by_bin + EMPTY))
    nats = float((joint * (log_odds - np.log(by_class + EMPTY))).sum())
    by_value = np.einsum("kn,kn->n", share_slopes, log_odds.ravel()[cells]) * weights * (per_unit / total)
    return nats, by_matrix(by_value, slopes, template.points_mm), total / len(weights)
