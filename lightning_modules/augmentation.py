"""Small random changes that leave a brain's age as it was.

There is no spatial scaling: brain and ventricle size carry age.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from tasks.science.arrays import Volume


@dataclass(frozen=True)
class Augmentation:
    """How far a training scan may be changed, drawn anew per epoch from the seed and the scan's name alone.

    Attributes:
        flip_probability: Chance of a left-right mirror (axis i of a RAS+ volume).
        shift_voxels: Largest whole-voxel shift along each axis, either way.
        contrast_jitter: Standard deviation of the curvature by which tissue contrast is bent.
        seed: The fit's seed.
    """

    flip_probability: float
    shift_voxels: int
    contrast_jitter: float
    seed: int

    def apply(self, volume: Volume, scan_id: str, epoch: int) -> Volume:
        """Change one scan; the same seed, epoch and scan give the same change on any rank, worker or order.

        Args:
            volume: Unitless intensities in RAS+ order, 0 outside the brain, shape (i, j, k).
            scan_id: The scan's name.
            epoch: From 0.

        Returns:
            Changed copy, contiguous, same shape and dtype; voxels shifted in are 0.
        """
        scan_number = int.from_bytes(hashlib.sha256(scan_id.encode()).digest()[:8], "big")
        random = np.random.default_rng([self.seed, epoch, scan_number])
        flips = random.random() < self.flip_probability
        shift = random.integers(-self.shift_voxels, self.shift_voxels, size=3, endpoint=True)
        curvature = float(random.normal(0.0, 1.0)) * self.contrast_jitter
        moved = shifted(volume[::-1] if flips else volume, tuple(int(step) for step in shift))
        return bent(moved, curvature) if curvature else moved


def shifted(volume: Volume, shift_voxels: tuple[int, ...]) -> Volume:
    """Move a volume by whole voxels: no interpolation, so noise texture stays as it was.

    Args:
        volume: Shape (i, j, k).
        shift_voxels: Voxels towards higher indices, per axis.

    Returns:
        Moved copy of the same shape; what comes in from outside is 0.
    """
    moved = np.zeros_like(volume, order="C")
    pairs = list(zip(shift_voxels, volume.shape, strict=True))
    target = tuple(slice(max(step, 0), max(size + min(step, 0), 0)) for step, size in pairs)
    source = tuple(slice(max(-step, 0), max(size - max(step, 0), 0)) for step, size in pairs)
    moved[target] = volume[source]
    return moved


def bent(volume: Volume, curvature: float) -> Volume:
    """Bend the scale of z-scores, as another scanner's T1 weighting does, and scale it back to z-scores.

    Two scanners set the same tissues at different relative brightness; one that was never seen in training should not
    shift every age. The bend is `z + curvature · z²`, turned to a straight line before it would reverse the order of
    intensities.

    Args:
        volume: Z-scores within the brain, exactly 0 outside it, shape (i, j, k).
        curvature: Positive: bright tissues spread apart, dark ones draw together.

    Returns:
        Z-scores, float32, same shape; 0 outside the brain.
    """
    brain = volume != 0
    z = volume[brain].astype(np.float64)
    if z.size < 2 or z.std() == 0:
        return volume
    turning = -1 / (2 * curvature)
    bounded = np.maximum(z, turning) if curvature > 0 else np.minimum(z, turning)
    changed = bounded + curvature * bounded**2
    result = np.zeros_like(volume)
    result[brain] = (changed - changed.mean()) / changed.std()
    return result
