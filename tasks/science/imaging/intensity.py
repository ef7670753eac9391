"""Bringing intensities, which have arbitrary units in MRI, to one scale."""

from __future__ import annotations

import numpy as np

from ...records import ScanRejected
from ..arrays import Mask, Volume

MIN_BRAIN_VOXELS = 50


def zscore_within_mask(volume: Volume, brain: Mask, clip_percentiles: tuple[float, float] = (0.5, 99.5)) -> Volume:
    """Scale a volume to zero mean and unit variance over the brain.

    T1w intensities have arbitrary units, so scans compare only after per-scan scaling. Vessels and fat left by an
    imperfect mask are far brighter than tissue; percentiles bound them before they enter mean and variance.

    Args:
        volume: Intensities in scanner units, shape (i, j, k).
        brain: True inside the brain, on the same grid.
        clip_percentiles: Lowest and highest percentile within the brain that stay as they are.

    Returns:
        Unitless float32, shape (i, j, k); 0 outside the brain. The same for any positive gain and any offset.

    Raises:
        ValueError: The grids differ, or the percentiles are not in order: a caller's mistake.
        ScanRejected: The brain is empty or constant.

    Reference: Reinhold et al. 2019, doi:10.1117/12.2513089.
    """
    low_percent, high_percent = clip_percentiles
    if volume.shape != brain.shape:
        raise ValueError(f"volume has shape {volume.shape} and brain {brain.shape}; resample one to the other's grid")
    if not 0 <= low_percent < high_percent <= 100:
        raise ValueError(f"clip_percentiles is {clip_percentiles}; expected two ascending numbers from 0 to 100")
    values = volume[brain].astype(np.float64)
    if values.size < MIN_BRAIN_VOXELS:
        raise ScanRejected("intensity", f"only {values.size} voxels are brain; look at the mask")
    low, high = np.percentile(values, clip_percentiles)
    clipped = np.clip(values, low, high)
    spread = clipped.std()
    if not spread > 1e-6 * max(abs(low), abs(high), 1e-30):
        raise ScanRejected("intensity", f"every brain voxel has about the value {low:g}; the scan shows no tissue")
    scaled = np.zeros(volume.shape, dtype=np.float32)
    scaled[brain] = (clipped - clipped.mean()) / spread
    return scaled
