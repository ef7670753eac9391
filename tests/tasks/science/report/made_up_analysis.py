"""Made-up analyses with every kind of figure: no cohort or person of them exists."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from tasks.records import AssociationSpec
from tasks.science.statistics.analysis import Analysis, analyse, gathered
from tasks.science.statistics.association import fit_association
from tasks.science.statistics.association_fit import HETEROGENEITY_COLUMNS, AssociationFit

DIAGNOSIS = AssociationSpec(
    "diagnosis",
    'brain_pad_years ~ C(diagnosis, ref="HC") + age_years + sex + site',
    effects=("diagnosis",),
)
SEVERITY = AssociationSpec(
    "severity",
    "brain_pad_years ~ edss + disease_duration_years + age_years + sex",
    effects=("edss", "disease_duration_years"),
    where={"diagnosis": ("MS", "PPMS")},
)
PROGRESSION = AssociationSpec(
    "progression",
    'brain_pad_years ~ C(diagnosis, ref="HC") * years_since_baseline + age_years_baseline + sex',
    sessions="all",
    effects=("diagnosis", "years_since_baseline", "diagnosis:years_since_baseline"),
)
IMPOSSIBLE = AssociationSpec("impossible", "brain_pad_years ~ site + age_years", where={"site": ("Aarhus",)})


def clinic(n_subjects: int = 90, sessions: int = 2, seed: int = 11) -> pd.DataFrame:
    """People with and without MS at three sites, with planted effects and some values missing."""
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(n_subjects), sessions)
    years = np.tile(np.arange(sessions) * 1.5, n_subjects)
    diagnosis = rng.choice(["HC", "MS", "PPMS"], n_subjects, p=[0.45, 0.4, 0.15])
    is_patient = diagnosis != "HC"
    age = rng.uniform(22, 70, n_subjects)
    duration = np.where(is_patient, rng.gamma(2, 4, n_subjects).clip(0, age - 18), np.nan)
    edss = np.where(
        is_patient, np.round(2 * (1 + 0.15 * duration + rng.normal(0, 1, n_subjects)).clip(1, 9)) / 2, np.nan
    )
    planted = np.where(diagnosis == "PPMS", 8.0, np.where(is_patient, 5.0, 0.0)) - 0.1 * (age - 45)
    own = planted + rng.normal(0, 2.5, n_subjects)
    grows = np.where(is_patient, 0.5, 0.0)[subject] * years
    table = pd.DataFrame(
        {
            "participant_id": [f"sub-{i:03d}" for i in subject],
            "session_id": [f"ses-{int(y / 1.5) + 1}" for y in years],
            "cohort": "clinic",
            "years_since_baseline": years,
            "age_years": age[subject] + years,
            "sex": rng.choice(["F", "M"], n_subjects)[subject],
            "site": rng.choice(["Aarhus", "Bergen", "Göteborg"], n_subjects)[subject],
            "diagnosis": diagnosis[subject],
            "edss": edss[subject],
            "disease_duration_years": duration[subject],
            "brain_pad_years": own[subject] + grows + rng.normal(0, 1.5, len(subject)),
        }
    )
    table.loc[[0, 40], "age_years"] = np.nan
    table.loc[table.index[table["diagnosis"] == "MS"][:3], "edss"] = np.nan
    return table


def over_sites() -> AssociationFit:
    """One effect of four sites, pooled, as shared estimates give it: no rows, no coding."""
    base = fit_association(replace(SEVERITY, name="pooled", effects=("edss",)), clinic(sessions=1))
    rows = base.coefficients[base.coefficients["term"] == "edss"]
    pooled = rows.assign(model="pooled", estimate=0.8, se=0.2, df=3.0, ci_low=0.16, ci_high=1.44, p_value=0.03)
    strata = pd.DataFrame(
        [
            ("Aarhus", 0.9, 0.3, 0.3, 1.5, 40, 0.3),
            ("Bergen", 0.5, 0.4, -0.3, 1.3, 30, 0.2),
            ("Göteborg", 1.1, 0.35, 0.4, 1.8, 33, 0.24),
            ("Turku", 0.7, 0.3, 0.1, 1.3, 41, 0.26),
        ],
        columns=["stratum", "estimate", "se", "ci_low", "ci_high", "n", "weight"],
    ).assign(term="edss", df=20.0)
    spread = pd.DataFrame([("edss", 4, 0.02, 0.13, 2.1, 3, 0.55, -0.1, 1.7, "REML")], columns=HETEROGENEITY_COLUMNS)
    return replace(
        base,
        coefficients=pooled.reset_index(drop=True),
        kind="meta",
        method="random-effects meta-analysis, REML, Hartung-Knapp",
        coding=None,
        groups="site",
        rows=pd.DataFrame(),
        adjusted_means=base.adjusted_means.iloc[:0],
        contrasts=base.contrasts.iloc[:0],
        strata=strata,
        heterogeneity=spread,
    )


def made_up_analysis() -> Analysis:
    """Groups, slopes, courses, sites, and a model that cannot be fitted."""
    fits = [fit_association(spec, clinic()) for spec in (DIAGNOSIS, SEVERITY, PROGRESSION, IMPOSSIBLE)]
    return gathered([*fits, over_sites()])


def one_model() -> Analysis:
    """The least that has figures of rows."""
    return analyse([replace(SEVERITY, effects=("edss",))], clinic(60, sessions=1))
