"""Text with delimiters, as people and spreadsheets write it: no cell is lost, and no code becomes a number, unsaid."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tasks.science.cohort.problems import examples, quoted
from tasks.science.cohort.tsv import as_number

# Text in these is a name, whatever it looks like: 007 is not 7.
NAMES = ("participant_id", "session_id", "scan_id", "cohort", "site", "sex", "gender", "stratum")
# In any column these say that there is no value; these words do so among numbers and names, and are a level elsewhere:
# a treatment may be none.
MISSING = ("", "n/a", "N/A", "NA", "na", "NaN", "nan", "NULL", "null", "#N/A", "#NULL!", "#DIV/0!", ".")
NONE = ("None", "none")
DELIMITERS = (",", ";", "\t", "|")
LINES_COMPARED = 20
# Excel says so in a line of its own.
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*')
# Few enough to stay in the processor's cache.
SCANNED_BYTES = 2**17


class Header(NamedTuple):
    """The cells of a header, and the lines that it takes, counted from 0."""

    cells: list[str]
    first: int
    end: int


def read_delimited(text: str, url: str) -> tuple[pd.DataFrame, list[str]]:
    """Read a header and rows, whichever of comma, semicolon, tab and bar separates them.

    Args:
        text: The whole file.
        url: Its name in messages.

    Returns:
        The rows, and plain sentences about how they were written.

    Raises:
        ValueError: There is nothing, a row has more cells than the header, or a quote is not closed.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    first = _next_filled(lines, 0)
    declared = SEPARATOR_LINE.fullmatch(lines[first]) if first < len(lines) else None
    first = _next_filled(lines, first + 1) if declared else first
    if first == len(lines):
        raise ValueError(f"{url} is empty; expected a header and rows.")
    delimiter = declared[1] if declared else _delimiter(lines[first:])
    _, end, _ = next(_records(lines, first, delimiter, url))
    header = Header(_split(lines[first:end], delimiter), first, end)
    said = [*_odd_header(header, url), *_fitted(lines, header, delimiter, url)]
    body = "\n".join(lines[end:])
    if not body.strip():
        raise ValueError(f"{url} has 0 rows and {len(header.cells)} columns; expected some of both.")
    rows, also = _typed(body, _names(header.cells), delimiter, url)
    return rows, said + also


