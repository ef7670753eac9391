"""Affine registration of a scan to a template, from no knowledge of where the head is.

Three steps, coarse to fine: an exhaustive search over translations for a few poses (so that a neck, a cut field of view
or a far-off scanner origin cannot trap it), a similarity fit of the best few, and an affine fit with finer points.
Every step maximises a measure over points of the template's brain and a thin rim around it: the points are fixed in
the template, so a raw head's scalp and neck never enter it. The measure is the correlation ratio, whose slopes reach
far; for the last step, from close by, mutual information.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import optimize
from scipy.spatial.transform import Rotation

from ...records import ScanRejected
from ..arrays import Affine, Volume
from .correlation_ratio import ClassifiedPoints, Scene, unexplained
from .mutual_information import bins_at, mutual_information
from .orientation import spacing_mm
from .pose_search import search_poses
from .resampling import block_mean, low_pass
from .template import Template
from .template_points import template_points

ANGLE_MM = 80.0  # Radius of a brain: turns radians and relative scales into millimetres at its surface.
SCALE_SPREAD = 0.25
SHEAR_SPREAD = 0.10
PRIOR_WEIGHT = 0.01
MIN_OVERLAP = 0.5
TURNED_STARTS = 3
UNSURE_BELOW = 0.7  # Stripped adults reach 0.74 the right way round; some turned by 90 degrees 0.63.
MAX_LOG_SCALE = 2.0  # A line search may try any step: beyond this the scale stays, and the prior leads back.
# A turned pose gains 0.16 to 0.40 in turned adults, 0.03 to 0.11 in infants; upright heads find the upright pose again.
TURNED_GAIN = 0.02
SIMILARITY_DOF = 7
AFFINE_DOF = 12
SHEARED = ([0, 0, 1], [1, 2, 2])

# From a transform of the template's points to what is lacking, its derivative (3, 4), and the overlap.
Measure = Callable[[Affine], tuple[float, Affine, float]]


@dataclass(frozen=True)
class Stage:
    """One level of detail.

    Attributes:
        spacing_mm: Between template points, and the blur of both images.
        dof: 7 for a similarity, 12 for an affine.
        iterations: At most so many steps.
        rim_mm: How far points reach beyond the brain. A wide rim finds a brain from afar; but in a raw head it
            meets the scalp, and shrinks the fit to avoid it (8 mm: 10% of volume too much, 3 mm: 1%).
        measure: What is maximised.
    """

    spacing_mm: float
    dof: int
    iterations: int
    rim_mm: float
    measure: Literal["correlation ratio", "mutual information"] = "correlation ratio"


SEARCH = Stage(8.0, SIMILARITY_DOF, 20, 8.0)
COARSE = Stage(6.0, AFFINE_DOF, 30, 4.0)
FINE = Stage(4.0, AFFINE_DOF, 30, 3.0)
FINEST = Stage(3.0, AFFINE_DOF, 30, 3.0)
LAST = Stage(2.0, AFFINE_DOF, 30, 3.0, "mutual information")
TO_COARSE_GRID = (FINE,)
TO_FINE_GRID = (FINE, FINEST, LAST)


@dataclass(frozen=True)
class Registration:
    """Where the scan lies in the template's space: MNI, where a study gives no other.

    Attributes:
        to_mni: The scan's RAS+ mm to the template's, shape (4, 4).
        correlation_ratio: Part of the scan's variance that the template's classes explain, at the last level that
            maximised it: finer levels show more that no template explains, and would need other floors.
        overlap: Part of the template's points inside the scan's field of view.
    """

    to_mni: Affine
    correlation_ratio: float
    overlap: float

    @property
    def header_turn_degrees(self) -> float:
        """The turn by quarters between how the affine says that the head lies and how it does: 0 but for wrong affines.

        Where it is not 0, left and right can no longer be vouched for: a mirror image would have turned the same way.
        """
        left, _, right = np.linalg.svd(self.to_mni[:3, :3])
        turns = Rotation.create_group("O")
        apart = (turns.inv() * Rotation.from_matrix(left @ right)).magnitude()
        return float(np.degrees(turns[int(np.argmin(apart))].magnitude()).round())

    @property
    def to_scan(self) -> Affine:
        """The template's RAS+ mm to the scan's RAS+ mm."""
        return np.linalg.inv(self.to_mni)


def find_head(volume: Volume, affine: Affine, template: Template, seed: int) -> Registration:
    """Find the brain in a scan of which nothing is known but its affine.

    Args:
        volume: A working copy of the scan, about 4 mm, shape (i, j, k).
        affine: Voxel indices to RAS+ mm.
        template: Which one to register to.
        seed: Of the jitter of the template's points.

    Returns:
        A similarity transform, good to some millimetres.

    Raises:
        ScanRejected: No pose puts half of the template's brain into the field of view.
    """
    starts = search_poses(volume, affine, template)
    if not starts:
        raise ScanRejected("registration", "no place in the scan fits a brain; check that it shows a whole head")
    points = template_points(template, SEARCH.spacing_mm, seed, SEARCH.rim_mm)
    scene = Scene(low_pass(volume, spacing_mm(affine), SEARCH.spacing_mm), affine)
    upright = max((_fit(scene, template, points, start, SEARCH) for start in starts), key=_score)
    turned = turned_starts(scene, template, points, upright)
    best = max((_fit(scene, template, points, start, SEARCH) for start in turned[:TURNED_STARTS]), key=_score)
    if max(best.correlation_ratio, upright.correlation_ratio) < UNSURE_BELOW:
        others = (_fit(scene, template, points, start, SEARCH) for start in turned[TURNED_STARTS:])
        best = max((best, *others), key=_score)
    return best if _score(best) > _score(upright) + TURNED_GAIN else upright


def _score(fit: Registration) -> float:
    return fit.correlation_ratio + fit.overlap


def turned_starts(scene: Scene, template: Template, points: ClassifiedPoints, upright: Registration) -> list[Affine]:
    """Poses of a head that lies otherwise than its affine says: facing backwards, on its side, upside down.

    A scanner is told how the patient lies, and converters lose it. A brain turned around matches the template well
    enough to pass unseen; only beside the right pose it does not.

    Args:
        scene: The scan.
        template: Which one to register to.
        points: Of the template.
        upright: The best pose that believes the affine.

    Returns:
        Transforms from the template's RAS+ mm to the scan's, turned by quarters about the brain's centre; the half
        turns and then the likeliest first.
    """
    ranked = []
    for turn in Rotation.create_group("O"):
        matrix = turn.as_matrix().round()
        if not np.array_equal(matrix, np.eye(3)):
            turned = np.eye(4)
            turned[:3, :3] = matrix
            turned[:3, 3] = template.centre_mm - matrix @ template.centre_mm
            start = upright.to_scan @ turned
            is_half = np.count_nonzero(np.diag(matrix)) == 3
            ranked.append((not is_half, unexplained(scene, points, start)[0], start))
    return [start for *_, start in sorted(ranked, key=lambda entry: entry[:2])]


def refine(
    volume: Volume, affine: Affine, template: Template, start: Registration, stages: tuple[Stage, ...], seed: int
) -> Registration:
    """Fit an affine from a start that is already close, level by level.

    Args:
        volume: The scan or a working copy of it, shape (i, j, k).
        affine: Voxel indices to RAS+ mm.
        template: Which one to register to.
        start: From `find_head`.
        stages: Levels of detail, coarse first; the first maximises the correlation ratio.
        seed: Of the jitter of the template's points.

    Returns:
        The affine of the last stage.
    """
    found = start
    for stage in stages:
        small, small_affine = block_mean(volume, affine, stage.spacing_mm)
        scene = Scene(low_pass(small, spacing_mm(small_affine), stage.spacing_mm), small_affine)
        points = template_points(template, stage.spacing_mm, seed, stage.rim_mm)
        found = _fit(scene, template, points, found.to_scan, stage)
        if stage.measure == "correlation ratio":
            judge = (scene, points)
    ratio, _, overlap = unexplained(*judge, found.to_scan)
    return Registration(found.to_mni, 1.0 - ratio, overlap)


def _fit(scene: Scene, template: Template, points: ClassifiedPoints, to_scan: Affine, stage: Stage) -> Registration:
    cost = _cost(_measure(scene, points, to_scan, stage), template)
    options = {"maxiter": stage.iterations, "ftol": 1e-6, "gtol": 1e-6}
    start = parameters_of(to_scan, template)
    if stage.dof == SIMILARITY_DOF:
        start = np.append(start[:6], start[6:9].mean())
    found = optimize.minimize(cost, start, jac=True, method="L-BFGS-B", options=options)
    transform = transform_of(found.x, template)
    ratio, _, overlap = unexplained(scene, points, transform)
    return Registration(np.linalg.inv(transform), 1.0 - ratio, overlap)


def _measure(scene: Scene, points: ClassifiedPoints, to_scan: Affine, stage: Stage) -> Measure:
    """The stage's measure as something to be made small."""
    if stage.measure == "correlation ratio":
        return lambda transform: unexplained(scene, points, transform)
    bins = bins_at(scene, points, to_scan)

    def lacking(transform: Affine) -> tuple[float, Affine, float]:
        nats, by_matrix, overlap = mutual_information(scene, points, bins, transform)
        return -nats, -by_matrix, overlap

    return lacking


