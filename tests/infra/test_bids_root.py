"""BIDS roots: hashes are reused only when they may be, and no file takes more memory than a scan may."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import pytest

from infra import bids_root
from infra.bids_root import BidsRoot, read_verified
from infra.storage_faults import SourceChanged
from tasks.records import ImageRef, ScanRejected
from tasks.science.cohort.bids import FileInfo


def test_hashes_are_reused_only_while_size_and_version_stand(tmp_path: Path) -> None:
    root = tmp_path / "bids"
    root.mkdir()
    (root / "a").write_bytes(b"one")
    bids = BidsRoot(str(root))
    files = bids.listing()
    true = bids.hashes(files, {})
    known = {(files[0].path, files[0].size_bytes, files[0].version): "kept"}
    assert bids.hashes(files, known) == {"a": "kept"}
    (root / "a").write_bytes(b"two!")
    again = bids.hashes(bids.listing(), known)
    assert again != true
    assert again["a"] != "kept"


def test_an_empty_root_says_what_to_check(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="PADFLOW_DATA"):
        BidsRoot(str(tmp_path / "absent")).listing()


def test_a_large_file_is_hashed_in_pieces(tmp_path: Path) -> None:
    size_bytes = 5 * bids_root.PIECE_BYTES + 12345
    with (tmp_path / "large").open("wb") as file:
        file.write(b"begin")
        file.seek(size_bytes - 3)
        file.write(b"end")
    bids = BidsRoot(str(tmp_path))
    tracemalloc.start()
    try:
        found = bids.hashes(bids.listing(), {})
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    whole = b"begin" + bytes(size_bytes - 8) + b"end"
    assert found == {"large": hashlib.sha256(whole).hexdigest()}
    assert peak_bytes < 2.5 * bids_root.PIECE_BYTES


def test_a_file_that_is_cut_while_it_is_indexed_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    with pytest.raises(SourceChanged, match="found other than the 9 bytes that were listed"):
        BidsRoot(str(tmp_path)).hashes([FileInfo("a", 9, "v")], {})


def test_an_image_that_grew_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bids_root, "REREAD_PAUSES_S", ())
    path = tmp_path / "sub-01_T1w.nii.gz"
    path.write_bytes(b"scan")
    image = ImageRef("T1w", str(path), 4, hashlib.sha256(b"scan").hexdigest())
    assert read_verified(image) == b"scan"
    with path.open("r+b") as file:
        file.truncate(200 * 2**30)
    with pytest.raises(SourceChanged, match="content is more than 4 bytes, the manifest says 4"):
        read_verified(image)
    path.write_bytes(b"sc")
    with pytest.raises(SourceChanged, match="content is sha256 "):
        read_verified(image)


def test_an_image_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(ScanRejected, match="larger than 2 GiB"):
        read_verified(ImageRef("T1w", "/nowhere/sub-01_T1w.nii.gz", 200 * 2**30, "0" * 64))
