"""The template as the registration sees it: points in and around the brain, each with an intensity class."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage

from ..arrays import Mask
from .correlation_ratio import ClassifiedPoints
from .orientation import apply_affine, spacing_mm
from .resampling import low_pass
from .template import Template

RIM_MM = 8.0  # Skull and CSF in a head, nothing in a stripped scan: dark in both, and it holds the scale.
BRAIN_CLASSES = 24


@lru_cache(maxsize=4)
def distance_from_brain_mm(template: Template) -> np.ndarray:
    """How far each template voxel is from the brain.

    Args:
        template: Which one.

    Returns:
        Shape of the template, float32, mm; 0 inside.
    """
    outside = ~template.brain
    coarse = outside[::2, ::2, ::2]
    sampling = np.diag(template.affine)[:3] * 2.0
    distance = ndimage.distance_transform_edt(coarse, sampling).astype(np.float32)
    zooms = np.array(outside.shape) / np.array(coarse.shape)
    full = ndimage.affine_transform(distance, np.diag(1 / zooms), output_shape=outside.shape, order=1, mode="nearest")
    return full * outside


def brain_and_rim(template: Template, rim_mm: float = RIM_MM) -> Mask:
    """The region over which scan and template are compared.

    Args:
        template: Which one.
        rim_mm: How far it reaches beyond the brain.

    Returns:
        True within `rim_mm` of the brain, shape of the template.
    """
    return distance_from_brain_mm(template) <= rim_mm


@lru_cache(maxsize=16)
def template_points(template: Template, step_mm: float, seed: int, rim_mm: float = RIM_MM) -> ClassifiedPoints:
    """Sample the template at about one point per `step_mm` cube.

    Points on a lattice would meet the scan's voxels in step and make the measure ripple; each is therefore moved
    within its cube, by a seeded amount.

    Args:
        template: Which one.
        step_mm: Side of the cube, and blur of the template.
        seed: Of the jitter.
        rim_mm: How far points reach beyond the brain.

    Returns:
        Points in the template's RAS+ mm with classes: 0 for the rim, then bins of equal count of the blurred brain.
    """
    shape, voxel_mm = np.array(template.t1.shape), spacing_mm(template.affine)
    blurred = low_pass(template.t1, voxel_mm, step_mm)
    steps = step_mm / voxel_mm
    axes = [np.arange(step / 2, size - 1, step) for step, size in zip(steps, shape, strict=True)]
    lattice = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    lattice += np.random.default_rng(seed).uniform(-steps / 2, steps / 2, lattice.shape)
    nearest = np.rint(np.clip(lattice, 0, shape - 1)).astype(int)
    lattice = lattice[brain_and_rim(template, rim_mm)[tuple(nearest.T)]]
    nearest = np.rint(np.clip(lattice, 0, shape - 1)).astype(int)
    values = ndimage.map_coordinates(blurred, lattice.T, order=1, mode="nearest")
    brain = template.brain[tuple(nearest.T)]
    edges = np.quantile(values[brain], np.linspace(0, 1, BRAIN_CLASSES + 1)[1:-1])
    classes = np.where(brain, 1 + np.searchsorted(edges, values), 0)
    return ClassifiedPoints(apply_affine(template.affine, lattice), classes, BRAIN_CLASSES + 1)
