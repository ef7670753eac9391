"""Who takes part in a phantom cohort, and the effects that are planted in their brain ages.

Every draw has a stream of its own, keyed by the seed and the subject's number, so that a larger cohort begins with the
same people as a smaller one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

EDSS = np.array([0.0, *np.arange(1.0, 8.0, 0.5)])
EDSS_WEIGHTS = (EDSS + 0.7) * np.exp(-EDSS / 1.9) / np.sum((EDSS + 0.7) * np.exp(-EDSS / 1.9))
LONGEST_DURATION_YEARS, EARLIEST_ONSET_YEARS = 20.0, 12.0
GOLDEN = (5**0.5 - 1) / 2
# Streams never share a number with another purpose; all keys have four parts, since SeedSequence pads with zeros.
COHORT, BLOCK, PERSON, SESSION, ANATOMY, SCAN, SITE, LESIONS, CONTRAST, PROTOCOL, SLICES, MISSING, EDUCATION = range(
    1, 14
)

HEALTHY_PAD_SD_YEARS = 2.0
MS_YEARS = 6.0
EDSS_YEARS_PER_POINT = 1.2
DURATION_YEARS_PER_YEAR = 0.15
PROGRESSION_YEARS_PER_YEAR = {"HC": 0.0, "MS": 0.6}
PROGRESSION_SD_YEARS_PER_YEAR = 0.15
EDSS_POINTS_PER_YEAR, EDSS_POINTS_PER_YEAR_PER_PAD_YEAR = 0.12, 0.02
# A negative control: it goes with nothing, so an association with it is a false one.
EDUCATION_MEAN_YEARS, EDUCATION_SD_YEARS = 14.0, 3.0
EDUCATION_LIMITS_YEARS = (6.0, 22.0)


@dataclass(frozen=True)
class Visit:
    """One session: `edss` and `duration_years` are None without MS; `scores` holds other clinical scales by column."""

    session: int
    years_since_baseline: float
    age_years: float
    edss: float | None
    duration_years: float | None
    true_pad_years: float
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def brain_age_years(self) -> float:
        """What the anatomy shows."""
        return self.age_years + self.true_pad_years


@dataclass(frozen=True)
class Person:
    """One participant; `number` counts from 0, `site` within the cohort from 0."""

    number: int
    sex: str
    site: int
    diagnosis: str
    phenotype: str
    visits: tuple[Visit, ...]


def stream(seed: int, purpose: int, first: int, second: int = 0) -> np.random.Generator:
    """Open the random stream of one purpose and one thing."""
    return np.random.default_rng(np.random.SeedSequence((seed, purpose, first, second)))


def edss_centre() -> float:
    """The population mean of EDSS: where its planted effect is zero."""
    return float(np.sum(EDSS * EDSS_WEIGHTS))


@functools.cache
def duration_centre_years(age_range_years: tuple[float, float]) -> float:
    """The population mean of disease duration, given that nobody falls ill before the age of 12."""
    ages = np.linspace(*age_range_years, 10_001)
    return float(np.mean(np.minimum(LONGEST_DURATION_YEARS, ages - EARLIEST_ONSET_YEARS)) / 2)


def education_years(seed: int, number: int) -> float:
    """Years at school and after, which have no part in a participant's brain age or disease."""
    drawn = EDUCATION_MEAN_YEARS + EDUCATION_SD_YEARS * stream(seed, EDUCATION, number).standard_normal()
    return float(np.clip(round(drawn), *EDUCATION_LIMITS_YEARS))


def planted_effects(
    age_range_years: tuple[float, float], duration_years_per_year: float = DURATION_YEARS_PER_YEAR
) -> dict[str, object]:
    """The coefficients of the true brain-PAD, under the names that truth.json gives them."""
    return {
        "diagnosis_ms_years": MS_YEARS,
        "edss_years_per_point": EDSS_YEARS_PER_POINT,
        "edss_centre": edss_centre(),
        "duration_years_per_year": duration_years_per_year,
        "education_years_per_year": 0.0,
        "duration_centre": duration_centre_years(age_range_years),
        "healthy_pad_sd_years": HEALTHY_PAD_SD_YEARS,
        "progression_years_per_year": dict(PROGRESSION_YEARS_PER_YEAR),
        "progression_sd_years_per_year": PROGRESSION_SD_YEARS_PER_YEAR,
        "edss_points_per_year": EDSS_POINTS_PER_YEAR,
        "edss_points_per_year_per_pad_year": EDSS_POINTS_PER_YEAR_PER_PAD_YEAR,
    }


