"""A worker's memory between scans."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def gives_back_memory(work: Callable[P, T]) -> Callable[P, T]:
    """Hand freed memory back to the system when a function ends.

    Workers keep what they free while they work on a scan (`infra.clusters.WORKER_ENVIRONMENT`), since the scan wants it
    again at once; between scans 270 MiB would stay. Handing them back takes 6 ms, and the next scan no longer.
    """

    @wraps(work)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return work(*args, **kwargs)
        finally:
            _trim()

    return wrapped


def _trim() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    # Only the GNU C library has it; others hand memory back by themselves.
    if trim is not None:
        trim(0)
