"""What every worker has, on whatever kind of cluster: one thread, no thread pools beneath it, a memory limit.

Scans are the unit of parallelism, and the same scan then gives the same bytes on any worker.
"""

from __future__ import annotations

# A scan that kills its worker is tried three times in all, then excluded with that reason.
WORKER_DEATHS_TOLERATED = 2
# Their size is read when a library is loaded. SimpleITK's is set by the recipe itself as well.
THREAD_POOLS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
WORKER_ENVIRONMENT = {
    **THREAD_POOLS,
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
    # Dask's own value (64 KiB) hands every freed volume back at once; fetching the pages anew for the next one took
    # a quarter of a scan's time (1.8 against 1.2 CPU-s per phantom scan at 4 mm). What stays is one scan's memory.
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
}
# Beside the worker, its nanny: a job or pod must hold both, or the batch system kills what Dask would have restarted.
NANNY_MEMORY_BYTES = 256 * 2**20


class ExtraMissing(ValueError):
    """A kind of cluster was asked for whose packages are not installed."""

    def __init__(self, kind: str, package: str) -> None:
        super().__init__(f"{package} is not installed, which {kind} clusters need; run: pip install 'padflow[{kind}]'")
