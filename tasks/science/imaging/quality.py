"""Figures by which a prepared scan is judged, and the few by which it is refused."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...records import ScanRejected
from ..arrays import Affine, Mask, Volume
from .orientation import apply_affine
from .registration import Registration
from .template import Template
from .tissue import TissueFit, fit_tissues, tissue_priors

DETERMINANT_RANGE = (0.5, 4.0)  # Adults have 1.0 to 1.9, newborns up to 3.4.
# At 2 mm the lowest of 30 adults' T1w had 0.52 and of 3 infants' 0.29; noise, a body's cylinder and raw heads turned
# around or upside down stayed below 0.24. Registration finds turned heads.
# The correlation with the template is no such measure: in infants grey and white matter swap their order.
MIN_CORRELATION_RATIO = 0.25
MAX_FOV_CUT = 0.30
POINT_STEP_VOXELS = 4
SURE = 0.6
ROBUST_SIGMA = 1.4826


@dataclass(frozen=True, eq=False)
class TemplateMaps:
    """The template on the study's grid: T1w, grey and white matter (0 to 1), float32, and the brain mask."""

    t1: Volume
    grey: Volume
    white: Volume
    brain: Mask
    _priors: dict[float, Volume] = field(default_factory=dict, repr=False)

    def priors(self, resolution_mm: float) -> Volume:
        """How likely CSF, grey and white matter are, shape (3, i, j, k); computed once per process."""
        if resolution_mm not in self._priors:
            self._priors[resolution_mm] = tissue_priors(self.grey, self.white, resolution_mm)
        return self._priors[resolution_mm]


def quality_figures(
    images: Volume, brain: Mask, maps: TemplateMaps, resolution_mm: float, registration: Registration, cut: float
) -> dict[str, float]:
    """Describe a scan on the study's grid in numbers that an outlier shows up in.

    Signal-to-noise and contrast-to-noise are taken within tissue, since stripped and defaced scans have no air to
    take noise from; they compare scans at one resolution only. Volumes are in the person's own millilitres: the
    affine's determinant is divided out.

    Args:
        images: Bias-corrected intensities, not yet scaled, shape (i, j, k); or (images, i, j, k) for several of one
            session, the registered one first: tissues are told apart by all of them.
        brain: True inside the brain.
        maps: The template on the same grid.
        resolution_mm: Of the grid.
        registration: Scan to MNI.
        cut: Part of the template's brain outside the scan's field of view.

    Returns:
        Finite floats: `snr`, `cnr`; `grey_ml`, `white_ml`, `csf_ml` and, over their sum, `grey_fraction`,
        `white_fraction`, `csf_fraction`; `no_tissue_fraction` of the mask; `brain_volume_ml` (grey and white),
        `mask_volume_ml`, `brain_fraction` (tissue over mask), `registration_ncc`, `registration_correlation_ratio`,
        `registration_determinant`, `scale_x`, `scale_y`, `scale_z`, `fov_cut_fraction`, and `header_turn_degrees`,
        against what the affine says.

    Raises:
        ScanRejected: The brain is empty or has no contrast.
    """
    volume = images if images.ndim == 3 else images[0]
    fit = fit_tissues(images, brain, maps.priors(resolution_mm))
    determinant = float(np.linalg.det(registration.to_mni[:3, :3]))
    voxel_ml = resolution_mm**3 / determinant / 1000.0
    scales = np.sqrt((registration.to_mni[:3, :3] ** 2).sum(axis=1))
    return {
        **_noise_figures(volume, brain, maps, fit),
        **_tissue_figures(fit, voxel_ml),
        "mask_volume_ml": float(brain.sum() * voxel_ml),
        "registration_ncc": correlation(volume, maps.t1, brain & maps.brain),
        "registration_correlation_ratio": registration.correlation_ratio,
        "registration_determinant": determinant,
        "scale_x": float(scales[0]),
        "scale_y": float(scales[1]),
        "scale_z": float(scales[2]),
        "fov_cut_fraction": cut,
        "header_turn_degrees": registration.header_turn_degrees,
    }


