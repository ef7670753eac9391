"""Numbers as people write them: decimal commas, grouped thousands, words and limits of detection between them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..cohort.problems import examples, quoted
from ..cohort.tsv import DECIMAL_COMMA, THOUSANDS_COMMA, as_number

COMMAS_GROUP = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:(?:,[0-9]{3})+\.[0-9]+|(?:,[0-9]{3}){2,})")
POINTS_GROUP = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:(?:\.[0-9]{3})+,[0-9]+|(?:\.[0-9]{3}){2,})")
THOUSANDS_POINT = re.compile(r"[+-]?[1-9][0-9]{0,2}\.[0-9]{3}")
LIMIT = re.compile(r"[<>≤≥]=?\s*[+-]?[0-9.,]+")
WITH_UNIT = re.compile(r"[+−-]?[0-9]+(?:[.,][0-9]+)?\s*([^\W\d_]+(?:/[^\W\d_]+)?)\.?")
PERCENT = re.compile(r"[+−-]?[0-9]+(?:[.,][0-9]+)?\s*[%‰]")
GROUPED = re.compile(r"[+−-]?[1-9][0-9]{0,2}(?:[ '’][0-9]{3})+(?:[.,][0-9]+)?")
# So many cells that are numbers, however written, are no category; nor are so many with one unit, unless only a handful
# of them differ: a field strength is 1.5T or 3T.
NEARLY_ALL, SHARE_OF_ONE_UNIT, HANDFUL = 0.9, 0.5, 5
# What Python and databases write for a missing number needs no sentence.
NO_VALUE = frozenset({"none", "null"})
# Whole numbers are exact up to here; as names of levels they are written with 15 digits.
LARGEST_EXACT, LARGEST_LEVEL = 2.0**53, 1e15


class Disguise(NamedTuple):
    """Numbers that their writing hides: the sentence about them, where they are, and whether they can be no levels."""

    sentence: str
    rows: NDArray[np.bool_]
    certain: bool


class Numbers(NamedTuple):
    """A column of text read as numbers.

    Attributes:
        values: Float64, NaN where a cell is empty or no number.
        words: Where a cell holds something else than a number.
        remark: How commas and points were read; empty if there is nothing to say.
        doubtful: Cells whose point may be decimal or group thousands, beside decimal commas; they count as words.
    """

    values: NDArray[np.float64]
    words: NDArray[np.bool_]
    remark: str
    doubtful: NDArray[np.bool_]


def numbers_of(texts: Sequence[str | None]) -> Numbers:
    """Read cells as numbers, commas by what the whole column shows of them.

    A comma is a decimal one if some cell can be read in no other way ("1,5"); where each could be a thousands separator
    ("1,234") nobody knows, and these cells count as words. So do cells such as "1.034" beside decimal commas, unless
    some point can only be decimal ("0.5").

    Args:
        texts: Cells without blanks around them; None is missing.
    """
    present = [text for text in texts if text is not None]
    commas, points = _first(COMMAS_GROUP, present), _first(POINTS_GROUP, present)
    decimal = next((t for t in present if DECIMAL_COMMA.fullmatch(t) and not THOUSANDS_COMMA.fullmatch(t)), None)
    remark = ""
    doubtful = np.zeros(len(texts), dtype=bool)
    if points is not None and commas is None:
        texts = [text if text is None else _without_points(text) for text in texts]
        remark = f"points group thousands and commas are decimal ({quoted(points)})."
    elif commas is not None and points is None and decimal is None:
        texts = [text.replace(",", "") if text and _groups_by_comma(text) else text for text in texts]
        remark = f"commas group thousands ({quoted(commas)})."
    elif decimal is not None and commas is None:
        if not any("." in text and as_number(text) is not None and not _may_group(text) for text in present):
            doubtful = np.array([text is not None and _may_group(text) for text in texts], dtype=bool)
        n = sum(DECIMAL_COMMA.fullmatch(text) is not None for text in present)
        texts = [text.replace(",", ".") if text and DECIMAL_COMMA.fullmatch(text) else text for text in texts]
        remark = f"{n} values have decimal commas ({quoted(decimal)}): read as decimals."
    read = [
        None if text is None or in_doubt else as_number(text.replace("−", "-"))
        for text, in_doubt in zip(texts, doubtful, strict=True)
    ]
    values = np.array([np.nan if value is None else value for value in read], dtype=np.float64)
    words = np.array([text is not None and value is None for text, value in zip(texts, read, strict=True)], dtype=bool)
    return Numbers(values, words, remark, doubtful)


def sentences_of_words(texts: Sequence[str | None], words: NDArray[np.bool_]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Say which cells of a column of numbers are no numbers, by what they are, and where.

    Args:
        texts: The column's cells.
        words: Where they are no numbers.

    Returns:
        Sentences, and the rows that each is about.
    """
    kinds: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        if words[place] and text is not None and text.casefold() not in NO_VALUE:
            kinds.setdefault(_kind(text), []).append(place)
    said = []
    for kind, places in kinds.items():
        shown = examples([quoted(word) for word in dict.fromkeys(str(texts[place]) for place in places)])
        rows = np.zeros(len(texts), dtype=bool)
        rows[places] = True
        after = CONSEQUENCES.get(kind) or f". {REMEDIES[kind]}"
        said.append((f"{len(places)} row{_holds(len(places))} {KINDS[kind]} ({shown}): taken as missing{after}", rows))
    return said


