"""The simple fully convolutional network of Peng et al. 2021."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SFCN(nn.Module):
    """A 3D network that is small enough for cohorts of hundreds to thousands of scans.

    Each block but the last halves the grid: convolution 3, batch norm, max pool 2, ReLU. The last block mixes channels
    (convolution 1, batch norm, ReLU); then come global average pooling, dropout and a convolution 1 to the age bins.

    Reference: Peng et al. 2021, doi:10.1016/j.media.2020.101871.
    """

    def __init__(self, channels: Sequence[int], bins: int, dropout: float, input_channels: int = 1) -> None:
        """Lay out the blocks.

        Args:
            channels: Feature maps per block, two blocks or more; (32, 64, 128, 256, 256, 64) in the paper.
            bins: Age bins.
            dropout: Probability of dropping a feature before the last convolution.
            input_channels: Channels of the prepared volumes.

        Raises:
            ValueError: Fewer than two blocks, or a probability outside [0, 1).
        """
        super().__init__()
        if len(channels) < 2 or min(channels) < 1:
            raise ValueError(f"channels is {tuple(channels)}; give two blocks or more, each of one channel or more.")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; give a probability from 0 up to, not including, 1.")
        halvings = zip((input_channels, *channels[:-2]), channels[:-1], strict=True)
        self.blocks = nn.Sequential(*(_halving_block(before, after) for before, after in halvings))
        self.mixing = nn.Sequential(
            nn.Conv3d(channels[-2], channels[-1], kernel_size=1), nn.BatchNorm3d(channels[-1]), nn.ReLU()
        )
        self.dropout = nn.Dropout(dropout)
        self.bins = nn.Conv3d(channels[-1], bins, kernel_size=1)
        self.input_channels = input_channels
        self.smallest_side_voxels = 2 ** (len(channels) - 1)
        # Channels last in memory makes a step on the CPU about a third faster.
        self.blocks.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, volumes: Tensor) -> Tensor:
        """Map prepared volumes to logits over the age bins.

        Args:
            volumes: Unitless z-scored intensities, float32, shape (n, input channels, i, j, k).

        Returns:
            Unnormalised log probabilities, float32, shape (n, bins).

        Raises:
            ValueError: Other channels than the network takes, or a grid that the poolings would shrink to nothing.
        """
        if (
            volumes.ndim != 5
            or volumes.shape[1] != self.input_channels
            or min(volumes.shape[2:]) < self.smallest_side_voxels
        ):
            raise ValueError(
                f"expected volumes of shape (n, {self.input_channels}, i, j, k) with every side at least "
                f"{self.smallest_side_voxels} voxels ({len(self.blocks)} poolings), got {tuple(volumes.shape)}; "
                "prepare at a finer resolution or give fewer channels."
            )
        features = self.mixing(self.blocks(volumes.contiguous(memory_format=torch.channels_last_3d)))
        pooled = features.mean(dim=(2, 3, 4), keepdim=True)
        logits: Tensor = self.bins(self.dropout(pooled)).flatten(start_dim=1)
        return logits


def _halving_block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, kernel_size=3, padding=1),
        nn.BatchNorm3d(channels_out),
        nn.MaxPool3d(2),
        nn.ReLU(),
    )
