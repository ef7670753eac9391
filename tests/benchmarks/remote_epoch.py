"""An epoch's reading of 1 mm scans from an S3 server in its own process, through the cache, against a local store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from tests.benchmarks.prepared_scans import write_prepared
from tests.benchmarks.rows import Row
from tests.benchmarks.s3_server import BUCKET, s3_server

SCANS = 48
BATCH = 8
EPOCHS = 5
BAR = 1.1


def rows() -> list[Row]:
    """One row: a later epoch from the remote store as a multiple of a local one; the first epoch in the note."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "store").mkdir()
        write_prepared(folder / "store", SCANS)
        local_s = _epochs_s(f"{folder}/store", folder / "unused", dict(os.environ))
        with s3_server(folder) as environment:
            remote_s = _epochs_s(f"s3://{BUCKET}/store", folder / "cache", environment)
    ratio = median(remote_s[1:]) / median(local_s[1:])
    size_mib = SCANS * 2 * 160 * 192 * 160 / 2**20
    return [
        Row(
            f"reading an epoch of {SCANS} 1 mm scans from S3, after the first",
            f"local speed: ≤ {BAR} ×",
            f"{ratio:.2f} × ({median(remote_s[1:]):.2f} s, local store {median(local_s[1:]):.2f} s)",
            ratio <= BAR,
            f"{size_mib:.0f} MiB. The first epoch took {remote_s[0]:.1f} s with the fetch of all its files ahead of "
            "it, mostly the time of the S3 server (moto, one Python process on the same cores).",
        )
    ]


def _epochs_s(url: str, cache: Path, environment: dict[str, str]) -> list[float]:
    command = [sys.executable, "-m", "tests.benchmarks.remote_epoch", url, str(cache)]
    printed = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout
    return list(json.loads(printed.splitlines()[-1]))


def main(url: str, cache: Path) -> None:
    """Read every scan of a store through the fit's own loader, epoch after epoch; print the seconds of each."""
    from torch.utils.data import DataLoader

    from infra.storage import Store
    from lightning_modules.data import PreparedScans
    from tasks.records import TrainingRow

    store = Store(url, cache)
    keys = [f"{number:03}.npy" for number in range(SCANS)]
    batches = [[(0, index) for index in range(start, start + BATCH)] for start in range(0, SCANS, BATCH)]
    taken = []
    start = time.perf_counter()
    with store.holding(keys) as paths:
        scans = PreparedScans([TrainingRow(path.stem, path.stem, str(path), 50.0, "train") for path in paths])
        for _ in range(EPOCHS):
            for _ in DataLoader(scans, batch_sampler=batches):
                pass
            taken.append(time.perf_counter() - start)
            start = time.perf_counter()
    print(json.dumps(taken))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
