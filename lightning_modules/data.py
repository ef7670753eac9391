"""Prepared scans as batches, alike whatever the number of ranks and loader workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from tasks.records import TrainingRow
from tasks.science.arrays import Channels

from .augmentation import Augmentation

Item = tuple[int, Tensor, Tensor]
# As a loader collates them: indices (n,), volumes (n, channels, i, j, k), ages in years (n,).
Batch = tuple[Tensor, Tensor, Tensor]


def read_volume(path: Path) -> Channels:
    """Read one prepared scan.

    Args:
        path: A `.npy` file of shape (channels, i, j, k), floating point.

    Returns:
        Unitless intensities, float32, shape (channels, i, j, k).

    Raises:
        ValueError: The file holds something else, or values that are not finite.
    """
    # numpy takes ten times as long to widen half floats.
    widened: Channels = read_stored(path).float().numpy()
    return widened


def read_stored(path: Path) -> Tensor:
    """Read one prepared scan in the precision that it is stored in, in which it takes half the way to a GPU.

    Args and errors are those of `read_volume`.
    """
    stored = np.load(path, allow_pickle=False)
    if stored.ndim != 4 or stored.dtype.kind != "f":
        raise ValueError(
            f"{path} holds {stored.dtype} of shape {stored.shape}; expected a prepared scan: floats of shape "
            "(channels, i, j, k)."
        )
    volume = torch.from_numpy(stored)
    # A NaN makes both ends of the range NaN. They are found in a twentieth of the time that a check per voxel takes.
    if not all(bool(end.isfinite()) for end in torch.aminmax(volume)):
        raise ValueError(f"{path} holds values that are not finite; prepare the scan again.")
    return volume


def common_grid(rows: Sequence[TrainingRow]) -> tuple[int, ...]:
    """Check that all scans share a grid and a precision, before hours of training rather than in the middle of them.

    Returns:
        The shape (channels, i, j, k).

    Raises:
        ValueError: Two scans differ in shape or precision.
    """
    first = rows[0]
    grid, precision = _stored_as(first)
    for row in rows:
        found = _stored_as(row)
        if found != (grid, precision):
            raise ValueError(
                f"{row.scan_id} ({row.path}) has shape {found[0]} of {found[1]}, {first.scan_id} has {grid} of "
                f"{precision}; prepare all scans of a fit by one recipe."
            )
    return grid


def _stored_as(row: TrainingRow) -> tuple[tuple[int, ...], str]:
    stored = np.load(row.path, mmap_mode="r", allow_pickle=False)
    return stored.shape, str(stored.dtype)


class PreparedScans(Dataset[Item]):
    """Scans by (epoch, index). The epoch travels with the index, so that loader workers need no state.

    Where slices are simulated, that is done here: it is work for many CPUs, not for a GPU.
    """

    def __init__(self, rows: Sequence[TrainingRow], augmentation: Augmentation | None = None, views: int = 1) -> None:
        """Set up.

        Args:
            rows: The scans.
            augmentation: Of training scans.
            views: Changes of each scan, which have slices of their own.
        """
        self.rows = tuple(rows)
        self.augmentation, self.views = augmentation, views

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, epoch_and_index: tuple[int, int]) -> Item:
        """Return (index, volume, label in years as float64).

        The volume is in the precision of its file, shape (channels, i, j, k); where slices are simulated, float32,
        and for several views of shape (views, channels, i, j, k).
        """
        epoch, index = epoch_and_index
        row = self.rows[index]
        label_years = torch.tensor(row.target_years, dtype=torch.float64)
        if self.augmentation is None or not self.augmentation.spec.slice_simulation:
            return index, read_stored(Path(row.path)), label_years
        volume = read_volume(Path(row.path))
        views = [self.augmentation.sliced(volume, row.scan_id, epoch, view) for view in range(self.views)]
        return index, torch.from_numpy(np.stack(views) if self.views > 1 else views[0]), label_years


def epoch_batches(n_scans: int, batch_size: int, ranks: int, seed: int, epoch: int) -> list[list[int]]:
    """Shuffle one epoch into global batches that every rank can share equally.

    The order depends on seed and epoch alone, and rank r takes the r-th part of every batch: so N ranks step through
    the same global batches as one. Batch norm needs two scans per rank, so that a remainder of fewer is left out of
    this epoch (another draw leaves others out of the next).

    Args:
        n_scans: Scans to draw from.
        batch_size: Global batch; the last batch may be smaller.
        ranks: Processes that share a batch.
        seed: The fit's seed.
        epoch: From 0.

    Returns:
        Batches of distinct indices, each of a size that `ranks` divides, at least 2 per rank.

    Raises:
        ValueError: The batch is not divisible by the ranks, or there are too few scans for one batch.
    """
    if batch_size % ranks or batch_size < 2 * ranks:
        raise ValueError(
            f"batch_size {batch_size} over {ranks} processes; batch_size is the global batch: give a multiple of "
            f"{ranks}, at least {2 * ranks} (batch norm needs two scans per process)."
        )
    if n_scans < 2 * ranks:
        raise ValueError(
            f"{n_scans} training scans over {ranks} processes; batch norm needs two scans per process: give more scans "
            "or fewer processes."
        )
    order = np.random.default_rng([seed, epoch]).permutation(n_scans)
    batches = [order[start : start + batch_size] for start in range(0, n_scans, batch_size)]
    shared = [batch[: len(batch) - len(batch) % ranks].tolist() for batch in batches]
    return [batch for batch in shared if len(batch) >= 2 * ranks]


class Place(NamedTuple):
    """Where in a fit: an epoch, and the batches of it that are done."""

    epoch: int = 0
    batches_done: int = 0


BEGINNING = Place()


class RankBatches(Sampler[list[tuple[int, int]]]):
    """One rank's part of each global batch, as (epoch, index) pairs.

    A resumed fit begins at a place. The sampler knows it from the start, since loader workers ask for batches before
    Lightning tells the epoch.
    """

    def __init__(
        self,
        n_scans: int,
        batch_size: int,
        rank: int,
        ranks: int,
        seed: int,
        most_batches: int | None = None,
        begins: Place = BEGINNING,
    ) -> None:
        self.n_scans, self.batch_size, self.rank, self.ranks, self.seed = n_scans, batch_size, rank, ranks, seed
        self.most_batches, self.begins = most_batches, begins
        self.epoch = begins.epoch
        # Of this rank's batches: they are those of every epoch.
        self.sizes = [len(batch) // ranks for batch in self._global_batches()]

    @property
    def sampler(self) -> RankBatches:
        """Lightning tells the epoch to `batch_sampler.sampler`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def _global_batches(self) -> list[list[int]]:
        return epoch_batches(self.n_scans, self.batch_size, self.ranks, self.seed, self.epoch)[: self.most_batches]

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self.sizes)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        done = self.begins.batches_done if self.epoch == self.begins.epoch else 0
        for batch in self._global_batches()[done:]:
            per_rank = len(batch) // self.ranks
            mine = batch[self.rank * per_rank : (self.rank + 1) * per_rank]
            yield [(self.epoch, index) for index in mine]


def unpadded_batches(n_scans: int, batch_size: int, rank: int, ranks: int) -> list[list[tuple[int, int]]]:
    """One rank's part of an evaluation: each scan on exactly one rank, where a DistributedSampler would repeat some.

    Returns:
        Batches of (0, index) pairs; parts of different ranks may differ in length, by one scan at most.
    """
    mine = [(0, index) for index in range(rank, n_scans, ranks)]
    return [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
