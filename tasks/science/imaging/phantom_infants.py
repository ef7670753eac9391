"""Infants from birth to 24 months: how heads grow, and how white matter myelinates from the centre and back forwards.

The contrast between grey and white matter turns round within the first year, in T1w before T2w, so that a T1w/T2w ratio
tells an infant's age better than either.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from .phantom_anatomy import WARP_ORIGIN_MM, WARP_SHAPE, WARP_SPACING_MM, Anatomy
from .phantom_people import PERSON, SESSION, Person, Visit, drawn_group, seat, stream
from .phantom_template import Field, smoothstep, template_head

MONTHS_PER_YEAR = 12
MONTHS_BETWEEN_SESSIONS = 3.0
# Size of the head per axis, relative to the same person grown up: brains of 0.49, 0.79 and 0.90 litres at 0, 6 and 12
# months in the BME-X templates, against 1.35 in adults.
SCALE_AT_BIRTH, SCALE_GAIN, SCALE_MONTHS = 0.715, 0.215, 7.0
SKULL_MM_AT_BIRTH, SKULL_MM_PER_MONTH = 3.2, 0.06
# The surfaces of a young adult: infants' sulci and ventricles do not age.
ADULT_SHAPE_YEARS = 20.0
# Myelin rises along a logistic: with `UNMYELINATED_PER_GREY`, grey and white matter look alike at about 6 months in T1w
# and at 9 in T2w (Barkovich et al. 1988, doi:10.1148/radiology.166.1.3336675); 98% is there at 24 months.
HALF_MYELIN_MONTHS, MYELIN_SCALE_MONTHS = 9.5, 3.3
MYELINATION_SD_MONTHS = 0.6
ABNORMAL_FROM_MONTHS, ABNORMAL_DELAY = 9.0, (0.35, 0.6)
REPORTED_STEP_MONTHS = 0.5


def draw_infant(
    seed: int, number: int, sites: int, abnormal: float, sessions: int, age_range_years: tuple[float, float]
) -> Person:
    """Draw one infant.

    Args:
        seed: The cohort's seed.
        number: Which participant, from 0.
        sites: How many sites the cohort has.
        abnormal: Fraction whose myelination is late; they are nine months old at least, when it can be seen.
        sessions: Visits of each participant, three months apart.
        age_range_years: Youngest and oldest age at baseline.

    Returns:
        The person with all visits: the diagnosis is `HC`, or `AM` for abnormal myelination.
    """
    late, rank = drawn_group(seed, number, abnormal)
    sex, site, share = seat(seed, int(late), rank, sites)
    low, high = (MONTHS_PER_YEAR * years for years in age_range_years)
    low = max(low, min(ABNORMAL_FROM_MONTHS, (low + high) / 2)) if late else low
    first_months = round(low + (high - low) * share, 2)
    rng = stream(seed, PERSON, number)
    own = MYELINATION_SD_MONTHS * rng.standard_normal()
    delay = rng.uniform(*ABNORMAL_DELAY) if late else 0.0
    visits = []
    for session in range(sessions):
        jitter = 0.4 * stream(seed, SESSION, number, 1 + session).uniform(-1, 1) if session else 0.0
        since = round(session * MONTHS_BETWEEN_SESSIONS + jitter, 2)
        months = round(first_months + since, 2)
        deviation_years = (own - delay * months) / MONTHS_PER_YEAR
        years = since / MONTHS_PER_YEAR
        visits.append(Visit(session, years, months / MONTHS_PER_YEAR, None, None, deviation_years))
    return Person(number, sex, site, "AM" if late else "HC", "n/a", tuple(visits))


def infant_effects() -> dict[str, object]:
    """What is planted in infants, under the names that truth.json gives it."""
    return {
        "myelination_sd_months": MYELINATION_SD_MONTHS,
        "abnormal_delay_per_month": list(ABNORMAL_DELAY),
        "half_myelin_months": HALF_MYELIN_MONTHS,
        "myelin_scale_months": MYELIN_SCALE_MONTHS,
    }


def age_months(visit: Visit) -> float:
    """Chronological age."""
    return round(MONTHS_PER_YEAR * visit.age_years, 2)


def assessed_months(visit: Visit) -> float:
    """Myelination age as a reader would state it, to half a month; the label of infant studies.

    >>> assessed_months(Visit(0, 0.0, 0.5, None, None, 0.02))
    6.0
    """
    months = max(0.0, MONTHS_PER_YEAR * visit.brain_age_years)
    return REPORTED_STEP_MONTHS * round(months / REPORTED_STEP_MONTHS)


def head_scale(months: float) -> float:
    """Size of the head per axis, relative to the same person grown up.

    >>> [round(head_scale(months) ** 3, 2) for months in (0, 6, 12, 24)]
    [0.37, 0.59, 0.71, 0.79]
    """
    return float(SCALE_AT_BIRTH + SCALE_GAIN * (1 - np.exp(-max(months, 0.0) / SCALE_MONTHS)))


def grown(anatomy: Anatomy, months: float) -> Anatomy:
    """A person's head at an age: smaller, with a thinner skull, otherwise what it will be."""
    to_mni = anatomy.head_to_mni.copy()
    to_mni[:3, :3] /= head_scale(months)
    return replace(anatomy, head_to_mni=to_mni, skull_mm=SKULL_MM_AT_BIRTH + SKULL_MM_PER_MONTH * months)


def myelin(months: float | np.ndarray) -> np.ndarray:
    """Share of white matter that is myelinated, rising with the local myelination age."""
    return 1 / (1 + np.exp((HALF_MYELIN_MONTHS - np.asarray(months)) / MYELIN_SCALE_MONTHS))


def unmyelinated_share(myelination_months: float) -> Field:
    """How much of white matter is not myelinated yet, over MNI space."""
    share = 1 - myelin(myelination_months - delay_months().values)
    return Field(share.astype(np.float32), WARP_ORIGIN_MM, WARP_SPACING_MM)


@functools.cache
def delay_months() -> Field:
    """How much later than the brain's average each place myelinates: central and posterior first, frontal last.

    Reference: Dubois et al. 2014, doi:10.1016/j.neuroscience.2013.12.044 (the order of regions).
    """
    axes = [o + WARP_SPACING_MM * np.arange(n) for o, n in zip(WARP_ORIGIN_MM, WARP_SHAPE, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    frontal = 2.6 * smoothstep((y - 5) / 50)
    temporal = 2.2 * smoothstep(-(z + 5) / 25) * smoothstep((y + 30) / 30) * smoothstep((np.abs(x) - 20) / 20)
    centre = 2.6 * np.exp(-(((np.abs(x) - 20) / 18) ** 2) - ((y + 18) / 26) ** 2 - ((z - 12) / 34) ** 2)
    occipital = 1.4 * smoothstep(-(y + 45) / 30)
    delay = (frontal + temporal - centre - occipital).astype(np.float32)
    points = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    white = template_head().white.at(points) * (template_head().hull.at(points) < 0)
    return Field(delay - np.float32(np.average(delay, weights=white)), WARP_ORIGIN_MM, WARP_SPACING_MM)
