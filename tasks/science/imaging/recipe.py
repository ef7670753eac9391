"""A raw scan's bytes become a prepared volume on the study's grid, or a reason why not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import nibabel
import numpy as np
import scipy
import SimpleITK as sitk

from ...records import Recipe, ScanRejected, digest
from ..arrays import Affine, Mask, Volume
from . import brain_mask, registration
from .bias_field import log_bias_field
from .grid import Shape, study_grid, template_on_grid
from .intensity import zscore_within_mask
from .nifti import NativeScan, read_scan
from .orientation import spacing_mm, to_ras
from .quality import TemplateMaps, fov_cut_fraction, quality_figures, reject_failures
from .resampling import block_mean, resample
from .template import Template, mni, mni_digest

RECIPE_VERSION = 1
WORKING_MM = 4.0
BIAS_WORKING_MM = 6.0
FINE_WORKING_MM = 2.0
FINE_BELOW_MM = 3.0
REGISTRATION_CLIP_PERCENTILE = 99.0
MAX_Z = 1000.0


@dataclass(frozen=True)
class Prepared:
    """A scan on the study's grid.

    Attributes:
        volume: Z-scores within the brain, 0 outside, float16, shape of the grid.
        affine: Voxel indices of the grid to MNI RAS+ mm, shape (4, 4), float64.
        quality: Figures by which to judge it.
        sidecar: How it was made, as JSON can hold it.
    """

    volume: np.ndarray
    affine: np.ndarray
    quality: dict[str, float]
    sidecar: dict[str, Any]


def recipe_digest(recipe: Recipe) -> str:
    """Name everything beside the scan's bytes that shapes the output, so that no stale output is ever found again.

    Args:
        recipe: The study's recipe.

    Returns:
        64 hexadecimal digits: fields, recipe version, numerical libraries' versions, template's bytes.
    """
    return digest(_provenance(recipe))


def _provenance(recipe: Recipe) -> dict[str, Any]:
    return {
        "recipe": asdict(recipe),
        "recipe_version": RECIPE_VERSION,
        "versions": {
            "nibabel": nibabel.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "SimpleITK": sitk.__version__,
        },
        "template_sha256": mni_digest(),
    }


def prepare_scan(content: bytes, recipe: Recipe) -> Prepared:
    """Bring a scan to the study's grid: the one path by which training and prediction see images.

    The same bytes give the same bytes: sampling is seeded, filters run on one thread. Orientation comes from the
    affine; the image itself is interpolated once, from its native voxels.

    Args:
        content: The bytes of a .nii or .nii.gz file.
        recipe: The study's recipe.

    Returns:
        The prepared scan.

    Raises:
        ScanRejected: The scan cannot be used; stage and reason say why.
        ValueError: The recipe cannot be followed: a caller's mistake.
    """
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    template = mni()
    shape, affine, maps = _target(recipe, template)
    scan = read_scan(content)
    native, native_affine = to_ras(scan.volume, scan.affine)
    found, log_field, stripped = _align(native, native_affine, template, recipe)
    kind = _mask_kind(recipe, stripped)
    volume = resample(native, found.to_mni @ native_affine, shape, affine, recipe.resolution_mm)
    if log_field is not None:
        field, field_affine = log_field
        volume = volume * np.exp(-_extended(field, found.to_mni @ field_affine, shape, affine))
    brain = _brain(volume, kind, maps, recipe, affine, native.shape, found.to_mni @ native_affine)
    cut = fov_cut_fraction((native.shape[0], native.shape[1], native.shape[2]), native_affine, template, found.to_mni)
    quality = quality_figures(volume, brain, maps, recipe.resolution_mm, found, cut)
    quality["nonfinite_fraction"] = scan.nonfinite_fraction
    reject_failures(quality)
    scaled = zscore_within_mask(volume, brain, recipe.clip_percentiles)
    sidecar = _sidecar(scan, recipe, affine, found.to_mni, kind, quality)
    return Prepared(np.clip(scaled, -MAX_Z, MAX_Z).astype(np.float16), affine.copy(), quality, sidecar)


@lru_cache(maxsize=4)
def _target(recipe: Recipe, template: Template) -> tuple[Shape, Affine, TemplateMaps]:
    shape, affine = study_grid(recipe, template)
    return shape, affine, TemplateMaps(*template_on_grid(template, shape, affine))


def _align(
    native: Volume, affine: Affine, template: Template, recipe: Recipe
) -> tuple[registration.Registration, tuple[Volume, Affine] | None, bool]:
    """Register, with the bias field taken off in between: N4 needs to know the brain, the last fit needs N4."""
    working, working_affine = block_mean(native, affine, WORKING_MM)
    found = registration.find_head(working, working_affine, template, recipe.seed)
    found = registration.refine(working, working_affine, template, found, (registration.COARSE,), recipe.seed)
    stripped = brain_mask.is_stripped(working, working_affine, template, found.to_mni)
    fine, fine_affine = block_mean(native, affine, FINE_WORKING_MM)
    log_field = None
    if recipe.bias_correction:
        small, small_affine = block_mean(native, affine, BIAS_WORKING_MM)
        shape = (small.shape[0], small.shape[1], small.shape[2])
        brain = brain_mask.mask_in_scan(shape, small_affine, template, found.to_mni)
        log_field = log_bias_field(small, small_affine, brain)
        fine_shape = (fine.shape[0], fine.shape[1], fine.shape[2])
        fine = fine * np.exp(-_extended(*log_field, fine_shape, fine_affine))
    fine = _bounded(fine, fine_affine, template, found.to_mni)
    fine_grid = recipe.resolution_mm < FINE_BELOW_MM
    stages = (registration.FINE, registration.FINEST) if fine_grid else (registration.FINE,)
    return registration.refine(fine, fine_affine, template, found, stages, recipe.seed), log_field, stripped


def _bounded(volume: Volume, affine: Affine, template: Template, to_mni: Affine) -> Volume:
    """Fat and vessels are several times as bright as brain and would own the variance that registration explains."""
    shape = (volume.shape[0], volume.shape[1], volume.shape[2])
    brain = brain_mask.mask_in_scan(shape, affine, template, to_mni)
    if not brain.any():
        raise ScanRejected("registration", "the brain lies outside the field of view; look at the scan")
    return np.minimum(volume, np.percentile(volume[brain], REGISTRATION_CLIP_PERCENTILE)).astype(np.float32)


def _extended(field: Volume, field_affine: Affine, shape: Shape, affine: Affine) -> Volume:
    """Look a log field up elsewhere; 0 beyond its part of the grid, where there is no brain."""
    return resample(field, field_affine, shape, affine, 0.0)


def _mask_kind(recipe: Recipe, stripped: bool) -> brain_mask.MaskKind:
    if recipe.mask == "auto":
        return "provided" if stripped else "template"
    return recipe.mask


def _brain(
    volume: Volume,
    kind: brain_mask.MaskKind,
    maps: TemplateMaps,
    recipe: Recipe,
    affine: Affine,
    native_shape: tuple[int, ...],
    native_to_mni: Affine,
) -> Mask:
    if kind == "provided":
        return brain_mask.provided_mask(volume, recipe.resolution_mm, maps.brain)
    scanned = np.ones(native_shape, dtype=np.float32)
    return maps.brain & (resample(scanned, native_to_mni, maps.brain.shape, affine, 0.0) > 0.99)


def _sidecar(
    scan: NativeScan, recipe: Recipe, affine: Affine, to_mni: Affine, kind: str, quality: dict[str, float]
) -> dict[str, Any]:
    return {
        **_provenance(recipe),
        "recipe_digest": recipe_digest(recipe),
        "space": "MNI152NLin2009aSym",
        "affine": affine.tolist(),
        "native_affine": scan.affine.tolist(),
        "native_shape": list(scan.volume.shape),
        "native_spacing_mm": spacing_mm(scan.affine).tolist(),
        "native_to_mni": to_mni.tolist(),
        "mask_kind": kind,
        "quality": dict(quality),
    }