def merged_wholes(texts: Sequence[str | None], values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Find whole numbers so large that different ones would be read as one.

    >>> merged_wholes(["9007199254740992", "9007199254740993", "5"], np.array([2.0**53, 2.0**53, 5.0])).tolist()
    [True, True, False]
    """
    large = np.abs(values) >= LARGEST_EXACT
    if not large.any():
        return large
    written = {text for text, is_large in zip(texts, large, strict=True) if is_large}
    return large if len(written) > len(np.unique(values[large])) else np.zeros_like(large)


def disguised_numbers(texts: Sequence[str | None], words: NDArray[np.bool_]) -> Disguise | None:
    """Notice a column that would pass for a category since nearly all its numbers have a unit, a percent sign or gaps.

    Args:
        texts: The column's cells.
        words: Where they are no numbers as they stand.

    Returns:
        What hides the numbers; None where words are words.
    """
    kinds = {place: _kind(str(texts[place])) for place in np.flatnonzero(words).tolist()}
    hidden = [place for place, kind in kinds.items() if kind in REMEDIES]
    n_present = sum(text is not None for text in texts)
    if not hidden or n_present - len(kinds) + len(hidden) < NEARLY_ALL * n_present:
        return None
    cells = [str(texts[place]) for place in hidden]
    units = Counter(match[1].casefold() for cell in cells if (match := WITH_UNIT.fullmatch(cell)))
    by_unit = units.total() == len(cells)
    if by_unit and units.most_common(1)[0][1] < SHARE_OF_ONE_UNIT * len(cells):
        return None
    kind = kinds[hidden[0]]
    rows = np.zeros(len(texts), dtype=bool)
    rows[hidden] = True
    shown = examples([quoted(cell) for cell in dict.fromkeys(cells)])
    sentence = f"{len(cells)} row{_holds(len(cells))} {KINDS[kind]} ({shown}). {REMEDIES[kind]}"
    return Disguise(sentence, rows, not by_unit or len(set(cells)) > HANDFUL)


KINDS = {
    "word": "words among numbers",
    "limit": "a limit instead of a number",
    "unit": "a number with a unit",
    "percent": "a number with a percent sign",
    "grouped": "a number with grouped thousands",
    "thousands": "a comma that could be decimal or group thousands",
}
CONSEQUENCES = {
    "word": ".",
    "limit": ", and what lies beyond a limit is not missing by chance. Write a number (for a time to an event: the "
    "time, with 0 as its event).",
}
REMEDIES = {
    "unit": "Write the number alone.",
    "percent": "Write the number alone.",
    "grouped": "Write its digits without gaps, and decimals with a point.",
    "thousands": "Write points before decimals, and thousands without commas.",
}


def _holds(n: int) -> str:
    return "s hold" if n > 1 else " holds"


def _kind(text: str) -> str:
    if LIMIT.fullmatch(text):
        return "limit"
    if WITH_UNIT.fullmatch(text):
        return "unit"
    if PERCENT.fullmatch(text):
        return "percent"
    if any(pattern.fullmatch(text) for pattern in (GROUPED, COMMAS_GROUP, POINTS_GROUP)):
        return "grouped"
    return "thousands" if THOUSANDS_COMMA.fullmatch(text) else "word"


def _first(pattern: re.Pattern[str], texts: Sequence[str]) -> str | None:
    return next((text for text in texts if pattern.fullmatch(text)), None)


def _may_group(text: str) -> bool:
    return THOUSANDS_POINT.fullmatch(text) is not None


def _groups_by_comma(text: str) -> bool:
    return COMMAS_GROUP.fullmatch(text) is not None or THOUSANDS_COMMA.fullmatch(text) is not None


def _without_points(text: str) -> str:
    if POINTS_GROUP.fullmatch(text) or THOUSANDS_POINT.fullmatch(text):
        text = text.replace(".", "")
    return text.replace(",", ".") if DECIMAL_COMMA.fullmatch(text) else text
