"""Workers that are gone are started again, for as long as a run lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tornado.ioloop import PeriodicCallback


@contextmanager
def kept_at(cluster: Any, workers: int, every_s: float) -> Iterator[None]:
    """Ask a cluster for its number of workers again and again: it starts only those that are not there any more.

    The number is fixed: adaptive clusters end workers in the middle of a scan, and workers with a lifetime don't come
    back.

    Args:
        cluster: Of Dask's `SpecCluster` kind.
        workers: How many there are to be.
        every_s: How long a place may be empty.
    """
    replacing = PeriodicCallback(lambda: cluster.scale(n=workers), every_s * 1000)
    cluster.loop.add_callback(replacing.start)
    try:
        yield
    finally:
        cluster.loop.add_callback(replacing.stop)
