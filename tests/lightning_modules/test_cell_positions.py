"""Where cells of feature maps lie, against what really reaches them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_modules.cell_positions import cell_positions
from lightning_modules.networks.build import build_network
from tasks.records import NetworkSpec

POOLED = nn.Sequential(nn.Conv3d(1, 1, 3, padding=1), nn.MaxPool3d(2), nn.ReLU(), nn.MaxPool3d(2))
STRIDED = nn.Sequential(nn.Conv3d(1, 1, 7, stride=2, padding=3), nn.MaxPool3d(3, stride=2, padding=1))
VALID = nn.Sequential(nn.Conv3d(1, 1, 3, stride=2), nn.Conv3d(1, 1, 3, dilation=2), nn.AvgPool3d(3, stride=2))
PADDED = nn.Sequential(nn.ConstantPad3d((0, 1, 2, 1, 4, 3), 0.0), nn.Conv3d(1, 1, (3, 1, 5), stride=(1, 2, 3)))


class Branches(nn.Module):
    """Two ways to the same grid, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.long = nn.Sequential(nn.Conv3d(1, 1, 3, padding="same"), nn.Conv3d(1, 1, 3, stride=2, padding=1))
        self.short = nn.Conv3d(1, 1, 1, stride=2)
        self.join = nn.Identity()

    def forward(self, volumes: Tensor) -> Tensor:
        joined: Tensor = self.join(torch.cat([self.long(volumes), self.short(volumes)], dim=1))
        return joined


def middle_of_what_reaches(network: nn.Module, shape: tuple[int, ...], cell: tuple[int, ...]) -> np.ndarray:
    """The middle of the box of voxels whose gradient for one cell is not 0, weights all 1 and input rising nowhere."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
    reached = np.zeros(shape[1:], dtype=bool)
    # Max pooling passes gradient to one voxel of its window: over several random inputs, to each of them.
    for seed in range(40):
        volume = torch.rand((1, *shape), generator=torch.Generator().manual_seed(seed)).requires_grad_()
        (gradient,) = torch.autograd.grad(network(volume)[(0, 0, *cell)], volume)
        reached |= gradient[0, 0].numpy() != 0
    return np.array([(indices.min() + indices.max()) / 2 for indices in np.nonzero(reached)])


@pytest.mark.parametrize(("network", "at"), [(POOLED, 2), (STRIDED, 3), (VALID, 1), (PADDED, 4), (Branches(), 5)])
def test_a_cell_lies_in_the_middle_of_the_voxels_that_reach_it(network: nn.Module, at: int) -> None:
    shape, cell = (1, 23, 24, 25), (at, at, at)
    layer = network.join if isinstance(network, Branches) else network
    positions = cell_positions(nn.Sequential(layer) if layer is network else network, layer, shape)
    expected = np.array(positions.first) + np.array(positions.step) * cell
    assert middle_of_what_reaches(network, shape, cell) == pytest.approx(expected, abs=1e-9)


def test_a_plain_stretch_would_put_cells_elsewhere() -> None:
    """40 voxels hold two whole cells of 16; stretched over the grid, the second would lie 6 voxels off."""
    network = build_network(NetworkSpec(channels=(4, 4, 4, 4, 4)))
    positions = cell_positions(network, network.map_layer, (1, 40, 48, 40))
    assert positions.step == (16.0, 16.0, 16.0)
    assert positions.first == (7.5, 7.5, 7.5)
    stretched = (1 + 0.5) * 40 / 2 - 0.5
    assert stretched - (7.5 + 16) == 6.0


@pytest.mark.parametrize(
    ("name", "step", "first"),
    [
        # Strided convolutions and poolings that are padded evenly centre their first cell on the first voxel.
        ("resnet18", 32.0, 0.0),
        ("resnet50", 32.0, 0.0),
        # Then three average poolings of 2: half a cell of 4, 8 and 16 voxels each.
        ("densenet121", 32.0, 14.0),
        ("densenet169", 32.0, 14.0),
    ],
)
def test_cells_of_published_networks(name: Any, step: float, first: float) -> None:
    network = build_network(NetworkSpec(name=name, channels=(4,)))
    positions = cell_positions(network, network.map_layer, (1, 64, 64, 64))
    assert set(positions.step) == {step}
    assert set(positions.first) == {first}


def test_the_network_is_left_as_it_was() -> None:
    network = build_network(NetworkSpec(channels=(4, 4))).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    cell_positions(network, network.map_layer, (1, 8, 8, 8))
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_an_operation_that_moves_cells_in_an_unknown_way_is_refused() -> None:
    network = nn.Sequential(nn.Upsample(scale_factor=2), nn.Identity())
    with pytest.raises(ValueError, match="changes the grid"):
        cell_positions(network, network[1], (1, 8, 8, 8))
