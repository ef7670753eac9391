"""What is unusual in a scan's quality figures for a model, by bounds that travel with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def beyond_bounds(quality: Mapping[str, float], bounds: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Name the figures that lie beyond a bound.

    Args:
        quality: A scan's figures.
        bounds: Figure → `low` and `high`, either may be None, and `label`, what the figure is.

    Returns:
        One phrase per figure and side.

    >>> beyond_bounds({"snr": 3.0, "cnr": 1.0}, {"snr": {"low": 5.0, "high": None, "label": "signal to noise"}})
    ['snr (signal to noise) is 3, usual here is at least 5']
    """
    phrases = []
    for name, bound in bounds.items():
        found = quality.get(name)
        if found is None:
            continue
        for limit, side, is_beyond in (
            (bound["low"], "at least", lambda value, edge: value < edge),
            (bound["high"], "at most", lambda value, edge: value > edge),
        ):
            if limit is not None and is_beyond(found, limit):
                phrases.append(f"{name} ({bound['label']}) is {found:.4g}, usual here is {side} {limit:.4g}")
    return phrases
