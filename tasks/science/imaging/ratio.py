"""The T1w/T2w ratio, which follows myelin and cancels what both contrasts share, and its calibration between scanners.

References: Glasser & Van Essen 2011, doi:10.1523/JNEUROSCI.2180-11.2011; Ganzetti et al. 2014,
doi:10.3389/fnhum.2014.00671 (calibration); Gudbjartsson & Patz 1995, doi:10.1002/mrm.1910340618 (noise of air).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from ...records import RatioCalibration, Recipe, ScanRejected
from ..arrays import Affine, Mask, Volume
from .orientation import apply_affine

NOISE_SIGMAS = 5.0
LEAST_T2W = 0.10  # Of the brain's median: below it a quotient is noise even where no air shows how large that is.
AIR_BELOW = 0.10
FEWEST_AIR_VOXELS = 500
LEAST_DEFINED = 0.5
EMPTY_BELOW = 0.02
MODE_BINS = 100
MODE_SMOOTHING_BINS = 2.0
LEAST_CONTRAST = 0.05


def scaled_ratio(
    volumes: Mapping[str, Volume], brain: Mask, affine: Affine, recipe: Recipe, is_stripped: bool
) -> tuple[Volume, dict[str, float]]:
    """The ratio as a channel: in units of the brain's median, since scanners' gains are arbitrary.

    Args:
        volumes: Bias-corrected T1w and T2w on the study's grid, not yet stripped.
        brain: True inside the brain.
        affine: Voxel indices to the template's RAS+ mm.
        recipe: Whether and how to calibrate, and what to clip.
        is_stripped: Then there is nothing to calibrate by.

    Returns:
        The ratio, float32, 0 where it is not defined; and figures: `ratio_median` (before the scaling),
        `ratio_defined` (part of the brain) and `ratio_calibrated` (1 or 0).

    Raises:
        ScanRejected: It cannot be taken, or not be calibrated.
    """
    t1w, t2w = volumes["T1w"], volumes["T2w"]
    calibration = None if is_stripped else recipe.ratio_calibration
    if calibration is not None:
        modes = [reference_modes(volumes[name], affine, brain, name, calibration) for name in ("T1w", "T2w")]
        t1w, t2w = calibrated(t1w, modes[0], calibration.t1w_modes), calibrated(t2w, modes[1], calibration.t2w_modes)
    ratio, defined = ratio_image(t1w, t2w, brain)
    low, median, high = np.percentile(ratio[defined], (recipe.clip_percentiles[0], 50, recipe.clip_percentiles[1]))
    figures = {
        "ratio_median": float(median),
        "ratio_defined": float(defined.sum() / brain.sum()),
        "ratio_calibrated": float(calibration is not None),
    }
    return np.where(defined, np.clip(ratio, low, high) / np.float32(median), 0).astype(np.float32), figures


def ratio_image(t1w: Volume, t2w: Volume, brain: Mask) -> tuple[Volume, Mask]:
    """Divide T1w by T2w where T2w is well above noise: five times that of the air, and a tenth of the brain's median.

    Args:
        t1w: Bias-corrected intensities, shape (i, j, k).
        t2w: Likewise, on the same grid.
        brain: True inside the brain.

    Returns:
        The ratio, float32, finite, 0 where it is not defined; and where it is defined, bool.

    Raises:
        ScanRejected: T2w shows almost nothing in the brain.
    """
    level = float(np.median(t2w[brain])) if brain.any() else 0.0
    if not level > 0:
        raise ScanRejected("ratio", "T2w shows nothing where the brain is; look at the scan")
    threshold = max(NOISE_SIGMAS * noise_sigma(t2w, brain), LEAST_T2W * level)
    defined = brain & (t2w > threshold) & (t1w > 0)
    if defined.sum() < LEAST_DEFINED * brain.sum():
        raise ScanRejected(
            "ratio",
            f"T2w is above its noise in {defined.sum() / brain.sum():.0%} of the brain only "
            f"(floor {LEAST_DEFINED:.0%}); look at the scan",
        )
    ratio = np.zeros(t1w.shape, dtype=np.float32)
    np.divide(t1w, t2w, out=ratio, where=defined)
    return ratio, defined


def noise_sigma(volume: Volume, brain: Mask) -> float:
    """Noise of a magnitude image from the air around the head: there it is Rayleigh-distributed.

    Args:
        volume: Intensities, shape (i, j, k).
        brain: True inside the brain.

    Returns:
        Standard deviation of the underlying Gaussian noise; 0 where the image has no air (stripped, or zeroed).
    """
    outside = volume[~brain]
    air = outside[(outside > 0) & (outside < AIR_BELOW * np.median(volume[brain]))].astype(np.float64)
    return float(np.sqrt((air**2).mean() / 2)) if air.size >= FEWEST_AIR_VOXELS else 0.0


def calibrated(volume: Volume, found: tuple[float, float], reference: tuple[float, float]) -> Volume:
    """Scale a contrast linearly, so that two tissues outside the brain have the reference's intensities.

    I' = aI + b with a = (X_R − Y_R) / (X_S − Y_S) and b = (X_S·Y_R − X_R·Y_S) / (X_S − Y_S), where X and Y are the
    modes of the two tissues in the subject (S) and in the reference (R).

    Args:
        volume: Intensities, shape (i, j, k).
        found: Modes of the two tissues in this image.
        reference: Their modes in the reference.

    Returns:
        Float32, same shape; the same for any gain and offset of `volume`.

    Reference: Ganzetti et al. 2014, equations 1 to 3.
    """
    (x_s, y_s), (x_r, y_r) = found, reference
    gain = (x_r - y_r) / (x_s - y_s)
    offset = (x_s * y_r - x_r * y_s) / (x_s - y_s)
    return (volume * np.float32(gain) + np.float32(offset)).astype(np.float32)


def reference_modes(
    volume: Volume, affine: Affine, brain: Mask, contrast: str, calibration: RatioCalibration
) -> tuple[float, float]:
    """Find the intensity of the eyes and of the temporal muscles, before anything is stripped.

    Args:
        volume: A whole head on the study's grid, shape (i, j, k).
        affine: Voxel indices to the template's RAS+ mm.
        brain: True inside the brain.
        contrast: For reasons.
        calibration: Where the tissues lie.

    Returns:
        Modes of eyes and muscles.

    Raises:
        ScanRejected: A region is empty (defaced, or cut off), shows no eyes, or the two cannot be told apart.
    """
    level = float(np.median(volume[brain]))
    modes = []
    for tissue, spheres in (("eyes", calibration.eyes_mm), ("temporal muscles", calibration.muscles_mm)):
        inside = within_spheres(volume.shape, affine, spheres) & ~brain
        values = volume[inside]
        if values.size == 0 or (values > EMPTY_BELOW * level).mean() < 0.5:
            raise ScanRejected(
                "ratio",
                f"{contrast} shows nothing where the {tissue} are: defaced, stripped or cut; the calibration needs "
                "them: leave ratio_calibration out of the recipe, or give the scans as they were taken",
            )
        modes.append(tissue_mode(values[values > EMPTY_BELOW * level]))
    if abs(modes[0] - modes[1]) < LEAST_CONTRAST * level:
        raise ScanRejected("ratio", f"eyes and temporal muscles are alike in {contrast}; look at the scan")
    if (modes[0] > level) == (contrast == "T1w"):
        raise ScanRejected(
            "ratio",
            f"what lies where the eyes are is as no eye in {contrast} ({modes[0] / level:.2f} of the brain; an eye is "
            "darker than brain in T1w and brighter in T2w): defaced in part, or cut; leave ratio_calibration out of "
            "the recipe, or give the scans as they were taken",
        )
    return modes[0], modes[1]


def within_spheres(shape: tuple[int, ...], affine: Affine, spheres: tuple[tuple[float, ...], ...]) -> Mask:
    """Mark the voxels within any of some spheres.

    Args:
        shape: Of the grid.
        affine: Voxel indices to mm.
        spheres: Centre x, y, z and radius of each, mm.

    Returns:
        Bool, of the given shape.
    """
    points = apply_affine(affine, np.indices(shape).reshape(3, -1).T)
    inside = np.zeros(len(points), dtype=bool)
    for *centre, radius_mm in spheres:
        inside |= ((points - np.array(centre)) ** 2).sum(axis=1) <= radius_mm**2
    return inside.reshape(shape)


def tissue_mode(values: np.ndarray) -> float:
    """The most frequent intensity of a region, which neighbours at its border leave as it is.

    Args:
        values: Intensities, shape (n,).

    Returns:
        Centre of the highest bin of a smoothed histogram.
    """
    low, high = np.percentile(values, (1, 99))
    if not high > low:
        return float(low)
    counts, edges = np.histogram(values, MODE_BINS, (float(low), float(high)))
    smooth = ndimage.gaussian_filter1d(counts.astype(np.float64), MODE_SMOOTHING_BINS, mode="constant")
    peak = int(np.argmax(smooth))
    return float((edges[peak] + edges[peak + 1]) / 2)
