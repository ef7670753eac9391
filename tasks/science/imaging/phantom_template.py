"""The average head that every phantom is warped from: distance fields built once per process from the MNI152 template.

The template is a skull-stripped average of 152 people, so its sulci are blurred and it has no head. Distances to its
surfaces can be thresholded sharply, moved by millimetres to age a brain, and wrapped in a skull.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from .template import mni

# How far behind the pial surface a voxel counts, by tissue probability: sulci that the average has blurred (probability
# below one but above a half) open later in life than those that are plain to see.
SULCUS_DEPTH_MM = {0.5: 0.0, 0.72: 0.45, 0.87: 0.95, 0.94: 1.6}
BRAIN_BOX_MM = ((-80, 80), (-114, 82), (-72, 88))
HEAD_BOX_MM = ((-106, 106), (-142, 128), (-150, 118))
HEAD_SPACING_MM = 2
CSF_GAP_MM, SKULL_MM, SCALP_MM = 2.0, 6.0, 6.0
VENTRICLE_DEPTH_MM = 20.0
VENTRICLE_SEED_MM = (10, -30, 18)
# Right-hand centres and radii; the left ones mirror them. Ratio images are calibrated on these two tissues.
EYE_MM, GLOBE_MM, TEMPORALIS_MM = ((32, 66, -36), 12), ((33, 57, -38), 12), ((68, 5, -15), (16, 18, 22))


@dataclass(frozen=True)
class Field:
    """A scalar map in MNI space.

    Attributes:
        values: Shape (i, j, k), axes along +x, +y, +z.
        origin_mm: MNI position of voxel (0, 0, 0), (x, y, z).
        spacing_mm: Isotropic voxel size.
    """

    values: np.ndarray
    origin_mm: tuple[float, ...]
    spacing_mm: float

    def at(self, points_mm: np.ndarray, order: int = 1) -> np.ndarray:
        """Interpolate at MNI positions of shape (3, …); beyond the box the edge continues."""
        origin = np.reshape(np.asarray(self.origin_mm, np.float32), (3,) + (1,) * (points_mm.ndim - 1))
        index = (points_mm - origin) / np.float32(self.spacing_mm)
        return ndimage.map_coordinates(self.values, index, order=order, mode="nearest", output=np.float32)


@dataclass(frozen=True)
class TemplateHead:
    """Fields of the average head in MNI152NLin2009aSym space, float32; distances in mm.

    Attributes:
        pial: Depth below the surface of brain tissue, sulci included; negative in outer CSF.
        ventricle: Distance outside the ventricles; negative inside them.
        white: White matter as a fraction of brain tissue, 0 to 1.
        hull: Distance outside the smooth envelope of the brain; negative inside it.
        skin: Depth below the skin; negative in the air around the head.
        air: Depth inside nose, sinuses and airway.
        eye: Depth inside the eyes' vitreous, in plain heads.
        globe: The same in heads with reference tissues, where the eyes lie deeper in their orbits.
        temporalis: Depth inside the region where the temporal muscle lies on thin bone.
        marbling: Fat among the muscles of face and neck, as a fraction.
    """

    pial: Field
    ventricle: Field
    white: Field
    hull: Field
    skin: Field
    air: Field
    eye: Field
    globe: Field
    temporalis: Field
    marbling: Field


@functools.cache
def template_head() -> TemplateHead:
    """Build the fields, which takes about two seconds and 90 MB, once per process.

    Returns:
        The average head.

    Reference: Fonov et al. 2011, doi:10.1016/j.neuroimage.2010.07.033 (the template).
    """
    brain, tissue, white = _template_half()
    ventricles = _ventricles(brain, tissue)
    filled = np.where(ndimage.binary_dilation(ventricles, iterations=2), 1.0, tissue)
    pial = functools.reduce(np.minimum, (depth_mm(filled >= p) + h for p, h in SULCUS_DEPTH_MM.items()))
    share = np.clip(white / np.maximum(tissue, 0.3), 0, 1)
    return TemplateHead(
        pial=_brain_field(ndimage.gaussian_filter(pial, 0.6)),
        ventricle=_brain_field(ndimage.gaussian_filter(-depth_mm(ventricles), 0.7)),
        white=_brain_field(smoothstep((share - 0.15) / 0.7)),
        **_head_fields(brain),
    )


def smoothstep(x: np.ndarray) -> np.ndarray:
    """Rise from 0 at x = 0 to 1 at x = 1 without a corner."""
    clipped = np.clip(x, 0, 1)
    return clipped * clipped * (3 - 2 * clipped)


def depth_mm(mask: np.ndarray, spacing_mm: float = 1.0) -> np.ndarray:
    """Signed distance to a mask's border, positive inside, float32.

    Reference: Maurer et al. 2003, doi:10.1109/TPAMI.2003.1177156.
    """
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    signed = sitk.SignedMaurerDistanceMap(image, insideIsPositive=True, squaredDistance=False, useImageSpacing=False)
    return spacing_mm * sitk.GetArrayFromImage(signed)


# The template is symmetric by construction, so distances are computed for x >= -MARGIN_MM and mirrored.
MARGIN_MM = 8


def _template_half() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Brain mask, tissue probability and white matter of the right half, cropped to the brain's box, 1 mm."""
    affine = mni().affine
    box = ((-MARGIN_MM, BRAIN_BOX_MM[0][1]), *BRAIN_BOX_MM[1:])
    start = [round(lo - affine[axis, 3]) for axis, (lo, _) in enumerate(box)]
    cut = tuple(slice(s, s + hi - lo + 1) for s, (lo, hi) in zip(start, box, strict=True))
    grey, white = (volume[cut] for volume in (mni().grey, mni().white))
    return mni().brain[cut], grey + white, white


