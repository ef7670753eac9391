"""The manifest: one row per indexed scan, the table that the rest of a study counts against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

MANIFEST_DTYPES = {
    "scan_id": "str",
    "cohort": "str",
    "participant_id": "str",
    "session_id": "str",
    "run": "str",
    "modality": "str",
    "path": "str",
    "size_bytes": "int64",
    "version": "str",
    "sha256": "str",
    "entities": "str",
}
"""Columns and dtypes of a manifest.

scan_id is `cohort/` and the scan's BIDS name, unique; session_id and run are "" where BIDS has none; path is relative
to the BIDS root; version is the store's opaque mark of the bytes; sha256 is "" where they are not read (`unread_kind`);
entities are the name's other parts ("acq-mprage").
"""
ABSENT = "absent"
"""The version of a link to nowhere, such as DataLad leaves for content that was not fetched."""
MAX_IMAGE_BYTES = 2**31
"""2^28 voxels of 8 bytes, more than which the reader of images refuses; a larger file is not even hashed."""
UNREAD_REASONS = {
    "absent-file": "the file is a broken link, so its content is not here; fetch it (such as with `datalad get`) and "
    "index the cohort anew",
    "empty-file": "the file has 0 bytes; copy it again and index the cohort anew",
    "oversized-file": f"the file is larger than {MAX_IMAGE_BYTES // 2**30} GiB, which no scan of a head is; find out "
    "what made it so large",
}
"""Why a file's bytes are not read, by kind."""


def unread_kind(size_bytes: int, version: str) -> str:
    """Which of `UNREAD_REASONS` a file of the listing has, or "": one bad file must not cost the others their index.

    >>> unread_kind(0, "1700000000"), unread_kind(5, "1700000000")
    ('empty-file', '')
    """
    if version == ABSENT:
        return "absent-file"
    if size_bytes == 0:
        return "empty-file"
    return "oversized-file" if size_bytes > MAX_IMAGE_BYTES else ""


def manifest_frame(rows: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """Tabulate scans with the manifest's columns and dtypes, which an empty cohort keeps too.

    Args:
        rows: One mapping per scan with every manifest column.

    Returns:
        Sorted by scan_id, so that one cohort always gives one table.

    Raises:
        ValueError: Two rows have one scan_id.
    """
    frame = pd.DataFrame(rows, columns=list(MANIFEST_DTYPES)).astype(MANIFEST_DTYPES)
    frame = frame.sort_values("scan_id", ignore_index=True)
    repeated = frame["scan_id"][frame["scan_id"].duplicated()]
    if len(repeated):
        raise ValueError(
            f"scan_id {repeated.iloc[0]!r} stands in {len(repeated) + 1} manifest rows; each scan must appear once. "
            "Index the cohort again from its BIDS root."
        )
    return frame


def check_manifest(manifest: pd.DataFrame) -> pd.DataFrame:
    """Refuse a table that is no manifest, such as one written by another version.

    Args:
        manifest: A frame read back from a store.

    Returns:
        The same frame.

    Raises:
        ValueError: Columns are missing or have other dtypes.
    """
    for name, dtype in MANIFEST_DTYPES.items():
        found = str(manifest[name].dtype) if name in manifest else "no such column"
        if found != dtype:
            raise ValueError(
                f"manifest column {name!r}: found {found}, expected {dtype}. "
                "Index the cohort again, or pass the `manifest` of an index."
            )
    return manifest


def same_content(manifest: pd.DataFrame) -> list[list[int]]:
    """Find scans whose bytes are equal, which belong to at most one of their names.

    Args:
        manifest: A manifest, or a table with its columns.

    Returns:
        Groups of row positions, two or more each; files that are not read have no content to share.
    """
    holders: dict[str, list[int]] = {}
    rows = zip(manifest["sha256"], manifest["size_bytes"], strict=True)
    for position, (sha256, size_bytes) in enumerate(rows):
        if sha256 and size_bytes > 0:
            holders.setdefault(sha256, []).append(position)
    return [positions for positions in holders.values() if len(positions) > 1]
