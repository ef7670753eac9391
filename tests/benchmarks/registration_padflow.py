"""One whole recipe at 1 mm by padflow, in a fresh process of one thread: where the scan lies, CPU seconds, memory.

Run as `python -m tests.benchmarks.registration_padflow SCAN RESULT REPEATS`. A worker's first scan also reads the
template (`first_cpu_s`); the last stands for all others (`cpu_s`).
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

from tasks.records import Recipe, ScanRejected
from tasks.science.imaging.recipe import prepare_scan


def main(scan: str, result: str, repeats: str) -> None:
    """Prepare the scan so many times and write down where it lies and what it took."""
    found: dict[str, object] = {}
    content = Path(scan).read_bytes()
    try:
        for _ in range(int(repeats)):
            start = time.process_time()
            prepared = prepare_scan(content, Recipe())
            found["cpu_s"] = time.process_time() - start
            found.setdefault("first_cpu_s", found["cpu_s"])
        found |= {"to_mni": prepared.sidecar["native_to_mni"], "quality": prepared.quality}
        del prepared
    except ScanRejected as rejection:
        found["rejected"] = str(rejection)
    gc.collect()
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    found["left_mib"] = pages * resource.getpagesize() / 2**20
    Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
