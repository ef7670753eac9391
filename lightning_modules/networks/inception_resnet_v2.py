"""Inception-ResNet-V2 in 3D, as the study of FLAIR brain age in multiple sclerosis has it."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import Tensor, nn

from .age_network import Encoder
from .specification import NetworkShape, filters, smallest_side_voxels

# Of the convolutions' batch norm, in both sources.
NORM_EPSILON = 1e-3
RESIDUAL_SCALE = 0.2
Side = int | tuple[int, int, int]


def inception_resnet_v2_encoder(spec: NetworkShape) -> Encoder:
    """Lay out the stem, 5 blocks A, Reduction-A, 10 blocks B, Reduction-B, 5 blocks C and a convolution 1 to 1536.

    Block types and most filter counts are those of Szegedy et al. 2016; the rest is as in the study's public code.
    What deviates from the 2D network of 2016:

    - convolutions n×n become n×n×n, and each pair 1×n, n×1 a triple along the three axes;
    - every convolution and pooling is padded (there, the stem and the reductions are not), so that small grids are
      not shrunk to nothing: five halvings that round up take 118×142×118 to 4×5×4, and 40×48×40 to 2×2×2;
    - the stem is that of Inception-v4; a sum of 384 maps follows it, so that A, B and C have 384, 1152 and 2144;
    - 5, 10 and 5 blocks for 10, 20 and 10; residuals are scaled by 0.2 throughout, but for the last block C, which
      adds its own whole and has no ReLU.

    Args:
        spec: Its first channel scales every filter count; 32, the stem's first, is the published width.

    References: Szegedy et al. 2016, arXiv:1602.07261; doi:10.1002/hbm.70425 and its authors' FLAIR-Brain-Age code.
    """
    stem = Stem(spec)
    reduction_a = _reduction_a(spec, stem.maps)
    reduction_b = _reduction_b(spec, reduction_a.maps)
    blocks_c = [_block_c(spec, reduction_b.maps, scale) for scale in (*[RESIDUAL_SCALE] * 4, None)]
    (features,) = filters(spec, 1536)
    layers = OrderedDict[str, nn.Module](
        stem=stem,
        blocks_a=nn.Sequential(*(_block_a(spec, stem.maps) for _ in range(5))),
        reduction_a=reduction_a,
        blocks_b=nn.Sequential(*(_block_b(spec, reduction_a.maps) for _ in range(10))),
        reduction_b=reduction_b,
        blocks_c=nn.Sequential(*blocks_c),
        mixing=_convolution(reduction_b.maps, features),
    )
    return Encoder(nn.Sequential(layers), features, smallest_side_voxels(spec, halvings=5))


class Branches(nn.Module):
    """Several paths over the same maps, their outputs side by side."""

    def __init__(self, *paths: nn.Module, maps: int) -> None:
        super().__init__()
        self.paths = nn.ModuleList(paths)
        self.maps = maps

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([path(maps) for path in self.paths], dim=1)


class Residual(nn.Module):
    """Adds a scaled correction to its input; scaling keeps wide networks from dying early in training."""

    def __init__(self, branches: Branches, maps: int, scale: float | None) -> None:
        """Close the branches by a convolution 1 without normalisation; scale None adds all of it, without a ReLU."""
        super().__init__()
        self.branches = branches
        self.mixing = nn.Conv3d(branches.maps, maps, kernel_size=1)
        self.scale = scale

    def forward(self, maps: Tensor) -> Tensor:
        correction = self.mixing(self.branches(maps))
        if self.scale is None:
            return maps + correction
        return torch.relu(maps + self.scale * correction)


class Stem(nn.Module):
    """Three halvings and the first branches, from the volume to 384 maps at full width."""

    def __init__(self, spec: NetworkShape) -> None:
        super().__init__()
        f32, f64, f96 = filters(spec, 32, 64, 96)
        first = _path(spec.input_channels, (f32, 3, 2), (f32, 3, 1), (f64, 3, 1))
        halved = Branches(_convolution(f64, f96, 3, 2), _halving_pool(), maps=f64 + f96)
        branches = Branches(
            _path(halved.maps, (f64, 1, 1), (f96, 3, 1)),
            _path(halved.maps, (f64, 1, 1), *_along_axes(7, f64, f64, f64), (f96, 3, 1)),
            maps=2 * f96,
        )
        last = Branches(_convolution(2 * f96, 2 * f96, 3, 2), _halving_pool(), maps=4 * f96)
        self.layers = nn.Sequential(first, halved, branches, last)
        self.maps = last.maps

    def forward(self, volumes: Tensor) -> Tensor:
        maps: Tensor = self.layers(volumes)
        return maps


def _block_a(spec: NetworkShape, maps: int) -> Residual:
    f32, f48, f64 = filters(spec, 32, 48, 64)
    return Residual(
        Branches(
            _path(maps, (f32, 1, 1)),
            _path(maps, (f32, 1, 1), (f32, 3, 1)),
            _path(maps, (f32, 1, 1), (f48, 3, 1), (f64, 3, 1)),
            maps=2 * f32 + f64,
        ),
        maps,
        RESIDUAL_SCALE,
    )


def _reduction_a(spec: NetworkShape, maps: int) -> Branches:
    f256, f384 = filters(spec, 256, 384)
    return Branches(
        _path(maps, (f384, 3, 2)),
        _path(maps, (f256, 1, 1), (f256, 3, 1), (f384, 3, 2)),
        _halving_pool(),
        maps=2 * f384 + maps,
    )


def _block_b(spec: NetworkShape, maps: int) -> Residual:
    f128, f160, f192 = filters(spec, 128, 160, 192)
    return Residual(
        Branches(
            _path(maps, (f192, 1, 1)),
            _path(maps, (f128, 1, 1), *_along_axes(7, f160, f160, f192)),
            maps=2 * f192,
        ),
        maps,
        RESIDUAL_SCALE,
    )


def _reduction_b(spec: NetworkShape, maps: int) -> Branches:
    f256, f288, f320, f384 = filters(spec, 256, 288, 320, 384)
    return Branches(
        _path(maps, (f256, 1, 1), (f384, 3, 2)),
        _path(maps, (f256, 1, 1), (f288, 3, 2)),
        _path(maps, (f256, 1, 1), (f288, 3, 1), (f320, 3, 2)),
        _halving_pool(),
        maps=f384 + f288 + f320 + maps,
    )


def _block_c(spec: NetworkShape, maps: int, scale: float | None) -> Residual:
    f192, f224, f256 = filters(spec, 192, 224, 256)
    return Residual(
        Branches(
            _path(maps, (f192, 1, 1)),
            _path(maps, (f192, 1, 1), *_along_axes(3, f224, f224, f256)),
            maps=f192 + f256,
        ),
        maps,
        scale,
    )


def _along_axes(side: int, *counts: int) -> list[tuple[int, Side, int]]:
    """Three convolutions, each along one axis, that see a cube for a third of its weights or less."""
    sides = ((1, 1, side), (1, side, 1), (side, 1, 1))
    return [(count, shape, 1) for count, shape in zip(counts, sides, strict=True)]


def _path(maps: int, *steps: tuple[int, Side, int]) -> nn.Sequential:
    """Convolutions in a row, each given as (filters, side, stride)."""
    counts = pairwise((maps, *(count for count, _, _ in steps)))
    return nn.Sequential(
        *(
            _convolution(before, after, side, stride)
            for (before, after), (_, side, stride) in zip(counts, steps, strict=True)
        )
    )


def _convolution(maps_in: int, maps_out: int, side: Side = 1, stride: int = 1) -> nn.Sequential:
    i, j, k = (side, side, side) if isinstance(side, int) else side
    return nn.Sequential(
        nn.Conv3d(maps_in, maps_out, (i, j, k), stride=stride, padding=(i // 2, j // 2, k // 2)),
        nn.BatchNorm3d(maps_out, eps=NORM_EPSILON),
        nn.ReLU(inplace=True),
    )


def _halving_pool() -> nn.MaxPool3d:
    return nn.MaxPool3d(3, stride=2, padding=1)
