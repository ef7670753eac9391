"""Where each image of a session lies in the template's space, and its bias field: all that one resampling needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...records import Recipe, ScanRejected
from ..arrays import Affine, Volume
from . import brain_mask, registration
from .bias_field import log_bias_field
from .grid import Shape
from .nifti import NativeScan
from .orientation import to_ras
from .resampling import block_mean, resample
from .session_alignment import SessionAlignment, align_to
from .template import Template

WORKING_MM = 4.0
BIAS_WORKING_MM = 6.0
FINE_WORKING_MM = 2.0
FINE_BELOW_MM = 3.0
REGISTRATION_CLIP_PERCENTILE = 99.0


@dataclass(frozen=True)
class PlacedImage:
    """One image of a session with its way to the template.

    Attributes:
        scan: As it was read.
        volume: Its intensities in RAS+ order, shape (i, j, k).
        affine: Indices of `volume` to the scan's RAS+ mm.
        to_template: The scan's RAS+ mm to the template's.
        log_field: Log of the bias field and its affine, or None where none was estimated.
    """

    scan: NativeScan
    volume: Volume
    affine: Affine
    to_template: Affine
    log_field: tuple[Volume, Affine] | None

    def on_grid(self, shape: Shape, affine: Affine, resolution_mm: float) -> Volume:
        """Bias-corrected intensities on a grid of template space: the only time that the image is interpolated."""
        volume = resample(self.volume, self.to_template @ self.affine, shape, affine, resolution_mm)
        if self.log_field is None:
            return volume
        field, field_affine = self.log_field
        return volume * np.exp(-_extended(field, self.to_template @ field_affine, shape, affine))

    def seen_on_grid(self, shape: Shape, affine: Affine) -> np.ndarray:
        """Which voxels of a grid lie within the scan's field of view, bool."""
        scanned = np.ones(self.volume.shape, dtype=np.float32)
        return resample(scanned, self.to_template @ self.affine, shape, affine, 0.0) > 0.99


@dataclass(frozen=True)
class Reference:
    """The image of a session that is registered to the template.

    Attributes:
        image: With its way to the template.
        registration: How well it fits.
        is_stripped: Whether somebody has removed the skull.
    """

    image: PlacedImage
    registration: registration.Registration
    is_stripped: bool


@dataclass(frozen=True)
class Beside:
    """Another image of the session.

    Attributes:
        image: With its way to the template, through the reference.
        alignment: How it lies beside the reference.
    """

    image: PlacedImage
    alignment: SessionAlignment


def place_reference(scan: NativeScan, template: Template, recipe: Recipe) -> Reference:
    """Register to the template, with the bias field taken off in between: N4 needs to know the brain, the last fit N4.

    Args:
        scan: The reference contrast.
        template: Where it goes.
        recipe: Gives seed, resolution and whether N4 runs.

    Raises:
        ScanRejected: No brain is found.
    """
    native, affine = to_ras(scan.volume, scan.affine)
    working, working_affine = block_mean(native, affine, WORKING_MM)
    found = registration.find_head(working, working_affine, template, recipe.seed)
    found = registration.refine(working, working_affine, template, found, (registration.COARSE,), recipe.seed)
    stripped = brain_mask.is_stripped(working, working_affine, template, found.to_mni)
    log_field = _log_field(native, affine, template, found.to_mni) if recipe.bias_correction else None
    fine, fine_affine = _working_copy(native, affine, template, found.to_mni, log_field)
    fine_grid = recipe.resolution_mm < FINE_BELOW_MM
    stages = registration.TO_FINE_GRID if fine_grid else registration.TO_COARSE_GRID
    found = registration.refine(fine, fine_affine, template, found, stages, recipe.seed)
    return Reference(PlacedImage(scan, native, affine, found.to_mni, log_field), found, stripped)


def place_beside(scan: NativeScan, contrast: str, reference: Reference, template: Template, recipe: Recipe) -> Beside:
    """Align another image of the session to the reference, and go on with the reference's way to the template.

    Args:
        scan: The other image.
        contrast: Its BIDS suffix, for reasons.
        reference: Of the same session.
        template: Where it goes.
        recipe: Gives the seed and whether N4 runs.

    Raises:
        ScanRejected: The two do not show one head, or their headers disagree about how it lies.
    """
    native, affine = to_ras(scan.volume, scan.affine)
    shown = reference.image
    copy, copy_affine = _working_copy(shown.volume, shown.affine, template, shown.to_template, shown.log_field)
    brain = brain_mask.mask_in_scan(_shape(copy), copy_affine, template, shown.to_template)
    x, y, z = np.linalg.inv(shown.to_template)[:3, 0].tolist()
    right = (x, y, z)
    try:
        found = align_to(copy, copy_affine, brain, *block_mean(native, affine, FINE_WORKING_MM), recipe.seed, right)
    except ScanRejected as rejection:
        raise ScanRejected(rejection.stage, f"{contrast} beside {recipe.reference}: {rejection.reason}") from rejection
    to_template = shown.to_template @ found.to_reference
    log_field = _log_field(native, affine, template, to_template) if recipe.bias_correction else None
    return Beside(PlacedImage(scan, native, affine, to_template, log_field), found)


def _log_field(native: Volume, affine: Affine, template: Template, to_template: Affine) -> tuple[Volume, Affine]:
    small, small_affine = block_mean(native, affine, BIAS_WORKING_MM)
    return log_bias_field(
        small, small_affine, brain_mask.mask_in_scan(_shape(small), small_affine, template, to_template)
    )


def _working_copy(
    native: Volume, affine: Affine, template: Template, to_template: Affine, log_field: tuple[Volume, Affine] | None
) -> tuple[Volume, Affine]:
    """A small, bias-corrected copy in which nothing outside the brain is brighter than the brain.

    Fat and vessels are several times as bright and would own the variance that registration explains.
    """
    small, small_affine = block_mean(native, affine, FINE_WORKING_MM)
    if log_field is not None:
        small = small * np.exp(-_extended(*log_field, _shape(small), small_affine))
    brain = brain_mask.mask_in_scan(_shape(small), small_affine, template, to_template)
    if not brain.any():
        raise ScanRejected("registration", "the brain lies outside the field of view; look at the scan")
    ceiling = np.percentile(small[brain], REGISTRATION_CLIP_PERCENTILE)
    return np.minimum(small, ceiling).astype(np.float32), small_affine


def _extended(field: Volume, field_affine: Affine, shape: Shape, affine: Affine) -> Volume:
    """Look a log field up elsewhere; 0 beyond its part of the grid, where there is no brain."""
    return resample(field, field_affine, shape, affine, 0.0)


def _shape(volume: Volume) -> Shape:
    return (volume.shape[0], volume.shape[1], volume.shape[2])
