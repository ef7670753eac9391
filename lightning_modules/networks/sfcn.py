"""The simple fully convolutional network of Peng et al. 2021."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from .age_network import Encoder
from .specification import NetworkShape, least_map_side_voxels


def sfcn_encoder(spec: NetworkShape) -> Encoder:
    """Lay out a 3D network that is small enough for cohorts of hundreds to thousands of scans.

    Each block but the last halves the grid: convolution 3, batch norm, max pool 2, ReLU. The last block mixes channels
    (convolution 1, batch norm, ReLU). Global average pooling, dropout and a convolution 1 to the age bins follow; on
    pooled features the latter is the head's linear layer.

    Args:
        spec: Its channels are the feature maps per block, two blocks or more; (32, 64, 128, 256, 256, 64) in the
            paper.

    Raises:
        ValueError: Fewer than two blocks.

    Reference: Peng et al. 2021, doi:10.1016/j.media.2020.101871.
    """
    channels = tuple(spec.channels)
    if len(channels) < 2 or min(channels) < 1:
        raise ValueError(f"channels is {channels}; give two blocks or more, each of one channel or more.")
    halvings = zip((spec.input_channels, *channels[:-2]), channels[:-1], strict=True)
    blocks = nn.Sequential(*(_halving_block(before, after) for before, after in halvings))
    mixing = nn.Sequential(
        nn.Conv3d(channels[-2], channels[-1], kernel_size=1), nn.BatchNorm3d(channels[-1]), nn.ReLU()
    )
    return Encoder(
        nn.Sequential(OrderedDict(blocks=blocks, mixing=mixing)),
        feature_maps=channels[-1],
        smallest_side_voxels=least_map_side_voxels(spec) * 2 ** len(blocks),
    )


def _halving_block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, kernel_size=3, padding=1),
        nn.BatchNorm3d(channels_out),
        nn.MaxPool3d(2),
        nn.ReLU(),
    )
