"""BIDS tables as text: cells are data only, and whatever is irregular about them is said."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from .problems import Problem, quoted

MISSING_TEXTS = frozenset({"", "n/a", "na", "nan"})
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
THOUSANDS_COMMA = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
ZERO_PADDED = re.compile(r"[+-]?0[0-9].*")
LINE_END = re.compile(r"\r\n|\r|\n")
# A cell that holds these can rewrite a terminal's lines or hide what a table says; no BIDS table needs them.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u200b-\u200f\u2028-\u202e\u2060-\u2069]")
MAX_COLUMNS = 5000
LONGEST_COLUMN_NAME = 255

Cells = dict[str, str | None]


@dataclass(frozen=True)
class TextTable:
    """A table of text: its columns in order, and one mapping per row with None for what is missing."""

    columns: tuple[str, ...]
    rows: tuple[Cells, ...]


def read_tsv(data: bytes, path: str, known_columns: frozenset[str], said: list[Problem]) -> TextTable:
    """Read a TSV as people really write it: byte-order marks, Windows line ends, stray blanks, ragged rows.

    Args:
        data: The file's bytes.
        path: Its name in problems.
        known_columns: Lower-case names that are recognised in any case ("Age" becomes "age").
        said: Problems are appended here.

    Returns:
        The table; no columns where the file is empty.
    """
    numbered = enumerate(LINE_END.split(_without_control(decoded(data, path, said), path, said)), start=1)
    lines = [(number, line) for number, line in numbered if line.strip()]
    if not lines:
        said.append(Problem(path, "empty-table", "The table is empty. Write its header and rows, or remove the file."))
        return TextTable((), ())
    columns = lines[0][1].count("\t") + 1
    if columns > MAX_COLUMNS:
        message = f"The table has {columns} columns, so it is not used; {MAX_COLUMNS} are accepted. Is it turned over?"
        said.append(Problem(path, "unusable-table", message))
        return TextTable((), ())
    header = _header(lines[0][1], path, known_columns, said)
    rows = [_row(line, number, header, path, said) for number, line in lines[1:]]
    return TextTable(tuple(header), tuple(rows))


def decoded(data: bytes, path: str, said: list[Problem]) -> str:
    """Read bytes as text: UTF-8, with or without a byte-order mark, UTF-16 where one says so, else Latin-1."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        said.append(Problem(path, "encoding", "The table is UTF-16; it was read as that. Save it as UTF-8."))
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = (
            f"Byte {error.start} is not UTF-8; the table was read as Latin-1. Check its accents, save it as UTF-8."
        )
        said.append(Problem(path, "encoding", message))
        return data.decode("latin-1")


def _without_control(text: str, path: str, said: list[Problem]) -> str:
    clean, count = CONTROL.subn("\ufffd", text)
    if count:
        message = f"{count} control or invisible characters stand in the table; each is read as \ufffd. Remove them."
        said.append(Problem(path, "control-characters", message))
    return clean


def _header(line: str, path: str, known_columns: frozenset[str], said: list[Problem]) -> list[str]:
    names: list[str] = []
    for position, cell in enumerate(_split(line), start=1):
        name = cell.casefold() if cell.casefold() in known_columns else cell
        short = name if len(name) <= LONGEST_COLUMN_NAME else ""
        unique, number = short or f"column_{position}", 2
        while unique in names:
            unique, number = f"{name}_{number}", number + 1
        if unique != name:
            fault = "which is empty, repeated or too long"
            message = f"Column {position} is named {quoted(name)}, {fault}; it is called {unique!r}."
            said.append(Problem(path, "column-name", message))
        names.append(unique)
    return names


def _row(line: str, number: int, header: Sequence[str], path: str, said: list[Problem]) -> Cells:
    cells = _split(line)
    while len(cells) > len(header) and not cells[-1]:
        cells.pop()
    if len(cells) == len(header):
        return {name: None if is_missing(cell) else cell for name, cell in zip(header, cells, strict=True)}
    ragged = f"Line {number} ({quoted(cells[0])}) has {len(cells)} cells, the header has {len(header)}"
    if len(cells) < len(header):
        said.append(Problem(path, "ragged-row", f"{ragged}; the last ones count as missing. Write n/a in each."))
        padded = [*cells, *[""] * (len(header) - len(cells))]
        return {name: None if is_missing(cell) else cell for name, cell in zip(header, padded, strict=True)}
    said.append(Problem(path, "ragged-row", f"{ragged}; its values may be shifted, so all but its name are missing."))
    return {name: cells[0] if position == 0 else None for position, name in enumerate(header)}


def _split(line: str) -> list[str]:
    cells = [cell.strip() for cell in line.split("\t")]
    return [cell[1:-1].strip() if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell for cell in cells]


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no value: empty, n/a, NA or nan, in any case.

    >>> [is_missing(cell) for cell in ("n/a", "", "0", "none")]
    [True, True, False, False]
    """
    return cell.casefold() in MISSING_TEXTS


def as_number(text: str) -> float | None:
    """Read a plain decimal number; anything else is None, `inf`, `1_000` and non-Latin digits included.

    >>> [as_number(text) for text in ("1.5", "-2", "1e3", "1_000", "1,5", "inf", "1e999")]
    [1.5, -2.0, 1000.0, None, None, None, None]
    """
    if not NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def typed_column(values: Sequence[str | None]) -> tuple[pd.Series, str]:
    """Give a column of text its type: numbers if every value is one, else text.

    A column with a zero-padded value ("007") holds codes, not amounts, and stays text. Decimal commas are read as such
    unless one could be a thousands separator ("1,234"); then the column stays text rather than be wrong by 1,000.

    Args:
        values: Cells; None is missing.

    Returns:
        The column (float64 with NaN, or str), and what to say about it ("" if nothing).
    """
    present = [value for value in values if value is not None]
    if any(ZERO_PADDED.fullmatch(value) and "." not in value and "," not in value for value in present):
        return pd.Series(values, dtype="str"), ""
    with_comma = [value for value in present if DECIMAL_COMMA.fullmatch(value)]
    if not with_comma:
        return _numbers_or_text(values, present), ""
    if any(THOUSANDS_COMMA.fullmatch(value) for value in with_comma):
        return pd.Series(
            values, dtype="str"
        ), f"values such as {quoted(with_comma[0])} could be thousands: kept as text"
    points = [value.replace(",", ".") if value and DECIMAL_COMMA.fullmatch(value) else value for value in values]
    column = _numbers_or_text(points, [value for value in points if value is not None])
    if column.dtype != "float64":
        return pd.Series(values, dtype="str"), ""
    return column, f"{len(with_comma)} values have decimal commas ({quoted(with_comma[0])}): read as decimals"


def _numbers_or_text(values: Sequence[str | None], present: Sequence[str]) -> pd.Series:
    if any(as_number(value) is None for value in present):
        return pd.Series(values, dtype="str")
    return pd.Series([math.nan if value is None else float(value) for value in values], dtype="float64")
