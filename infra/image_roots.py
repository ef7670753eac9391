"""Which images a registered model reads: those below an allow-list of roots, so that a caller over HTTP gets no others.

Only files of this machine and objects of S3 are read; what is checked is the very place that is opened. This file
travels with a registered model, and so imports nothing of padflow but its own neighbours.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import fsspec

from .s3_client import s3_options

VARIABLE = "PADFLOW_IMAGE_ROOTS"
IMAGE_LIMIT_BYTES = 512 * 2**20
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/{2}")
LONGEST_SHOWN = 200


class ImageRefused(Exception):
    """An address that this model may not read, whether or not there is anything behind it."""


@dataclass(frozen=True)
class ImageRoots:
    """Folders and prefixes below which images are read; a root may be one file."""

    roots: tuple[str, ...]

    @classmethod
    def given(cls, roots: Iterable[str], environment: str = "") -> ImageRoots:
        """Gather roots.

        Args:
            roots: Absolute paths, `file://` or `s3://` URLs.
            environment: More of them, separated by commas, as `PADFLOW_IMAGE_ROOTS` holds them.

        Raises:
            ValueError: One is none of these.
        """
        more = (root.strip() for root in environment.split(","))
        found = tuple(dict.fromkeys(root for root in (*roots, *more) if root))
        for root in found:
            try:
                place = _place(root)
            except ImageRefused as error:
                raise ValueError(f"image root {shown(root)}: {error}. Correct it in {VARIABLE}.") from error
            if not place.startswith("s3://") and not (root.partition("://")[2] or root).startswith("/"):
                raise ValueError(f"image root {shown(root)}: expected an absolute path, or s3://bucket/prefix.")
        return cls(found)

    def read(self, uri: str) -> bytes:
        """All bytes of an image.

        Raises:
            ImageRefused: It does not lie below a root.
            OSError: It could not be read. S3 clients raise errors of their own, too.
        """
        place = _place(uri)
        # Links among the roots are followed anew each time, as those of the image are.
        if not any(_is_below(place, _place(root)) for root in self.roots):
            raise ImageRefused("it does not lie below a folder or prefix that this model may read")
        content = _read_s3(place) if place.startswith("s3://") else _read_file(place)
        if len(content) > IMAGE_LIMIT_BYTES:
            raise OSError(f"it is larger than {IMAGE_LIMIT_BYTES // 2**20} MiB")
        return content


def recordable(urls: Iterable[str]) -> tuple[str, ...]:
    """Those of some addresses that can be roots; others are left out, as is whatever may hold a password.

    >>> recordable(["/data/store", "s3://bucket/store", "gs://bucket/store", "s3://key:secret@bucket"])
    ('/data/store', 's3://bucket/store')
    """
    kept = []
    for url in urls:
        try:
            ImageRoots.given([url])
        except ValueError:
            continue
        kept.append(url)
    return tuple(kept)


def shown(uri: str) -> str:
    """An address as a reason may hold it: without a password or signature, on one line, not endless."""
    text = re.sub(r"(?<=://)[^/@]*@", "…@", uri)
    text = re.sub(r"\?.*", "?…", text, flags=re.DOTALL) if "://" in uri else text
    text = "".join(c if c.isprintable() else "�" for c in text)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"


def _place(uri: str) -> str:
    """What would be opened: the file's path with every link followed, or an S3 object's one address."""
    if "::" in uri:
        raise ImageRefused("chained addresses (such as simplecache::) are not read")
    if "\0" in uri or not uri.strip():
        raise ImageRefused("it is no address")
    scheme = SCHEME.match(uri)
    name = scheme[1].lower() if scheme else ""
    if name == "s3":
        return _s3_place(uri[len("s3://") :])
    if name not in ("", "file"):
        raise ImageRefused(f"{name}:// is not read; paths and s3:// are")
    path = uri
    if name == "file":
        host, slash, rest = uri[len("file://") :].partition("/")
        if host not in ("", "localhost"):
            raise ImageRefused("a file:// address names another machine")
        path = slash + unquote(rest)
        if "\0" in path:
            raise ImageRefused("it is no address")
    try:
        return os.path.realpath(path)
    except (OSError, ValueError) as error:
        raise ImageRefused("its path cannot be followed") from error


def _s3_place(rest: str) -> str:
    bucket, _, key = rest.partition("/")
    if not BUCKET.fullmatch(bucket):
        raise ImageRefused("expected s3://bucket/key, with credentials from the environment alone")
    key = key.rstrip("/")
    # Keys are taken as they stand, but a server before the store may not: none may mean another key when decoded.
    decoded = unquote(unquote(key))
    if key and ({"", ".", ".."} & set(decoded.split("/")) or decoded != key or re.search(r"[?#\\*\[\]]|[^ -~\w]", key)):
        raise ImageRefused("its key holds '.', '..', an empty part, a percent-code, or a sign such as ? or *")
    return f"s3://{bucket}/{key}".rstrip("/")


def _is_below(place: str, root: str) -> bool:
    return place == root or place.startswith(root.rstrip("/") + "/")


def _read_file(path: str) -> bytes:
    # A pipe or a device would never end; a last component that has become a link since is not followed.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a file")
        # A folder on the way may have become a link since it was looked at; Linux tells what was opened.
        opened = f"/proc/self/fd/{descriptor}"
        if os.path.exists(opened) and os.path.realpath(opened) != path:  # noqa: PTH110
            raise ImageRefused("its path changed while it was read")
        return file.read(IMAGE_LIMIT_BYTES + 1)


def _read_s3(place: str) -> bytes:
    filesystem: Any = fsspec.filesystem("s3", **s3_options())
    return bytes(filesystem.cat_file(place.removeprefix("s3://"), start=0, end=IMAGE_LIMIT_BYTES + 1))
