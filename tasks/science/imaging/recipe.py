"""The raw images of a session become a prepared volume on the study's grid, or a reason why not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import nibabel
import numpy as np
import scipy
import SimpleITK as sitk
from scipy import ndimage

from ...records import MaskName, Recipe, digest
from ..arrays import Affine, Mask, Volume
from . import brain_mask
from .artefacts import Artefacts, artefact_figures
from .external_mask import external_mask, tool_version
from .grid import Shape, study_grid, template_on_grid
from .intensity import zscore_within_mask
from .montage import montage_png
from .nifti import read_scan
from .orientation import spacing_mm
from .placement import WORKING_MM, Beside, PlacedImage, Reference, place_beside, place_reference
from .quality import TemplateMaps, fov_cut_fraction, quality_figures, reject_failures
from .ratio import scaled_ratio
from .resampling import block_mean, resample
from .template import Template, mni, mni_digest

RECIPE_VERSION = 8
MAX_Z = 1000.0


@dataclass(frozen=True)
class Prepared:
    """A scan on the study's grid.

    Attributes:
        volume: One channel each of the recipe, 0 outside the brain (with its skull: outside the scan), float16, shape
            (channels, i, j, k).
        affine: Voxel indices of the grid to the template's RAS+ mm, shape (4, 4), float64.
        quality: Figures by which to judge it.
        sidecar: How it was made, as JSON can hold it.
    """

    volume: np.ndarray
    affine: np.ndarray
    quality: dict[str, float]
    sidecar: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Target:
    """Where prepared volumes lie."""

    template: Template
    shape: Shape
    affine: Affine
    maps: TemplateMaps


def recipe_digest(recipe: Recipe) -> str:
    """Name everything beside the scan's bytes that shapes the output, so that no stale output is ever found again.

    Args:
        recipe: The study's recipe.

    Returns:
        64 hexadecimal digits: fields, recipe version, numerical libraries' versions, templates' bytes.

    Raises:
        ValueError: The recipe gives templates whose bytes nobody has read yet, or a mask tool that is not installed.
    """
    return digest(_provenance(recipe))


def _provenance(recipe: Recipe) -> dict[str, Any]:
    unread = [template.name for template in recipe.templates if not template.sha256]
    if unread:
        raise ValueError(f"the bytes of template {', '.join(unread)} are not part of the recipe yet; read them first")
    # Where a template lies does not alter what is made with it.
    templates = [{"name": t.name, "ages_months": list(t.ages_months), "sha256": t.sha256} for t in recipe.templates]
    return {
        "recipe": {**asdict(recipe), "channels": list(recipe.channel_names), "templates": templates},
        "recipe_version": RECIPE_VERSION,
        "versions": {
            "nibabel": nibabel.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "SimpleITK": sitk.__version__,
        },
        "template_sha256": mni_digest() if not templates else "",
        "mask_tool": _mask_tool(recipe.mask, os.environ.get("PATH", "")),
    }


@lru_cache(maxsize=4)
def _mask_tool(mask: MaskName, path: str) -> str:
    """The installed tool and its version, asked once per search path; "" where the recipe needs none."""
    del path
    return tool_version(mask) if mask in ("hd-bet", "synthstrip") else ""


def prepare_scan(images: bytes | Mapping[str, bytes], recipe: Recipe, template: Template | None = None) -> Prepared:
    """Bring a scan to the study's grid: the one path by which training and prediction see images.

    The same bytes give the same bytes: sampling is seeded, filters run on one thread. Orientation comes from the
    affine; each image is interpolated once, from its native voxels, whatever lies between it and the template.

    Args:
        images: The bytes of a .nii or .nii.gz file for each contrast that the recipe needs, by BIDS suffix; the bytes
            alone where it needs one.
        recipe: The study's recipe.
        template: Where to bring it; MNI where none is given.

    Returns:
        The prepared scan.

    Raises:
        ScanRejected: The scan cannot be used; stage and reason say why.
        ValueError: The recipe cannot be followed: a caller's mistake.
    """
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    target = _target(recipe, template or mni())
    scans = {contrast: read_scan(content) for contrast, content in _by_contrast(images, recipe).items()}
    reference = place_reference(scans.pop(recipe.reference), target.template, recipe)
    beside = {name: place_beside(scan, name, reference, target.template, recipe) for name, scan in scans.items()}
    placed: dict[str, PlacedImage] = {recipe.reference: reference.image} | {
        name: other.image for name, other in beside.items()
    }
    volumes = _on_grid(placed, target, recipe)
    kind = _mask_kind(recipe, reference.is_stripped)
    brain = _brain(volumes[recipe.reference], kind, target, recipe, list(placed.values()))
    quality = _quality(volumes, brain, reference, target, recipe)
    for name, other in beside.items():
        quality |= _session_quality(name, other)
    reject_failures(quality)
    artefacts = _artefacts(reference.image, target.template)
    quality |= artefacts.figures
    channels = []
    for name in recipe.channel_names:
        if name == "ratio":
            ratio, figures = scaled_ratio(volumes, brain, target.affine, recipe, reference.is_stripped)
            quality |= figures
            channels.append(ratio)
        else:
            shown = brain if recipe.skull_strip else volumes[name] != 0
            channels.append(zscore_within_mask(volumes[name], shown, recipe.clip_percentiles))
    volume = np.clip(np.stack(channels), -MAX_Z, MAX_Z).astype(np.float16)
    described = _sidecar(reference, beside, recipe, target, kind, quality)
    sidecar = {**described, "quality_absent": artefacts.absent}
    return Prepared(volume, target.affine.copy(), quality, sidecar)


def prepared_montage(prepared: Prepared, title: str, recipe: Recipe, template: Template | None = None) -> bytes:
    """Draw a prepared scan under the template's outline, for a person to judge.

    Args:
        prepared: From `prepare_scan`.
        title: Printed above, for instance the scan's id.
        recipe: The study's recipe.
        template: Where it was brought to; MNI where none was given.

    Returns:
        The bytes of a PNG; the same scan gives the same bytes.
    """
    outline = _target(recipe, template or mni()).maps.brain
    return montage_png(prepared.volume, prepared.affine, title, outline, recipe.channel_names)


def tissue_priors_on_grid(recipe: Recipe, template: Template) -> Volume:
    """Say how likely each tissue is at each voxel of prepared scans.

    Args:
        recipe: The study's recipe.
        template: Where it brings scans.

    Returns:
        CSF, grey and white matter, float32, shape (3, i, j, k).
    """
    return _target(recipe, template).maps.priors(recipe.resolution_mm)


def _on_grid(placed: Mapping[str, PlacedImage], target: Target, recipe: Recipe) -> dict[str, Volume]:
    return {name: image.on_grid(target.shape, target.affine, recipe.resolution_mm) for name, image in placed.items()}


def _by_contrast(images: bytes | Mapping[str, bytes], recipe: Recipe) -> dict[str, bytes]:
    if isinstance(images, bytes):
        images = {recipe.contrasts[0]: images}
    missing = [contrast for contrast in recipe.contrasts if contrast not in images]
    if missing:
        raise ValueError(
            f"the recipe {recipe.name!r} needs {', '.join(recipe.contrasts)} of a session; found {', '.join(images)}: "
            f"give {', '.join(missing)} too"
        )
    return {contrast: images[contrast] for contrast in recipe.contrasts}


@lru_cache(maxsize=4)
def _target(recipe: Recipe, template: Template) -> Target:
    shape, affine = study_grid(recipe, template)
    return Target(template, shape, affine, TemplateMaps(*template_on_grid(template, shape, affine)))


def _mask_kind(recipe: Recipe, stripped: bool) -> brain_mask.MaskKind:
    if recipe.mask == "auto":
        return "provided" if stripped else "template"
    return recipe.mask


def _brain(
    volume: Volume, kind: brain_mask.MaskKind, target: Target, recipe: Recipe, images: list[PlacedImage]
) -> Mask:
    """The brain as far as every image of the session shows it."""
    if kind == "provided":
        brain = brain_mask.provided_mask(volume, recipe.resolution_mm, target.maps.brain)
        images = images[1:]
    elif kind == "template":
        brain = target.maps.brain
    else:
        reference = images[0]
        native = external_mask(reference.volume, reference.affine, kind).astype(np.float32)
        to_template = reference.to_template @ reference.affine
        brain = resample(native, to_template, target.shape, target.affine, recipe.resolution_mm) > 0.5
        images = images[1:]
    for image in images:
        brain = brain & image.seen_on_grid(target.shape, target.affine)
    return brain


def _quality(
    volumes: dict[str, Volume], brain: Mask, reference: Reference, target: Target, recipe: Recipe
) -> dict[str, float]:
    image, found = reference.image, reference.registration
    shape = (image.volume.shape[0], image.volume.shape[1], image.volume.shape[2])
    cut = fov_cut_fraction(shape, image.affine, target.template, found.to_mni)
    names = sorted(volumes, key=lambda name: name != recipe.reference)
    images = np.stack([volumes[name] for name in names if name in recipe.contrasts])
    quality = quality_figures(images, brain, target.maps, recipe.resolution_mm, found, cut)
    quality["nonfinite_fraction"] = image.scan.nonfinite_fraction
    quality["skull_stripped"] = float(reference.is_stripped)
    return quality


def _session_quality(name: str, other: Beside) -> dict[str, float]:
    found = other.alignment
    return {
        f"{name}_alignment": found.correlation_ratio,
        f"{name}_moved_mm": found.moved_mm,
        f"{name}_mirror_margin": found.mirror_margin,
        f"{name}_nonfinite_fraction": other.image.scan.nonfinite_fraction,
    }


def _place(image: PlacedImage) -> dict[str, Any]:
    return {
        "native_affine": image.scan.affine.tolist(),
        "native_shape": list(image.scan.volume.shape),
        "native_spacing_mm": spacing_mm(image.scan.affine).tolist(),
        "native_to_mni": image.to_template.tolist(),
    }


def _artefacts(image: PlacedImage, template: Template) -> Artefacts:
    working, working_affine = block_mean(image.volume, image.affine, WORKING_MM)
    shape = (working.shape[0], working.shape[1], working.shape[2])
    brain = brain_mask.mask_in_scan(shape, working_affine, template, image.to_template)
    # Off the rim, where a stripped scan has an edge that somebody made.
    inner = ndimage.binary_erosion(brain)
    return artefact_figures(image.volume, spacing_mm(image.affine), inner)


def _sidecar(
    reference: Reference,
    beside: Mapping[str, Beside],
    recipe: Recipe,
    target: Target,
    kind: str,
    quality: dict[str, float],
) -> dict[str, Any]:
    return {
        **_provenance(recipe),
        "recipe_digest": recipe_digest(recipe),
        "channels": list(recipe.channel_names),
        "space": target.template.name,
        "affine": target.affine.tolist(),
        "reference": recipe.reference,
        **_place(reference.image),
        "companions": {name: _place(other.image) for name, other in beside.items()},
        "mask_kind": kind,
        "quality": dict(quality),
    }
