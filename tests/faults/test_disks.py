"""Disks that are full or read-only: one clear error, before or in the middle, and nothing half."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.storage import Store
from infra.storage_faults import StorageRefused
from tests.faults.conftest import SUBJECTS, Audit, local_objects, sha256s, whole_scans


@contextmanager
def small_disk(place: Path, size_kib: int) -> Iterator[None]:
    """A disk of its own at a folder; skips the test where mounting is not allowed."""
    place.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small disk is not allowed here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_store_that_fills_up_stops_the_run_and_is_continued(study: Path, cohort: Path, tmp_path: Path) -> None:
    audit = Audit(tmp_path, str(cohort))
    volume_kib = 2 * 40 * 48 * 40 // 1024
    with small_disk(audit.store, 2 * volume_kib + 120):
        audit.padflow("preprocess", str(study), code=1)
        (line,) = audit.padflow.stderr.splitlines()
        assert line.startswith(f"error: storage failed for 3 scans in a row; the last: {audit.store}")
        assert "no space is left. Free some space there, or give another --store" in line
        assert 1 <= len(whole_scans(local_objects(audit.store))) < SUBJECTS
        assert list(audit.store.rglob(".writing-*")) == []
        subprocess.run(["mount", "-o", "remount,size=10m", str(audit.store)], check=True)
        audit.padflow("preprocess", str(study))
        assert whole_scans(local_objects(audit.store)) == sha256s(cohort)
        assert audit.counts("finished") == dict.fromkeys(sha256s(cohort), 1)
        assert audit.computed_after_finish() == []


def test_a_read_only_store_is_said_before_any_scan(study: Path, cohort: Path, tmp_path: Path) -> None:
    audit = Audit(tmp_path, str(cohort))
    with small_disk(audit.store, 4096):
        subprocess.run(["mount", "-o", "remount,ro", str(audit.store)], check=True)
        audit.padflow("preprocess", str(study), code=1)
    (line,) = audit.padflow.stderr.splitlines()
    assert line.startswith(f"error: {audit.store}")
    assert "the file system is read-only. Ask for permission to read and write there, or give another --store" in line
    assert audit.workers() == []


def test_scratch_that_is_full_is_said(study: Path, cohort: Path, tmp_path: Path) -> None:
    audit = Audit(tmp_path, str(cohort), PADFLOW_STORE=str(tmp_path / "elsewhere"))
    scratch = audit.padflow.home / "dask"
    with small_disk(scratch, 64):
        (scratch / "full").write_bytes(b"x" * 65536)
        audit.padflow("preprocess", str(study), code=1)
        (line,) = audit.padflow.stderr.splitlines()
        assert line.startswith(f"error: {scratch}: workers cannot write there (No space left on device)")
        assert "--home" in line
        assert audit.workers() == []


def test_a_full_disk_leaves_no_part_of_an_object(tmp_path: Path) -> None:
    place = tmp_path / "store"
    with small_disk(place, 64):
        store = Store(str(place), tmp_path / "cache")
        with pytest.raises(StorageRefused, match="no space is left"):
            store.publish("a/b.npy", os.urandom(100_000))
        assert [path.name for path in place.rglob("*") if path.is_file()] == []
        assert shutil.disk_usage(place).used < 8192


def test_json_of_a_full_disk_is_tried_again_by_the_next_run(tmp_path: Path) -> None:
    place = tmp_path / "store"
    with small_disk(place, 64):
        store = Store(str(place), tmp_path / "cache")
        (place / "ballast").write_bytes(b"x" * 65536)
        with pytest.raises(StorageRefused):
            store.publish_json("a.json", {"a": 1})
        (place / "ballast").unlink()
        assert store.publish_json("a.json", {"a": 1})
        assert json.loads(store.read("a.json")) == {"a": 1}
