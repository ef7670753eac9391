"""BIDS roots and their images: read, checked against what was listed or indexed, never written to."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from infra.local_listing import list_folder
from infra.storage import READ_THREADS, open_filesystem, protocols, version_mark
from infra.storage_faults import SourceChanged, patiently
from tasks.records import ImageRef, ScanRejected
from tasks.science.cohort.bids import FileInfo
from tasks.science.cohort.manifest import UNREAD_REASONS, unread_kind

# Files are hashed in pieces, so that an index takes no more memory than a few of them, whatever lies in a cohort.
PIECE_BYTES = 2**25
REREAD_PAUSES_S = (1.0, 5.0)


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
        files = patiently(self._list, self.url)
        if not files:
            raise ValueError(
                f"{self.url}: found no files, expected a BIDS data set (sub-*/…/anat/*.nii.gz).\n"
                "Check the cohort's `root` in the study, and --data or PADFLOW_DATA, which relative roots are below."
            )
        return files

    def _list(self) -> list[FileInfo]:
        if "file" in protocols(self._filesystem):
            return list_folder(self._root)
        found = self._filesystem.find(self._root, detail=True)
        return [
            FileInfo(
                path=path.removeprefix(self._root).lstrip("/"), size_bytes=int(info["size"]), version=version_mark(info)
            )
            for path, info in found.items()
        ]

    def uri(self, path: str) -> str:
        """The full URL of a file of the listing."""
        return f"{self.url}/{path}"

    def read(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """The bytes of a file of the listing, all or a part."""
        place = f"{self._root}/{path}"
        return bytes(patiently(lambda: self._filesystem.cat_file(place, start=start, end=end), self.uri(path)))

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
            result = self._sha256(file)
            done()
            return file.path, result

        with ThreadPoolExecutor(READ_THREADS) as pool:
            return {**found, **dict(pool.map(one, fresh))}

    def _sha256(self, file: FileInfo) -> str:
        hasher = hashlib.sha256()
        for start in range(0, file.size_bytes, PIECE_BYTES):
            end = min(start + PIECE_BYTES, file.size_bytes)
            piece = self.read(file.path, start, end)
            if len(piece) != end - start:
                raise SourceChanged(
                    f"{self.uri(file.path)}: found other than the {file.size_bytes} bytes that were listed; "
                    "somebody writes there. Run the same command again when it is done."
                )
            hasher.update(piece)
        return hasher.hexdigest()


def read_verified(image: ImageRef) -> bytes:
    """The bytes that the manifest tells of; others are read again, as they may be a proxy's or a cache's fault.

    No more is read than the manifest tells of, whatever the file has become.

    Raises:
        ScanRejected: The image is not worth reading.
        SourceChanged: The bytes stay others.
    """
    kind = unread_kind(image.size_bytes, "")
    if kind:
        raise ScanRejected("read", UNREAD_REASONS[kind])
    filesystem, path = open_filesystem(image.uri)
    for pause_s in (*REREAD_PAUSES_S, None):
        # One byte more would be there if the file had grown.
        content = patiently(lambda: filesystem.cat_file(path, start=0, end=image.size_bytes + 1), image.uri)
        found = hashlib.sha256(content).hexdigest()
        if found == image.sha256:
            return bytes(content)
        if pause_s is not None:
            time.sleep(pause_s)
    grown = len(content) > image.size_bytes
    what = f"more than {image.size_bytes} bytes" if grown else f"sha256 {found[:8]}…"
    told = f"{image.size_bytes}" if grown else f"{image.sha256[:8]}…"
    raise SourceChanged(
        f"{image.uri}: content is {what}, the manifest says {told}.\n"
        "The object changed after the manifest was built; run again, with --rehash if size and date are unchanged."
    )
