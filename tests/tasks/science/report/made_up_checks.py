"""What validation looks at beside metrics, made up by the project's own tables from made-up predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tasks.science.statistics.agreement import calibration_bins, limits_of_agreement
from tasks.science.statistics.controls import are_controls, centring_table
from tasks.science.statistics.retest import retest_table
from tasks.science.statistics.robustness import robustness_table
from tasks.science.statistics.shift import shift_table
from tasks.steps.validation_tables import agreement_points

RESAMPLES = 200


def made_up_checks(predictions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Every table that the report may show: a cohort whose SNR has moved, controls off centre, a rejected header."""
    known = predictions[predictions["status"] == "ok"].reset_index(drop=True)
    rows = known.assign(is_control=are_controls(known, {"diagnosis": ("HC",)}), target_years=known["age_years"])
    retest, pairs = retest_table(_two_sessions(rows), most_days=90)
    scans = _made_worse(rows)
    return {
        "agreement": agreement_points(rows),
        "calibration-bins": calibration_bins(rows, RESAMPLES),
        "centring": centring_table(rows, RESAMPLES),
        "limits-of-agreement": limits_of_agreement(rows, RESAMPLES),
        "retest": retest,
        "retest-pairs": pairs,
        "shift": _shift(rows),
        "robustness": robustness_table(scans, RESAMPLES),
        "robustness-scans": scans,
    }


def _two_sessions(rows: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(9)
    first = rows[rows["cohort"] == "clinic"].head(24).assign(years_since_baseline=0.0)
    later = np.where(np.arange(len(first)) < 18, 0.06, 1.5)
    again = first.assign(
        session_id="ses-02",
        years_since_baseline=later,
        age_years=first["age_years"] + later,
        predicted_age_years=first["predicted_age_years"] + later + rng.normal(0, 1.4, len(first)),
    )
    return pd.concat([first, again], ignore_index=True)


def _shift(rows: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(10)

    def figures(n: int, snr: float) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "snr": rng.normal(snr, 2, n),
                "cnr": rng.normal(2.2, 0.3, n),
                "grey_ml": rng.normal(640, 50, n),
                "nonfinite_fraction": 0.0,
                "brain_pad_years": rng.normal(0, 5, n),
            }
        )

    names = rows["cohort"].unique()
    cohorts = {str(cohort): figures(45, 17 if number else 20) for number, cohort in enumerate(names)}
    return shift_table(figures(300, 20), cohorts).assign(who="controls")


def _made_worse(rows: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(11)
    chosen = rows[rows["role"] == "external"].head(12)
    tables = []
    for kind, strength, harm in (
        ("thicker_slices", 5.0, 1.0), ("noise", 0.1, 0.5), ("noise", 0.3, 4.0), ("bias_field", 0.4, 0.3),
        ("header_turn", 90.0, 0.0),
    ):  # fmt: skip
        table = chosen.assign(
            kind=kind,
            strength=strength,
            original_age_years=chosen["predicted_age_years"],
            predicted_age_years=chosen["predicted_age_years"] + harm * rng.normal(1, 1, len(chosen)),
            turned_back=kind == "header_turn",
        )
        if kind == "header_turn":
            lost = {"status": "rejected", "predicted_age_years": np.nan, "turned_back": False}
            table.loc[table.index[:10], list(lost)] = list(lost.values())
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
