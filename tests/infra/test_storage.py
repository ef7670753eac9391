"""The store: objects whole or not at all, keys that cannot leave it, hashes that are reused only when they may be."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from infra.local_files import replace_file
from infra.storage import BidsRoot, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "cache")


@pytest.mark.parametrize("key", ["../up", "a/../../b", "/etc/passwd", "a//b", "a b", "a/..", "", "a\nb", "s3://x"])
def test_keys_cannot_leave_the_store(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        store.read(key)
    with pytest.raises(ValueError, match="not a key"):
        store.write(key, b"")


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/x", "ftp://user:pw@host/x"])
def test_urls_with_credentials_are_refused_without_repeating_them(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must not hold credentials") as refusal:
        Store(url, tmp_path)
    assert "secret@bucket" not in str(refusal.value)
    assert "pw@" not in str(refusal.value)


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "object"
    contents = {bytes([letter]) * 400_000 for letter in b"abc"}
    replace_file(path, b"a" * 400_000)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for content in contents:
                replace_file(path, content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {path.read_bytes() for _ in range(300)}
    finally:
        stop.set()
        writer.join()
    assert seen <= contents


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        replace_file(tmp_path / "object", "text")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_nan_is_refused_in_json(store: Store) -> None:
    with pytest.raises(ValueError, match="JSON"):
        store.write_json("a.json", {"x": float("nan")})
    assert not store.exists("a.json")


def test_listing_names_what_was_written(store: Store) -> None:
    assert store.names("prepared") == set()
    store.write("prepared/a.json", b"{}")
    store.write("prepared/b.npy", b"1")
    assert store.names("prepared") == {"a.json", "b.npy"}


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


def test_what_a_killed_writer_left_is_no_object(store: Store, tmp_path: Path) -> None:
    store.write("prepared/a.json", b"{}")
    (tmp_path / "store" / "prepared" / ".writing-abc").write_bytes(b"half")
    assert store.keys() == {"prepared/a.json"}
