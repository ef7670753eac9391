"""Which normalisation a network has, chosen after its layers are laid out."""

from __future__ import annotations

import math

from torch import nn

# Wu & He 2018 use 32 groups of wide 2D networks. In narrow ones a group of one channel would be instance norm, which
# leaves nothing of maps of one voxel.
MOST_GROUPS = 8
LEAST_CHANNELS_PER_GROUP = 4


def with_norm(network: nn.Module, norm: str) -> nn.Module:
    """Put another normalisation in the place of each batch norm.

    It works on finished networks because MONAI 1.6.1 gives its ResNet's `norm` to the first layer alone, and because
    its group norm takes one number of groups for layers of any width.

    Args:
        network: Laid out with batch norm; changed in place.
        norm: `batch` leaves it; `group` takes up to 8 groups, the most that divide a layer's channels into four or more
            each; `instance`
            normalises each channel of each scan, with a learned scale and shift.

    Returns:
        The same network.

    Raises:
        ValueError: No normalisation has that name.

    Reference: Wu & He 2018, arXiv:1803.08494.
    """
    if norm not in ("batch", "group", "instance"):
        raise ValueError(f"no normalisation is called {norm!r}; known: 'batch', 'group', 'instance'.")
    if norm == "batch":
        return network
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.BatchNorm3d):
                setattr(parent, name, _norm_of(norm, layer.num_features, layer.eps))
    return network


def _norm_of(norm: str, channels: int, eps: float) -> nn.Module:
    if norm == "instance":
        return nn.InstanceNorm3d(channels, eps=eps, affine=True)
    groups = math.gcd(channels, MOST_GROUPS)
    while groups > 1 and channels // groups < LEAST_CHANNELS_PER_GROUP:
        groups //= 2
    return nn.GroupNorm(groups, channels, eps=eps)
