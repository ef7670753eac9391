"""Prepare a slice of a cohort: a Prefect task owns the slice, Dask futures own the scans, the store owns the truth."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from distributed import Client
from distributed.scheduler import KilledWorker
from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE

from infra.storage import Store
from infra.storage_faults import StorageFault, StorageRefused
from tasks.records import Excluded, PreparedScan, Recipe, ScanRef
from tasks.science.imaging.degradations import Degradation
from tasks.steps.fan_out import on_cluster, one_by_one
from tasks.steps.prepare import prepare_one, write_exclusion

# Few enough that the scheduler's memory does not grow with the cohort, since a slice is submitted whole.
SLICE_SCANS = 500
# An update is a request to Prefect's server, of about 15 ms: at a fixed number per slice it would outweigh the scans.
PROGRESS_EVERY_S = 2.0
# Each has been waited for with patience, so this many are the fault of storage, and the next thousand would end alike.
FAULTS_IN_A_ROW = 8
# A full disk may still take the few bytes of a check, so a few volumes are tried.
REFUSALS_IN_A_ROW = 3


class StoppedEarly(RuntimeError):
    """Storage fails for every scan, so the run ends instead of trying ten thousand more."""


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
    degradation: Degradation | None = None,
) -> dict[str, Any]:
    """Prepare one slice. A bad scan is counted with its reason; what storage failed for is left missing.

    Returns:
        `prepared` and `excluded` counts; `failed`: scan id → what went wrong, to be done by the next run; `suspects`:
        scans whose worker died, for `prepare_suspects`, since a neighbour of this or another slice may be the cause.

    Raises:
        StoppedEarly: The store cannot be written, or storage fails for scan after scan.
        ClusterLost: The scheduler is gone.
    """
    suspects: list[ScanRef] = []
    results = _without_suspects(on_cluster(client, _work(store, recipe, recipe_key, degradation), scans), suspects)
    return {**_outcomes(store, results, len(scans), label, advance), "suspects": suspects}


@task(task_run_name="prepare-suspects", cache_policy=NO_CACHE)
def prepare_suspects(
    client: Client,
    store: Store,
    scans: Sequence[ScanRef],
    recipe: Recipe,
    recipe_key: str,
    advance: Callable[[], None],
    degradation: Degradation | None = None,
) -> dict[str, Any]:
    """Try scans whose worker died once more, one at a time, after all slices: which of them killed it then shows.

    Returns:
        As `prepare_slice`, without `suspects`: a scan whose worker dies again is excluded.

    Raises:
        StoppedEarly: The store cannot be written, or storage fails for scan after scan.
        ClusterLost: The scheduler is gone.
    """
    results = one_by_one(client, _work(store, recipe, recipe_key, degradation), scans)
    settled = ((scan, _settle(store, recipe_key, scan, result)) for scan, result in results)
    return _outcomes(store, settled, len(scans), "one by one, since their worker died", advance)


def _work(store: Store, recipe: Recipe, recipe_key: str, degradation: Degradation | None) -> Callable[[ScanRef], Any]:
    work = functools.partial(prepare_one, store.url, str(store.cache), recipe=recipe, recipe_key=recipe_key)
    return work if degradation is None else functools.partial(work, degradation=degradation)


def _without_suspects(results: Iterable[tuple[ScanRef, Any]], suspects: list[ScanRef]) -> Iterator[tuple[ScanRef, Any]]:
    for scan, result in results:
        if isinstance(result, KilledWorker):
            suspects.append(scan)
        else:
            yield scan, result


def _outcomes(
    store: Store, results: Iterable[tuple[ScanRef, Any]], total: int, label: str, advance: Callable[[], None]
) -> dict[str, Any]:
    """Count what became of scans, as they end, and show it."""
    counts: Counter[str] = Counter()
    failed: dict[str, str] = {}
    faults = FaultsInARow(store)
    artifact = create_progress_artifact(progress=0.0, description=f"{label}: {total} scans")
    number, shown = 0, time.monotonic()
    for number, (scan, outcome) in enumerate(results, start=1):
        faults.count(outcome)
        if isinstance(outcome, PreparedScan):
            counts["prepared"] += 1
        elif isinstance(outcome, Excluded):
            counts["excluded"] += 1
        else:
            failed[scan.scan_id] = (
                str(outcome) if isinstance(outcome, OSError) else f"{type(outcome).__name__}: {outcome}"
            )
        advance()
        if time.monotonic() - shown >= PROGRESS_EVERY_S:
            shown = time.monotonic()
            update_progress_artifact(artifact, progress=100 * number / total)  # type: ignore[arg-type]
    update_progress_artifact(artifact, progress=100 * number / total)  # type: ignore[arg-type]
    return {"prepared": counts["prepared"], "excluded": counts["excluded"], "failed": failed}


class FaultsInARow:
    """Tells a scan that cannot be read from storage that is down for all of them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._in_a_row = 0

    def count(self, outcome: Any) -> None:
        """Take note of what became of a scan.

        Raises:
            StoppedEarly: There is no use in going on.
        """
        if not isinstance(outcome, StorageFault):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        is_refusal = isinstance(outcome, StorageRefused)
        if is_refusal:
            try:
                self._store.check_writable()
            except StorageFault as error:
                raise StoppedEarly(str(error)) from outcome
        if self._in_a_row >= (REFUSALS_IN_A_ROW if is_refusal else FAULTS_IN_A_ROW):
            raise StoppedEarly(f"storage failed for {self._in_a_row} scans in a row; the last: {outcome}") from outcome


def _settle(store: Store, recipe_key: str, scan: ScanRef, result: Any) -> Any:
    if not isinstance(result, KilledWorker):
        return result
    reason = (
        f"its worker died {result.allowed_failures + 1} times while preparing it and no other scan (out of memory, "
        "most likely); check the image's dimensions, or give workers more with PADFLOW_WORKER_MEMORY and run with "
        "--retry-excluded"
    )
    return write_exclusion(store, recipe_key, Excluded(scan.scan_id, scan.key, "worker", reason))
