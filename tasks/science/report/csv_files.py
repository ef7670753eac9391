"""Tables as CSV, safe to open in a spreadsheet."""

from __future__ import annotations

import pandas as pd

SPREADSHEET_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_text(frame: pd.DataFrame, digits: int = 6) -> str:
    """Write a table as CSV, UTF-8, missing cells empty.

    Text that a spreadsheet would run as a formula is preceded by an apostrophe.

    Args:
        frame: Any table.
        digits: Significant digits of numbers that are not whole.
    """
    guarded = frame.rename(columns=_guarded).map(_guarded)
    return guarded.to_csv(index=False, lineterminator="\n", float_format=f"%.{digits}g")


def _guarded(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(SPREADSHEET_FORMULA_STARTS) else cell
