"""Small random changes that leave a brain's age as it was.

There is no spatial scaling: brain and ventricle size carry age.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from tasks.science.arrays import Channels


@dataclass(frozen=True)
class Augmentation:
    """How far a training scan may be changed, drawn anew per epoch from the seed and the scan's name alone.

    Attributes:
        flip_probability: Chance of a left-right mirror (axis i of a RAS+ volume).
        shift_voxels: Largest whole-voxel shift along each axis, either way.
        seed: The fit's seed.
    """

    flip_probability: float
    shift_voxels: int
    seed: int

    def apply(self, volume: Channels, scan_id: str, epoch: int) -> Channels:
        """Change one scan; the same seed, epoch and scan give the same change on any rank, worker or order.

        Args:
            volume: Unitless intensities in RAS+ order, 0 outside the brain, shape (channels, i, j, k).
            scan_id: The scan's name.
            epoch: From 0.

        Returns:
            Changed copy, contiguous, same shape and dtype; voxels shifted in are 0.
        """
        scan_number = int.from_bytes(hashlib.sha256(scan_id.encode()).digest()[:8], "big")
        random = np.random.default_rng([self.seed, epoch, scan_number])
        flips = random.random() < self.flip_probability
        shift = random.integers(-self.shift_voxels, self.shift_voxels, size=3, endpoint=True)
        return shifted(volume[:, ::-1] if flips else volume, tuple(int(step) for step in shift))


def shifted(volume: Channels, shift_voxels: tuple[int, ...]) -> Channels:
    """Move a volume by whole voxels: no interpolation, so noise texture stays as it was.

    Args:
        volume: Shape (channels, i, j, k).
        shift_voxels: Voxels towards higher indices, per axis.

    Returns:
        Moved copy of the same shape; what comes in from outside is 0.
    """
    moved = np.zeros_like(volume, order="C")
    pairs = list(zip((0, *shift_voxels), volume.shape, strict=True))
    target = tuple(slice(max(step, 0), max(size + min(step, 0), 0)) for step, size in pairs)
    source = tuple(slice(max(-step, 0), max(size - max(step, 0), 0)) for step, size in pairs)
    moved[target] = volume[source]
    return moved