def _noise_figures(volume: Volume, brain: Mask, maps: TemplateMaps, fit: TissueFit) -> dict[str, float]:
    _, grey, white = (float(level) for level in fit.levels[:, 0])
    grey_noise, white_noise = (_spread(volume[brain & (tissue_map > SURE)]) for tissue_map in (maps.grey, maps.white))
    noise = max(float(np.hypot(grey_noise, white_noise) / np.sqrt(2)), 1e-6 * abs(white), 1e-12)
    return {"snr": float(abs(white) / max(white_noise, noise * 1e-3)), "cnr": float(abs(white - grey) / noise)}


def _tissue_figures(fit: TissueFit, voxel_ml: float) -> dict[str, float]:
    total = float(fit.voxels.sum())
    csf, grey, white = (float(count) for count in fit.voxels)
    return {
        "grey_ml": grey * voxel_ml,
        "white_ml": white * voxel_ml,
        "csf_ml": csf * voxel_ml,
        "grey_fraction": grey / total,
        "white_fraction": white / total,
        "csf_fraction": csf / total,
        "no_tissue_fraction": fit.outlier_fraction,
        "brain_volume_ml": (grey + white) * voxel_ml,
        "brain_fraction": (grey + white) / total,
    }


def reject_failures(quality: dict[str, float]) -> None:
    """Refuse only what has clearly failed; everything subtler is for the study's report to flag.

    Args:
        quality: From `quality_figures`.

    Raises:
        ScanRejected: The scan does not lie on the template, or much of the brain was not scanned.
    """
    if quality["fov_cut_fraction"] > MAX_FOV_CUT:
        raise ScanRejected("quality", f"{quality['fov_cut_fraction']:.0%} of the brain is outside the field of view")
    determinant = quality["registration_determinant"]
    if not DETERMINANT_RANGE[0] <= determinant <= DETERMINANT_RANGE[1]:
        raise ScanRejected(
            "registration",
            f"the brain was scaled by {determinant:.2f} in volume, which no head needs; look at the scan",
        )
    if quality["registration_correlation_ratio"] < MIN_CORRELATION_RATIO:
        raise ScanRejected(
            "registration",
            f"the template explains {quality['registration_correlation_ratio']:.0%} of the scan "
            f"(floor {MIN_CORRELATION_RATIO:.0%}); it may show no brain, lie turned around, or have a wrong affine",
        )


def fov_cut_fraction(shape: tuple[int, int, int], affine: Affine, template: Template, to_mni: Affine) -> float:
    """Tell how much of the brain was not scanned.

    Args:
        shape: Of the native scan.
        affine: Its voxel indices to RAS+ mm.
        template: Which one it was registered to.
        to_mni: Its RAS+ mm to the template's.

    Returns:
        Part of the template's brain that falls outside the scan's voxels, 0 to 1.
    """
    every = (slice(None, None, POINT_STEP_VOXELS),) * 3
    points = apply_affine(template.affine, np.argwhere(template.brain[every]) * POINT_STEP_VOXELS)
    voxels = apply_affine(np.linalg.inv(to_mni @ affine), points)
    inside = ((voxels >= -0.5) & (voxels <= np.array(shape) - 0.5)).all(axis=1)
    return 1.0 - float(inside.mean())


def correlation(first: Volume, second: Volume, where: Mask) -> float:
    """Pearson's r of two volumes within a mask; 0 where it is not defined.

    Args:
        first: Shape (i, j, k).
        second: Shape (i, j, k).
        where: True where both count.

    Returns:
        -1 to 1.
    """
    a, b = first[where].astype(np.float64), second[where].astype(np.float64)
    if a.size < 2:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / norm) if norm > 0 else 0.0


def _spread(values: np.ndarray) -> float:
    if values.size == 0:
        return 0.0
    return ROBUST_SIGMA * float(np.median(np.abs(values - np.median(values))))
