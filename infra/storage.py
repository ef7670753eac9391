"""The object store: with `infra/bids_root.py`, which reads images, the only place that touches fsspec.

Objects appear whole or not at all: a local object is written beside its place and renamed, a remote one is put in
one request. Nothing is ever changed under a key that names its content: who comes second leaves what is there. Every
call is patient with faults that pass (`infra/storage_faults.py`).
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd

from infra.local_cache import STORE_NAME_LENGTH, Advance, LocalCache, quietly
from infra.local_files import DRAFT_PREFIX, create_file, remove_old_drafts, replace_file
from infra.s3_client import s3_options
from infra.storage_faults import patiently, storage_code

READ_THREADS = 8
WRITE_CHECK = "write-check.txt"
HOLDS_SECRETS = re.compile(r"^[a-z0-9+]+://([^/@]*:[^/]*@|[^?]*\?)")
SAFE_KEY = re.compile(r"^[A-Za-z0-9._\-=]+(/[A-Za-z0-9._\-=]+)*$")


def open_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Connect to where a URL points.

    Args:
        url: A local path or any fsspec URL. Credentials come from the environment, never from the URL.

    Returns:
        The filesystem and the root path on it.

    Raises:
        ValueError: The URL carries credentials, which would end up in manifests and logs.
    """
    if HOLDS_SECRETS.match(url):
        raise ValueError(
            "a URL must not hold credentials: found 'user:secret@' or a signature in it, expected s3://bucket/prefix.\n"
            "Put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile."
        )
    if not url.startswith("s3://"):
        filesystem, path = fsspec.core.url_to_fs(url)
        return filesystem, str(path).rstrip("/")
    filesystem, path = fsspec.core.url_to_fs(url, **s3_options())
    # s3fs would repeat what botocore has repeated already, twice over for a body: 75 times in all, nearly at once.
    filesystem.retries = 1
    return filesystem, str(path).rstrip("/")


