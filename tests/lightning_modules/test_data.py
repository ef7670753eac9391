from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.augmentation import Augmentation, shifted
from lightning_modules.data import (
    RankBatches,
    common_grid,
    epoch_batches,
    read_volume,
    unpadded_batches,
)
from lightning_modules.fit import Ranks, check_job, loaders
from tasks.records import AugmentationSpec
from tasks.science.arrays import Channels
from tasks.science.imaging.intensity import zscore_within_mask
from tasks.science.imaging.template import mni
from tests.lightning_modules.conftest import TRAINING, JobMaker

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


@settings(max_examples=40, deadline=None)
@given(shift=st.tuples(*[st.integers(-9, 9)] * 3))
def test_a_shift_moves_voxels_and_fills_with_zero(shift: tuple[int, int, int]) -> None:
    moved = shifted(torch.from_numpy(VOLUME), shift).numpy()
    for voxel in np.ndindex(VOLUME.shape):
        source = tuple(at - step for at, step in zip(voxel, (0, *shift), strict=True))
        inside = all(0 <= at < size for at, size in zip(source, VOLUME.shape, strict=True))
        assert moved[voxel] == (VOLUME[source] if inside else 0)


def test_a_flip_mirrors_the_left_right_axis_alone() -> None:
    flip = Augmentation(AugmentationSpec(flip_probability=1.0, shift_voxels=0), seed=0)
    np.testing.assert_array_equal(flip.apply(VOLUME, "scan", 0), VOLUME[:, ::-1])
    still = Augmentation(AugmentationSpec(flip_probability=0.0, shift_voxels=0), seed=0)
    np.testing.assert_array_equal(still.apply(VOLUME, "scan", 0), VOLUME)


def test_flips_come_as_often_as_asked() -> None:
    flips = Augmentation(AugmentationSpec(flip_probability=0.25, shift_voxels=0), seed=0)
    count = sum(np.array_equal(flips.apply(VOLUME, f"scan-{number}", 0), VOLUME[:, ::-1]) for number in range(400))
    assert 70 <= count <= 130


@cache
def two_contrasts() -> Channels:
    """The average brain as a prepared volume of 2 mm, and the same turned dark for bright."""
    box = (slice(18, 178, 2), slice(20, 212, 2), slice(10, 170, 2))
    bright = zscore_within_mask(mni().t1[box], mni().brain[box])
    return np.stack([bright, -bright])


SLICES = Augmentation(AugmentationSpec(slice_simulation=1.0), seed=1, resolution_mm=2.0)


def with_slices(chance: float) -> Augmentation:
    return replace(SLICES, spec=AugmentationSpec(slice_simulation=chance))


def test_slices_are_those_of_the_seed_epoch_and_scan() -> None:
    volume = two_contrasts()
    first = SLICES.apply(volume, "scan", 4)
    assert first.tobytes() == SLICES.apply(volume, "scan", 4).tobytes()
    others = [SLICES.apply(volume, "other", 4), SLICES.apply(volume, "scan", 5)]
    others.append(replace(SLICES, seed=2).apply(volume, "scan", 4))
    assert all(first.tobytes() != other.tobytes() for other in others)


def test_slices_leave_mean_spread_and_outline_of_the_brain_and_the_draws_before_them() -> None:
    for number in range(4):
        seen = SLICES.apply(two_contrasts(), f"scan-{number}", 0)
        still = with_slices(0.0).apply(two_contrasts(), f"scan-{number}", 0)
        # The same mirror and the same shift.
        brain = still[0] != 0
        assert seen.dtype == np.float32
        assert seen.shape == still.shape
        assert not seen[:, ~brain].any()
        for channel, sharp in zip(seen, still, strict=True):
            assert channel[brain].mean() == pytest.approx(0, abs=0.01)
            assert channel[brain].std() == pytest.approx(1, abs=0.01)
            assert 0.5 < np.corrcoef(channel[brain], sharp[brain])[0, 1] < 0.99


