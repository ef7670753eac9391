"""Scans that would take all memory, or do kill their worker, are excluded; their neighbours are unharmed."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from distributed.scheduler import KilledWorker

from infra.clusters import connect
from infra.settings import load_settings
from tasks.records import ScanRef
from tasks.steps.fan_out import on_cluster, one_by_one
from tests.faults.conftest import SUBJECTS, Audit, local_objects, remarks, whole_scans

MEBIBYTE = 2**20


def scan(number: int) -> ScanRef:
    return ScanRef(f"c/sub-{number}_T1w", "c", f"sub-{number}", "", "", "T1w", f"/none/{number}", 1, f"{number:064d}")


def test_only_the_killer_is_suspected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("PADFLOW_WORKERS", "2")
    counted = tmp_path / "counted"
    counted.mkdir()

    def work(item: ScanRef) -> str:
        with (counted / item.participant_id).open("a") as file:
            file.write("x")
        if item.participant_id == "sub-5":
            os._exit(1)
        time.sleep(0.05)
        return item.participant_id

    scans = [scan(number) for number in range(12)]
    with connect(load_settings()) as client:
        first = dict(on_cluster(client, work, scans))
        suspects = [item for item, result in first.items() if isinstance(result, KilledWorker)]
        again = dict(one_by_one(client, work, suspects))
    results = {item.participant_id: result for item, result in {**first, **again}.items()}
    assert isinstance(results.pop("sub-5"), KilledWorker)
    assert results == {f"sub-{number}": f"sub-{number}" for number in range(12) if number != 5}
    assert len((counted / "sub-5").read_text()) == 6


THREE_SLICES = """
import json, os, sys, time
from pathlib import Path

from infra.settings import load_settings

home = Path(sys.argv[1])
settings = load_settings(home)
from prefect import flow

from flows import preprocess as flows_preprocess
from infra.clusters import connect
from infra.storage import Store
from tasks.records import PreparedScan, Recipe, ScanRef
from tasks.steps import preprocess

done = home / "done"
done.mkdir()


def prepare(store_url, cache, scan, recipe, recipe_key):
    # The large scan finds memory when hardly any others are left: up to three may be suspects themselves.
    if scan.participant_id == "killer" or (scan.participant_id == "large" and len(list(done.iterdir())) < 19):
        os._exit(1)
    time.sleep(0.2)
    (done / scan.participant_id).touch()
    return PreparedScan(scan.scan_id, scan.sha256, "", {})


def scan(number, name):
    return ScanRef(f"c/{name}", "c", name, "", "", "T1w", "/none", 1, f"{number:064d}")


preprocess.prepare_one = prepare
others = [scan(number, f"other-{number}") for number in range(22)]
scans = [scan(100, "large"), scan(101, "killer"), *others]
settled = []


@flow(name="three-slices", task_runner=flows_preprocess.RUNNER, validate_parameters=False)
def three_slices():
    with connect(settings) as client:
        store = Store(settings.store, home / "cache")
        return flows_preprocess.fan_out(client, store, scans, Recipe(), "key", lambda: settled.append(1), 8)


results = three_slices()
excluded = [json.loads(path.read_text()) for path in Path(settings.store).rglob("*.json")]
print(json.dumps({
    "prepared": sum(result["prepared"] for result in results),
    "excluded": {item["scan_id"]: item["reason"] for item in excluded},
    "failed": [scan for result in results for scan in result["failed"]],
    "settled": len(settled),
}))
"""


def test_a_scan_is_not_excluded_for_what_another_slice_does(tmp_path: Path) -> None:
    audit = Audit(tmp_path, "")
    command = [sys.executable, "-c", THREE_SLICES, str(tmp_path / "home")]
    done = subprocess.run(
        command, env=audit.padflow.environment, stdout=subprocess.PIPE, text=True, timeout=200, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert list(found["excluded"]) == ["c/killer"]
    assert "its worker died 3 times while preparing it and no other scan" in found["excluded"]["c/killer"]
    assert (found["prepared"], found["failed"], found["settled"]) == (23, [], 24)


def header_of(shape: tuple[int, int, int], kind: type = nibabel.nifti2.Nifti2Header) -> bytes:
    """The bytes before the voxels of a uint8 image with MNI's axes."""
    header = kind()
    header.set_data_dtype(np.uint8)
    header["dim"][:4] = (3, *shape)
    header["pixdim"][1:4] = 1.0
    header.set_sform(np.diag([1.0, 1.0, 1.0, 1.0]), code=1)
    header["vox_offset"] = 544
    header["magic"] = b"n+2"
    return bytes(header.binaryblock) + bytes(4)


