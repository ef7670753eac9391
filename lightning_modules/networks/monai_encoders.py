"""MONAI's 3D ResNet and DenseNet, with random weights and without their last layers.

MONAI is imported where a network is built: it takes seconds, which a fit of another network need not wait.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from .age_network import Encoder
from .specification import NetworkShape, filters, least_map_side_voxels, smallest_side_voxels

RESNET_BLOCKS = {"resnet18": ("basic", 1, (2, 2, 2, 2)), "resnet50": ("bottleneck", 4, (3, 4, 6, 3))}
DENSENET_BLOCKS = {"densenet121": (6, 12, 24, 16), "densenet169": (6, 12, 32, 32)}


def resnet_encoder(spec: NetworkShape) -> Encoder:
    """Lay out a ResNet (He et al. 2016) in 3D.

    The first convolution has stride 2, as in the paper; MONAI's own default of 1 would take eight times the work. The
    shortcuts are convolutions (MONAI's "B"): its "A" detaches them, so that no gradient flows back through it.

    Args:
        spec: Its first channel, over 32, scales the 64, 128, 256 and 512 filters of the stages.

    References: He et al. 2016, arXiv:1512.03385; MONAI, arXiv:2211.02701.
    """
    from monai.networks.nets.resnet import ResNet

    block, expansion, blocks_per_stage = RESNET_BLOCKS[spec.name]
    stages = filters(spec, 64, 128, 256, 512)
    network = ResNet(
        block,
        list(blocks_per_stage),
        list(stages),
        n_input_channels=spec.input_channels,
        conv1_t_stride=2,
        shortcut_type="B",
        bias_downsample=False,
        feed_forward=False,
    )
    names = ("conv1", "bn1", "act", "maxpool", "layer1", "layer2", "layer3", "layer4")
    layers = OrderedDict((name, getattr(network, name)) for name in names)
    side = smallest_side_voxels(spec, halvings=5)
    return Encoder(nn.Sequential(layers), expansion * stages[-1], side, channels_last=False)


def densenet_encoder(spec: NetworkShape) -> Encoder:
    """Lay out a DenseNet (Huang et al. 2017) in 3D.

    Args:
        spec: Its first channel, over 32, scales the 64 first filters and the growth of 32 per layer.

    References: Huang et al. 2017, arXiv:1608.06993; MONAI, arXiv:2211.02701.
    """
    from monai.networks.nets.densenet import DenseNet

    first, growth = filters(spec, 64, 32)
    network = DenseNet(
        spatial_dims=3,
        in_channels=spec.input_channels,
        out_channels=1,
        init_features=first,
        growth_rate=growth,
        block_config=DENSENET_BLOCKS[spec.name],
    )
    feature_maps = int(network.features.norm5.num_features)  # type: ignore[arg-type,union-attr]
    layers = nn.Sequential(OrderedDict([*network.features.named_children(), ("relu", nn.ReLU(inplace=True))]))
    # Two halvings that round up, then three that round down.
    side = 4 * (8 * least_map_side_voxels(spec) - 1) + 1
    return Encoder(layers, feature_maps, side, channels_last=False)
