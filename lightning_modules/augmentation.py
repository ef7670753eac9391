"""Small random changes that leave a brain's age as it was.

There is no spatial scaling: brain and ventricle size carry age.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from tasks.records import AugmentationSpec
from tasks.science.arrays import Channels
from tasks.science.imaging.slices import as_clinical, random_protocol


@dataclass(frozen=True)
class Augmentation:
    """How far a training scan may be changed, drawn anew per epoch from the seed and the scan's name alone.

    Attributes:
        spec: The study's choices.
        seed: The fit's seed.
        resolution_mm: Voxel size.
    """

    spec: AugmentationSpec
    seed: int
    resolution_mm: float = 1.0

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
        flips = random.random() < self.spec.flip_probability
        shift = random.integers(-self.spec.shift_voxels, self.spec.shift_voxels, size=3, endpoint=True)
        moved = shifted(volume[:, ::-1] if flips else volume, tuple(int(step) for step in shift))
        # Drawn last, so that the draws before it are those of a fit without it.
        if random.random() >= self.spec.slice_simulation:
            return moved
        return seen_in_slices(moved, random, self.resolution_mm)


def seen_in_slices(volume: Channels, random: np.random.Generator, resolution_mm: float) -> Channels:
    """Show a scan as one of many hospitals' 2D protocols would have, the same for each of its channels.

    Args:
        volume: Z-scores in RAS+ order, 0 outside the brain, shape (channels, i, j, k).
        random: The scan's own stream.
        resolution_mm: Voxel size.

    Returns:
        Z-scores anew, 0 outside the brain, float32, same shape.
    """
    protocol = random_protocol(random)
    brain = (volume != 0).any(axis=0)
    affine = np.diag([resolution_mm, resolution_mm, resolution_mm, 1.0])
    return np.stack([as_clinical(channel, affine, brain, protocol, resolution_mm) for channel in volume])


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
