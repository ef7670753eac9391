"""The folder that results go to: no input is overwritten there, and nothing of an earlier run is taken for new."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from fsspec import AbstractFileSystem

from infra.storage import open_filesystem, protocols
from infra.storage_faults import patiently

# What `sha256sum --check` reads, too.
LIST = "padflow-files.txt"
LIST_HEAD = "# What padflow wrote here; its next run takes away what it does not write again, unless it was changed.\n"
LISTED = re.compile(r"([0-9a-f]{64})  (.+)")


def check_folder(url: str, names: Sequence[str], inputs: Sequence[str]) -> None:
    """Refuse a folder that cannot be written to, or where an input would be overwritten, before hours are spent.

    Args:
        url: Path or URL of the folder.
        names: Files below it that are known to be written.
        inputs: Paths or URLs of what is read.

    Raises:
        ValueError: The folder has no name, is a file or lies below one, may not be written to, or holds an input under
            a name that is written.
    """
    if not url.strip():
        raise ValueError("the folder to write to is empty; expected a path or URL, as in --out results")
    filesystem, root = open_filesystem(url)
    _refuse_overwriting(filesystem, root, url, [*names, *_earlier(filesystem, root)], inputs)
    if not _is_local(filesystem):
        if filesystem.isfile(root):
            raise ValueError(f"{url} is a file; expected a folder to write to, or a name that does not exist yet")
        return
    for path in [Path(root) / name for name in names]:
        _check_local(path.parent)
        if path.is_dir():
            raise ValueError(f"{path} is a folder, where a file is to be written. Give another --out.")


def write_files(url: str, files: dict[str, bytes], inputs: Sequence[str] = ()) -> list[str]:
    """Write files into a folder of any store, which is made where it is missing.

    What an earlier run wrote there, by its own list, and this one does not is taken away; nobody then takes a table
    of last week for one of these models.

    Args:
        url: Path or URL of the folder.
        files: Name below it → content.
        inputs: Paths or URLs of what was read, none of which is overwritten.

    Returns:
        Where each is.
    """
    filesystem, root = open_filesystem(url)
    _refuse_overwriting(filesystem, root, url, list(files), inputs)
    _remove_earlier(filesystem, root, url, files)
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()]
    # First, so that what a run leaves that breaks off is listed.
    files = {LIST: (LIST_HEAD + "".join(lines)).encode(), **files}
    for name, content in files.items():
        path = f"{root}/{name}"
        filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        patiently(lambda path=path, content=content: filesystem.pipe_file(path, content), url)  # type: ignore[misc]
    return [f"{url.rstrip('/')}/{name}" for name in files]


def _is_local(filesystem: AbstractFileSystem) -> bool:
    return "file" in protocols(filesystem)


def _check_local(folder: Path) -> None:
    place = folder
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise ValueError(f"{place} is a file; expected a folder to write to, or a name that does not exist yet")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"{place} may not be written to. Ask for permission there, or give another --out.")


def _refuse_overwriting(
    filesystem: AbstractFileSystem, root: str, url: str, names: Sequence[str], inputs: Sequence[str]
) -> None:
    written = {_identity(filesystem, f"{root}/{name}"): name for name in (LIST, *names)}
    for source in inputs:
        name = written.get(_identity(*open_filesystem(source)))
        if name is not None:
            raise ValueError(
                f"{source} would be overwritten: it is the file {name} in {url}, which is written there. Give another "
                "--out."
            )


def _identity(filesystem: AbstractFileSystem, path: str) -> object:
    """What two names of one file have in common, links and all."""
    if not _is_local(filesystem):
        return next(iter(protocols(filesystem))), path
    try:
        found = Path(path).stat()
    except OSError:
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


def _earlier(filesystem: AbstractFileSystem, root: str) -> dict[str, str]:
    """What an earlier run wrote: name below the folder → digest of its content."""
    try:
        text = patiently(lambda: filesystem.cat_file(f"{root}/{LIST}"), root).decode(errors="replace")
    except OSError:
        # None is there, or whoever may write there may not read.
        return {}
    found = [LISTED.fullmatch(line) for line in text.splitlines()] if text.startswith(LIST_HEAD) else []
    return {match[2]: match[1] for match in found if match and ".." not in match[2].split("/")}


def _remove_earlier(filesystem: AbstractFileSystem, root: str, url: str, kept: Collection[str]) -> None:
    for name, digest in _earlier(filesystem, root).items():
        path = f"{root}/{name}"
        if name in kept or (_is_local(filesystem) and os.path.realpath(path) != f"{os.path.realpath(root)}/{name}"):
            continue
        with suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
            content = patiently(lambda path=path: filesystem.cat_file(path), url)  # type: ignore[misc]
            # Who wrote something of his own under that name keeps it.
            if hashlib.sha256(content).hexdigest() == digest:
                filesystem.rm_file(path)
