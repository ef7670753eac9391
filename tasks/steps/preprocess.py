"""Prepare a slice of a cohort: a Prefect task owns the slice, Dask futures own the scans, the store owns the truth."""

from __future__ import annotations

import functools
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from distributed import Client, as_completed
from distributed.scheduler import KilledWorker
from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE

from infra.storage import Store
from infra.worker_environment import WORKER_DEATHS_TOLERATED
from tasks.records import Excluded, PreparedScan, Recipe, ScanRef
from tasks.steps.prepare import prepare_one, write_exclusion

# Few enough that the scheduler's memory does not grow with the cohort, since a slice is submitted whole.
SLICE_SCANS = 500
STORAGE_RETRIES = 3
# An update is a request to Prefect's server, of about 15 ms: at a fixed number per slice it would outweigh the scans.
PROGRESS_EVERY_S = 2.0


def slices(scans: Sequence[ScanRef], size: int = SLICE_SCANS) -> list[tuple[ScanRef, ...]]:
    """Cut a cohort into what one Prefect task takes.

    >>> [len(part) for part in slices(range(7), size=3)]
    [3, 3, 1]
    """
    return [tuple(scans[start : start + size]) for start in range(0, len(scans), size)]


@task(task_run_name="prepare-{label}", cache_policy=NO_CACHE)
def prepare_slice(
    client: Client,
    store: Store,
    scans: Sequence[ScanRef],
    recipe: Recipe,
    recipe_key: str,
    label: str,
    advance: Callable[[], None],
) -> dict[str, Any]:
    """Prepare one slice. A bad scan is counted with its reason; what storage refused three times is left missing.

    Returns:
        `prepared` and `excluded` counts, and `failed`: scan id → what went wrong, to be done by the next run.
    """
    work = functools.partial(prepare_one, store.url, str(store.cache), recipe=recipe, recipe_key=recipe_key)
    counts: Counter[str] = Counter()
    failed: dict[str, str] = {}
    artifact = create_progress_artifact(progress=0.0, description=f"{label}: {len(scans)} scans")
    shown = time.monotonic()
    for number, (scan, result) in enumerate(_with_suspects_last(client, work, scans), start=1):
        outcome = _settle(store, recipe_key, scan, result)
        if isinstance(outcome, PreparedScan):
            counts["prepared"] += 1
        elif isinstance(outcome, Excluded):
            counts["excluded"] += 1
        else:
            failed[scan.scan_id] = f"{type(outcome).__name__}: {outcome}"
        advance()
        if time.monotonic() - shown >= PROGRESS_EVERY_S or number == len(scans):
            shown = time.monotonic()
            update_progress_artifact(artifact, progress=100 * number / len(scans))  # type: ignore[arg-type]
    return {"prepared": counts["prepared"], "excluded": counts["excluded"], "failed": failed}


def _with_suspects_last(
    client: Client, work: Callable[[ScanRef], Any], scans: Sequence[ScanRef]
) -> Iterator[tuple[ScanRef, Any]]:
    """Try scans whose worker died once more, each alone: its neighbour on the worker may have been the cause."""
    suspects = []
    for scan, result in on_cluster(client, work, scans):
        if isinstance(result, KilledWorker):
            suspects.append(scan)
        else:
            yield scan, result
    for scan in suspects:
        yield from on_cluster(client, work, [scan])


def on_cluster(
    client: Client, work: Callable[[ScanRef], Any], scans: Sequence[ScanRef]
) -> Iterator[tuple[ScanRef, Any]]:
    """Run a function over scans on the cluster: one message submits them all, and one fetches all that have finished.

    Yields:
        Each scan with its result, or with the exception that ended it, as they finish.
    """
    # Dask takes equal keys for one task, and another study on a shared scheduler may hold a scan of this name.
    keys = [f"prepare-{scan.key[:16]}-{uuid.uuid4().hex}" for scan in scans]
    futures = client.map(work, scans, pure=False, retries=STORAGE_RETRIES - 1, key=keys)
    owners = dict(zip(futures, scans, strict=True))
    finished = as_completed(futures)
    del futures
    for batch in finished.batches():
        for future, result in zip(batch, _results(client, batch), strict=True):
            yield owners.pop(future), result


def _results(client: Client, futures: Sequence[Any]) -> list[Any]:
    try:
        return list(client.gather(futures))
    except Exception:
        # One of them failed, or its worker died before it was fetched: each has an end of its own.
        errors = [future.exception() for future in futures]
        return [future.result() if error is None else error for future, error in zip(futures, errors, strict=True)]


def _settle(store: Store, recipe_key: str, scan: ScanRef, result: Any) -> Any:
    if not isinstance(result, KilledWorker):
        return result
    reason = (
        f"its worker died {WORKER_DEATHS_TOLERATED + 1} times while preparing it (out of memory, most likely); "
        "check the image's dimensions, or give workers more with PADFLOW_WORKER_MEMORY and run with --retry-excluded"
    )
    return write_exclusion(store, recipe_key, Excluded(scan.scan_id, scan.key, "worker", reason))