def drawn_group(seed: int, number: int, patients: float) -> tuple[bool, int]:
    """Whether a participant is a patient, and which one of the patients or of the healthy, from 0."""
    start = stream(seed, COHORT, 0).random()
    before = int(np.floor(number * patients + start))
    ill = int(np.floor((number + 1) * patients + start)) > before
    return ill, before if ill else number - before


def seat(seed: int, group: int, rank: int, sites: int) -> tuple[str, int, float]:
    """Sex, site, and place in the age range from 0 to 1.

    Within a group, ages fill the range evenly and sites and sexes come in shuffled blocks, so that none of the three
    tells anything of another, even in a small cohort.
    """
    block, place = divmod(rank, 2 * sites)
    cell = int(stream(seed, BLOCK, group, block).permutation(2 * sites)[place])
    share = (stream(seed, COHORT, 1 + group).random() + rank * GOLDEN) % 1.0
    return "FM"[cell % 2], cell // 2, share


def draw_person(
    seed: int,
    number: int,
    sites: int,
    patients: float,
    sessions: int,
    age_range_years: tuple[float, float],
    duration_years_per_year: float = DURATION_YEARS_PER_YEAR,
) -> Person:
    """Draw one participant.

    Args:
        seed: The cohort's seed.
        number: Which participant, from 0.
        sites: How many sites the cohort has.
        patients: Fraction with MS.
        sessions: Visits of each participant, about a year apart.
        age_range_years: Youngest and oldest age at baseline.
        duration_years_per_year: Brain-PAD per year of disease duration.

    Returns:
        The person with all visits.
    """
    ill, rank = drawn_group(seed, number, patients)
    sex, site, share = seat(seed, int(ill), rank, sites)
    low, high = age_range_years
    age_years = round(low + (high - low) * share, 2)
    rng = stream(seed, PERSON, number)
    edss = float(rng.choice(EDSS, p=EDSS_WEIGHTS)) if ill else None
    longest = min(LONGEST_DURATION_YEARS, age_years - EARLIEST_ONSET_YEARS)
    duration = round(longest * rng.random(), 2) if ill else None
    phenotype = _phenotype(rng, edss, duration)
    by_duration = 0.0
    if duration is not None:
        by_duration = duration_years_per_year * (duration - duration_centre_years(age_range_years))
    visits = _visits(seed, number, sessions, age_years, edss, duration, by_duration)
    return Person(number, sex, site, "MS" if ill else "HC", phenotype, visits)


def _phenotype(rng: np.random.Generator, edss: float | None, duration: float | None) -> str:
    """CIS is early and mild, SPMS late and severe, PPMS one in ten of the rest."""
    luck = rng.random()
    if edss is None or duration is None:
        return "n/a"
    if duration < 2 and edss <= 3:
        return "CIS"
    if luck < 0.1:
        return "PPMS"
    return "SPMS" if edss >= 4 and duration > 5 else "RRMS"


def _visits(
    seed: int,
    number: int,
    sessions: int,
    age_years: float,
    edss: float | None,
    duration: float | None,
    by_duration_years: float,
) -> tuple[Visit, ...]:
    rng = stream(seed, SESSION, number)
    pad = HEALTHY_PAD_SD_YEARS * rng.standard_normal()
    slope = PROGRESSION_SD_YEARS_PER_YEAR * rng.standard_normal()
    if edss is not None:
        pad += MS_YEARS + EDSS_YEARS_PER_POINT * (edss - edss_centre())
        pad += by_duration_years
    slope += PROGRESSION_YEARS_PER_YEAR["HC" if edss is None else "MS"]
    visits = []
    for session in range(sessions):
        own = stream(seed, SESSION, number, 1 + session)
        years = round(session + (0.15 * own.uniform(-1, 1) if session else 0.0), 2)
        disability = edss if session == 0 or edss is None else _later_edss(own, edss, pad, years)
        ill_for = None if duration is None else round(duration + years, 2)
        visits.append(Visit(session, years, round(age_years + years, 2), disability, ill_for, pad + slope * years))
    return tuple(visits)


def _later_edss(rng: np.random.Generator, edss: float, pad_years: float, years: float) -> float:
    """Disability grows faster in those whose brains looked older at baseline."""
    pace = EDSS_POINTS_PER_YEAR + EDSS_POINTS_PER_YEAR_PER_PAD_YEAR * (pad_years - MS_YEARS)
    latent = float(np.clip(edss + pace * years + 0.2 * rng.standard_normal(), 0, 9.5))
    # EDSS has no 0.5: the scale goes from 0 straight to 1.
    return float(latent >= 0.5) if latent < 1 else round(2 * latent) / 2
