"""Slow brightness changes across a scan that come from the coil, not from the person.

Reference: Tustison et al. 2010, doi:10.1109/TMI.2010.2046908 (N4).
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from ...records import ScanRejected
from ..arrays import Affine, Mask, Volume
from .orientation import apply_affine, spacing_mm

ITERATIONS = (30, 30, 30)
CONVERGENCE = 1e-3
MARGIN_VOXELS = 2
MAX_DARK_FRACTION = 0.10


def log_bias_field(volume: Volume, affine: Affine, brain: Mask) -> tuple[Volume, Affine]:
    """Estimate the log of the bias field within the brain, with N4 on a working copy.

    A field is smooth, so a copy at 6 mm shows all of it at a hundredth of the cost; within the brain only, since
    scalp and fat would otherwise dominate the fit.

    Args:
        volume: A working copy of the scan, about 6 mm, shape (i, j, k).
        affine: Voxel indices to RAS+ mm.
        brain: True inside the brain, same shape.

    Returns:
        Natural log of the field, float32, with mean 0 over the brain, on the part of the grid around the brain, and
        that part's affine.

    Raises:
        ScanRejected: The brain has many values at or below 0, so that there is no logarithm to take.
    """
    part, start = _around(brain)
    values, mask = volume[part], brain[part]
    lit = mask & (values > 0)
    if lit.sum() < (1 - MAX_DARK_FRACTION) * mask.sum() and (values[mask] < 0).sum() > MAX_DARK_FRACTION * mask.sum():
        raise ScanRejected(
            "bias field",
            "many brain voxels are negative, as after a z-score; give the scanner's intensities, "
            "or set the recipe's bias_correction to false",
        )
    if lit.sum() < 100:
        raise ScanRejected("bias field", "the brain holds almost no positive values; look at the scan")
    log_field = _n4(np.where(lit, values, 0), lit, spacing_mm(affine))
    log_field -= log_field[lit].mean()
    placed = np.array(affine, dtype=np.float64)
    placed[:3, 3] = apply_affine(affine, start[None])[0]
    return log_field, placed


def _n4(values: Volume, lit: Mask, spacing: np.ndarray) -> Volume:
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T, dtype=np.float32))
    mask = sitk.GetImageFromArray(np.ascontiguousarray(lit.T, dtype=np.uint8))
    image.SetSpacing(spacing.tolist())
    mask.SetSpacing(spacing.tolist())
    correction = sitk.N4BiasFieldCorrectionImageFilter()
    correction.SetNumberOfThreads(1)
    correction.SetMaximumNumberOfIterations(ITERATIONS)
    correction.SetConvergenceThreshold(CONVERGENCE)
    correction.Execute(image, mask)
    return np.ascontiguousarray(sitk.GetArrayFromImage(correction.GetLogBiasFieldAsImage(image)).T, dtype=np.float32)


def _around(brain: Mask) -> tuple[tuple[slice, slice, slice], np.ndarray]:
    if not brain.any():
        raise ScanRejected("bias field", "the brain lies outside the field of view; look at the scan")
    found = np.argwhere(brain)
    low = np.maximum(found.min(axis=0) - MARGIN_VOXELS, 0)
    high = np.minimum(found.max(axis=0) + MARGIN_VOXELS + 1, brain.shape)
    return (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])), low.astype(np.float64)
