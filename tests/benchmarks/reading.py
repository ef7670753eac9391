"""One prepared 1 mm scan into a batch, from the page cache: as padflow keeps it, as NIfTI, and by MONAI's cache."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np
import torch
from torch.utils.data import DataLoader

from lightning_modules.data import PreparedScans, read_stored
from tasks.records import TrainingRow
from tests.benchmarks.prepared_scans import GRID, write_prepared
from tests.benchmarks.rows import Row

BATCH = 8
ROUNDS = 25
BAR_MS, BAR_RATIO = 3.0, 10.0


def rows() -> list[Row]:
    """One row for the time, one for the ratio to the NIfTI; the three ways take turns in one process."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scans = write_prepared(folder, BATCH)
        paths = [Path(row.path) for row in scans]
        for path in paths:
            nib.save(nib.Nifti1Image(np.load(path)[0].astype(np.float32), np.eye(4)), nifti(path))
        batch = torch.zeros(BATCH, 1, *GRID)
        ways = {"npy": npy_reader(paths), "nifti": nifti_reader(paths), "monai": monai_reader(paths, folder)}
        taken_ms = {way: median(times) for way, times in timed(ways, batch).items()}
        loaded_ms = through_the_loader_ms(scans)
    ratio = taken_ms["nifti"] / taken_ms["npy"]
    what = "reading one prepared 160×192×160 scan into a batch, warm"
    return [
        Row(
            what,
            f"≤ {BAR_MS:.0f} ms",
            f"{taken_ms['npy']:.1f} ms; MONAI `PersistentDataset` {taken_ms['monai']:.1f} ms",
            taken_ms["npy"] <= BAR_MS,
            f"Medians of {ROUNDS * BATCH} reads into a float32 batch that is there, processor time of one thread: "
            "float16 on disk, checked and widened; MONAI's cache is float32 and unchecked. Through a fit's own loader, "
            f"which makes a new batch of {BATCH} half floats each time, a scan takes {loaded_ms:.1f} ms.",
        ),
        Row(
            "the same scan as `.nii.gz` (float32)",
            f"≥ {BAR_RATIO:.0f} × as long",
            f"{ratio:.0f} × ({taken_ms['nifti']:.0f} ms)",
            ratio >= BAR_RATIO,
        ),
    ]


def nifti(path: Path) -> Path:
    """Where the same scan lies as NIfTI."""
    return path.with_suffix(".nii.gz")


Reader = Callable[[int], torch.Tensor]


def npy_reader(paths: list[Path]) -> Reader:
    """As a fit reads: checked, half floats, which the batch widens."""
    return lambda number: read_stored(paths[number])


def nifti_reader(paths: list[Path]) -> Reader:
    """By nibabel, without any preparation."""
    return lambda number: torch.from_numpy(np.asarray(nib.load(nifti(paths[number])).dataobj, dtype=np.float32)[None])


def monai_reader(paths: list[Path], folder: Path) -> Reader:
    """By MONAI's cache on disk of what its transforms made, filled before."""
    from monai.data import PersistentDataset
    from monai.transforms import Compose, EnsureChannelFirst, EnsureType, LoadImage

    steps = Compose([LoadImage(image_only=True), EnsureChannelFirst(), EnsureType(track_meta=False)])
    scans = PersistentDataset([str(nifti(path)) for path in paths], steps, cache_dir=folder / "monai")
    return lambda number: scans[number]


def timed(ways: dict[str, Reader], batch: torch.Tensor) -> dict[str, list[float]]:
    """Milliseconds of each read into its place of the batch."""
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(ROUNDS + 1):
        for way, read in ways.items():
            for number in range(BATCH):
                start = time.process_time()
                batch[number].copy_(read(number))
                # The first turn fills caches.
                if turn:
                    taken[way].append(1000 * (time.process_time() - start))
    return taken


def through_the_loader_ms(rows: list[TrainingRow]) -> float:
    """Milliseconds per scan of the fit's own dataset and loader, without workers."""
    scans = PreparedScans(rows)
    taken = []
    for _ in range(ROUNDS):
        start = time.process_time()
        next(iter(DataLoader(scans, batch_sampler=[[(0, number) for number in range(BATCH)]])))
        taken.append(1000 * (time.process_time() - start) / BATCH)
    return median(taken)


if __name__ == "__main__":
    print(*rows(), sep="\n")
