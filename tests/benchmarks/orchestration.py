"""What the flow adds per scan to raw Dask, on one cluster in one process: slices, Prefect's server, progress."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.benchmarks.no_op import measured
from tests.benchmarks.rows import Row

SCANS = 10_000
BAR = 1.3


def rows() -> list[Row]:
    """One row: the ratio of the flow's slices to raw `client.map`."""
    with tempfile.TemporaryDirectory() as home:
        found = measured(Path(home), SCANS, "raw")
    ratio = found["sliced_s"] / found["raw_s"]
    raw_ms, sliced_ms = (1000 * found[name] / SCANS for name in ("raw_s", "sliced_s"))
    return [
        Row(
            f"orchestration per no-op scan, {SCANS:,} scans, 2 workers",
            f"≤ {BAR} × raw Dask `client.map`",
            f"{ratio:.2f} × ({sliced_ms:.2f} ms, raw {raw_ms:.2f} ms)",
            ratio <= BAR,
            "Both on one cluster in one process, with Prefect's embedded server beside them; starting server and "
            f"cluster ({found['prefect_start_s']:.0f} s for the server) is outside, see the fan-out of real scans.",
        )
    ]
