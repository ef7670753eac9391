"""Small random changes that leave a brain's age as it was.

There is no spatial scaling: brain and ventricle size carry age.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms.intensity.array import (
    RandAdjustContrast,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandHistogramShift,
    RandScaleIntensity,
    RandShiftIntensity,
)
from monai.transforms.transform import RandomizableTransform
from torch import Tensor

from tasks.records import AugmentationSpec
from tasks.science.arrays import Channels
from tasks.science.imaging.slices import as_clinical, random_protocol

# MONAI's own defaults reach 4.5, where the brain is a silhouette.
CONTRAST_GAMMAS = (0.5, 2.0)
# Where a scan's crop and its intensities have their streams, beside the one of its moves and slices.
CROP_STREAM, INTENSITY_STREAM = 1, 2


class RandNoise(RandGaussianNoise):
    """MONAI's Gaussian noise, drawn by torch on the CPU: four times as fast, and alike for a volume on any device."""

    noise: Any

    def randomize(self, img: Any, mean: float | None = None) -> None:
        RandomizableTransform.randomize(self, None)
        spread = self.R.uniform(0, self.std)
        generator = torch.Generator().manual_seed(int(self.R.randint(2**31)))
        if self._do_transform:
            self.noise = torch.randn(tuple(img.shape), generator=generator) * spread


@dataclass(frozen=True)
class Augmentation:
    """How far a training scan may be changed, drawn anew per epoch from the seed and the scan's name alone.

    Every number is drawn on the CPU, so that a volume on a GPU is changed as one on the CPU is, to rounding. Slices
    are simulated by the loader; what comes after them may run on the GPU.

    Attributes:
        spec: The study's choices.
        seed: The fit's seed.
        resolution_mm: Voxel size.
    """

    spec: AugmentationSpec
    seed: int
    resolution_mm: float = 1.0

    def apply(self, volume: Channels, scan_id: str, epoch: int, view: int = 0) -> Channels:
        """Simulate slices, mirror and shift one scan; the same arguments give the same on any rank, worker or order.

        Args:
            volume: Unitless intensities in RAS+ order, 0 outside the brain, shape (channels, i, j, k).
            scan_id: The scan's name.
            epoch: From 0.
            view: From 0, where an objective compares several changes of one scan.

        Returns:
            Changed copy, contiguous, same shape and dtype; voxels shifted in are 0.
        """
        sliced = torch.from_numpy(self.sliced(volume, scan_id, epoch, view))
        changed: Channels = self.moved(sliced, scan_id, epoch, view).numpy()
        return changed

    def sliced(self, volume: Channels, scan_id: str, epoch: int, view: int = 0) -> Channels:
        """Show the scan as a 2D acquisition would have, by the chance of `slice_simulation`; see `apply`."""
        random, _, _ = self._moves(scan_id, epoch, view)
        # Drawn last, so that the draws before it are those of a fit without it.
        if random.random() >= self.spec.slice_simulation:
            return volume
        return seen_in_slices(volume, random, self.resolution_mm)

    def moved(self, volume: Tensor, scan_id: str, epoch: int, view: int = 0) -> Tensor:
        """Mirror left and right, and shift by whole voxels; see `apply`. The volume may be on any device."""
        _, flips, shift = self._moves(scan_id, epoch, view)
        return shifted(volume.flip(1) if flips else volume, shift)

    def crop_stream(self, scan_id: str, epoch: int, view: int = 0) -> np.random.Generator:
        """The stream that places a scan's random crop."""
        return np.random.default_rng([*self._name(scan_id, epoch, view), CROP_STREAM])

    def recoloured(self, volume: Tensor, brain: Tensor, scan_id: str, epoch: int, view: int = 0) -> Tensor:
        """Change the intensities within the brain, each channel by draws of its own: contrasts are separate scans.

        Args:
            volume: As the network takes it, float32, shape (channels, i, j, k), on any device.
            brain: True inside the brain, shape (i, j, k): outside it the recipe's constant is part of what the
                network learns to expect.
            scan_id: The scan's name.
            epoch: From 0.
            view: From 0.

        Returns:
            Same shape and device; the volume itself where the study changes nothing.
        """
        chain = self._intensity_changes()
        if not chain:
            return volume
        return torch.stack(
            [
                self._recoloured(channel, brain, chain, [*self._name(scan_id, epoch, view), INTENSITY_STREAM, number])
                for number, channel in enumerate(volume)
            ]
        )

    def _recoloured(
        self, channel: Tensor, brain: Tensor, chain: dict[int, Callable[[], RandomizableTransform]], name: list[int]
    ) -> Tensor:
        changed = channel[None].clone()
        for number, make in chain.items():
            transform = make()
            # A stream per change: one that is left out alters no other.
            seeds = np.random.MT19937(np.random.SeedSequence([*name, number]))
            transform.set_random_state(state=np.random.RandomState(seeds))
            changed = transform(changed)
        # MONAI's tensors carry the image's metadata along.
        plain: Tensor = changed.as_tensor() if hasattr(changed, "as_tensor") else changed
        return torch.where(brain, plain[0], channel)

    def _intensity_changes(self) -> dict[int, Callable[[], RandomizableTransform]]:
        spec = self.spec
        offered: list[tuple[float, Callable[[], RandomizableTransform]]] = [
            (spec.contrast_probability, lambda: RandAdjustContrast(spec.contrast_probability, CONTRAST_GAMMAS)),
            (spec.histogram_shift_probability, lambda: RandHistogramShift(prob=spec.histogram_shift_probability)),
            (spec.smoothing_probability, lambda: RandGaussianSmooth(prob=spec.smoothing_probability)),
            (
                spec.intensity_probability * abs(spec.intensity_scale),
                lambda: RandScaleIntensity(spec.intensity_scale, spec.intensity_probability),
            ),
            (
                spec.intensity_probability * abs(spec.intensity_shift),
                lambda: RandShiftIntensity(spec.intensity_shift, prob=spec.intensity_probability),
            ),
            (spec.noise_probability, lambda: RandNoise(spec.noise_probability)),
        ]
        return {number: make for number, (chance, make) in enumerate(offered) if chance > 0}

    def _moves(self, scan_id: str, epoch: int, view: int) -> tuple[np.random.Generator, bool, tuple[int, ...]]:
        name = self._name(scan_id, epoch, view)
        random = np.random.default_rng(name)
        flips = bool(random.random() < self.spec.flip_probability)
        shift = random.integers(-self.spec.shift_voxels, self.spec.shift_voxels, size=3, endpoint=True)
        return random, flips, tuple(int(step) for step in shift)

    def _name(self, scan_id: str, epoch: int, view: int) -> list[int]:
        scan_number = int.from_bytes(hashlib.sha256(scan_id.encode()).digest()[:8], "big")
        return [self.seed, epoch, scan_number, *([view] if view else [])]


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


def shifted(volume: Tensor, shift_voxels: tuple[int, ...]) -> Tensor:
    """Move a volume by whole voxels: no interpolation, so noise texture stays as it was.

    Args:
        volume: Shape (channels, i, j, k), on any device.
        shift_voxels: Voxels towards higher indices, per axis.

    Returns:
        Moved copy of the same shape; what comes in from outside is 0.
    """
    moved = torch.zeros_like(volume, memory_format=torch.contiguous_format)
    pairs = list(zip((0, *shift_voxels), volume.shape, strict=True))
    target = tuple(slice(max(step, 0), max(size + min(step, 0), 0)) for step, size in pairs)
    source = tuple(slice(max(-step, 0), max(size - max(step, 0), 0)) for step, size in pairs)
    moved[target] = volume[source]
    return moved
