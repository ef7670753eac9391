"""Which images of a session go together, where a recipe needs more than one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

SESSION = ["participant_id", "session_id"]


def with_companions(rows: pd.DataFrame, contrasts: Sequence[str]) -> pd.DataFrame:
    """Give each scan the other images of its session, and take those out of the count of scans.

    Args:
        rows: Manifest rows with `unused` (why a study did not ask for the row, or "") and `why` (why it cannot be
            used, or ""); at most one usable row per session and contrast.
        contrasts: BIDS suffixes that a session must have; the first names the scan.

    Returns:
        The rows in their order, with `companions`: scan_ids in the order of the contrasts, joined by blanks. `why`
        tells of sessions that lack a contrast, `unused` of images that go with another.
    """
    first, others = contrasts[0], contrasts[1:]
    result = rows.assign(companions="")
    if not others:
        return result
    asked = result["unused"] == ""
    scans = asked & (result["modality"] == first)
    for contrast in others:
        images = result[asked & (result["modality"] == contrast)]
        found = _of_session(result, images[images["why"] == ""], "scan_id")
        fault = _of_session(result, images[images["why"] != ""], "why")
        lacking = np.where(
            fault == "",
            f"no {contrast} in its session, which the recipe needs beside {first}",
            f"its session's {contrast} cannot be used: " + fault,
        )
        usable = scans & (result["why"] == "")
        result["why"] = result["why"].where(~usable | (found != ""), pd.Series(lacking, result.index, dtype="str"))
        result["companions"] = (result["companions"] + " " + found).where(usable & (found != ""), result["companions"])
    result["companions"] = result["companions"].str.strip()
    return _without_companions(result, asked & ~scans, first)


def _without_companions(rows: pd.DataFrame, companion: pd.Series, first: str) -> pd.DataFrame:
    scans = rows[(rows["unused"] == "") & (rows["modality"] == first)]
    # Of several scans the used one, which comes last here, stands for the session.
    scans = scans.sort_values("why", ascending=False, key=lambda why: why != "", kind="stable")
    scan = _of_session(rows, scans, "scan_id")
    alone = companion & (scan == "")
    goes_with = pd.Series(
        np.where(rows["why"] == "", "goes with " + scan, "would go with " + scan + ": " + rows["why"]), rows.index
    )
    no_scan = rows["why"].where(rows["why"] != "", f"no {first} in its session, which the recipe needs")
    return rows.assign(
        unused=rows["unused"].where(~companion | alone, goes_with).astype("str"),
        why=rows["why"].where(~alone, no_scan).astype("str"),
    )


def _of_session(rows: pd.DataFrame, images: pd.DataFrame, column: str) -> pd.Series:
    """For each row what its session's image says, "" where there is no such image."""
    by_session = images.drop_duplicates(SESSION, keep="last")[[*SESSION, column]]
    found = rows[SESSION].merge(by_session, on=SESSION, how="left", validate="many_to_one")[column]
    return pd.Series(found.fillna("").to_numpy(), rows.index, dtype="str")
