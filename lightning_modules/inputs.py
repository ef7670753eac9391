"""From a batch of prepared volumes to what the network takes: in training changed at random, else as in prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.records import NetworkSpec

from .augmentation import Augmentation
from .networks.inputs import chosen_channels, network_input, random_crop, scaled


@dataclass(frozen=True)
class NetworkInputs:
    """Makes a fit's inputs on the device where the volumes are: on a GPU, once they have travelled as half floats.

    Attributes:
        network: Its channels, crop and scaling.
        channels: Names of the prepared volumes' channels, in order.
        augmentation: Of training scans.
        scan_ids: Of the training scans, by index.
        views: Changes of each training scan that stand side by side.
    """

    network: NetworkSpec
    channels: tuple[str, ...]
    augmentation: Augmentation
    scan_ids: Sequence[str]
    views: int = 1

    def evaluation(self, volumes: Tensor) -> Tensor:
        """What the network takes in evaluation, calibration and prediction.

        Args:
            volumes: Prepared, shape (n, channels, i, j, k), any floating point.

        Returns:
            Float32, shape (n, inputs, i', j', k').
        """
        return network_input(volumes.float(), self.network, self.channels)

    def training(self, volumes: Tensor, indices: Tensor, epoch: int) -> Tensor:
        """What the network takes in training; the same for a scan and an epoch in any batch.

        Args:
            volumes: Prepared, and seen in slices where that was drawn, shape (n, channels, i, j, k), or (n, views,
                channels, i, j, k) where views have slices of their own.
            indices: Of the scans, shape (n,), on the CPU or not.
            epoch: From 0.

        Returns:
            Float32, shape (n, inputs, i', j', k'), or (n, views, inputs, i', j', k') for more views than one.
        """
        scans = []
        for volume, index in zip(volumes, indices.tolist(), strict=True):
            each = volume if volume.ndim == 5 else volume[None].expand(self.views, *volume.shape)
            seen = [self._changed(one.float(), self.scan_ids[index], epoch, view) for view, one in enumerate(each)]
            scans.append(torch.stack(seen) if self.views > 1 else seen[0])
        return torch.stack(scans)

    def training_target(self, maps: Tensor, indices: Tensor, epoch: int) -> Tensor:
        """Mirror, shift and crop maps of training scans as `training` does the scans; their values stay.

        Args:
            maps: On the prepared grid, shape (n, maps, i, j, k).
            indices: As in `training`.
            epoch: From 0.

        Returns:
            Shape (n, maps, i', j', k'); 0 outside the grid.
        """
        moved = []
        for each, index in zip(maps, indices.tolist(), strict=True):
            name = self.scan_ids[index], epoch
            part = self.augmentation.moved(each, *name)
            moved.append(random_crop(part, self.network.crop_voxels, self.augmentation.crop_stream(*name)))
        return torch.stack(moved)

    def _changed(self, volume: Tensor, scan_id: str, epoch: int, view: int) -> Tensor:
        moved = chosen_channels(self.augmentation.moved(volume, scan_id, epoch, view), self.network, self.channels)
        place = self.augmentation.crop_stream(scan_id, epoch, view)
        part = random_crop(moved, self.network.crop_voxels, place)
        brain = (part != 0).any(dim=0)
        # After the scale: one that spans 0…1 would undo a change of scale or offset.
        return self.augmentation.recoloured(scaled(part, self.network), brain, scan_id, epoch, view)