def test_slices_blur_along_one_axis() -> None:
    inside = (0, *(slice(size // 3, 2 * size // 3) for size in two_contrasts().shape[1:]))
    still = replace(SLICES, spec=AugmentationSpec(flip_probability=0.0, shift_voxels=0, slice_simulation=1.0))
    across = Counter[int]()
    for number in range(20):
        seen = still.apply(two_contrasts(), f"scan-{number}", 0)
        rough = [[(np.diff(v[inside], axis=axis) ** 2).mean() for axis in range(3)] for v in (two_contrasts(), seen)]
        kept = np.array(rough[1]) / rough[0]
        least, next_least, _ = np.sort(kept)
        assert least < 0.75 * next_least
        across[int(kept.argmin())] += 1
    # Mostly axial.
    assert across[2] > 10
    assert len(across) > 1


def test_slices_come_as_often_as_asked_and_without_them_nothing_changes() -> None:
    half = with_slices(0.5)
    still = with_slices(0.0)
    volume = two_contrasts()
    names = [f"scan-{number}" for number in range(40)]
    count = sum(not np.array_equal(half.apply(volume, n, 0), still.apply(volume, n, 0)) for n in names)
    assert 11 <= count <= 29
    # As before slices could be simulated: old fits are met again bit by bit.
    numbered = np.arange(1, 673, dtype=np.float32).reshape(2, 6, 7, 8)
    digests = [hashlib.sha256(still.apply(numbered, f"scan-{n}", 3).tobytes()).hexdigest()[:16] for n in range(3)]
    assert digests == ["dd952810fe9d67bb", "5ac6bb3ee908635f", "10844a0391cc78b6"]


def test_slices_are_simulated_in_training_alone(job_of: JobMaker) -> None:
    training = replace(TRAINING, processes=1, augmentation=AugmentationSpec(slice_simulation=1.0))
    job = job_of(train=8, training=training, resolution_mm=12.0)
    alone = Ranks(0, 1, 1)
    check_job(job, alone)
    train, validation, calibration = (loader.dataset for loader in loaders(job, alone))
    sharp = [
        loader.dataset
        for loader in loaders(replace(job, training=replace(training, augmentation=AugmentationSpec())), alone)
    ]
    assert not torch.equal(train[0, 0][1], sharp[0][0, 0][1])
    assert all(torch.equal(validation[0, index][1], sharp[1][0, index][1]) for index in range(5))
    assert all(torch.equal(calibration[0, index][1], sharp[2][0, index][1]) for index in range(8))
    with pytest.raises(ValueError, match="slice_simulation needs 72 mm"):
        check_job(replace(job, resolution_mm=4.0), alone)


def test_scans_on_different_grids_are_refused(job_of: JobMaker) -> None:
    rows = job_of(train=4).rows
    np.save(rows[2].path, np.zeros((1, 4, 4, 4), np.float16))
    with pytest.raises(ValueError, match=r"train-2 .* has shape \(1, 4, 4, 4\)"):
        common_grid(rows)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_voxel_that_is_not_finite_is_refused_and_large_ones_are_read(tmp_path: Path, bad: float) -> None:
    path = tmp_path / "scan.npy"
    large = np.full((1, 4, 5, 6), np.finfo(np.float32).max)
    np.save(path, large)
    np.testing.assert_array_equal(read_volume(path), large)
    for dtype in (np.float16, np.float32, np.float64):
        volume = np.ones((1, 4, 5, 6), dtype)
        volume[0, 3, 4, 5] = bad
        np.save(path, volume)
        with pytest.raises(ValueError, match="not finite"):
            read_volume(path)


def test_half_floats_are_widened_exactly(tmp_path: Path) -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)].reshape(1, 1, 31, -1)
    np.save(tmp_path / "scan.npy", finite)
    found = read_volume(tmp_path / "scan.npy")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, finite)
