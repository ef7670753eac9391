"""Which voxels are brain, and whether somebody has stripped the skull already."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import ndimage

from ...records import ScanRejected
from ..arrays import Affine, Mask, Volume
from .orientation import apply_affine
from .resampling import resample
from .template import Template
from .template_points import distance_from_brain_mm

MaskKind = Literal["provided", "template", "hd-bet", "synthstrip"]

SHELL_FROM_MM, SHELL_TO_MM = 6.0, 20.0
SHELL_STEP_VOXELS = 4
TISSUE_LEVEL = 0.25  # Of the brain's median; scalp is brighter, ringing around a stripped brain far darker.
STRIPPED_SHELL_FRACTION = 0.12
FOREGROUND_LEVEL = 0.02
CLOSING_MM = 4.0
MAX_PROVIDED_EXCESS = 1.6


def shell_tissue_fraction(volume: Volume, affine: Affine, template: Template, to_mni: Affine) -> float:
    """Measure how much tissue lies where the scalp should be.

    A background of zeros proves nothing, since defaced and denoised heads have it too; scalp over the crown does. The
    face, the neck and the skull base are left out, as they may be cut or defaced in a raw head.

    Args:
        volume: The scan or a working copy, shape (i, j, k).
        affine: Voxel indices to the scan's RAS+ mm.
        template: Which one the scan was registered to.
        to_mni: The scan's RAS+ mm to the template's.

    Returns:
        Part of the shell above the brain, inside the field of view, that is as bright as tissue; 0 to 1.
    """
    every = (slice(None, None, SHELL_STEP_VOXELS),) * 3
    distance = distance_from_brain_mm(template)[every]
    shell = np.argwhere((distance > SHELL_FROM_MM) & (distance <= SHELL_TO_MM)) * SHELL_STEP_VOXELS
    shell_mm = apply_affine(template.affine, shell)
    shell_mm = shell_mm[shell_mm[:, 2] > template.centre_mm[2] + 10.0]
    brain_mm = apply_affine(template.affine, np.argwhere(template.brain[every]) * SHELL_STEP_VOXELS)
    shell_values, brain_values = (_nearest(volume, affine, to_mni, points) for points in (shell_mm, brain_mm))
    if shell_values.size == 0 or brain_values.size == 0:
        return 0.0
    return float((shell_values > TISSUE_LEVEL * np.median(brain_values)).mean())


def is_stripped(volume: Volume, affine: Affine, template: Template, to_mni: Affine) -> bool:
    """Tell a skull-stripped scan from a raw head.

    Args:
        volume: The scan or a working copy, shape (i, j, k).
        affine: Voxel indices to the scan's RAS+ mm.
        template: Which one the scan was registered to.
        to_mni: The scan's RAS+ mm to the template's.

    Returns:
        True if there is no scalp above the brain.
    """
    return shell_tissue_fraction(volume, affine, template, to_mni) < STRIPPED_SHELL_FRACTION


def provided_mask(volume: Volume, resolution_mm: float, template_mask: Mask) -> Mask:
    """Recover the mask that somebody stripped the scan with.

    Ringing may leave faint values of either sign in the background, and CSF inside may be darker than they are: the
    mask is the largest piece above a low threshold, with its gaps closed and its holes filled.

    Args:
        volume: A stripped scan on the study's grid, shape (i, j, k).
        resolution_mm: Of the grid.
        template_mask: The template's brain on the grid; gives the level of brain and what size is possible.

    Returns:
        True inside the brain, shape (i, j, k).

    Raises:
        ScanRejected: Nothing is left, or far more than a brain: the skull is still there.
    """
    inside = volume[template_mask]
    lit = inside[inside > 0]
    if lit.size < 0.1 * inside.size:
        raise ScanRejected("mask", "almost nothing lies inside the brain after registration; look at the scan")
    foreground = volume > FOREGROUND_LEVEL * np.median(lit)
    labels, count = ndimage.label(foreground)
    if count > 1:
        foreground = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    mask = ndimage.binary_fill_holes(_closed(foreground, resolution_mm))
    if mask.sum() > MAX_PROVIDED_EXCESS * template_mask.sum():
        raise ScanRejected(
            "mask",
            f"tissue fills {mask.sum() / template_mask.sum():.1f} times a brain: the skull was not removed, or the "
            "head lies otherwise than its header says and was not found; look at the scan, and set the recipe's mask "
            "to auto or template where it is provided",
        )
    return mask


def mask_in_scan(shape: tuple[int, int, int], affine: Affine, template: Template, to_mni: Affine) -> Mask:
    """Bring the template's brain mask to a scan or a working copy of it.

    Args:
        shape: Of the scan's grid.
        affine: Voxel indices to the scan's RAS+ mm.
        template: Which one the scan was registered to.
        to_mni: The scan's RAS+ mm to the template's.

    Returns:
        True inside the brain, of the given shape.
    """
    mask = template.brain.astype(np.float32)
    return resample(mask, template.affine, shape, to_mni @ affine, 0.0) > 0.5


def _closed(mask: Mask, resolution_mm: float) -> Mask:
    steps = round(CLOSING_MM / resolution_mm)
    if steps < 1:
        return mask
    padded = np.pad(mask, steps)
    return ndimage.binary_closing(padded, iterations=steps)[(slice(steps, -steps),) * 3]


def _nearest(volume: Volume, affine: Affine, to_mni: Affine, points_mm: np.ndarray) -> np.ndarray:
    voxels = np.rint(apply_affine(np.linalg.inv(to_mni @ affine), points_mm)).astype(int)
    inside = ((voxels >= 0) & (voxels < np.array(volume.shape))).all(axis=1)
    return volume[tuple(voxels[inside].T)]
