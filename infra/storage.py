"""The object store and BIDS roots: the only place that touches fsspec.

Objects appear whole or not at all: a local object is written beside its place and renamed, a remote one is put in
one request. Nothing is ever changed under a key that names its content.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd

from infra.local_listing import list_folder
from tasks.science.cohort.bids import FileInfo

READ_THREADS = 8
HOLDS_SECRETS = re.compile(r"^[a-z0-9+]+://([^/@]*:[^/]*@|[^?]*\?)")
SAFE_KEY = re.compile(r"^[A-Za-z0-9._\-=]+(/[A-Za-z0-9._\-=]+)*$")
# S3-compatible servers often lack the newer checksum headers, and a stale listing would hide finished work.
S3_OPTIONS: dict[str, Any] = {
    "use_listings_cache": False,
    "config_kwargs": {
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "retries": {"max_attempts": 6, "mode": "standard"},
    },
}


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
    options = S3_OPTIONS if url.startswith("s3://") else {}
    filesystem, path = fsspec.core.url_to_fs(url, **options)
    return filesystem, str(path).rstrip("/")


class Store:
    """Keyed objects below one root: what is there is the truth about what is done."""

    def __init__(self, url: str, cache: Path) -> None:
        self.url = url.rstrip("/")
        self.cache = cache
        self._filesystem, self._root = open_filesystem(url)
        self.is_local = "file" in _protocols(self._filesystem)

    def uri(self, key: str) -> str:
        """The full URL of a key, as a user would open it."""
        return f"{self.url}/{_checked(key)}"

    def exists(self, key: str) -> bool:
        """Whether an object is there."""
        return bool(self._filesystem.exists(f"{self._root}/{_checked(key)}"))

    def names(self, prefix: str) -> set[str]:
        """Names directly below a prefix, in one listing."""
        return set(self.marks(prefix))

    def marks(self, prefix: str) -> dict[str, str]:
        """Names directly below a prefix, in one listing, and a remote store's mark of the bytes ("" on a local one)."""
        path = f"{self._root}/{_checked(prefix)}"
        try:
            if self.is_local:
                return dict.fromkeys(os.listdir(path), "")  # noqa: PTH208 (tens of thousands)
            found = self._filesystem.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        return {str(info["name"]).rsplit("/", 1)[-1]: _version(info) for info in found}

    def keys(self) -> set[str]:
        """Every key of the store, in one listing of all its folders."""
        try:
            found = self._filesystem.find(self._root)
        except FileNotFoundError:
            return set()
        return {str(path).removeprefix(self._root).lstrip("/") for path in found}

    def read(self, key: str) -> bytes:
        """All bytes of an object; a missing one is a `FileNotFoundError`."""
        return bytes(self._filesystem.cat_file(f"{self._root}/{_checked(key)}"))

    def delete(self, key: str) -> None:
        """Take an object away."""
        self._filesystem.rm_file(f"{self._root}/{_checked(key)}")

    def read_many(self, keys: Sequence[str]) -> list[bytes]:
        """The bytes of several objects, in order, some at a time."""
        with ThreadPoolExecutor(READ_THREADS) as pool:
            return list(pool.map(self.read, keys))

    def write(self, key: str, content: bytes) -> None:
        """Write an object whole or not at all."""
        path = f"{self._root}/{_checked(key)}"
        if self.is_local:
            replace_file(Path(path), content)
        else:
            self._filesystem.pipe_file(path, content)

    def read_json(self, key: str) -> Any:
        """An object that holds JSON."""
        return json.loads(self.read(key))

    def write_json(self, key: str, value: Any) -> None:
        """Write a value as JSON; NaN is refused, since no reader agrees on it."""
        self.write(key, json.dumps(value, sort_keys=True, indent=1, allow_nan=False).encode())

    def read_table(self, key: str) -> pd.DataFrame:
        """An object that holds a Parquet table."""
        import io

        return pd.read_parquet(io.BytesIO(self.read(key)))

    def write_table(self, key: str, table: pd.DataFrame) -> None:
        """Write a table as Parquet."""
        self.write(key, table.to_parquet(index=False))

    def local_path(self, key: str) -> Path:
        """A file on this machine that holds an object: itself on a local store, else a cached copy.

        The copy is written beside its place and renamed, so that two readers never see half of it.
        """
        if self.is_local:
            return Path(f"{self._root}/{_checked(key)}")
        copy = self.cache / hashlib.sha256(self.url.encode()).hexdigest()[:12] / _checked(key)
        if not copy.exists():
            replace_file(copy, self.read(key))
        return copy


