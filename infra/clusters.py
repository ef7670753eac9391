"""Where the fan-out runs: a Dask cluster that is given, or a local one of single-threaded workers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import dask
from distributed import Client, LocalCluster

from infra.settings import Settings

# A scan that kills its worker is tried three times in all, then excluded with that reason.
WORKER_DEATHS_TOLERATED = 2
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
    # Dask's own value (64 KiB) hands every freed volume back at once; fetching the pages anew for the next one took
    # a quarter of a scan's time (1.8 against 1.2 CPU-s per phantom scan at 4 mm). What stays is one scan's memory.
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
}


@contextmanager
def connect(settings: Settings) -> Iterator[Client]:
    """Give a client of the cluster that the settings name; a local cluster ends with the block.

    Workers have one thread and no thread pool beneath it: scans are the unit of parallelism, and the same scan then
    gives the same bytes on any worker.

    Raises:
        ValueError: Nothing answers at the scheduler's address.
    """
    with dask.config.set({"distributed.scheduler.allowed-failures": WORKER_DEATHS_TOLERATED}):
        if settings.scheduler:
            yield from _remote(settings.scheduler)
        else:
            yield from _local(settings)


def _remote(address: str) -> Iterator[Client]:
    try:
        client = Client(address, timeout="30s")
    except OSError as error:
        raise ValueError(
            f"no Dask scheduler answers at {address}; start one with `dask scheduler`, "
            "or unset DASK_SCHEDULER_ADDRESS to use a local cluster"
        ) from error
    with client:
        yield client


def _local(settings: Settings) -> Iterator[Client]:
    # A dying worker is expected and told per scan; Dask's own account of it would bury that.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    environment = {**dask.config.get("distributed.nanny.pre-spawn-environ"), **WORKER_ENVIRONMENT}
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": environment}),
        LocalCluster(
            n_workers=settings.workers,
            threads_per_worker=1,
            memory_limit=settings.worker_memory,
            dashboard_address=None,
            local_directory=str(settings.home / "dask"),
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