def _typed(body: str, names: list[str], delimiter: str, url: str) -> tuple[pd.DataFrame, list[str]]:
    options = _options(names, delimiter)
    try:
        rows = pd.read_csv(io.StringIO(body), dtype={name: "str" for name in names if name in NAMES}, **options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{url}: its rows do not fit its header: {str(error).strip()} Correct that line.") from error
    codes = _zero_padded(rows, body, delimiter, options)
    for name in names:
        if name in codes:
            rows[name] = codes[name]
        elif not pd.api.types.is_numeric_dtype(rows[name]):
            rows[name] = _without_none(rows[name])
    if codes.empty:
        return rows, []
    first = codes.iloc[:, 0]
    value, shown = quoted(first[_is_padded(first)].iloc[0]), examples([str(name) for name in codes])
    return rows, [f"{url}: zeros stand before the numbers of {shown} ({value}): read as codes, not as amounts."]


def _next_filled(lines: list[str], start: int) -> int:
    return next((place for place in range(start, len(lines)) if lines[place].strip()), len(lines))


def _delimiter(lines: list[str]) -> str:
    """Take the sign that stands as often in the next lines as in the header, which may hold another one in a name."""
    outside_quotes = ["".join(line.split('"')[::2]) for line in lines[:LINES_COMPARED] if line.strip()]
    header = outside_quotes[0]
    marks = [mark for mark in DELIMITERS if mark in header] or [m for m in DELIMITERS if m in "".join(outside_quotes)]
    alike = {mark: sum(line.count(mark) == header.count(mark) for line in outside_quotes) for mark in marks}
    return max(marks, key=lambda mark: (alike[mark], header.count(mark)), default=",")


def _records(lines: list[str], start: int, delimiter: str, url: str) -> Iterator[tuple[int, int, int]]:
    """Say where each row begins and ends, and how many cells it has; a quoted cell may hold delimiters and line ends.

    Nearly all lines need no parser, which is slow.
    """
    place, rest = start, iter(lines[start:])
    for line in rest:
        outside = line.split('"')[::2]
        taken, width = 1, 1 + sum(part.count(delimiter) for part in outside)
        plainly = line.count('"') % 2 == 0 and all(
            not part or part.rstrip(" ").endswith(delimiter) for part in outside[:-1]
        )
        if not plainly:
            reader = csv.reader(chain([line], rest), delimiter=delimiter, skipinitialspace=True)
            try:
                width = len(next(reader))
                is_open = "".join(lines[place : place + reader.line_num]).count('"') % 2 == 1
            except csv.Error:
                is_open = True
            if is_open and place + reader.line_num == len(lines):
                raise ValueError(f"{url}: line {place + 1} opens a quote that is not closed. Close it.")
            taken = reader.line_num
        yield place, place + taken, width
        place += taken


def _split(lines: list[str], delimiter: str) -> list[str]:
    return [
        cell.strip()
        for cell in next(csv.reader([f"{line}\n" for line in lines], delimiter=delimiter, skipinitialspace=True))
    ]


def _odd_header(header: Header, url: str) -> list[str]:
    cells, where = header.cells, f"{url}: line {header.first + 1}"
    named = [cell for cell in cells if cell]
    if len(named) == 1 < len(cells) - 1:
        raise ValueError(
            f"{where} names one of {len(cells)} columns ({quoted(named[0])}); expected a name for each. "
            "Remove what stands above the header."
        )
    said = []
    numbers = [cell for cell in named if as_number(cell) is not None]
    if any("." in cell for cell in numbers) or len(numbers) > len(named) / 2:
        said.append(f"{where} holds numbers ({examples(numbers)}): is it a row? Write a header of names above it.")
    repeated = sorted({name for name in named if named.count(name) > 1})
    if repeated:
        said.append(f"{url}: the columns {examples(repeated)} stand twice; the later ones are called by a number.")
    return said


def _fitted(lines: list[str], header: Header, delimiter: str, url: str) -> list[str]:
    """Cut empty cells behind the last column away, and say which rows lack cells; the lines are changed.

    Raises:
        ValueError: A row has more cells than the header: which of them belongs where, nobody knows.
    """
    n = len(header.cells)
    n_named = max((place for place, cell in enumerate(header.cells, start=1) if cell), default=n)
    short = []
    for start, end, width in _records(lines, header.end, delimiter, url):
        extra = width
        while extra > n and (cut := lines[end - 1].rstrip(" ")).endswith(delimiter):
            lines[end - 1] = cut.removesuffix(delimiter)
            extra -= 1
        if extra > n:
            comma = "or write decimal points in place of decimal commas" if delimiter == "," else "or remove it"
            raise ValueError(
                f"{url}: its rows do not fit its header: line {start + 1} has {extra} cells, the header (line "
                f"{header.first + 1}, {quoted(lines[header.first])}) has {n}. Remove what stands above the header; "
                f"quote text that holds {quoted(delimiter)}, {comma}."
            )
        if width < n_named and any(line.strip() for line in lines[start:end]):
            short.append(str(start + 1))
    if not short:
        return []
    rows, line = (f"{len(short)} rows have", "lines") if len(short) > 1 else ("1 row has", "line")
    return [f"{url}: {rows} fewer cells than the header ({line} {examples(short)}): their last ones count as missing."]


def _names(cells: list[str]) -> list[str]:
    names: dict[str, None] = {}
    for place, cell in enumerate(cells):
        name, number = cell or f"Unnamed: {place}", 0
        while name in names:
            number += 1
            name = f"{cell}.{number}"
        names[name] = None
    return list(names)


def _options(names: list[str], delimiter: str) -> dict[str, Any]:
    return {
        "sep": delimiter,
        "header": None,
        "names": names,
        "na_values": list(MISSING),
        "keep_default_na": False,
        "skipinitialspace": True,
        "low_memory": False,
        "index_col": False,
    }


def _zero_padded(rows: pd.DataFrame, body: str, delimiter: str, options: dict[str, Any]) -> pd.DataFrame:
    """Read the columns again as text that hold 007, which is no 7; the others stay numbers, since those are fast."""
    if not _may_be_padded(body, delimiter):
        return pd.DataFrame()
    numeric = rows.select_dtypes("number")
    whole = [str(name) for name in numeric if (numeric[name].dropna() % 1 == 0).all()]
    texts = pd.read_csv(io.StringIO(body), usecols=whole, dtype="str", **options) if whole else pd.DataFrame()
    return texts[[name for name in texts if _is_padded(texts[name]).any()]]


def _is_padded(texts: pd.Series) -> pd.Series:
    return texts.str.fullmatch(r"0[0-9]+\s*").fillna(False).astype(bool)


def _may_be_padded(body: str, delimiter: str) -> bool:
    """Whether a cell begins with a zero and a digit; a part at a time, since a table may have two billion signs."""
    data = np.frombuffer(f"\n{body}".encode(), dtype=np.uint8)
    before = [ord(mark) for mark in {delimiter, '"', " ", "\n"}]
    for start in range(0, len(data), SCANNED_BYTES):
        part = data[start : start + SCANNED_BYTES + 2]
        begins = np.zeros(len(part), dtype=bool)
        for mark in before:
            begins |= part == mark
        padded = begins[:-2] & (part[1:-1] == ord("0"))
        if (padded & (part[2:] >= ord("0")) & (part[2:] <= ord("9"))).any():
            return True
    return False


def _without_none(column: pd.Series) -> pd.Series:
    """Read None as missing in a name, and where all else are numbers."""
    if not column.isin(NONE).any():
        return column
    others = column.mask(column.isin(NONE))
    if column.name in NAMES:
        return others
    numbers = pd.to_numeric(others, errors="coerce")
    return numbers if numbers.notna().sum() == others.notna().sum() else column
