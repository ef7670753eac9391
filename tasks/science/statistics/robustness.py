"""How much a model's error grows when its scans get worse, on the same people."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .bootstrap import MIN_SUBJECTS_FOR_INTERVAL, subject_keys
from .comparison import paired_mae_difference

NAN = float("nan")
COLUMNS = [
    "cohort", "kind", "strength", "n_subjects", "n_rejected", "n_turned_back", "n_unusable", "n_scored",
    "mae_original_years", "mae_years", "growth_years", "ci_low", "ci_high", "mean_change_years", "note",
]  # fmt: skip


def robustness_table(scans: pd.DataFrame, resamples: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Compare degraded scans with the same scans as they were.

    A scan that preprocessing rejects has no error and misleads nobody: it is counted, and for a wrong header it is the
    outcome to wish for, as is a head that is found to lie otherwise than its header says and used as it really lies
    (`n_turned_back`). Errors are compared on the scans that have an age both times.

    Args:
        scans: One row per degraded scan: `cohort, participant_id, kind, strength, age_years` (the target),
            `original_age_years` (predicted from the scan as it was), `predicted_age_years` (from the degraded one),
            `status` (`rejected`: by preprocessing; `ok`; else what the model said) and `turned_back`.
        resamples: Draws of subjects.
        seed: Of the draws.

    Returns:
        One row per cohort, kind and strength (`COLUMNS`). `growth_years` is the MAE minus that of the same scans as
        they were, with its paired 95% interval; `mean_change_years` says which way predictions moved.
    """
    rows: list[dict[str, Any]] = []
    for (cohort, kind, strength), table in scans.groupby(["cohort", "kind", "strength"], sort=False):
        rejected = table["status"] == "rejected"
        usable = (table["status"] == "ok") & table["original_age_years"].notna() & table["age_years"].notna()
        facts = {
            "cohort": cohort,
            "kind": kind,
            "strength": strength,
            "n_subjects": int(subject_keys(table).nunique()),
            "n_rejected": int(rejected.sum()),
            "n_turned_back": int((table["turned_back"].astype(bool) & ~rejected).sum()),
            "n_unusable": int((~rejected & ~usable).sum()),
            "n_scored": int(usable.sum()),
        }
        rows.append(facts | _growth(table[usable], resamples, seed))
    return pd.DataFrame(rows, columns=COLUMNS)


def _growth(scored: pd.DataFrame, resamples: int, seed: int) -> dict[str, Any]:
    if scored.empty:
        return {"note": "no scan has an age both times"}
    own, before = (scored[name].to_numpy(dtype=float) for name in ("predicted_age_years", "original_age_years"))
    found = paired_mae_difference(scored, before, resamples, seed)
    target = scored["age_years"].to_numpy(dtype=float)
    few = f"fewer than {MIN_SUBJECTS_FOR_INTERVAL} subjects: no interval"
    return {
        "mae_original_years": float(np.abs(before - target).mean()),
        "mae_years": float(np.abs(own - target).mean()),
        "growth_years": found["estimate"],
        "ci_low": found["ci_low"],
        "ci_high": found["ci_high"],
        "mean_change_years": float((own - before).mean()),
        "note": few if found["n_subjects"] < MIN_SUBJECTS_FOR_INTERVAL else "",
    }
