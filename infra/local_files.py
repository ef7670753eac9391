"""Files of this machine that appear whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

# Some network file systems have none.
NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
# What a killed process leaves behind begins so, and is no object.
DRAFT_PREFIX = ".writing-"
# No writer takes so long for an object, nor do the clocks of two machines differ so much.
DRAFT_AGE_S = 86_400.0
# Far more than Dask's own files; spilled data would need much more, but scans do not spill.
SCRATCH_BYTES = 2**20


def replace_file(path: Path, content: bytes) -> None:
    """Write a local file so that readers see the old one or the new one, never a part."""
    with _draft(path, content) as draft:
        os.replace(draft, path)  # noqa: PTH105


def create_file(path: Path, content: bytes) -> None:
    """Write a local file whole, unless it is there.

    Raises:
        FileExistsError: It is there.
    """
    if path.exists():
        raise FileExistsError(str(path))
    with _draft(path, content) as draft:
        try:
            os.link(draft, path)
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            os.replace(draft, path)  # noqa: PTH105


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let one process of this machine at a time into the block; a killed holder's turn ends, and the file stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def remove_old_drafts(folder: Path) -> None:
    """Take away what writers that were killed long ago left in a folder, where it may be taken away."""
    # It may have no such folder yet, another run may be tidying up too, and another user's files may stay.
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(DRAFT_PREFIX):
                with suppress(OSError):
                    if time.time() - entry.stat().st_mtime > DRAFT_AGE_S:
                        os.unlink(entry.path)  # noqa: PTH108


def check_scratch(folder: Path) -> None:
    """Show that workers can write beside their memory; Dask would only say that they failed to start.

    Raises:
        OSError: They cannot, with what was found and what to do.
    """
    try:
        replace_file(folder / "write-check", bytes(SCRATCH_BYTES))
        (folder / "write-check").unlink()
    except OSError as error:
        raise OSError(
            f"{folder}: workers cannot write there ({error.strerror}), expected room for their scratch. "
            "Free some space there, or give another --home, then run the same command again: what is done is kept."
        ) from error


@contextmanager
def _draft(path: Path, content: bytes) -> Iterator[Path]:
    """A whole copy beside its place, gone after the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=DRAFT_PREFIX)
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A temporary file is its owner's alone; an object of a shared store is everybody's that the umask lets in.
        draft.chmod(0o666 & ~_umask())
        yield draft
    finally:
        draft.unlink(missing_ok=True)


@lru_cache(maxsize=1)
def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current
