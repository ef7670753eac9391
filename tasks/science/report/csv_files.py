"""Tables as CSV, safe to open in a spreadsheet."""

from __future__ import annotations

import pandas as pd

SPREADSHEET_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
GUARDED_STARTS = tuple(f"'{start}" for start in SPREADSHEET_FORMULA_STARTS)


def csv_text(frame: pd.DataFrame, digits: int | None = 6) -> str:
    """Write a table as CSV, UTF-8, missing cells empty.

    Text that a spreadsheet would run as a formula is preceded by an apostrophe.

    Args:
        frame: Any table.
        digits: Significant digits of numbers that are not whole; None writes all that they have.
    """
    guarded = frame.rename(columns=_guarded).map(_guarded)
    return guarded.to_csv(index=False, lineterminator="\n", float_format=None if digits is None else f"%.{digits}g")


def without_guards(frame: pd.DataFrame) -> pd.DataFrame:
    """Read text as it was before `csv_text` guarded it."""
    return frame.map(_unguarded)


def _guarded(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(SPREADSHEET_FORMULA_STARTS) else cell


def _unguarded(cell: object) -> object:
    return cell[1:] if isinstance(cell, str) and cell.startswith(GUARDED_STARTS) else cell