def _cost(measure: Measure, template: Template) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    def cost(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        lacking, by_matrix, overlap = measure(transform_of(parameters, template))
        penalty, by_prior = _prior(parameters)
        slopes = np.einsum("pab,ab->p", derivatives_of(parameters, template), by_matrix)
        return lacking + penalty + max(0.0, MIN_OVERLAP - overlap), slopes + by_prior

    return cost


def transform_of(parameters: np.ndarray, template: Template) -> Affine:
    """Build the transform from parameters that are all in millimetres at the brain's surface.

    Args:
        parameters: Translation (3), rotation vector (3), then either one log scale, or three log scales and three
            shears, relative to the usual scale; angles, logs and shears times `ANGLE_MM`.
        template: Gives the usual scale and the centre.

    Returns:
        The template's RAS+ mm to the scan's, shape (4, 4), about the centre of the template's brain.
    """
    transform = np.eye(4)
    transform[:3, :3] = _rotation_of(parameters[3:6]) @ _stretch_of(parameters[6:], template)
    transform[:3, 3] = parameters[:3] + template.centre_mm - transform[:3, :3] @ template.centre_mm
    return transform


def parameters_of(transform: Affine, template: Template) -> np.ndarray:
    """Read the twelve parameters off a transform: the inverse of `transform_of`.

    Args:
        transform: The template's RAS+ mm to the scan's, shape (4, 4), positive determinant.
        template: Gives the usual scale and the centre.

    Returns:
        Shape (12,).
    """
    rotation, stretch = np.linalg.qr(transform[:3, :3])
    signs = np.sign(np.diag(stretch))
    rotation, stretch = rotation * signs, stretch * signs[:, None]
    angles = Rotation.from_matrix(rotation).as_rotvec() * ANGLE_MM
    scales = np.log(np.diag(stretch) * template.usual_scale) * ANGLE_MM
    shears = stretch[SHEARED] * ANGLE_MM
    shift = transform[:3, :3] @ template.centre_mm + transform[:3, 3] - template.centre_mm
    return np.concatenate([shift, angles, scales, shears])


def derivatives_of(parameters: np.ndarray, template: Template) -> np.ndarray:
    """How the transform changes with each parameter; the rotation by central differences, exact to 1e-9.

    Args:
        parameters: As `transform_of` takes them, shape (7,) or (12,).
        template: Gives the usual scale and the centre.

    Returns:
        Derivatives of the transform's upper rows, shape (parameters, 3, 4), per millimetre.
    """
    stretch = _stretch_of(parameters[6:], template)
    by_parameter = np.zeros((len(parameters), 3, 4))
    by_parameter[:3, :, 3] = np.eye(3)
    step = 1e-3
    moves = step * np.vstack([np.zeros(3), np.eye(3), -np.eye(3)])
    rotation, *around = _rotation_of(parameters[3:6] + moves)
    ahead, behind = np.stack(around[:3]), np.stack(around[3:])
    matrices = np.empty((len(parameters) - 3, 3, 3))
    matrices[:3] = (ahead - behind) / (2 * step) @ stretch
    matrices[3:] = rotation @ _by_shape(parameters[6:], stretch)
    by_parameter[3:, :, :3] = matrices
    by_parameter[3:, :, 3] = -matrices @ template.centre_mm
    return by_parameter


def _rotation_of(angles_mm: np.ndarray) -> np.ndarray:
    return Rotation.from_rotvec(angles_mm / ANGLE_MM).as_matrix()


def _stretch_of(shape_mm: np.ndarray, template: Template) -> np.ndarray:
    """Scales and shears as an upper triangle, shape (3, 3)."""
    shape = shape_mm / ANGLE_MM
    log_scales = np.repeat(shape, 3) if len(shape) == 1 else shape[:3]
    stretch = np.diag(np.exp(np.clip(log_scales, -MAX_LOG_SCALE, MAX_LOG_SCALE)) / template.usual_scale)
    if len(shape) > 1:
        stretch[SHEARED] = shape[3:]
    return stretch


def _by_shape(shape_mm: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    """Derivatives of the stretch by each of its parameters, shape (parameters, 3, 3)."""
    free = np.abs(shape_mm[:3] / ANGLE_MM) < MAX_LOG_SCALE
    by_scale = np.where(free, np.diag(stretch), 0.0) / ANGLE_MM
    if len(shape_mm) == 1:
        return np.diag(by_scale)[None]
    changes = np.zeros((len(shape_mm), 3, 3))
    changes[[0, 1, 2], [0, 1, 2], [0, 1, 2]] = by_scale
    changes[[3, 4, 5], *SHEARED] = 1 / ANGLE_MM
    return changes


def _prior(parameters: np.ndarray) -> tuple[float, np.ndarray]:
    """Hold scale and shear near what heads have, so that a thin or cut scan cannot stretch without bound."""
    spreads = np.full(len(parameters), np.inf)
    spreads[6:9] = SCALE_SPREAD * ANGLE_MM
    spreads[9:] = SHEAR_SPREAD * ANGLE_MM
    scaled = parameters / spreads
    return PRIOR_WEIGHT * float((scaled**2).sum()), 2 * PRIOR_WEIGHT * scaled / spreads
