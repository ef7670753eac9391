"""Signs of motion, ghosting, blur and noise in a scan as it came, before anything is interpolated.

Nobody moves on purpose and no header tells it; these figures do not measure motion but rise (or fall) with it, so that
a scan which stands out among its cohort's can be looked at. What needs air around the head is left out, with the
reason, where somebody has stripped or defaced it away: such figures would measure the stripping.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..arrays import AnyVolume, Mask, Volume

THINNED_VOXELS = 400_000
# Through thick slices a difference is anatomy, not sharpness.
IN_PLANE = 1.5
HEAD_LEVEL = 0.15  # Of the 98th percentile: below muscle, above a ghost.
CLOSING_STEPS, MARGIN_STEPS = 4, 3
MIN_AIR_FRACTION = 0.05
MIN_SAMPLES = 500
NEEDS_AIR = ("entropy_focus_criterion", "foreground_background_energy_db", "ghost_to_signal")


@dataclass(frozen=True)
class Artefacts:
    """What was measured, and why the rest was not.

    Attributes:
        figures: Finite numbers by name.
        absent: Name of a figure → why it is not given.
    """

    figures: dict[str, float]
    absent: dict[str, str]


def artefact_figures(native: AnyVolume, spacing_mm: NDArray[np.float64], brain: Mask) -> Artefacts:
    """Measure a native scan on a thinned lattice of its own voxels, which leaves noise and edges as they are.

    Within the brain, for stripped scans too: `gradient_entropy` (McGee et al. 2000), from 0 (all edges in one voxel) to
    1 (edges everywhere alike), and `smoothness_mm`, the full width at half maximum of the point spread that would make
    white noise as smooth as the scan (Forman et al. 1995, as AFNI's 3dFWHMx and MRIQC give it).

    With air: `entropy_focus_criterion` (Atkinson et al. 1997), 0 to 1; `foreground_background_energy_db` (Shehzad et
    al. 2015: median energy in the head over that in the air), in decibels; and `ghost_to_signal` (Giannelli et al.
    2010): what half a field of view away from the head exceeds the rest of the air by, over the head's mean, on the
    worst axis.

    Args:
        native: The scan in its own grid, shape (i, j, k).
        spacing_mm: Of its axes, shape (3,).
        brain: True inside the brain, of any coarser shape over the same field of view, such as a working copy's.

    Returns:
        The figures that could be measured.

    Reference: Esteban et al. 2017, doi:10.1371/journal.pone.0184661 (MRIQC); McGee et al. 2000,
    doi:10.1002/(SICI)1522-2586(200002)11:2<174::AID-JMRI15>3.0.CO;2-3; Atkinson et al. 1997, doi:10.1109/42.650886;
    Giannelli et al. 2010, doi:10.1120/jacmp.v11i4.3237; Forman et al. 1995, doi:10.1002/mrm.1910330508.
    """
    step = max(1, round((native.size / THINNED_VOXELS) ** (1 / 3)))
    figures: dict[str, float] = {}
    absent: dict[str, str] = {}
    _within_brain(native, spacing_mm, brain, step, figures, absent)
    _with_air(np.asarray(native[(slice(None, None, step),) * 3], dtype=np.float32), figures, absent)
    return Artefacts(figures, absent)


def _within_brain(
    native: AnyVolume,
    spacing_mm: NDArray[np.float64],
    brain: Mask,
    step: int,
    figures: dict[str, float],
    absent: dict[str, str],
) -> None:
    """Differences to the neighbours on either side, at every lattice point of the brain."""
    sharp = [axis for axis in range(3) if spacing_mm[axis] <= IN_PLANE * spacing_mm.min()]
    points = [np.arange(1, size - 1, step) for size in native.shape]
    centre = np.asarray(native[np.ix_(*points)], dtype=np.float32)
    inside = _looked_up(brain, points, native.shape) & (centre != 0)
    squares = np.zeros(centre.shape, dtype=np.float32)
    steps: list[tuple[float, Volume]] = []
    for axis in sharp:
        low, high = (
            np.asarray(native[np.ix_(*(p + move * (a == axis) for a, p in enumerate(points)))], dtype=np.float32)
            for move in (-1, 1)
        )
        # The rim of a stripped brain is an edge that somebody made.
        inside &= (low != 0) & (high != 0)
        squares += ((high - low) / np.float32(2 * spacing_mm[axis])) ** 2
        steps.append((float(spacing_mm[axis]), high - centre))
    if inside.sum() < MIN_SAMPLES:
        absent |= dict.fromkeys(("gradient_entropy", "smoothness_mm"), "too few voxels of the brain were scanned")
        return
    strength = np.sqrt(squares[inside].astype(np.float64))
    values = centre[inside].astype(np.float64)
    variance = float(values.var())
    if strength.sum() <= 0 or variance <= 0:
        absent |= dict.fromkeys(("gradient_entropy", "smoothness_mm"), "the brain has no edges")
        return
    share = strength[strength > 0] / strength.sum()
    figures["gradient_entropy"] = float(-(share * np.log(share)).sum() / np.log(strength.size))
    widths = [_width_mm(float((ahead[inside].astype(np.float64) ** 2).mean()), variance, mm) for mm, ahead in steps]
    figures["smoothness_mm"] = float(np.exp(np.mean(np.log(widths))))


def _width_mm(difference_energy: float, variance: float, step_mm: float) -> float:
    """Full width at half maximum from the correlation of neighbours: 1 - E[d²] / 2σ² = exp(-2 ln 2 · step² / w²)."""
    correlation = float(np.clip(1.0 - difference_energy / (2.0 * variance), 0.01, 0.9999))
    return step_mm * float(np.sqrt(-2.0 * np.log(2.0) / np.log(correlation)))


def _looked_up(mask: Mask, points: list[NDArray[np.intp]], shape: tuple[int, ...]) -> Mask:
    """The value of a coarser mask at voxels of the scan, over the same field of view."""
    at = [
        np.minimum((p * (small / size)).astype(int), small - 1)
        for p, small, size in zip(points, mask.shape, shape, strict=True)
    ]
    return np.asarray(mask[np.ix_(*at)])


def _with_air(thinned: Volume, figures: dict[str, float], absent: dict[str, str]) -> None:
    scanned = ~_padding(thinned)
    head = _head(thinned)
    air = scanned & ~ndimage.binary_dilation(head, iterations=MARGIN_STEPS)
    if air.sum() < max(MIN_AIR_FRACTION * thinned.size, MIN_SAMPLES) or (thinned[air] == 0).mean() > 0.5:
        absent |= dict.fromkeys(NEEDS_AIR, "no air around the head: stripped, defaced or cropped close")
        return
    figures["entropy_focus_criterion"] = _entropy_focus(thinned[scanned].astype(np.float64))
    energy = np.median(thinned[head & scanned].astype(np.float64) ** 2)
    floor = np.median(thinned[air].astype(np.float64) ** 2)
    if floor > 0 and energy > 0:
        figures["foreground_background_energy_db"] = float(10.0 * np.log10(energy / floor))
    else:
        absent["foreground_background_energy_db"] = "most of the air is exactly 0"
    ghosts = _ghost(thinned, head, air)
    if ghosts:
        figures["ghost_to_signal"] = max(ghosts)
    else:
        absent["ghost_to_signal"] = "the head fills the field of view, so that its ghosts would fall on itself"


def _padding(thinned: Volume) -> Mask:
    """Where nothing was measured: zeros beside zeros, as masks, defacing and padding leave them."""
    zero = thinned == 0
    return np.asarray(ndimage.binary_erosion(zero, ndimage.generate_binary_structure(3, 1), border_value=1))


def _head(thinned: Volume) -> Mask:
    lit = thinned > HEAD_LEVEL * np.percentile(thinned, 98)
    lit = ndimage.binary_opening(lit)
    labels, count = ndimage.label(lit)
    if count > 1:
        lit = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    padded = ndimage.binary_closing(np.pad(lit, CLOSING_STEPS), iterations=CLOSING_STEPS)
    return np.asarray(ndimage.binary_fill_holes(padded)[(slice(CLOSING_STEPS, -CLOSING_STEPS),) * 3])


def _entropy_focus(values: NDArray[np.float64]) -> float:
    """Entropy of the intensities over that of an image without any focus, so that it does not depend on the size."""
    brightest = np.sqrt((values**2).sum())
    share = np.abs(values[values != 0]) / brightest
    largest = np.sqrt(values.size) * np.log(np.sqrt(values.size))
    return float(-(share * np.log(share)).sum() / largest)


def _ghost(thinned: Volume, head: Mask, air: Mask) -> list[float]:
    signal = float(thinned[head].mean())
    found = []
    for axis, size in enumerate(thinned.shape):
        # What lies half a field of view from the head along this axis, where a ghost of every second line falls.
        shifted = np.roll(head, size // 2, axis)
        ghost, rest = thinned[air & shifted], thinned[air & ~shifted]
        if min(ghost.size, rest.size) >= MIN_SAMPLES and signal > 0:
            found.append((float(ghost.mean()) - float(rest.mean())) / signal)
    return found
