"""The files below a local folder: one `stat` each, since a cohort of 100,000 scans is listed at every run."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from tasks.science.cohort.bids import FileInfo
from tasks.science.cohort.manifest import ABSENT

Place = tuple[int, int]


def list_folder(root: str) -> list[FileInfo]:
    """Every file below a folder, through links, as data managers such as DataLad make them.

    Args:
        root: An absolute path.

    Returns:
        Files with their size and modification time in nanoseconds, of what a link points to; a broken link has 0
        bytes and the version `absent`. Nothing where there is no such folder.

    Raises:
        OSError: A folder may not be read: a subject would be missing in silence.
    """
    if not os.path.isdir(root):  # noqa: PTH112 (a Path per file would take longer than the listing)
        return []
    status = os.stat(root)  # noqa: PTH116
    return list(_below(root, "", ((status.st_dev, status.st_ino),)))


def _below(folder: str, prefix: str, above: tuple[Place, ...]) -> Iterator[FileInfo]:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = f"{prefix}{entry.name}"
        if not _is_folder(entry):
            yield _file(entry, path)
            continue
        here = (above[-1][0], entry.inode())
        if entry.is_symlink():
            status = entry.stat()
            here = (status.st_dev, status.st_ino)
        # A link to a folder above it would go round for ever.
        if here not in above:
            yield from _below(entry.path, f"{path}/", (*above, here))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False


def _file(entry: os.DirEntry[str], path: str) -> FileInfo:
    try:
        status = entry.stat()
    except OSError as error:
        # A link to nowhere or to itself, or a file that went while its folder was read.
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise
        return FileInfo(path, 0, ABSENT)
    return FileInfo(path, status.st_size, str(status.st_mtime_ns))
