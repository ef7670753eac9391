"""Where each training scan's white matter is, for networks that learn to segment it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tasks.records import ScanRejected, TrainingRow
from tasks.science.imaging.tissue import white_matter

from .augmentation import Augmentation
from .data import Item, PreparedScans, read_volume
from .outputs import write_whole


class ScansWithWhiteMatter(PreparedScans):
    """Prepared scans with one channel more, the last: 1 in white matter, else 0.

    What is white matter is found from the prepared scan itself, once, by whichever worker asks first; other epochs,
    members and studies of the recipe read it from the folder.
    """

    def __init__(
        self,
        rows: Sequence[TrainingRow],
        augmentation: Augmentation | None,
        channels: Sequence[str],
        folder: Path,
    ) -> None:
        """Set up.

        Args:
            rows: The scans, each with the tissue priors of its template.
            augmentation: Of training scans.
            channels: Names of the prepared volumes' channels, in order.
            folder: Where masks are kept; of one recipe's scans.
        """
        super().__init__(rows, augmentation)
        self.channels, self.folder = tuple(channels), folder

    def __getitem__(self, epoch_and_index: tuple[int, int]) -> Item:
        """Return (index, volume with the white matter, label in years)."""
        index, volume, label_years = super().__getitem__(epoch_and_index)
        white = white_matter_of(self.rows[index], self.channels, self.folder)
        return index, torch.cat([volume, white[None].to(volume.dtype)]), label_years


def white_matter_of(row: TrainingRow, channels: Sequence[str], folder: Path) -> Tensor:
    """Read a scan's white matter, or find it and keep it.

    The contrasts alone are looked at where there are some: a ratio adds nothing to what it is made of.

    Args:
        row: The scan, with its template's tissue priors.
        channels: Names of its channels.
        folder: Where masks are kept, by the file names of scan and priors.

    Returns:
        bool, shape (i, j, k).

    Raises:
        ValueError: The scan shows no tissue.
    """
    kept = folder / f"{Path(row.path).stem}-{Path(row.tissue_path).stem}.npy"
    if not kept.exists():
        volume = read_volume(Path(row.path))
        shown = [number for number, name in enumerate(channels) if name != "ratio"] or list(range(len(channels)))
        try:
            found = white_matter(volume[shown], (volume != 0).any(axis=0), np.load(row.tissue_path))
        except ScanRejected as rejection:
            raise ValueError(f"the white matter of {row.scan_id} cannot be found: {rejection}") from rejection
        content = io.BytesIO()
        np.save(content, found)
        write_whole(kept, content.getvalue())
    return torch.from_numpy(np.load(kept))
