from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from lightning_modules.augmentation import Augmentation, shifted
from lightning_modules.data import PreparedScans, RankBatches, common_grid, epoch_batches, unpadded_batches
from tests.lightning_modules.conftest import JobMaker

VOLUME = np.random.default_rng(0).normal(size=(2, 6, 7, 8)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 60), ranks=st.integers(1, 4), per_rank=st.integers(2, 5), epoch=st.integers(0, 3))
def test_ranks_share_the_global_batches_equally_and_none_is_too_small(
    n: int, ranks: int, per_rank: int, epoch: int
) -> None:
    if n < 2 * ranks:
        with pytest.raises(ValueError, match="give more scans or fewer processes"):
            epoch_batches(n, per_rank * ranks, ranks, 0, epoch)
        return
    whole = epoch_batches(n, per_rank * ranks, ranks, 0, epoch)
    seen = [index for batch in whole for index in batch]
    assert len(seen) == len(set(seen))
    assert n - len(seen) < 2 * ranks
    samplers = [RankBatches(n, per_rank * ranks, rank, ranks, 0) for rank in range(ranks)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    parts = [list(sampler) for sampler in samplers]
    assert {len(part) for part in parts} == {len(whole)} == {len(sampler) for sampler in samplers}
    for step, batch in enumerate(whole):
        together = [part[step] for part in parts]
        assert len({len(part) for part in together}) == 1
        assert min(len(part) for part in together) >= 2
        assert [index for part in together for _, index in part] == batch
        assert {of_epoch for part in together for of_epoch, _ in part} == {epoch}


def test_epochs_differ_in_order_and_one_rank_sees_the_batches_of_two() -> None:
    assert epoch_batches(20, 8, 2, 0, 0) != epoch_batches(20, 8, 2, 0, 1)
    assert epoch_batches(20, 8, 2, 0, 0) == epoch_batches(20, 8, 1, 0, 0)


@pytest.mark.parametrize(("batch_size", "ranks"), [(9, 2), (2, 2), (0, 1)])
def test_a_batch_that_ranks_cannot_share_is_refused(batch_size: int, ranks: int) -> None:
    with pytest.raises(ValueError, match="batch_size is the global batch"):
        epoch_batches(100, batch_size, ranks, 0, 0)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 40), ranks=st.integers(1, 5), batch_size=st.integers(1, 6))
def test_evaluation_sees_every_scan_once(n: int, ranks: int, batch_size: int) -> None:
    parts = [unpadded_batches(n, batch_size, rank, ranks) for rank in range(ranks)]
    counts = Counter(index for part in parts for batch in part for _, index in batch)
    assert counts == Counter(range(n))


def test_augmentation_depends_on_seed_epoch_and_scan_alone(job_of: JobMaker) -> None:
    rows = [row for row in job_of(train=8).rows if row.split == "train"]
    augmentation = Augmentation(flip_probability=0.5, shift_voxels=2, seed=1)
    scans, backwards = PreparedScans(rows, augmentation), PreparedScans(rows[::-1], augmentation)
    for epoch in range(3):
        for index in range(8):
            assert torch.equal(scans[epoch, index][1], backwards[epoch, 7 - index][1])
    by_workers = DataLoader(scans, batch_sampler=[[(2, index) for index in range(8)]], num_workers=2)
    indices, volumes, _ = next(iter(by_workers))
    assert indices.tolist() == list(range(8))
    assert all(torch.equal(volume, scans[2, index][1]) for index, volume in enumerate(volumes))
    assert any(not torch.equal(scans[0, index][1], scans[1, index][1]) for index in range(8))
    other_seed = PreparedScans(rows, replace(augmentation, seed=2))
    assert any(not torch.equal(scans[0, index][1], other_seed[0, index][1]) for index in range(8))


@settings(max_examples=40, deadline=None)
@given(shift=st.tuples(*[st.integers(-9, 9)] * 3))
def test_a_shift_moves_voxels_and_fills_with_zero(shift: tuple[int, int, int]) -> None:
    moved = shifted(VOLUME, shift)
    for voxel in np.ndindex(VOLUME.shape):
        source = tuple(at - step for at, step in zip(voxel, (0, *shift), strict=True))
        inside = all(0 <= at < size for at, size in zip(source, VOLUME.shape, strict=True))
        assert moved[voxel] == (VOLUME[source] if inside else 0)


def test_a_flip_mirrors_the_left_right_axis_alone() -> None:
    flip = Augmentation(flip_probability=1.0, shift_voxels=0, seed=0)
    np.testing.assert_array_equal(flip.apply(VOLUME, "scan", 0), VOLUME[:, ::-1])
    still = Augmentation(flip_probability=0.0, shift_voxels=0, seed=0)
    np.testing.assert_array_equal(still.apply(VOLUME, "scan", 0), VOLUME)


def test_flips_come_as_often_as_asked() -> None:
    flips = Augmentation(flip_probability=0.25, shift_voxels=0, seed=0)
    count = sum(np.array_equal(flips.apply(VOLUME, f"scan-{number}", 0), VOLUME[:, ::-1]) for number in range(400))
    assert 70 <= count <= 130


def test_scans_on_different_grids_are_refused(job_of: JobMaker) -> None:
    rows = job_of(train=4).rows
    np.save(rows[2].path, np.zeros((1, 4, 4, 4), np.float16))
    with pytest.raises(ValueError, match=r"train-2 .* has shape \(1, 4, 4, 4\)"):
        common_grid(rows)
