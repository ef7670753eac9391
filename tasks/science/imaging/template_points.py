"""The template as the registration sees it: points in and around the brain, each with an intensity class."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage

from ..arrays import Mask
from .correlation_ratio import ClassifiedPoints
from .orientation import apply_affine
from .resampling import low_pass
from .template import brain_box_mm, mni_brain_mask, mni_template

RIM_MM = 8.0  # Skull and CSF in a head, nothing in a stripped scan: dark in both, and it holds the scale.
BRAIN_CLASSES = 24
CENTRE_MM = np.array(brain_box_mm()).mean(axis=0)


@lru_cache(maxsize=1)
def distance_from_brain_mm() -> np.ndarray:
    """How far each template voxel is from the brain.

    Returns:
        Shape of the template, float32, mm; 0 inside.
    """
    outside = ~mni_brain_mask()
    coarse = outside[::2, ::2, ::2]
    distance = ndimage.distance_transform_edt(coarse).astype(np.float32) * 2.0
    zooms = np.array(outside.shape) / np.array(coarse.shape)
    full = ndimage.affine_transform(distance, np.diag(1 / zooms), output_shape=outside.shape, order=1, mode="nearest")
    return full * outside


def brain_and_rim(rim_mm: float = RIM_MM) -> Mask:
    """The region over which scan and template are compared.

    Args:
        rim_mm: How far it reaches beyond the brain.

    Returns:
        True within `rim_mm` of the brain, shape of the template.
    """
    return distance_from_brain_mm() <= rim_mm


@lru_cache(maxsize=16)
def template_points(spacing_mm: float, seed: int, rim_mm: float = RIM_MM) -> ClassifiedPoints:
    """Sample the template at about one point per `spacing_mm` cube.

    Points on a lattice would meet the scan's voxels in step and make the measure ripple; each is therefore moved
    within its cube, by a seeded amount.

    Args:
        spacing_mm: Side of the cube, and blur of the template.
        seed: Of the jitter.
        rim_mm: How far points reach beyond the brain.

    Returns:
        Points in MNI RAS+ mm with classes: 0 for the rim, then bins of equal count of the blurred brain.
    """
    template, affine = mni_template()
    blurred = low_pass(template, np.ones(3), spacing_mm)
    axes = [np.arange(spacing_mm / 2, size - 1, spacing_mm) for size in template.shape]
    lattice = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    lattice += np.random.default_rng(seed).uniform(-spacing_mm / 2, spacing_mm / 2, lattice.shape)
    nearest = np.rint(np.clip(lattice, 0, np.array(template.shape) - 1)).astype(int)
    lattice = lattice[brain_and_rim(rim_mm)[tuple(nearest.T)]]
    nearest = np.rint(np.clip(lattice, 0, np.array(template.shape) - 1)).astype(int)
    values = ndimage.map_coordinates(blurred, lattice.T, order=1, mode="nearest")
    brain = mni_brain_mask()[tuple(nearest.T)]
    edges = np.quantile(values[brain], np.linspace(0, 1, BRAIN_CLASSES + 1)[1:-1])
    classes = np.where(brain, 1 + np.searchsorted(edges, values), 0)
    return ClassifiedPoints(apply_affine(affine, lattice), classes, BRAIN_CLASSES + 1)
