"""What a network learns to predict: the age at the scan, or what somebody has read from it."""

from __future__ import annotations

import pandas as pd

from ...records import Excluded, TargetSpec

MONTHS_PER_YEAR = 12.0
STAGE = "target"


def target_years(scans: pd.DataFrame, target: TargetSpec) -> pd.Series:
    """Read the target of each scan, in years whatever its unit.

    Args:
        scans: Column `age_years`, and the target's own.
        target: Which column, in which unit.

    Returns:
        float64 on the index of `scans`; NaN where a scan has none.

    Raises:
        ValueError: The column holds text.

    >>> target_years(pd.DataFrame({"age_years": [1.0], "read": [6.0]}), TargetSpec("read", "months")).tolist()
    [0.5]
    """
    if target.column == "age_years":
        return scans["age_years"].astype("float64")
    # A cohort may not know it: its scans are predicted, and take no part in the error.
    if target.column not in scans:
        return pd.Series(float("nan"), index=scans.index)
    values = scans[target.column]
    if len(values) and not pd.api.types.is_numeric_dtype(values):
        raise ValueError(
            f"the target column {target.column!r} holds text, as {values.dropna().iloc[0]!r}; "
            f"it must hold {target.unit}."
        )
    per_year = MONTHS_PER_YEAR if target.unit == "months" else 1.0
    return values.astype("float64") / per_year


def without_target(scans: pd.DataFrame, target: TargetSpec, already: set[str]) -> tuple[Excluded, ...]:
    """Name the scans of a training cohort that nothing can be learnt from.

    Args:
        scans: Columns scan_id, sha256 and target_years.
        target: What they lack.
        already: Scans that are excluded for another reason.
    """
    lacking = scans[scans["target_years"].isna() & ~scans["scan_id"].isin(already)]
    return tuple(
        Excluded(scan_id, sha256, STAGE, f"the session has no {target.column}, which the study trains on")
        for scan_id, sha256 in zip(lacking["scan_id"], lacking["sha256"], strict=True)
    )