def _mirror(half: np.ndarray, margin: int) -> np.ndarray:
    right = half[margin:]
    return np.ascontiguousarray(np.concatenate([right[:0:-1], right]), dtype=np.float32)


def _brain_field(half: np.ndarray) -> Field:
    return Field(_mirror(half, MARGIN_MM), tuple(float(lo) for lo, _ in BRAIN_BOX_MM), 1.0)


def _ventricles(brain: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """The lateral and third ventricles: the deep pool of CSF that holds a known point."""
    pools, _ = ndimage.label((tissue < 0.5) & brain & (depth_mm(brain) > VENTRICLE_DEPTH_MM))
    box = (-MARGIN_MM, BRAIN_BOX_MM[1][0], BRAIN_BOX_MM[2][0])
    at = tuple(int(p - lo) for p, lo in zip(VENTRICLE_SEED_MM, box, strict=True))
    return pools == pools[at]


def _head_fields(brain: np.ndarray) -> dict[str, Field]:
    """Wrap the brain in a hull, skull and scalp, and hang a face and a neck on it."""
    step, origin = HEAD_SPACING_MM, tuple(float(lo) for lo, _ in HEAD_BOX_MM)
    axes = [np.arange(lo, hi + 1, step, dtype=np.float32) for lo, hi in HEAD_BOX_MM]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    hull = _hull(brain, tuple(len(axis) for axis in axes))
    skin = hull - (CSF_GAP_MM + SKULL_MM + SCALP_MM)
    neck = np.maximum(_ellipsoid(x, y + 0.25 * (z + 60), z, (0, -20, -150), (54, 62, 500)), z + 55)
    face = _ellipsoid(x, y, z, (0, 38, -64), (60, 52, 64))
    nose = _ellipsoid(x, y, z, (0, 92, -56), (13, 20, 20))
    for part, blend_mm in ((neck, 14.0), (face, 14.0), (nose, 8.0)):
        skin = _soft_minimum(skin, part, blend_mm)
    air = [((0, 74, -58), (9, 26, 17)), ((0, 28, -78), (10, 18, 12)), ((0, 20, -120), (8, 9, 42))]
    air += [((side * 27, 62, -66), (11, 14, 14)) for side in (-1, 1)]
    cavities = functools.reduce(np.minimum, (_ellipsoid(x, y, z, c, r) for c, r in air))
    eyes, globes = (_both_sides(x, y, z, centre, (r, r, r)) for centre, r in (EYE_MM, GLOBE_MM))
    temporalis = _both_sides(x, y, z, *TEMPORALIS_MM)
    # Any fixed pattern does; without one, face and neck would be a flat grey that registration finds nothing in.
    noise = np.random.default_rng(1).standard_normal(hull.shape, dtype=np.float32)
    marbling = smoothstep(ndimage.gaussian_filter(noise, (2.0, 2.0, 4.0)) / 0.06 - 0.4)
    fields = {"hull": hull, "skin": -skin, "air": -cavities, "eye": -eyes, "marbling": marbling}
    fields |= {"globe": -globes, "temporalis": -temporalis}
    return {name: Field(np.asarray(v, dtype=np.float32), origin, float(step)) for name, v in fields.items()}


def _hull(brain: np.ndarray, shape: tuple[int, ...], close_mm: float = 14.0) -> np.ndarray:
    """Signed distance to the brain's envelope with the sulci and fissures closed, positive outside."""
    step = HEAD_SPACING_MM
    whole = _mirror(brain, MARGIN_MM)[::step, ::step, ::step] > 0
    mask = np.zeros(shape, dtype=bool)
    start = [(b[0] - h[0]) // step for b, h in zip(BRAIN_BOX_MM, HEAD_BOX_MM, strict=True)]
    mask[tuple(slice(s, s + n) for s, n in zip(start, whole.shape, strict=True))] = whole
    # The template ends at the foramen magnum; its last slice continues as the spinal cord.
    mask[:, :, : start[2]] = mask[:, :, start[2], None]
    dilated = depth_mm(mask, step) > -close_mm
    return ndimage.gaussian_filter(close_mm - depth_mm(dilated, step), 1.0)


def _ellipsoid(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, centre: tuple[float, ...], radii: tuple[float, ...]
) -> np.ndarray:
    """Approximate signed distance to an ellipsoid, negative inside."""
    r = np.sqrt(sum(((v - c) / s) ** 2 for v, c, s in zip((x, y, z), centre, radii, strict=True)))
    return (r - 1) * min(radii)


def _both_sides(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, centre: tuple[float, ...], radii: tuple[float, ...]
) -> np.ndarray:
    """Approximate signed distance to a right-hand ellipsoid and its mirror image, negative inside."""
    sides = [_ellipsoid(x, y, z, (side * centre[0], *centre[1:]), radii) for side in (-1, 1)]
    return np.minimum(*sides)


def _soft_minimum(a: np.ndarray, b: np.ndarray, blend_mm: float) -> np.ndarray:
    h = np.clip(0.5 + 0.5 * (b - a) / blend_mm, 0, 1)
    return b + (a - b) * h - blend_mm * h * (1 - h)
