"""One encoder for three tasks: age, white matter and the image itself, for infants' myelination age.

Of the study (doi:10.1002/jmri.70376) the abstract is known: a multi-task 3D network with multi-scale age regression,
white-matter segmentation and image reconstruction. What this network adds is a choice, said where it is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .age_head import AgeHead
from .age_network import AgeNetwork, Encoder, in_memory
from .normalisation import with_norm
from .specification import NetworkShape, smallest_side_voxels


class Tasks(NamedTuple):
    """What the network gives for training.

    Attributes:
        ages: The combined age output, as `forward` gives it, shape (n, outputs).
        ages_by_scale: The age output of each scale, finest first, shape (n, scales, outputs).
        white_matter_logits: Log odds that a voxel is white matter, shape (n, 1, i, j, k).
        reconstruction: The network's input anew, in its units, shape (n, input channels, i, j, k).
    """

    ages: Tensor
    ages_by_scale: Tensor
    white_matter_logits: Tensor
    reconstruction: Tensor


class MultitaskUNet(AgeNetwork):
    """A residual U-Net encoder under an age head at several scales and two decoders.

    - The encoder has residual blocks, as an earlier abstract of the group says; MONAI's are used.
    - Every scale but the finest has an age head, since its pooled maps have seen too little of the brain to be more
      than a mean intensity.
    - The age is an average of the scales' ages with learned weights (a softmax that starts equal): whether
      myelination shows in local brightness or in its spread over the brain is for the data to say, and an average of
      ages stays an age.
    - White matter is segmented by a U-Net's decoder with skip connections, for sharp borders.
    - The image is reconstructed from the coarsest maps alone: with skip connections it could be copied through, and
      the task would teach the encoder nothing.
    """

    def __init__(self, spec: NetworkShape) -> None:
        """Lay out the network.

        Args:
            spec: Its channels are the feature maps per scale, finest first, three scales or more; each scale halves
                the grid of the one before.

        Raises:
            ValueError: Fewer than three scales.
        """
        channels = tuple(spec.channels)
        if len(channels) < 3 or min(channels) < 1:
            raise ValueError(f"channels is {channels}; give three scales or more, each of one channel or more.")
        stages = _stages(spec.input_channels, channels)
        encoder = Encoder(stages, sum(channels[1:]), smallest_side_voxels(spec, halvings=len(channels) - 1))
        super().__init__(spec, encoder, MultiScaleHead(spec, channels[1:]))
        decoders = nn.ModuleDict(
            {
                "white_matter": Decoder(channels, outputs=1, skips=True),
                "reconstruction": Decoder(channels, outputs=spec.input_channels, skips=False),
            }
        )
        with_norm(decoders, spec.norm)
        self.decoders = decoders
        in_memory(self.decoders, self.memory_format)

    @property
    def map_layer(self) -> nn.Module:
        """The coarsest stage; the finer scales' share of the age does not show in its maps."""
        last: nn.Module = self.encoder[-1]  # type: ignore[index]
        return last

    def features(self, volumes: Tensor) -> Tensor:
        """Map volumes to the pooled maps of every scale but the finest, side by side; see `AgeNetwork.features`."""
        return _pooled(self._scales(volumes))

    def tasks_of(self, volumes: Tensor) -> Tasks:
        """Map volumes, as `features` takes them, to all that the network is trained on."""
        scales = self._scales(volumes)
        ages_by_scale = self.head.by_scale(_pooled(scales))  # type: ignore[operator]
        return Tasks(
            ages=self.head.combined(ages_by_scale),  # type: ignore[operator]
            ages_by_scale=ages_by_scale,
            white_matter_logits=self.decoders["white_matter"](scales),
            reconstruction=self.decoders["reconstruction"](scales),
        )

    def _scales(self, volumes: Tensor) -> list[Tensor]:
        maps, scales = self.checked(volumes), []
        for stage in self.encoder.children():
            maps = stage(maps)
            scales.append(maps)
        return scales


class MultiScaleHead(nn.Module):
    """An age head per scale, and their weighted average."""

    def __init__(self, spec: NetworkShape, features: Sequence[int]) -> None:
        """Lay out a head for each scale; `features` counts each scale's pooled maps, finest first."""
        super().__init__()
        self.heads = nn.ModuleList(AgeHead(spec, count) for count in features)
        self.scale_logits = nn.Parameter(torch.zeros(len(features)))
        self.sizes = list(features)

    def forward(self, features: Tensor) -> Tensor:
        """Map pooled features, shape (n, d), to outputs, shape (n, bins) or (n, 1)."""
        return self.combined(self.by_scale(features))

    def by_scale(self, features: Tensor) -> Tensor:
        """Map pooled features, shape (n, d), to each scale's outputs, shape (n, scales, outputs)."""
        parts = features.split(self.sizes, dim=1)
        return torch.stack([head(part) for head, part in zip(self.heads, parts, strict=True)], dim=1)

    def combined(self, outputs_by_scale: Tensor) -> Tensor:
        """Average the scales' outputs; of logits that is a weighted product of distributions."""
        weights = torch.softmax(self.scale_logits, dim=0)
        return (outputs_by_scale * weights[:, None]).sum(dim=1)


class Decoder(nn.Module):
    """From the coarsest maps back to the volume's grid.

    Maps grow by trilinear interpolation to the very size of the next finer scale, so that odd sides fit, and without
    the checkerboards of transposed convolutions.
    """

    def __init__(self, channels: Sequence[int], outputs: int, skips: bool) -> None:
        """Lay out one residual block per scale and a convolution 1 to the outputs."""
        from monai.networks.blocks.dynunet_block import UnetResBlock

        super().__init__()
        self.skips = skips
        steps = list(pairwise(reversed(channels)))
        self.blocks = nn.ModuleList(
            UnetResBlock(3, coarse + fine * skips, fine, kernel_size=3, stride=1, norm_name="batch")
            for coarse, fine in steps
        )
        self.last = nn.Conv3d(channels[0], outputs, kernel_size=1)

    def forward(self, scales: Sequence[Tensor]) -> Tensor:
        """Map the encoder's maps, finest first, to outputs on the grid of the finest."""
        maps = scales[-1]
        for block, finer in zip(self.blocks, reversed(scales[:-1]), strict=True):
            maps = nn.functional.interpolate(maps, size=finer.shape[2:], mode="trilinear", align_corners=False)
            maps = block(torch.cat([maps, finer], dim=1) if self.skips else maps)
        outputs: Tensor = self.last(maps)
        return outputs


def _stages(input_channels: int, channels: Sequence[int]) -> nn.Sequential:
    from monai.networks.blocks.dynunet_block import UnetResBlock

    steps = enumerate(pairwise((input_channels, *channels)))
    return nn.Sequential(
        *(
            UnetResBlock(3, before, after, kernel_size=3, stride=2 if number else 1, norm_name="batch")
            for number, (before, after) in steps
        )
    )


def _pooled(scales: Sequence[Tensor]) -> Tensor:
    return torch.cat([maps.mean(dim=(2, 3, 4)) for maps in scales[1:]], dim=1)
