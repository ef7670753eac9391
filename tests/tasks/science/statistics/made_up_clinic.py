"""A small clinical cohort with known effects, for the tests of models."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tasks.records import AssociationSpec

FORMULA = 'brain_pad_years ~ C(diagnosis, ref="HC") + edss + age_years + sex'


def cohort(n: int = 90, sessions: int = 1, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(n), sessions)
    session = np.tile(np.arange(sessions), n)
    diagnosis = rng.choice(["HC", "MS", "NMO"], n, p=[0.4, 0.4, 0.2])[subject]
    edss = rng.choice(np.arange(1, 7, 0.5), n)[subject] + 0.5 * session
    age = rng.uniform(20, 60, n)[subject] + 1.5 * session
    noise = rng.normal(size=n)[subject] + rng.normal(size=len(subject)) * np.where(diagnosis == "MS", 4.0, 1.0)
    return pd.DataFrame(
        {
            "scan_id": [f"scan-{a}-{b}" for a, b in zip(subject, session, strict=True)],
            "cohort": "ms",
            "participant_id": [f"sub-{i:03d}" for i in subject],
            "session_id": [f"ses-{i + 1}" for i in session],
            "years_since_baseline": 1.5 * session,
            "age_years": age,
            "sex": rng.choice(["F", "M"], n)[subject],
            "site": rng.choice(["x", "y"], n)[subject],
            "diagnosis": diagnosis,
            "edss": edss,
            "brain_pad_years": 7.0 * (diagnosis == "MS") + 0.8 * edss - 0.1 * (age - 40) + noise,
        }
    )


def spec(formula: str, **options: object) -> AssociationSpec:
    return AssociationSpec(name="m", formula=formula, cohorts=("ms",), **options)  # type: ignore[arg-type]
