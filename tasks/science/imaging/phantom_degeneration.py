"""Alzheimer's and Parkinson's disease: brains that look older than they are, the more so the worse the disease.

Both diseases are planted through brain age alone: the anatomy is that of an older healthy brain. Whatever a model finds
beyond that (a temporal or a midbrain pattern) is not in these heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .phantom_people import HEALTHY_PAD_SD_YEARS, PERSON, SESSION, Person, Visit, drawn_group, seat, stream

# Patients are this old at least, or in the upper half of a younger cohort's range.
EARLIEST_PATIENT_YEARS = 50.0
HEALTHY_SLOPE_SD_YEARS_PER_YEAR = 0.15
# Clinical Dementia Rating, sum of six boxes: half points, since boxes hold 0, 0.5, 1, 2 and 3; above this, some half
# points cannot be reached.
CDR_SB_LIMITS = (0.5, 15.0)
MOST_MMSE, MMSE_HEALTHY, MMSE_AT_NO_CDR, MMSE_PER_CDR_SB = 30, 28.9, 27.5, -1.2
# Movement Disorder Society's revision of the UPDRS, part III: 33 items of 0 to 4.
UPDRS_III_LIMITS = (4.0, 132.0)
STAGE_AT_NO_UPDRS, STAGES_PER_UPDRS_POINT, STAGES = 1.1, 1 / 25, (1, 5)


@dataclass(frozen=True)
class Disease:
    """One disease: its effect on brain-PAD, and the scale that measures it.

    Attributes:
        name: As in participants.tsv.
        scale: Column of its severity.
        pad_years: Mean brain-PAD of patients at baseline.
        pad_years_per_point: Brain-PAD per point of the scale about its centre.
        growth_years_per_year: Mean growth of brain-PAD.
        growth_sd: Spread of that growth between patients, years per year.
        points_per_year: Mean progression on the scale.
        points_per_year_per_pad_year: Faster progression where the brain looked older at baseline.
        points_per_growth_year: Progression that goes with each year by which brain-PAD grows beyond the mean.
        floor, mean_above, step: The scale at baseline is `floor` plus a gamma variate of shape 2, in steps.
        noise_points: Of each later visit.
        limits: Lowest and highest value of a patient.
    """

    name: Literal["AD", "PD"]
    scale: Literal["cdr_sb", "updrs_iii"]
    pad_years: float
    pad_years_per_point: float
    growth_years_per_year: float
    growth_sd: float
    points_per_year: float
    points_per_year_per_pad_year: float
    points_per_growth_year: float
    floor: float
    mean_above: float
    step: float
    noise_points: float
    limits: tuple[float, float]

    @property
    def centre(self) -> float:
        """Where the planted effect of severity is zero: the population mean of the scale at baseline."""
        return self.floor + self.mean_above

    def on_scale(self, value: float) -> float:
        """The nearest value that the scale has."""
        return float(np.clip(self.step * round(value / self.step), *self.limits))


# In units of the scale; sizes as in published cohorts, where AD shows gaps of five to ten years and PD of about three.
ALZHEIMER = Disease("AD", "cdr_sb", 7.0, 0.9, 1.3, 0.4, 1.3, 0.12, 1.2, 1.0, 4.0, 0.5, 0.3, CDR_SB_LIMITS)
PARKINSON = Disease("PD", "updrs_iii", 4.0, 0.16, 0.8, 0.4, 3.0, 0.3, 4.0, 6.0, 18.0, 1.0, 1.5, UPDRS_III_LIMITS)
DISEASES = (ALZHEIMER, PARKINSON)


def draw_older(
    seed: int, number: int, sites: int, patients: float, sessions: int, age_range_years: tuple[float, float]
) -> Person:
    """Draw one participant of a memory and movement clinic.

    Args:
        seed: The cohort's seed.
        number: Which participant, from 0.
        sites: How many sites the cohort has.
        patients: Fraction that is ill, of AD and of PD in turns.
        sessions: Visits of each participant, about a year apart.
        age_range_years: Youngest and oldest age at baseline; patients are 50 years old at least.

    Returns:
        The person with all visits: the diagnosis is `CU` (cognitively unimpaired), `AD` or `PD`.
    """
    ill, rank = drawn_group(seed, number, patients)
    which, rank = (rank % len(DISEASES), rank // len(DISEASES)) if ill else (-1, rank)
    disease = DISEASES[which] if ill else None
    sex, site, share = seat(seed, 1 + which, rank, sites)
    low, high = age_range_years
    low = max(low, min(EARLIEST_PATIENT_YEARS, (low + high) / 2)) if ill else low
    age_years = round(low + (high - low) * share, 2)
    visits = _visits(seed, number, sessions, age_years, disease)
    return Person(number, sex, site, "CU" if disease is None else disease.name, "n/a", visits)


def _visits(seed: int, number: int, sessions: int, age_years: float, disease: Disease | None) -> tuple[Visit, ...]:
    person, changes = stream(seed, PERSON, number), stream(seed, SESSION, number)
    severity = None if disease is None else _severity_at_baseline(person, disease)
    # What a scale says of a person beyond the disease: the same at every visit.
    traits = person.standard_normal(2)
    pad = HEALTHY_PAD_SD_YEARS * changes.standard_normal()
    unusual = changes.standard_normal()
    slope = HEALTHY_SLOPE_SD_YEARS_PER_YEAR * unusual
    pace = 0.0
    if disease is not None and severity is not None:
        pad += disease.pad_years + disease.pad_years_per_point * (severity - disease.centre)
        slope = disease.growth_years_per_year + disease.growth_sd * unusual
        pace = disease.points_per_year + disease.points_per_year_per_pad_year * (pad - disease.pad_years)
        pace += disease.points_per_growth_year * disease.growth_sd * unusual
    visits = []
    for session in range(sessions):
        own = stream(seed, SESSION, number, 1 + session)
        years = round(session + (0.15 * own.uniform(-1, 1) if session else 0.0), 2)
        noise = own.standard_normal(2) * (session > 0)
        now = severity
        if disease is not None and severity is not None:
            now = disease.on_scale(severity + pace * years + disease.noise_points * noise[0])
        scores = _scores(disease, now, traits, noise[1])
        visits.append(Visit(session, years, round(age_years + years, 2), None, None, pad + slope * years, scores))
    return tuple(visits)


def _severity_at_baseline(rng: np.random.Generator, disease: Disease) -> float:
    return disease.on_scale(disease.floor + disease.mean_above / 2 * rng.standard_gamma(2.0))


def _scores(disease: Disease | None, severity: float | None, traits: np.ndarray, noise: float) -> dict[str, float]:
    """What the clinic notes: MMSE of everybody, CDR-SB of those without PD, motor scales of those with it."""
    mmse = MMSE_HEALTHY + 0.8 * traits[0] + 0.3 * noise
    if disease is None or severity is None:
        return {"mmse": _whole(mmse, 0, MOST_MMSE), "cdr_sb": 0.0}
    if disease is ALZHEIMER:
        mmse += MMSE_AT_NO_CDR - MMSE_HEALTHY + MMSE_PER_CDR_SB * severity
        return {"mmse": _whole(mmse, 0, MOST_MMSE), "cdr_sb": severity}
    stage = STAGE_AT_NO_UPDRS + STAGES_PER_UPDRS_POINT * severity + 0.3 * traits[1]
    return {"mmse": _whole(mmse, 0, MOST_MMSE), "updrs_iii": severity, "hoehn_yahr": _whole(stage, *STAGES)}


def _whole(value: float, low: int, high: int) -> float:
    return float(np.clip(round(value), low, high))


def degeneration_effects() -> dict[str, object]:
    """What is planted in AD and PD, under the names that truth.json gives it."""
    effects: dict[str, object] = {"healthy_pad_sd_years": HEALTHY_PAD_SD_YEARS, "education_years_per_year": 0.0}
    for disease in DISEASES:
        name, scale = disease.name.lower(), disease.scale
        effects |= {
            f"diagnosis_{name}_years": disease.pad_years,
            f"{scale}_years_per_point": disease.pad_years_per_point,
            f"{scale}_centre": disease.centre,
            f"{scale}_points_per_year": disease.points_per_year,
            f"{scale}_points_per_year_per_pad_year": disease.points_per_year_per_pad_year,
            f"{scale}_points_per_growth_year": disease.points_per_growth_year,
        }
    growth = {disease.name: disease.growth_years_per_year for disease in DISEASES}
    spread = {disease.name: disease.growth_sd for disease in DISEASES}
    effects["progression_years_per_year"] = {"CU": 0.0} | growth
    effects["progression_sd_years_per_year"] = {"CU": HEALTHY_SLOPE_SD_YEARS_PER_YEAR} | spread
    return effects
