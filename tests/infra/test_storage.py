"""The store: objects whole or not at all, keys that cannot leave it, nothing left of killed writers."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from infra.local_files import replace_file
from infra.storage import Store


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


def test_what_a_killed_writer_left_is_no_object(store: Store, tmp_path: Path) -> None:
    store.write("prepared/a.json", b"{}")
    (tmp_path / "store" / "prepared" / ".writing-abc").write_bytes(b"half")
    assert store.keys() == {"prepared/a.json"}


def test_what_a_writer_left_that_was_killed_days_ago_is_taken_away(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "store" / "prepared" / "recipe"
    store.write("prepared/recipe/a.json", b"{}")
    drafts = {name: folder / f".writing-{name}" for name in ("killed", "under-way")}
    for draft in drafts.values():
        draft.write_bytes(b"half")
    two_days_ago = time.time() - 2 * 86_400
    for path in (drafts["killed"], folder / "a.json"):
        os.utime(path, (two_days_ago, two_days_ago))
    store.remove_old_drafts(["prepared/recipe", "montages/recipe"])
    assert {path.name for path in folder.iterdir()} == {"a.json", ".writing-under-way"}
