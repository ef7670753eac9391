"""Where in a scan a brain could be: every translation at once, for a few poses, by the correlation ratio.

The centre of mass of a raw head is not its brain's centre, and a scanner's origin says little, so that no single start
is safe. Class sums at every translation are correlations, which the Fourier transform gives all together.

Reference: Padfield 2012, doi:10.1109/TIP.2011.2181402 (masked correlation in the Fourier domain).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import fft
from scipy.spatial.transform import Rotation

from ..arrays import Affine, Volume
from .orientation import apply_affine, spacing_mm
from .resampling import block_mean, low_pass, resample
from .template import Template
from .template_points import brain_and_rim

CELL_MM = 10.0
CELLS = 48
TEMPLATE_CELLS = 24
MAX_CELLS = 30  # Beside a brain of 18 cells nothing wraps around; of a longer scan the top is kept.
PITCHES_DEGREES = (-24.0, -8.0, 8.0, 24.0)
SCALES = (0.81, 0.993)  # Of a usual brain: a newborn beside an adult template, and everybody else.
CLASSES = 4  # The rim, then thirds of the brain's intensities.
MIN_OVERLAP = 0.6
STARTS = 3


def search_poses(volume: Volume, affine: Affine, template: Template) -> list[Affine]:
    """Rank poses of the template in a scan.

    Args:
        volume: A working copy of the scan, shape (i, j, k).
        affine: Voxel indices to RAS+ mm.
        template: Which one to look for.

    Returns:
        Up to three transforms from the template's RAS+ mm to the scan's, best first; none if no brain fits the field of
        view.
    """
    cells, cells_affine = _cells(volume, affine)
    seen = resample(np.ones(volume.shape, np.float32), affine, cells.shape, cells_affine, 0.0)
    spectra = [fft.rfftn(layer, (CELLS,) * 3) for layer in (seen, cells * seen, cells**2 * seen)]
    ranked: list[tuple[float, tuple[float, float], tuple[int, int, int]]] = []
    for pose in _poses(template):
        score, place = _best_place(spectra, _class_spectra(template, pose))
        if np.isfinite(score):
            ranked.append((score, pose, place))
    ranked.sort(key=lambda entry: entry[0])
    return [_as_transform(template, pose, place, cells_affine) for _, pose, place in ranked[:STARTS]]


def _cells(volume: Volume, affine: Affine) -> tuple[Volume, Affine]:
    """A coarse copy along the world's axes, no larger than the circular correlation can hold beside the template."""
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * (np.array(volume.shape) - 1)
    world = apply_affine(affine, corners)
    middle = (world.min(axis=0) + world.max(axis=0)) / 2
    count = np.ceil((world.max(axis=0) - world.min(axis=0)) / CELL_MM).astype(int) + 1
    count = np.minimum(count, MAX_CELLS)
    middle[2] = world[:, 2].max() - (count[2] - 1) / 2 * CELL_MM
    cells_affine = np.diag([CELL_MM] * 3 + [1.0])
    cells_affine[:3, 3] = middle - (count - 1) / 2 * CELL_MM
    blurred = low_pass(volume, spacing_mm(affine), CELL_MM)
    cells = resample(blurred, affine, (int(count[0]), int(count[1]), int(count[2])), cells_affine, 0.0)
    return cells / np.float32(max(float(np.abs(cells).max()), 1e-20)), cells_affine


def _poses(template: Template) -> list[tuple[float, float]]:
    return [(pitch, scale / template.usual_scale) for scale in SCALES for pitch in PITCHES_DEGREES]


@lru_cache(maxsize=4)
def _small_template(template: Template) -> tuple[tuple[Volume, ...], Affine]:
    """Template, brain and region at half a cell, about the brain's centre: small, since each pose turns them anew."""
    layers = (template.t1, template.brain, brain_and_rim(template))
    small = [block_mean(layer.astype(np.float32), template.affine, CELL_MM / 2) for layer in layers]
    centred = small[0][1].copy()
    centred[:3, 3] -= template.centre_mm
    return tuple(layer for layer, _ in small), centred


@lru_cache(maxsize=32)
def _class_spectra(template: Template, pose: tuple[float, float]) -> np.ndarray:
    """Conjugate spectra of the class indicators of the template, turned and scaled; the last is of all classes."""
    pitch, scale = pose
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("x", pitch, degrees=True).as_matrix() * scale
    cells = np.diag([CELL_MM, CELL_MM, CELL_MM, 1.0])
    cells[:3, 3] = -(TEMPLATE_CELLS - 1) / 2 * CELL_MM
    shape = (TEMPLATE_CELLS, TEMPLATE_CELLS, TEMPLATE_CELLS)
    small, centred = _small_template(template)
    t1, brain, region = (resample(layer, turned @ centred, shape, cells, CELL_MM) for layer in small)
    edges = np.quantile(t1[brain > 0.5], [1 / 3, 2 / 3])
    classes = np.where(brain > 0.5, 1 + np.searchsorted(edges, t1), 0)
    inside = region > 0.5
    layers = [*(inside & (classes == which) for which in range(CLASSES)), inside]
    return np.stack([np.conj(fft.rfftn(layer.astype(np.float32), (CELLS,) * 3)) for layer in layers])


def _best_place(spectra: list[np.ndarray], classes: np.ndarray) -> tuple[float, tuple[int, int, int]]:
    """The translation with the least unexplained variance, in cells from the first cell of the template's box."""
    size = (CELLS,) * 3
    seen, values, squares = spectra
    counts = [fft.irfftn(seen * spectrum, size) for spectrum in classes[:CLASSES]]
    sums = [fft.irfftn(values * spectrum, size) for spectrum in classes[:CLASSES]]
    square_sum = fft.irfftn(squares * classes[CLASSES], size)
    count, total = sum(counts), sum(sums)
    usable = count >= MIN_OVERLAP * count.max()
    explained = sum(np.where(n > 0.5, s**2 / np.maximum(n, 0.5), 0.0) for n, s in zip(counts, sums, strict=True))
    mean_part = total**2 / np.maximum(count, 0.5)
    variance = square_sum - mean_part
    usable &= variance > 1e-3 * variance.max()
    score = np.where(usable, (square_sum - explained) / np.where(usable, variance, 1.0), np.inf)
    score = score + np.where(usable, 1.0 - count / count.max(), 0.0)
    place = np.unravel_index(int(np.argmin(score)), size)
    return float(score[place]), (int(place[0]), int(place[1]), int(place[2]))


def _as_transform(
    template: Template, pose: tuple[float, float], place: tuple[int, int, int], cells_affine: Affine
) -> Affine:
    pitch, scale = pose
    shift = np.array(place, dtype=np.float64)
    shift[shift >= CELLS / 2] -= CELLS
    middle = apply_affine(cells_affine, (shift + (TEMPLATE_CELLS - 1) / 2)[None])[0]
    transform = np.eye(4)
    transform[:3, :3] = Rotation.from_euler("x", pitch, degrees=True).as_matrix() * scale
    transform[:3, 3] = middle - transform[:3, :3] @ template.centre_mm
    return transform
