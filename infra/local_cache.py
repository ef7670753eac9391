"""Copies of a remote store's objects on this machine's disk, for readers that come back to them: bounded, shared.

A training reads each of its files once per epoch for hours, and several trainings may share a disk. So whoever reads
first takes a lease on all the files that it will read; what a lease names is not evicted, and nothing is read without
one. A lease is a file that its process keeps locked: the kernel lets go of it however the process ends.

Copies are never compared with the remote object again: they are kept for keys that name what made the bytes (the
scan's hash and the recipe's), under which bytes never change.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from infra.local_files import DRAFT_PREFIX, remove_old_drafts, replace_file

FETCH_THREADS = 16
GIB = 2**30
# Of what the disk could give: others write there too, the training's checkpoints among them.
SHARE_OF_DISK = 0.5
# Copies of each store lie in a folder of this many hexadecimal digits; other things may lie beside.
STORE_NAME_LENGTH = 12
STORE_FOLDER = re.compile(rf"^[0-9a-f]{{{STORE_NAME_LENGTH}}}$")

Advance = Callable[[], None]
Fetch = Callable[[str], bytes]


def quietly(count: int) -> Advance:
    """Show no progress."""
    return lambda: None


class CacheTooSmall(ValueError):
    """The files of one job do not fit: it would fetch them anew in every epoch."""


@dataclass(frozen=True)
class _Copy:
    size: int
    used_s: float


class LocalCache:
    """A folder of copies, of at most a number of bytes, least recently used ones leaving first."""

    def __init__(self, folder: Path, limit_bytes: int | None = None) -> None:
        """Name the folder.

        Args:
            folder: On a fast local disk. Copies lie in one folder per store.
            limit_bytes: Most bytes of all copies together; none: half of what the disk could give, copies included.
        """
        self.folder = folder
        self.limit_bytes = limit_bytes

    @contextmanager
    def hold(
        self, sizes: Mapping[str, int], fetch: Fetch, on_start: Callable[[int], Advance] = quietly
    ) -> Iterator[None]:
        """Have copies on this disk while the block runs.

        Args:
            sizes: Bytes of each file wanted, by its path below the folder.
            fetch: Gives the bytes of one of them.
            on_start: Called with the number of files to fetch, if any; what it returns is called after each.

        Raises:
            CacheTooSmall: They do not fit, with what others hold; nothing was fetched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lease(sizes):
            missing = sorted(name for name in sizes if not (self.folder / name).exists())
            if missing:
                self._fetch(missing, fetch, on_start(len(missing)))
            self._touch(sizes)
            try:
                yield
            finally:
                self._touch(sizes)

    def _fetch(self, names: list[str], fetch: Fetch, advance: Advance) -> None:
        with ThreadPoolExecutor(FETCH_THREADS) as pool:
            # Threads write what they fetch, so that no more than one file each is in memory.
            fetched = [pool.submit(lambda name: replace_file(self.folder / name, fetch(name)), name) for name in names]
            try:
                for each in as_completed(fetched):
                    each.result()
                    advance()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _touch(self, names: Mapping[str, int]) -> None:
        # Access times are often switched off; whoever deleted a copy by hand is not held up here.
        for name in names:
            with suppress(FileNotFoundError):
                os.utime(self.folder / name)

    @contextmanager
    def _lease(self, sizes: Mapping[str, int]) -> Iterator[None]:
        path = self.folder / "leases" / f"{uuid.uuid4().hex}.json"
        path.parent.mkdir(exist_ok=True)
        with ExitStack() as until_released:
            # Whoever looks at leases is alone too, so that nobody sees one that is not locked or written yet.
            with self._alone():
                self._make_room(sizes)
                lease = until_released.enter_context(path.open("w"))
                until_released.callback(path.unlink, missing_ok=True)
                fcntl.flock(lease, fcntl.LOCK_EX)
                json.dump({"pid": os.getpid(), "sizes": dict(sizes)}, lease)
                lease.flush()
            yield

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_room(self, sizes: Mapping[str, int]) -> None:
        """Evict what nobody holds until these files fit beside what others hold."""
        copies = self._copies()
        others = self._held_by_others()
        reserved = {**others, **sizes}
        to_fetch = sum(size for name, size in sizes.items() if name not in copies)
        free = shutil.disk_usage(self.folder).free
        present = sum(copy.size for copy in copies.values())
        limit = self.limit_bytes if self.limit_bytes is not None else round(SHARE_OF_DISK * (free + present))
        unheld = {name: copy for name, copy in copies.items() if name not in reserved}
        evictable = sum(copy.size for copy in unheld.values())
        self._refuse(sizes, others, limit, to_fetch, free + evictable)
        excess = sum(reserved.values()) + evictable - limit
        lacking = to_fetch - free
        for name, copy in sorted(unheld.items(), key=lambda item: item[1].used_s):
            if excess <= 0 and lacking <= 0:
                return
            (self.folder / name).unlink(missing_ok=True)
            excess -= copy.size
            lacking -= copy.size

    def _refuse(
        self, sizes: Mapping[str, int], others: Mapping[str, int], limit: int, to_fetch: int, obtainable: int
    ) -> None:
        wanted, held = sum(sizes.values()), sum({**others, **sizes}.values())
        if held <= limit and to_fetch <= obtainable:
            return
        beside = f" beside {_gib(held - wanted)} that other jobs on this machine are reading" if held > wanted else ""
        what_to_do = "wait for them, or " if beside and wanted <= limit else ""
        raise CacheTooSmall(
            f"the {len(sizes):,} files to read take {_gib(wanted)}{beside}; the cache of the remote store, "
            f"{self.folder}, may hold {_gib(limit)}, and its disk could take {_gib(obtainable)} more. They would be "
            f"fetched anew in every epoch. Next: {what_to_do}set PADFLOW_CACHE_GIB to {-(-held // GIB)} or more, or "
            "PADFLOW_CACHE to a folder on a larger local disk."
        )

    def _copies(self) -> dict[str, _Copy]:
        """Every copy by its path below the folder."""
        found: dict[str, _Copy] = {}
        for store in self.folder.iterdir():
            if not STORE_FOLDER.match(store.name):
                continue
            for folder, _, names in os.walk(store):
                remove_old_drafts(Path(folder))
                below = os.path.relpath(folder, self.folder)
                for name in names:
                    if not name.startswith(DRAFT_PREFIX):
                        with suppress(FileNotFoundError):
                            info = os.stat(f"{folder}/{name}")  # noqa: PTH116
                            found[f"{below}/{name}"] = _Copy(info.st_size, info.st_mtime)
        return found

    def _held_by_others(self) -> dict[str, int]:
        """Sizes of what living leases name; those of processes that are gone are taken away."""
        held: dict[str, int] = {}
        for path in (self.folder / "leases").glob("*.json"):
            with suppress(FileNotFoundError), path.open() as lease:
                if _is_locked(lease):
                    held |= json.load(lease)["sizes"]
                else:
                    path.unlink(missing_ok=True)
        return held


def _is_locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.0f} MiB"