class BidsRoot:
    """A BIDS data set to read from, never written to."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._filesystem, self._root = open_filesystem(url)

    def listing(self) -> list[FileInfo]:
        """Every file below the root with its size and what changes when its content does.

        Raises:
            ValueError: There is nothing there.
        """
        files = self._list()
        if not files:
            raise ValueError(
                f"{self.url}: found no files, expected a BIDS data set (sub-*/…/anat/*.nii.gz).\n"
                "Check the cohort's `root` in the study, and --data or PADFLOW_DATA, which relative roots are below."
            )
        return files

    def _list(self) -> list[FileInfo]:
        if "file" in _protocols(self._filesystem):
            return list_folder(self._root)
        found = self._filesystem.find(self._root, detail=True)
        return [
            FileInfo(
                path=path.removeprefix(self._root).lstrip("/"), size_bytes=int(info["size"]), version=_version(info)
            )
            for path, info in found.items()
        ]

    def uri(self, path: str) -> str:
        """The full URL of a file of the listing."""
        return f"{self.url}/{path}"

    def read(self, path: str) -> bytes:
        """All bytes of a file of the listing."""
        return bytes(self._filesystem.cat_file(f"{self._root}/{path}"))

    def hashes(
        self, files: Sequence[FileInfo], known: dict[tuple[str, int, str], str], done: Callable[[], None] = lambda: None
    ) -> dict[str, str]:
        """SHA-256 of every file; one that is known under the same size and version is not read again.

        Args:
            files: What to hash.
            known: (path, size, version) → digest of an earlier index.
            done: Called after each file, for a progress bar.
        """

        found: dict[str, str] = {}
        fresh: list[FileInfo] = []
        for file in files:
            earlier = known.get((file.path, file.size_bytes, file.version))
            if earlier is None:
                fresh.append(file)
            else:
                found[file.path] = earlier
                done()

        def one(file: FileInfo) -> tuple[str, str]:
            result = hashlib.sha256(self.read(file.path)).hexdigest()
            done()
            return file.path, result

        with ThreadPoolExecutor(READ_THREADS) as pool:
            return {**found, **dict(pool.map(one, fresh))}


def read_uri(uri: str) -> bytes:
    """All bytes behind a path or URL that a user named."""
    filesystem, path = open_filesystem(uri)
    return bytes(filesystem.cat_file(path))


def replace_file(path: Path, content: bytes) -> None:
    """Write a local file so that readers see the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A temporary file is its owner's alone; an object of a shared store is everybody's that the umask lets in.
        Path(draft).chmod(0o666 & ~_umask())
        os.replace(draft, path)  # noqa: PTH105
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


@lru_cache(maxsize=1)
def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


def _version(info: dict[str, Any]) -> str:
    return str(info.get("ETag") or info.get("mtime") or info.get("LastModified") or "")


def _protocols(filesystem: fsspec.AbstractFileSystem) -> Iterable[str]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else protocol


def _checked(key: str) -> str:
    if not SAFE_KEY.match(key) or ".." in key.split("/"):
        raise ValueError(
            f"{key!r} is not a key of the store: expected names of letters, digits and ._-= joined by '/'."
        )
    return key
