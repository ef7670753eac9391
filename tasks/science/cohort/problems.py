"""What is irregular about a cohort, in words that a user can act on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd

LONGEST_QUOTE = 60
EXAMPLES_SHOWN = 5


class Problem(NamedTuple):
    """One irregularity: where it is, of which kind, and what to do about it."""

    path: str
    kind: str
    message: str


def problems_frame(problems: Iterable[Problem]) -> pd.DataFrame:
    """Tabulate problems, so that a report counts them by kind and an empty list keeps its columns.

    Args:
        problems: In any order.

    Returns:
        Columns path, kind, message (text), in the order given.
    """
    return pd.DataFrame(list(problems), columns=list(Problem._fields)).astype("str")


def quoted(text: str) -> str:
    r"""Show foreign text in a message: bounded, and with control characters made visible.

    >>> print(quoted("sub-01\n"))
    'sub-01\n'
    """
    return repr(text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 1] + "…")


def examples(names: Sequence[str]) -> str:
    """Name the first few and count the rest, so that a message stays readable for a cohort of thousands.

    >>> examples(["sub-01", "sub-02"])
    'sub-01, sub-02'
    >>> examples([f"sub-{n}" for n in range(9)])
    'sub-0, sub-1, sub-2, sub-3, sub-4 and 4 more'
    """
    shown = ", ".join(names[:EXAMPLES_SHOWN])
    more = len(names) - EXAMPLES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
