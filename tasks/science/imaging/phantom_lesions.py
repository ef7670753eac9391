"""White-matter lesions: those of multiple sclerosis, which come with disease, and those of age near the ventricles."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from .phantom_anatomy import Anatomy
from .phantom_people import Visit
from .phantom_template import Field, smoothstep, template_head

MOST_LESIONS = 60
FIRST_LESIONS, LESIONS_PER_YEAR, LESIONS_PER_EDSS_POINT = 5, 1.0, 3.0
RADIUS_MM, RADIUS_LOG_SD, RADIUS_LIMITS_MM = 3.2, 0.45, (1.5, 8.0)
# Lesions lie near the ventricles more often than elsewhere: their density falls with this distance.
REACH_MM = 12.0
# How far age-related hyperintensity reaches from the ventricles: from nowhere at 35 years to this at 95.
AGE_REACH_MM, AGE_START_YEARS, AGE_SPAN_YEARS, AGE_PATCHES_MM = 7.0, 35.0, 60.0, 1.2
FIELD_STEP = 2
EDGE_MM = 1.5


@dataclass(frozen=True)
class Lesions:
    """A person's lesions in the order in which they appear.

    Attributes:
        centre_mm: MNI positions, shape (n, 3).
        radius_mm: Shape (n,).
    """

    centre_mm: np.ndarray
    radius_mm: np.ndarray


@functools.cache
def _white_matter() -> tuple[np.ndarray, np.ndarray]:
    """Where a lesion may lie, MNI mm of shape (n, 3), and how likely it lies there."""
    head = template_head()
    white, distance = (field.values[::3, ::3, ::3] for field in (head.white, head.ventricle))
    at = np.argwhere((white > 0.9) & (distance > 1) & (head.pial.values[::3, ::3, ::3] > 3))
    points = 3.0 * at + head.white.origin_mm
    weight = np.exp(-distance[tuple(at.T)].astype(np.float64) / REACH_MM) * (points[:, 2] > -20)
    return points, weight / weight.sum()


def draw_lesions(rng: np.random.Generator) -> Lesions:
    """Draw all the lesions that a person could ever get, so that later visits keep the earlier ones."""
    points, weight = _white_matter()
    chosen = rng.choice(len(points), MOST_LESIONS, replace=False, p=weight)
    radius = RADIUS_MM * np.exp(RADIUS_LOG_SD * rng.standard_normal(MOST_LESIONS))
    return Lesions(points[chosen] + rng.uniform(-1.5, 1.5, (MOST_LESIONS, 3)), np.clip(radius, *RADIUS_LIMITS_MM))


def lesion_count(visit: Visit) -> int:
    """How many lesions multiple sclerosis has left by a visit; none in healthy people.

    >>> lesion_count(Visit(0, 0.0, 40.0, 2.0, 10.0, 0.0)), lesion_count(Visit(0, 0.0, 40.0, None, None, 0.0))
    (21, 0)
    """
    if visit.edss is None or visit.duration_years is None:
        return 0
    count = FIRST_LESIONS + LESIONS_PER_YEAR * visit.duration_years + LESIONS_PER_EDSS_POINT * visit.edss
    return min(MOST_LESIONS, int(count))


def lesion_share(lesions: Lesions, visit: Visit, anatomy: Anatomy) -> Field:
    """How much of white matter is lesion at a visit.

    Args:
        lesions: The person's.
        visit: Its disease decides how many there are, its brain age how far age-related ones reach.
        anatomy: Makes age-related ones patchy in the person's own way.

    Returns:
        Share from 0 to 1 over the brain's box in MNI space, every second millimetre.
    """
    ventricle = template_head().ventricle
    thin = ventricle.values[::FIELD_STEP, ::FIELD_STEP, ::FIELD_STEP]
    spacing_mm = FIELD_STEP * ventricle.spacing_mm
    share = _age_related(thin, ventricle.origin_mm, spacing_mm, visit.brain_age_years, anatomy)
    count = lesion_count(visit)
    for centre, radius in zip(lesions.centre_mm[:count], lesions.radius_mm[:count], strict=True):
        low = np.floor((centre - radius - EDGE_MM - ventricle.origin_mm) / spacing_mm).astype(int)
        high = np.ceil((centre + radius + EDGE_MM - ventricle.origin_mm) / spacing_mm).astype(int) + 1
        box = tuple(slice(max(a, 0), b) for a, b in zip(low, high, strict=True))
        axes = [spacing_mm * np.arange(part.start, min(part.stop, n)) for part, n in zip(box, share.shape, strict=True)]
        steps = [a + o - c for a, o, c in zip(axes, ventricle.origin_mm, centre, strict=True)]
        distance = np.sqrt(sum(np.square(v) for v in np.meshgrid(*steps, indexing="ij", sparse=True)))
        blob = smoothstep((radius - distance) / EDGE_MM + 0.5).astype(np.float32)
        share[box] = np.maximum(share[box], blob)
    return Field(share, ventricle.origin_mm, spacing_mm)


def _age_related(
    distance_mm: np.ndarray, origin_mm: tuple[float, ...], spacing_mm: float, brain_age_years: float, anatomy: Anatomy
) -> np.ndarray:
    """Hyperintensity around the ventricles, which grows with brain age and is patchy."""
    reach = AGE_REACH_MM * float(smoothstep(np.asarray((brain_age_years - AGE_START_YEARS) / AGE_SPAN_YEARS)))
    share = np.zeros(distance_mm.shape, dtype=np.float32)
    near = np.nonzero((distance_mm > 0) & (distance_mm < AGE_REACH_MM + 4 * AGE_PATCHES_MM))
    points = (np.stack(near) * spacing_mm + np.reshape(origin_mm, (3, 1))).astype(np.float32)
    patches = AGE_PATCHES_MM * (anatomy.ageing_pace(points) - 1) / 0.1
    depth = reach * (1 + 0.3 * patches) + patches - 2 * AGE_PATCHES_MM - distance_mm[near]
    share[near] = 0.8 * smoothstep(depth / EDGE_MM + 0.5) * (points[2] > -20)
    return share
