"""Prepared 1 mm scans for benchmarks of training: the average brain, with noise and a contrast of its own per scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.records import SplitName, TrainingRow
from tasks.science.imaging.template import mni

GRID = (160, 192, 160)
# The last scan of four stops the fit early, the others train it.
OF_VALIDATION = 4


def write_prepared(folder: Path, count: int) -> list[TrainingRow]:
    """Write scans as padflow keeps them; a linear trend of brightness with age lets a network learn something.

    Returns:
        Rows of a training job, ages from 20 to 80 years.
    """
    template = mni()
    starts = [(size - wanted) // 2 for size, wanted in zip(template.t1.shape, GRID, strict=True)]
    part = tuple(slice(start, start + wanted) for start, wanted in zip(starts, GRID, strict=True))
    brain = template.brain[part]
    average = (template.t1[part] - template.t1[part][brain].mean()) / template.t1[part][brain].std()
    rows = []
    for number in range(count):
        age_years = 20 + 60 * number / max(count - 1, 1)
        noise = np.random.default_rng(number).normal(age_years / 100, 0.1, GRID)
        path = folder / f"{number:03}.npy"
        np.save(path, np.where(brain, average + noise, 0).astype(np.float16)[None])
        split: SplitName = "validation" if number % OF_VALIDATION == OF_VALIDATION - 1 else "train"
        rows.append(TrainingRow(path.stem, path.stem, str(path), age_years, split))
    return rows
