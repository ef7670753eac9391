"""Numbers that stand for a missing value, such as -999, and values so far out that they may be slips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

POSITIVE_CODES = tuple(float(digit * n) for digit in "789" for n in range(2, 6))
NEGATIVE_CODES = (-9.0, *(-code for code in POSITIVE_CODES))
CODES = np.array([*POSITIVE_CODES, *NEGATIVE_CODES])
# A spreadsheet's errors, and what people type into a cell that has nothing.
ERRORS = frozenset({"#ref!", "#value!", "#name?", "#num!", "#div/0!", "#n/a", "#null!"})
DASHES = frozenset({"-", "–", "—", "--"})
# Levels that may be missing values: an unknown genotype is one, an unknown treatment may be another.
DOUBTFUL_LEVELS = frozenset(
    {
        "unknown",
        "missing",
        "n.a.",
        "n. a.",
        "n/k",
        "nk",
        "not known",
        "not available",
        "unbekannt",
        "nicht bekannt",
        "?",
    }
)
NO_YES_NINE = ([0.0, 1.0, 9.0], [1.0, 2.0, 9.0])
# In units of the spread of the other values. A negative code where nothing else is negative needs less to be one.
FAR, FAR_BELOW_ZERO, WILD = 10.0, 5.0, 20.0
# Of its distance from the middle, how much must be empty: the tail of a skewed marker reaches 99 step by step.
EMPTY_SHARE = 0.5
FEWEST_OTHERS = 5
# A median absolute deviation times this is a standard deviation where values are normal.
MAD_TO_SD = 1.4826


def codes_of_missing(values: NDArray[np.float64], limits: tuple[float, float] | None = None) -> list[float]:
    """Find the repeated-digit codes that lie far outside everything else in a column.

    Args:
        values: A column, NaN where missing.
        limits: Lowest and highest value of its scale, if it is a known one.

    Returns:
        The codes, none of them on the scale or within the distribution of the other values.
    """
    if limits:
        codes = np.unique(values[np.isin(values, [9.0, *CODES])])
        return [float(code) for code in codes if not limits[0] <= code <= limits[1]]
    suspects = np.unique(values[np.isin(values, CODES)])
    others = values[np.isfinite(values) & ~np.isin(values, CODES)]
    if len(others) < FEWEST_OTHERS:
        return []
    middle, spread = middle_and_spread(others)
    low, high = float(others.min()), float(others.max())
    nine = [9.0] if high == 9 and np.unique(others).tolist() in NO_YES_NINE else []
    return [float(code) for code in suspects if _is_far(float(code), middle, spread, low, high)] + nine


def may_be_nine(values: NDArray[np.float64]) -> bool:
    """Whether 9 stands apart from whole numbers, more than twice the highest: a code, or a count that is rare.

    >>> may_be_nine(np.array([0.0, 1, 2, 3, 9])), may_be_nine(np.array([0.0, 3, 6, 9]))
    (True, False)
    """
    others = values[np.isfinite(values) & (values != 9)]
    if not (values == 9).any() or not len(others) or (others % 1).any() or others.min() < 0:
        return False
    return bool(2 * others.max() < 9)


def _is_far(code: float, middle: float, spread: float, low: float, high: float) -> bool:
    distance = abs(code - middle)
    gap = low - code if code < middle else code - high
    # A scale of 0 to 6 is as wide as it can be; -9 lies further below it than it reaches.
    if code < 0 <= low and gap > high - low > 0:
        return True
    needed = FAR_BELOW_ZERO if code < 0 <= low else FAR
    return distance > needed * spread and gap > EMPTY_SHARE * distance


def wild_values(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Point at values beyond 20 robust standard deviations from the median.

    Args:
        values: A column, NaN where missing.
    """
    finite = values[np.isfinite(values)]
    if len(finite) < FEWEST_OTHERS:
        return np.zeros(len(values), dtype=bool)
    middle, spread = middle_and_spread(finite)
    return np.isfinite(values) & (np.abs(values - middle) > WILD * spread)


def middle_and_spread(values: NDArray[np.float64]) -> tuple[float, float]:
    """Give the median and a standard deviation that a few slips do not move; of a heap of equal values, the plain one.

    Args:
        values: Finite values, at least one.
    """
    middle = float(np.median(values))
    spread = MAD_TO_SD * float(np.median(np.abs(values - middle)))
    return middle, spread or float(np.std(values)) or max(abs(middle), 1.0)


def codes_among_levels(levels: Iterable[str]) -> list[str]:
    """Find levels that are codes of a missing value beside levels that are words.

    >>> codes_among_levels(["HC", "MS", "-999"]), codes_among_levels(["1", "2", "-9"])
    (['-999'], [])
    >>> codes_among_levels(["Graz", "99", "101"])
    []
    """
    numbers = {level: number for level in levels if (number := _number(level)) is not None}
    if len(numbers) == len(set(levels)):
        return []
    negative = [level for level, number in numbers.items() if number in NEGATIVE_CODES]
    positive = [level for level, number in numbers.items() if number in (9.0, *POSITIVE_CODES)]
    return negative + (positive if len(negative) + len(positive) == len(numbers) else [])


def marks_of_nothing(texts: Sequence[str | None]) -> NDArray[np.bool_]:
    """Find cells that say that there is no value; beside a plus, a dash is a minus.

    >>> marks_of_nothing(["MS", "#REF!", "-"]).tolist(), marks_of_nothing(["+", "-"]).tolist()
    ([False, True, True], [False, False])
    """
    folded = [None if text is None else text.casefold() for text in texts]
    signs = {text for text in folded if text and not text.strip("+")}
    marks = ERRORS if signs else ERRORS | DASHES
    return np.array([text in marks for text in folded], dtype=bool)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
