from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_modules.networks.inputs import centre_crop, network_input, random_crop, training_input
from tasks.records import NetworkSpec

CHANNELS = ("T1w", "T2w", "ratio")
sides = st.integers(1, 9)


def numbered(*shape: int) -> Tensor:
    return torch.arange(1, 1 + int(np.prod(shape)), dtype=torch.float32).reshape(shape)


def test_channels_are_taken_by_name_in_the_order_of_the_network() -> None:
    volumes = numbered(2, 3, 2, 2, 2)
    seen = network_input(volumes, NetworkSpec(inputs=("ratio", "T1w")), CHANNELS)
    assert torch.equal(seen, volumes[:, [2, 0]])
    assert torch.equal(network_input(volumes, NetworkSpec(), CHANNELS), volumes)


@pytest.mark.parametrize(
    ("inputs", "names", "message"),
    [
        (("FLAIR",), CHANNELS, r"takes FLAIR, but the prepared volumes hold T1w, T2w, ratio; add FLAIR"),
        (("T1w",), ("T1w",), r"do not have the 1 channels \('T1w',\)"),
    ],
)
def test_a_missing_channel_is_refused(inputs: tuple[str, ...], names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network_input(numbered(2, 3, 2, 2, 2), NetworkSpec(inputs=inputs), names)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=50)
@given(grid=st.tuples(sides, sides, sides), crop=st.tuples(sides, sides, sides), seed=st.integers(0, 99))
def test_a_crop_is_a_part_of_the_grid_and_what_it_lacks_is_zero(
    grid: tuple[int, int, int], crop: tuple[int, int, int], seed: int
) -> None:
    volume = numbered(1, *grid)
    for part in (centre_crop(volume, crop), random_crop(volume, crop, np.random.default_rng(seed))):
        assert part.shape == (1, *crop)
        kept = part[part > 0]
        assert len(kept) == np.prod(np.minimum(grid, crop))
        # Consecutive along k where they were so: neighbours stay neighbours.
        first = int(kept.min())
        block = volume[0] - first
        assert set(kept.int().tolist()) <= set(volume.int().ravel().tolist())
        if crop[2] > 1 and grid[2] > 1:
            rows = part[0].reshape(-1, crop[2])
            rows = rows[(rows > 0).all(dim=1)]
            assert bool((rows.diff(dim=1) == 1).all())
        assert block.min() <= 0


def test_the_centre_is_in_the_middle() -> None:
    volume = numbered(1, 5, 6, 7)
    assert torch.equal(centre_crop(volume, (3, 2, 3)), volume[:, 1:4, 2:4, 2:5])
    grown = centre_crop(volume, (7, 8, 9))
    assert torch.equal(grown[:, 1:6, 1:7, 1:8], volume)
    assert grown.sum() == volume.sum()


def test_random_crops_reach_both_ends_and_depend_on_their_stream_alone() -> None:
    volume, random = numbered(1, 4, 4, 4), np.random.default_rng(0)
    first_voxels = {float(random_crop(volume, (3, 3, 3), random)[0, 0, 0, 0]) for _ in range(200)}
    assert first_voxels == {float(volume[0, i, j, k]) for i in (0, 1) for j in (0, 1) for k in (0, 1)}
    again = [random_crop(volume, (2, 2, 2), np.random.default_rng(3)) for _ in range(2)]
    assert torch.equal(*again)


def test_unit_scaling_spans_each_channel_of_each_scan_and_survives_constant_ones() -> None:
    volumes = torch.randn(3, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    volumes[1, 0] = 5.0
    seen = network_input(volumes, NetworkSpec(scaling="unit"), ("T1w", "T2w"))
    assert bool((seen[1, 0] == 0).all())
    seen[1, 0], volumes[1, 0] = seen[0, 0], volumes[0, 0]
    assert torch.equal(seen.amin(dim=(2, 3, 4)), torch.zeros(3, 2))
    assert torch.equal(seen.amax(dim=(2, 3, 4)), torch.ones(3, 2))
    scaled = torch.stack([torch.from_numpy(np.interp(v, (v.min(), v.max()), (0, 1))) for v in volumes[2].numpy()])
    torch.testing.assert_close(seen[2].double(), scaled)


def test_scaling_looks_at_the_crop_alone() -> None:
    volume = numbered(1, 5, 5, 5)
    volume[0, 0, 0, 0] = 1e6
    spec = NetworkSpec(scaling="unit", crop_voxels=(3, 3, 3))
    assert network_input(volume, spec, ("T1w",)).max() == 1
    assert network_input(volume, spec, ("T1w",)).shape == (1, 3, 3, 3)


def test_training_and_evaluation_see_the_same_where_there_is_no_crop() -> None:
    volume, spec = numbered(3, 4, 5, 6), NetworkSpec(scaling="unit", inputs=("T2w",))
    trained = training_input(volume, spec, CHANNELS, np.random.default_rng(1))
    assert torch.equal(trained, network_input(volume, spec, CHANNELS))


def test_an_unknown_scaling_or_an_empty_crop_is_refused() -> None:
    with pytest.raises(ValueError, match="no scaling is called 'log'"):
        network_input(numbered(1, 2, 2, 2), NetworkSpec(scaling="log"), ("T1w",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one voxel or more"):
        network_input(numbered(1, 2, 2, 2), NetworkSpec(crop_voxels=(2, 0, 2)), ("T1w",))
