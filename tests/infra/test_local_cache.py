"""Copies of a remote store on this disk: bounded, whole, and never taken from under a reader."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest

from infra.local_cache import CacheTooSmall, LocalCache
from infra.storage import Store

KIB = 2**10
SIZE = 64 * KIB


def name(number: int) -> str:
    return f"0123456789ab/prepared/{number}.npy"


def content(path: str) -> bytes:
    return (path.rsplit("/", 1)[-1].encode() * SIZE)[:SIZE]


def cached(cache: LocalCache) -> set[int]:
    return {int(path.stem) for path in cache.folder.rglob("*.npy")}


def hold(cache: LocalCache, *numbers: int, fetched: list[str] | None = None) -> None:
    def fetch(path: str) -> bytes:
        if fetched is not None:
            fetched.append(path)
        return content(path)

    with cache.hold({name(number): SIZE for number in numbers}, fetch):
        assert all((cache.folder / name(number)).read_bytes() == content(name(number)) for number in numbers)


def test_what_was_used_least_recently_leaves_first_and_the_bound_holds(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path / "cache", 3 * SIZE)
    hold(cache, 1, 2, 3)
    for number, used_s in ((1, 300), (2, 100), (3, 200)):
        os.utime(cache.folder / name(number), (used_s, used_s))
    hold(cache, 1)
    fetched: list[str] = []
    hold(cache, 4, 1, fetched=fetched)
    assert cached(cache) == {1, 3, 4}
    assert fetched == [name(4)]
    hold(cache, 5, 6, 7)
    assert cached(cache) == {5, 6, 7}


def test_a_job_that_does_not_fit_is_told_before_anything_is_fetched(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path / "cache", 3 * SIZE)
    hold(cache, 9)
    fetched: list[str] = []
    with pytest.raises(CacheTooSmall, match=r"4 files to read take 0 MiB; .*PADFLOW_CACHE_GIB to 1 or more"):
        hold(cache, 1, 2, 3, 4, fetched=fetched)
    assert fetched == []
    assert cached(cache) == {9}
    with cache.hold({name(number): SIZE for number in (1, 2)}, content):
        with pytest.raises(
            CacheTooSmall, match=r"beside 0 MiB that other jobs on this machine are reading; .*wait for"
        ):
            hold(cache, 3, 4)
        hold(cache, 2, 3)
        assert cached(cache) == {1, 2, 3}
    hold(cache, 4, 5)
    assert len(cached(cache)) == 3
    with pytest.raises(CacheTooSmall, match="its disk could take"), cache.hold({name(8): 2**60}, content):
        pass


def test_without_a_number_the_bound_is_a_share_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = LocalCache(tmp_path / "cache")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 5 * SIZE}))
    hold(cache, 1, 2)
    hold(cache, 3, 4, 5)
    # Half of the five that are free and the two that are there.
    assert cached(cache) == {3, 4, 5}


def test_a_fault_while_fetching_is_the_callers_and_the_rest_goes_on_next_time(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path / "cache", 3 * SIZE)
    counted: list[int] = []

    def fetch(path: str) -> bytes:
        if path == name(2):
            raise OSError("the network is down")
        return content(path)

    three = {name(number): SIZE for number in (1, 2, 3)}
    with pytest.raises(OSError, match="the network is down"), cache.hold(three, fetch):
        pass
    with cache.hold({name(2): SIZE}, content, lambda count: lambda: counted.append(count)):
        assert counted == [1]


READER = """
import random, sys, time
from pathlib import Path
from infra.local_cache import LocalCache
folder, limit, size, seed, for_s = Path(sys.argv[1]), *map(int, sys.argv[2:5]), float(sys.argv[5])
cache, chance, rounds, until_s = LocalCache(folder, limit), random.Random(seed), 0, time.monotonic() + for_s

def content(name):
    return (name.encode() * size)[:size]

while time.monotonic() < until_s:
    names = [f"0123456789ab/{number}.npy" for number in chance.sample(range(12), 2)]
    with cache.hold(dict.fromkeys(names, size), content):
        for name in 3 * names:
            assert (folder / name).read_bytes() == content(name)
        # While nobody may evict or take a lease: a listing lasts, and would count what goes beside what comes for it.
        with cache._alone():
            present = sum(path.stat().st_size for path in folder.rglob("*.npy"))
    assert present <= limit, present
    rounds += 1
print(rounds)
"""


def test_processes_that_share_a_cache_read_whole_files_within_the_bound(tmp_path: Path) -> None:
    arguments = [[str(tmp_path), str(8 * SIZE), str(SIZE), str(seed), "1.5"] for seed in range(4)]
    readers = [subprocess.Popen([sys.executable, "-c", READER, *each], stdout=subprocess.PIPE) for each in arguments]
    rounds = [int(reader.communicate(timeout=60)[0]) for reader in readers]
    assert [reader.returncode for reader in readers] == [0, 0, 0, 0]
    assert min(rounds) >= 1


HOLDER = """
import sys, time
from pathlib import Path
from infra.local_cache import LocalCache
with LocalCache(Path(sys.argv[1]), int(sys.argv[2])).hold({sys.argv[3]: int(sys.argv[4])}, lambda path: b""):
    print("holding", flush=True)
    time.sleep(600)
"""


def test_a_killed_job_holds_nothing_any_more(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path / "cache", 2 * SIZE)
    hold(cache, 1)
    arguments = [str(cache.folder), str(2 * SIZE), name(1), str(SIZE)]
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, *arguments], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == "holding\n"
        with pytest.raises(CacheTooSmall):
            hold(cache, 2, 3)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    hold(cache, 2, 3)
    assert cached(cache) == {2, 3}
    assert list((cache.folder / "leases").iterdir()) == []


@contextmanager
def remote_store(folder: Path, contents: Sequence[bytes]) -> Iterator[tuple[Store, list[str]]]:
    """A store that is not on this disk, as fsspec has one in memory."""
    url = "memory://cache-test/store"
    store = Store(url, folder / "cache", 2**20)
    keys = [f"prepared/recipe/{number}.npy" for number in range(len(contents))]
    for key, each in zip(keys, contents, strict=True):
        store.write(key, each)
    try:
        yield store, keys
    finally:
        fsspec.filesystem("memory").rm("/cache-test", recursive=True)


def test_a_remote_stores_objects_are_files_while_they_are_held(tmp_path: Path) -> None:
    with remote_store(tmp_path, [b"one", b"two", b"three"]) as (store, keys):
        totals: list[int] = []
        with store.holding(keys, lambda count: lambda: totals.append(count)) as paths:
            assert [path.read_bytes() for path in paths] == [b"one", b"two", b"three"]
            assert paths == [store.local_path(key) for key in keys]
        assert totals == [3, 3, 3]
        for key in keys:
            store.delete(key)
        with store.holding(keys) as paths:
            assert paths[2].read_bytes() == b"three"
        with pytest.raises(FileNotFoundError), store.holding(["prepared/recipe/none.npy"]):
            pass
        store.write("prepared/recipe/large.npy", bytes(2**21))
        with pytest.raises(CacheTooSmall, match="1 files"), store.holding(["prepared/recipe/large.npy"]):
            pass


def test_a_local_stores_objects_are_held_where_they_are(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), tmp_path / "cache")
    store.write("prepared/recipe/a.npy", b"one")
    with store.holding(["prepared/recipe/a.npy"]) as paths:
        assert paths == [tmp_path / "store" / "prepared" / "recipe" / "a.npy"]
    assert not (tmp_path / "cache").exists()
