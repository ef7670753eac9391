"""What every network of this folder offers, whatever its layers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .normalisation import with_norm
from .specification import NetworkShape


class Encoder(NamedTuple):
    """Layers that turn volumes into feature maps.

    Attributes:
        layers: From volumes, shape (n, input channels, i, j, k), to maps, shape (n, feature maps, i', j', k').
        feature_maps: Channels of the last maps.
        smallest_side_voxels: A volume with a shorter side would be shrunk to nothing.
        channels_last: Whether a step is faster on the CPU with channels last in memory, as measured.
    """

    layers: nn.Module
    feature_maps: int
    smallest_side_voxels: int
    channels_last: bool = True


class AgeNetwork(nn.Module):
    """An encoder, a global average pool and a head.

    `forward` is `head(features(volumes))`, so that an encoder can be fitted alone and frozen under another head.

    Attributes:
        encoder: Volumes to feature maps.
        head: Features, shape (n, d), to outputs, shape (n, bins) or (n, 1).
        input_channels: Channels of the volumes that it takes.
        smallest_side_voxels: Shortest side of the volumes that it takes.
    """

    def __init__(self, spec: NetworkShape, encoder: Encoder, head: nn.Module) -> None:
        """Join the parts and give them the specification's normalisation.

        Args:
            spec: The network's specification.
            encoder: Laid out with batch norm.
            head: Takes the encoder's pooled features.
        """
        super().__init__()
        self.encoder = with_norm(encoder.layers, spec.norm)
        self.head = head
        self.input_channels = spec.input_channels
        self.smallest_side_voxels = encoder.smallest_side_voxels
        self.memory_format = torch.channels_last_3d if encoder.channels_last else torch.contiguous_format
        in_memory(self.encoder, self.memory_format)

    @property
    def map_layer(self) -> nn.Module:
        """The module whose output is the last feature maps, for Grad-CAM and Grad-RAM."""
        return self.encoder

    def features(self, volumes: Tensor) -> Tensor:
        """Map volumes to the representation that the head reads.

        Args:
            volumes: Unitless intensities, float32, shape (n, input channels, i, j, k).

        Returns:
            Unitless, shape (n, d).

        Raises:
            ValueError: Other channels than the network takes, or a grid that it would shrink to nothing.
        """
        maps: Tensor = self.encoder(self.checked(volumes))
        return maps.mean(dim=(2, 3, 4))

    def forward(self, volumes: Tensor) -> Tensor:
        """Map volumes, as `features` takes them, to an age output.

        Returns:
            Head `soft_label`: unnormalised log probabilities over the age bins, shape (n, bins); head `regression`:
            years, shape (n, 1).
        """
        outputs: Tensor = self.head(self.features(volumes))
        return outputs

    def checked(self, volumes: Tensor) -> Tensor:
        """Refuse what the layers cannot take; return the volumes in the layers' memory format."""
        side = self.smallest_side_voxels
        if volumes.ndim != 5 or volumes.shape[1] != self.input_channels or min(volumes.shape[2:]) < side:
            raise ValueError(
                f"expected volumes of shape (n, {self.input_channels}, i, j, k) with every side at least {side} "
                f"voxels, got {tuple(volumes.shape)}; prepare at a finer resolution, enlarge crop_voxels, or take a "
                "network that halves its grid less often."
            )
        return volumes.contiguous(memory_format=self.memory_format)


def in_memory(layers: nn.Module, memory_format: torch.memory_format) -> None:
    """Lay the weights of convolutions out in memory, in place.

    Those of one voxel are left: both formats are the same bytes, under strides that DDP would have to bring together.
    """
    for layer in layers.modules():
        if isinstance(layer, nn.Conv3d) and max(layer.kernel_size) > 1:
            layer.to(memory_format=memory_format)  # type: ignore[call-overload]
