"""Run a function over scans on the cluster; a scan that kills its worker is told apart from its neighbours."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from distributed import CancelledError, Client, as_completed
from distributed.comm import CommClosedError

from tasks.records import ScanRef


class ClusterLost(RuntimeError):
    """The scheduler is gone; what is done is in the store."""


def one_by_one(
    client: Client, work: Callable[[ScanRef], Any], scans: Sequence[ScanRef]
) -> Iterator[tuple[ScanRef, Any]]:
    """Run a function over scans, each while no other is on the cluster, so that a death is its own.

    Dask counts a worker's death against every task that the worker had been given, whichever of them was the cause.
    """
    for scan in scans:
        yield from on_cluster(client, work, [scan])


def on_cluster(
    client: Client, work: Callable[[ScanRef], Any], scans: Sequence[ScanRef]
) -> Iterator[tuple[ScanRef, Any]]:
    """Run a function over scans on the cluster: one message submits them all, and one fetches all that have finished.

    Dask's own retries are off: it repeats at once, and storage has been waited for already.

    Yields:
        Each scan with its result, or with the exception that ended it, as they finish.

    Raises:
        ClusterLost: The scheduler no longer answers.
    """
    # Dask takes equal keys for one task, and another study on a shared scheduler may hold a scan of this name.
    keys = [f"prepare-{scan.key[:16]}-{uuid.uuid4().hex}" for scan in scans]
    futures = client.map(work, scans, pure=False, key=keys)
    owners = dict(zip(futures, scans, strict=True))
    finished = as_completed(futures)
    del futures
    try:
        for batch in finished.batches():
            for future, result in zip(batch, _results(client, batch), strict=True):
                yield owners.pop(future), result
    except (CancelledError, CommClosedError) as error:
        raise ClusterLost(
            f"the Dask scheduler at {client.scheduler.address} is gone. Scans that are done are kept in the store; "
            "start the cluster again and run the same command."
        ) from error


def _results(client: Client, futures: Sequence[Any]) -> list[Any]:
    try:
        return list(client.gather(futures))
    except Exception:
        # One of them failed, or its worker died before it was fetched: each has an end of its own.
        errors = [future.exception() for future in futures]
        return [future.result() if error is None else error for future, error in zip(futures, errors, strict=True)]