class Store:
    """Keyed objects below one root: what is there is the truth about what is done."""

    def __init__(self, url: str, cache: Path, cache_bytes: int | None = None) -> None:
        """Connect.

        Args:
            url: A folder or any fsspec URL.
            cache: Local folder for copies of a remote store's objects.
            cache_bytes: Most bytes of them; none: a share of the disk.
        """
        self.url = url.rstrip("/")
        self.cache = cache
        self._copies = LocalCache(cache, cache_bytes)
        self._filesystem, self._root = open_filesystem(url)
        self.is_local = "file" in protocols(self._filesystem)

    def uri(self, key: str) -> str:
        """The full URL of a key, as a user would open it."""
        return f"{self.url}/{_checked(key)}"

    def exists(self, key: str) -> bool:
        """Whether an object is there."""
        return bool(self._patiently(self._filesystem.exists, key))

    def names(self, prefix: str) -> set[str]:
        """Names directly below a prefix, in one listing."""
        return set(self.marks(prefix))

    def marks(self, prefix: str) -> dict[str, str]:
        """Names directly below a prefix, in one listing, and a remote store's mark of the bytes ("" on a local one)."""
        try:
            if self.is_local:
                return dict.fromkeys(self._patiently(os.listdir, prefix), "")
            found = self._patiently(functools.partial(self._filesystem.ls, detail=True), prefix)
        except FileNotFoundError:
            return {}
        return {str(info["name"]).rsplit("/", 1)[-1]: version_mark(info) for info in found}

    def keys(self) -> set[str]:
        """Every key of the store, in one listing of all its folders."""
        try:
            found = patiently(lambda: self._filesystem.find(self._root), self.url)
        except FileNotFoundError:
            return set()
        keys = (str(path).removeprefix(self._root).lstrip("/") for path in found)
        return {key for key in keys if not key.rsplit("/", 1)[-1].startswith(DRAFT_PREFIX)}

    def read(self, key: str) -> bytes:
        """All bytes of an object; a missing one is a `FileNotFoundError`."""
        return bytes(self._patiently(self._filesystem.cat_file, key))

    def delete(self, key: str) -> None:
        """Take an object away."""
        self._patiently(self._filesystem.rm_file, key)

    def read_many(self, keys: Sequence[str]) -> list[bytes]:
        """The bytes of several objects, in order, some at a time."""
        with ThreadPoolExecutor(READ_THREADS) as pool:
            return list(pool.map(self.read, keys))

    def write(self, key: str, content: bytes) -> None:
        """Write an object whole or not at all, in place of what was there."""
        self._patiently(functools.partial(self._replace, content=content), key)

    def publish(self, key: str, content: bytes) -> bool:
        """Write an object whole unless it is there: of two writers at the same time, one.

        A server that ignores `If-None-Match` replaces the object by equal bytes, since keys name what made them.

        Returns:
            Whether this call wrote it.
        """
        try:
            self._patiently(functools.partial(self._create, content=content), key)
        except FileExistsError:
            return False
        return True

    def check_writable(self) -> None:
        """Show that objects can be written, before hours of work rather than after.

        Raises:
            StorageRefused: They cannot, with what was found and what to do.
        """
        self.write(WRITE_CHECK, b"padflow can write here\n")

    def remove_old_drafts(self, folders: Iterable[str]) -> None:
        """Take away what writers that were killed long ago left in folders of a local store; a remote one has none."""
        for folder in folders if self.is_local else ():
            remove_old_drafts(Path(f"{self._root}/{_checked(folder)}"))

    def _patiently(self, action: Callable[[str], Any], key: str) -> Any:
        path = f"{self._root}/{_checked(key)}"
        return patiently(lambda: action(path), self.uri(key))

    def _replace(self, path: str, content: bytes) -> None:
        if self.is_local:
            replace_file(Path(path), content)
        else:
            self._filesystem.pipe_file(path, content)

    def _create(self, path: str, content: bytes) -> None:
        if self.is_local:
            create_file(Path(path), content)
            return
        try:
            self._filesystem.pipe_file(path, content, mode="create")
        except OSError as error:
            code = storage_code(error)
            if code == "PreconditionFailed":
                raise FileExistsError(path) from error
            if code != "NotImplemented":
                raise
            if self._filesystem.exists(path):
                raise FileExistsError(path) from error
            self._filesystem.pipe_file(path, content)

    def read_json(self, key: str) -> Any:
        """An object that holds JSON."""
        return json.loads(self.read(key))

    def write_json(self, key: str, value: Any) -> None:
        """Write a value as JSON; NaN is refused, since no reader agrees on it."""
        self.write(key, json_bytes(value))

    def publish_json(self, key: str, value: Any) -> bool:
        """Write a value as JSON unless the object is there."""
        return self.publish(key, json_bytes(value))

    def read_table(self, key: str) -> pd.DataFrame:
        """An object that holds a Parquet table."""
        import io

        return pd.read_parquet(io.BytesIO(self.read(key)))

    def write_table(self, key: str, table: pd.DataFrame) -> None:
        """Write a table as Parquet."""
        self.write(key, table.to_parquet(index=False))

    @contextmanager
    def holding(self, keys: Sequence[str], on_start: Callable[[int], Advance] = quietly) -> Iterator[list[Path]]:
        """Have objects as whole files on this machine while the block runs, fetched ahead and not taken away.

        Only for keys that name what made the bytes: a copy is not compared with its object again.

        Args:
            keys: Objects that will be read, repeatedly.
            on_start: Called with the number of objects to fetch, if any; what it returns is called after each.

        Yields:
            Their files, in order: themselves on a local store, else copies in the bounded cache.

        Raises:
            CacheTooSmall: They do not fit into the cache; nothing was fetched.
            FileNotFoundError: An object is not there.
        """
        paths = [self._local_place(key) for key in keys]
        if self.is_local or not keys:
            yield paths
            return
        by_name = {str(path.relative_to(self.cache)): key for path, key in zip(paths, keys, strict=True)}
        with self._copies.hold(self._sizes(by_name), lambda name: self.read(by_name[name]), on_start):
            yield paths

    def local_path(self, key: str) -> Path:
        """A file on this machine that holds an object: itself on a local store, else a copy in the cache.

        For what is read once, at once: outside `holding` a copy may leave the cache when somebody needs room.
        """
        path = self._local_place(key)
        if not self.is_local and not path.exists():
            replace_file(path, self.read(key))
        return path

    def _local_place(self, key: str) -> Path:
        if self.is_local:
            return Path(f"{self._root}/{_checked(key)}")
        return self.cache / hashlib.sha256(self.url.encode()).hexdigest()[:STORE_NAME_LENGTH] / _checked(key)

    def _sizes(self, by_name: dict[str, str]) -> dict[str, int]:
        """Bytes of objects; asks the store only where there is no copy."""
        copies = {name: self.cache / name for name in by_name}
        sizes = {name: copy.stat().st_size for name, copy in copies.items() if copy.exists()}
        missing = [name for name in by_name if name not in sizes]
        with ThreadPoolExecutor(READ_THREADS) as pool:
            found = pool.map(lambda name: self._patiently(self._filesystem.info, by_name[name])["size"], missing)
            return sizes | dict(zip(missing, map(int, found), strict=True))


def read_uri(uri: str) -> bytes:
    """All bytes behind a path or URL that a user named."""
    filesystem, path = open_filesystem(uri)
    return bytes(patiently(lambda: filesystem.cat_file(path), uri))


def json_bytes(value: Any) -> bytes:
    """Canonical JSON; NaN, which is none, is refused."""
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False).encode()


def version_mark(info: dict[str, Any]) -> str:
    """A remote store's mark of an object's bytes."""
    return str(info.get("ETag") or info.get("mtime") or info.get("LastModified") or "")


def protocols(filesystem: fsspec.AbstractFileSystem) -> Iterable[str]:
    """Names of a filesystem's protocol; `file` where it is this machine's."""
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else protocol


def _checked(key: str) -> str:
    if not SAFE_KEY.match(key) or ".." in key.split("/"):
        raise ValueError(
            f"{key!r} is not a key of the store: expected names of letters, digits and ._-= joined by '/'."
        )
    return key
