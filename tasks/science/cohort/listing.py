"""Whether a BIDS root is as it was when it was indexed, from its listing alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ..code_digest import code_digest
from .bids import FileInfo


def listing_digest(cohort: str, listing: Iterable[FileInfo]) -> str:
    """Name a cohort's files by path, size and version, so that an index of thousands is not made anew for nothing.

    Args:
        cohort: The cohort's name, which stands in every scan_id.
        listing: Every file below the BIDS root, in any order.

    Returns:
        64 hexadecimal digits. Other code gives others: a release that reads tables differently indexes anew.
    """
    files = "\n".join(sorted(f"{file.path!r} {file.size_bytes} {file.version!r}" for file in listing))
    return hashlib.sha256(f"{_code_digest()}\n{cohort}\n{files}".encode(errors="surrogatepass")).hexdigest()


@cache
def _code_digest() -> str:
    """The sources of this folder: what an index says depends on no other code of padflow."""
    return code_digest(Path(__file__).parent)
