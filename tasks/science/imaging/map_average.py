"""Maps of many scans averaged in template space, one after the other, and how repeatable their mean is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..arrays import Mask, Volume
from .regions import RegionSet, region_sums, region_voxels

REGION_COLUMNS = (
    *("set", "region", "n_voxels", "mean_magnitude", "mean_signed", "sd_over_subjects"),
    *("share", "rank"),
)


def split_halves(subjects: int, seed: int) -> np.ndarray:
    """Divide subjects into two halves by chance.

    Args:
        subjects: How many, in an order of their own.
        seed: The same seed gives the same halves.

    Returns:
        0 or 1 per subject; of an odd number, the first half has one more.
    """
    halves = np.zeros(subjects, dtype=int)
    halves[np.random.default_rng(seed).permutation(subjects)[(subjects + 1) // 2 :]] = 1
    return halves


class MapAverage:
    """Sums of maps that are seen once each: memory does not grow with the number of scans."""

    def __init__(self, brain: Mask, region_sets: Sequence[RegionSet]) -> None:
        """Start with nothing.

        Args:
            brain: The template's brain on the study's grid, shape (i, j, k); repeatability is measured in it.
            region_sets: What maps are added up over.
        """
        self._brain, self._sets = brain, tuple(region_sets)
        self._signed = np.zeros((2, *brain.shape))
        self._magnitude = np.zeros((2, *brain.shape))
        self._counts = np.zeros(2, dtype=int)
        # Per subject and set, sums over regions: a few hundred numbers.
        self._by_subject: list[list[np.ndarray]] = []

    def add(self, signed: Volume, magnitude: Volume, half: int) -> None:
        """Take one subject's map into one half of the subjects.

        Args:
            signed: Shape (i, j, k).
            magnitude: Not below 0, same shape.
            half: 0 or 1.
        """
        self._signed[half] += signed
        self._magnitude[half] += magnitude
        self._counts[half] += 1
        self._by_subject.append([region_sums(magnitude, regions) for regions in self._sets])

    @property
    def subjects(self) -> int:
        """How many maps were added."""
        return int(self._counts.sum())

    @property
    def signed(self) -> Volume:
        """Mean of the signed maps, float32, shape (i, j, k)."""
        return (self._signed.sum(axis=0) / self.subjects).astype(np.float32)

    @property
    def magnitude(self) -> Volume:
        """Mean of the magnitudes, float32, shape (i, j, k)."""
        return (self._magnitude.sum(axis=0) / self.subjects).astype(np.float32)

    def repeatability(self, of_magnitude: bool) -> float:
        """Correlate the means of the two halves over the template's brain.

        It says how far the mean map depends on whose scans were taken; it says nothing about another training run.

        Args:
            of_magnitude: Of the magnitudes rather than of the signed maps.

        Returns:
            Pearson's r; NaN where a half is empty or a mean is the same everywhere.
        """
        if not self._counts.all():
            return float("nan")
        sums = self._magnitude if of_magnitude else self._signed
        first, second = (sums[half][self._brain] / self._counts[half] for half in (0, 1))
        if np.ptp(first) == 0 or np.ptp(second) == 0:
            return float("nan")
        return float(np.corrcoef(first, second)[0, 1])

    def regions(self) -> pd.DataFrame:
        """Describe the mean map by region.

        Returns:
            One row per set and region: `n_voxels`; `mean_magnitude` and `mean_signed` over its voxels and all subjects;
            `sd_over_subjects` of each subject's mean magnitude there; `share` of the magnitude of the whole grid;
            `rank` of the mean magnitude within the set, 1 the largest. A region without voxels has no figures.
        """
        total = float(self._magnitude.sum()) or float("nan")
        tables = []
        for position, regions in enumerate(self._sets):
            voxels = region_voxels(regions)
            sums = np.array([one[position] for one in self._by_subject])
            with np.errstate(invalid="ignore", divide="ignore"):
                means = sums / voxels
                table = pd.DataFrame(
                    {
                        "set": regions.name,
                        "region": regions.names,
                        "n_voxels": voxels,
                        "mean_magnitude": means.mean(axis=0),
                        "mean_signed": region_sums(self.signed, regions) / voxels,
                        "sd_over_subjects": means.std(axis=0, ddof=1) if self.subjects > 1 else np.nan,
                        "share": np.where(voxels > 0, sums.sum(axis=0) / total, np.nan),
                    }
                )
            table["rank"] = table["mean_magnitude"].rank(ascending=False, method="min").astype("Int64")
            tables.append(table.sort_values(["rank", "region"], na_position="last"))
        return pd.concat(tables, ignore_index=True)[list(REGION_COLUMNS)]
