"""What a network sees of a prepared volume: some of its channels, a part of its grid, and its own scale.

The same functions serve fit and prediction, so that a model in use cannot see other inputs than it was fitted with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

Grid = tuple[int, int, int]


class InputSpec(Protocol):
    """What of a network's specification shapes its input."""

    @property
    def inputs(self) -> tuple[str, ...]: ...

    @property
    def crop_voxels(self) -> Grid | None: ...

    @property
    def scaling(self) -> str: ...


def network_input(volumes: Tensor, spec: InputSpec, channels: Sequence[str]) -> Tensor:
    """Turn prepared volumes into what the network takes, as in every evaluation and prediction.

    Args:
        volumes: Unitless z-scores, 0 outside the brain, shape (…, channels, i, j, k).
        spec: The network's specification.
        channels: Names of the prepared volumes' channels, in order.

    Returns:
        Unitless, contiguous, shape (…, inputs, i', j', k').

    Raises:
        ValueError: A channel is missing, or the volumes have other channels than the names say.
    """
    return scaled(centre_crop(chosen_channels(volumes, spec, channels), spec.crop_voxels), spec)


def training_input(volumes: Tensor, spec: InputSpec, channels: Sequence[str], random: np.random.Generator) -> Tensor:
    """As `network_input`, but the crop lies anywhere on the grid, for training.

    Args:
        volumes: One scan, shape (channels, i, j, k), or several that are cropped alike.
        spec: The network's specification.
        channels: Names of the prepared volumes' channels, in order.
        random: The scan's own stream; it is drawn from only where there is a crop.

    Returns:
        As `network_input`.
    """
    return scaled(random_crop(chosen_channels(volumes, spec, channels), spec.crop_voxels, random), spec)


def chosen_channels(volumes: Tensor, spec: InputSpec, channels: Sequence[str]) -> Tensor:
    """Take the specification's channels by name, in its order; all of them where it names none.

    Raises:
        ValueError: A channel is missing, or the volumes have other channels than the names say.
    """
    if volumes.ndim < 4 or volumes.shape[-4] != len(channels):
        raise ValueError(
            f"volumes of shape {tuple(volumes.shape)} do not have the {len(channels)} channels {tuple(channels)}; "
            "expected (…, channels, i, j, k) as the recipe prepares them."
        )
    missing = [name for name in spec.inputs if name not in channels]
    if missing:
        raise ValueError(
            f"the network takes {', '.join(spec.inputs)}, but the prepared volumes hold {', '.join(channels)}; add "
            f"{', '.join(missing)} to the recipe's channels, or leave it out of the network's inputs."
        )
    if not spec.inputs or tuple(spec.inputs) == tuple(channels):
        return volumes
    return volumes[..., [list(channels).index(name) for name in spec.inputs], :, :, :]


def centre_crop(volumes: Tensor, crop_voxels: Grid | None) -> Tensor:
    """Take the middle of the grid. Sides that are smaller grow by 0, which is what lies outside the brain.

    Args:
        volumes: Shape (…, i, j, k).
        crop_voxels: Shape of the part; None takes all.

    Returns:
        Shape (…, *crop_voxels). Where a side cannot be split evenly, the voxel more stands at its end.
    """
    return _cropped(volumes, crop_voxels, None)


def random_crop(volumes: Tensor, crop_voxels: Grid | None, random: np.random.Generator) -> Tensor:
    """Take a part of the grid from anywhere, each place as likely; otherwise as `centre_crop`."""
    return _cropped(volumes, crop_voxels, random)


def scaled(volumes: Tensor, spec: InputSpec) -> Tensor:
    """Bring each channel of each scan to the specification's scale.

    Args:
        volumes: Shape (…, i, j, k).
        spec: `zscore` leaves the values; `unit` brings the least to 0 and the largest to 1, and a constant to 0.

    Returns:
        Same shape, contiguous.

    Raises:
        ValueError: No scaling has that name.
    """
    if spec.scaling not in ("zscore", "unit"):
        raise ValueError(f"no scaling is called {spec.scaling!r}; known: 'zscore', 'unit'.")
    if spec.scaling == "zscore":
        return volumes.contiguous()
    least = volumes.amin(dim=(-3, -2, -1), keepdim=True)
    extent = volumes.amax(dim=(-3, -2, -1), keepdim=True) - least
    return ((volumes - least) / torch.where(extent > 0, extent, torch.ones_like(extent))).contiguous()


def _cropped(volumes: Tensor, crop_voxels: Grid | None, random: np.random.Generator | None) -> Tensor:
    if crop_voxels is None:
        return volumes
    if min(crop_voxels) < 1:
        raise ValueError(f"crop_voxels is {tuple(crop_voxels)}; give one voxel or more per side.")
    padding: list[int] = []
    for axis, side in zip((-3, -2, -1), crop_voxels, strict=True):
        spare = volumes.shape[axis] - side
        start = max(spare, 0) // 2 if random is None else int(random.integers(max(spare, 0), endpoint=True))
        volumes = volumes.narrow(axis, start, min(side, volumes.shape[axis]))
        before = max(-spare, 0) // 2
        # torch counts padding from the last axis on.
        padding = [before, max(-spare, 0) - before, *padding]
    return torch.nn.functional.pad(volumes, padding) if any(padding) else volumes
