"""The study's grid: the box in template space, and the voxels in it, that every prepared scan shares."""

from __future__ import annotations

import numpy as np

from ...records import Recipe
from ..arrays import Affine, Mask, Volume
from .orientation import spacing_mm
from .resampling import resample
from .template import Template

Shape = tuple[int, int, int]
RESOLUTION_LIMITS_MM = (0.5, 16.0)


def grid_shape(recipe: Recipe) -> Shape:
    """How many voxels a prepared volume has, whichever template it lies on.

    Args:
        recipe: Gives resolution and field of view.

    Returns:
        Voxels along x, y and z.
    """
    sizes = [round(extent_mm / recipe.resolution_mm) for extent_mm in recipe.field_of_view_mm]
    return sizes[0], sizes[1], sizes[2]


def study_grid(recipe: Recipe, template: Template) -> tuple[Shape, Affine]:
    """Lay the recipe's box around the average brain.

    The box is centred on the template brain's own box, since centring it at the MNI origin (the anterior commissure)
    would cut the occipital lobe at 160 × 192 × 160 mm (Peng et al. 2021, doi:10.1016/j.media.2020.101871).

    Args:
        recipe: Gives resolution and field of view.
        template: Whose brain is in the middle.

    Returns:
        Shape (i, j, k) and affine from voxel indices to the template's RAS+ mm, shape (4, 4), float64.

    Raises:
        ValueError: The resolution is not sensible, or the brain does not fit the box.
    """
    resolution_mm = float(recipe.resolution_mm)
    finest, coarsest = RESOLUTION_LIMITS_MM
    if not finest <= resolution_mm <= coarsest:
        raise ValueError(
            f"resolution_mm is {resolution_mm}; expected {finest:g} to {coarsest:g}: change it in the study's recipe"
        )
    low, high = template.box_mm
    shape = grid_shape(recipe)
    needed = (high - low).tolist()
    if any(size * resolution_mm < extent_mm for size, extent_mm in zip(shape, needed, strict=True)):
        raise ValueError(
            f"field_of_view_mm {recipe.field_of_view_mm} at {resolution_mm} mm cuts the brain of {template.name}, "
            f"which spans {tuple(needed)} mm; enlarge field_of_view_mm in the study's recipe"
        )
    affine = np.diag([resolution_mm, resolution_mm, resolution_mm, 1.0])
    affine[:3, 3] = (low + high) / 2 - (np.array(shape) - 1) / 2 * resolution_mm
    return shape, affine


def template_on_grid(template: Template, shape: Shape, affine: Affine) -> tuple[Volume, Volume, Volume, Mask]:
    """Sample the template on the study's grid, for masks and for judging a registration.

    Args:
        template: Which one.
        shape: Of the grid.
        affine: Voxel indices to the template's RAS+ mm.

    Returns:
        T1w, grey and white matter, float32, and the brain mask, bool, each of the given shape.
    """
    resolution_mm = float(spacing_mm(affine).max())
    maps = [
        resample(layer, template.affine, shape, affine, resolution_mm)
        for layer in (template.t1, template.grey, template.white)
    ]
    brain = resample(template.brain.astype(np.float32), template.affine, shape, affine, resolution_mm) > 0.5
    return maps[0], maps[1], maps[2], brain