def deeply_compressed(gibibytes: int) -> bytes:
    """A valid header, then zeros as one gzip member each 64 MiB, of which 64 KiB are in the file."""
    member = gzip.compress(bytes(64 * MEBIBYTE), compresslevel=9)
    return gzip.compress(header_of((200, 200, 200))) + member * (gibibytes * 1024 // 64)


def one_deep_stream(gibibytes: int) -> bytes:
    """The same as a single deflate stream."""
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(header_of((200, 200, 200)))]
    parts += [packer.compress(bytes(64 * MEBIBYTE)) for _ in range(gibibytes * 1024 // 64)]
    return b"".join([*parts, packer.flush()])


BOMBS = {
    "claims 60,000³ voxels": lambda: gzip.compress(header_of((60_000, 60_000, 60_000)) + bytes(1000)),
    "16 GiB in members": lambda: deeply_compressed(16),
    "1 GiB in one stream": lambda: one_deep_stream(1),
    "a million empty members": lambda: gzip.compress(header_of((200, 200, 200))) + gzip.compress(b"") * 1_000_000,
}
MEASURE = """
import resource, sys
from tasks.records import ScanRejected
from tasks.science.imaging.nifti import read_volume
content = open(sys.argv[1], "rb").read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_volume(content)
except ScanRejected as refusal:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, refusal.reason)
"""


@pytest.mark.parametrize("name", BOMBS)
def test_no_memory_is_taken_for_a_bomb(name: str, tmp_path: Path) -> None:
    file = tmp_path / "bomb.nii.gz"
    file.write_bytes(BOMBS[name]())
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", MEASURE, str(file)], capture_output=True, text=True, timeout=120)
    assert time.monotonic() - start < 60
    assert done.returncode == 0, done.stderr
    taken_kib, reason = done.stdout.split(" ", 1)
    # The announced volume has 8 million bytes.
    assert int(taken_kib) < 64 * 1024
    assert len(reason) > 20


def test_bombs_and_a_true_killer_are_excluded_and_the_others_done(study: Path, cohort: Path, tmp_path: Path) -> None:
    shutil.copytree(cohort / "train", tmp_path / "data" / "train")
    images = sorted((tmp_path / "data").glob("train/sub-*/anat/*.nii.gz"))
    images[0].write_bytes(BOMBS["claims 60,000³ voxels"]())
    images[1].write_bytes(deeply_compressed(16))
    killer = images[2].name
    # Its worker is ended by Dask at this limit, not by the kernel.
    audit = Audit(tmp_path, str(tmp_path / "data"), PADFLOW_WORKER_MEMORY="1GiB", TAKES_ALL_MEMORY=killer)
    printed = json.loads(audit.padflow("preprocess", str(study), "--json", code=0))
    assert printed == {"prepared": SUBJECTS - 3, "excluded": 3}
    assert remarks(audit.padflow.stderr) == []
    (state,) = json.loads(audit.padflow("status", str(study), "--json"))["cohorts"]
    said = {item["scan_id"].split("/")[1]: item["reason"] for item in state["exclusions"]}
    reasons = [said[image.name.removesuffix(".nii.gz")] for image in images[:3]]
    assert "60000" in reasons[0]
    assert "more than" in reasons[1]
    assert "its worker died 3 times" in reasons[2]
    assert len(whole_scans(local_objects(audit.store))) == SUBJECTS - 3
    assert audit.computed_after_finish() == []
    # The bombs were refused at once, and killed nobody.
    assert max(audit.counts("begun").values()) >= 3
