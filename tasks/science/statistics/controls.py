"""Who is a healthy control, and whether the model is centred in them.

In healthy people predicted age should equal age on average. A mean brain-PAD away from 0 is the model's or the
scanner's, and every patient of that site carries it, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .bootstrap import MIN_SUBJECTS_FOR_INTERVAL, subject_keys
from .comparison import bootstrap_means

NAN = float("nan")
COLUMNS = ["cohort", "correction", "who", "n_subjects", "n_scans", "mean_pad_years", "ci_low", "ci_high", "note"]
PREDICTORS = {"raw": "predicted_age_years", "bias-corrected": "corrected_age_years"}


def are_controls(predictions: pd.DataFrame, values: Mapping[str, Sequence[str | float]]) -> pd.Series:
    """Tell who is a healthy control: everybody of an external cohort; of a clinical one, whom its table says to be.

    Args:
        predictions: `role`, and the columns that `values` names, where the cohort has them.
        values: Column → values of controls, compared as text whatever their case. Somebody is a control where any of
            the columns says so.

    Returns:
        bool, on the index of `predictions`.
    """
    healthy = (predictions["role"] == "external").astype(bool)
    for column, accepted in values.items():
        if column in predictions:
            said = predictions[column].map(lambda value: _plain(value))
            healthy |= said.isin([_plain(value) for value in accepted]) & predictions[column].notna()
    return healthy


def _plain(value: Any) -> str:
    # A table holds 0 and 0.0 for the same code.
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return f"{float(value):g}" if number else str(value).strip().casefold()


def centring_table(predictions: pd.DataFrame, resamples: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Estimate the mean brain-PAD of each cohort's healthy controls, subjects resampled.

    Args:
        predictions: One row per scan: `cohort, role, participant_id, age_years` (the target), `predicted_age_years`,
            `is_control`; `corrected_age_years` where there is one.
        resamples: Draws of subjects; a subject's sessions travel together.
        seed: Of the draws.

    Returns:
        One row per cohort and correction, raw first (`COLUMNS`), in years. A cohort without controls has one row that
        says so; below three subjects there is no interval.
    """
    rows: list[dict[str, Any]] = []
    for cohort, table in predictions.groupby("cohort", sort=False):
        controls = table[table["is_control"].astype(bool)]
        who = "everybody" if len(controls) == len(table) else "controls"
        for correction, column in PREDICTORS.items():
            known = controls[controls[column].notna()] if column in controls else controls.iloc[:0]
            if len(known) or correction == "raw":
                own = {"cohort": cohort, "correction": correction, "who": who}
                rows.append(own | _mean_pad(known, column, resamples, seed))
    return pd.DataFrame(rows, columns=COLUMNS)


def _mean_pad(rows: pd.DataFrame, column: str, resamples: int, seed: int) -> dict[str, Any]:
    result: dict[str, Any] = {"n_subjects": 0, "n_scans": len(rows), "ci_low": NAN, "ci_high": NAN, "note": ""}
    if rows.empty:
        return result | {"mean_pad_years": NAN, "note": "nobody is known to be a healthy control"}
    pad = rows[column].to_numpy(dtype=float) - rows["age_years"].to_numpy(dtype=float)
    subject, names = pd.factorize(subject_keys(rows))
    result |= {"n_subjects": len(names), "mean_pad_years": float(pad.mean())}
    if len(names) < MIN_SUBJECTS_FOR_INTERVAL:
        return result | {"note": f"fewer than {MIN_SUBJECTS_FOR_INTERVAL} subjects: no interval"}
    low, high = np.percentile(bootstrap_means(pad, subject, resamples, seed), [2.5, 97.5])
    return result | {"ci_low": float(low), "ci_high": float(high)}
