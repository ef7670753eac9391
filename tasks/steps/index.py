"""Index a cohort: a BIDS root becomes a manifest and a clinical table in the store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from infra import layout
from infra.bids_root import BidsRoot
from infra.storage import Store
from tasks.records import Excluded, ImageRef, Recipe, ScanRef, digest
from tasks.science.cohort.bids import BidsIndex, FileInfo, index_bids
from tasks.science.cohort.listing import listing_digest
from tasks.science.cohort.selection import Selection, select_scans
from tasks.steps.withdrawal import read_withdrawals

TABLES = ("manifest", "clinical", "problems")


@dataclass(frozen=True)
class IndexedCohort:
    """A cohort's index as it lies in the store, where the cohort is, and the digest of the listing it was made from.

    Attributes:
        withdrawn: scan_ids of people who have withdrawn their consent.
    """

    name: str
    root: str
    digest: str
    tables: BidsIndex
    listing: str = ""
    withdrawn: frozenset[str] = frozenset()

    @cached_property
    def uris(self) -> dict[str, str]:
        """Scan id → full URL."""
        paths = self.tables.manifest.set_index("scan_id")["path"]
        return {str(scan_id): f"{self.root}/{path}" for scan_id, path in paths.items()}

    def select(self, recipe: Recipe, select: dict[str, tuple[str | float, ...]]) -> Selection:
        """The scans that a study uses, with what is excluded or unused and why."""
        return select_scans(self.tables, recipe, select, self.withdrawn)

    def scan_refs(self, scans: pd.DataFrame) -> list[ScanRef]:
        """Records of selected scans, with the images that go with each."""
        columns = ["scan_id", "cohort", "participant_id", "session_id", "run", "modality", "size_bytes", "template"]
        rows = scans[[*columns, "image_sha256", "companions"]].to_dict("records")
        return [
            ScanRef(
                uri=self.uris[str(row["scan_id"])],
                sha256=str(row["image_sha256"]),
                companions=tuple(self._images[name] for name in str(row["companions"]).split()),
                **{name: row[name] for name in columns},
            )
            for row in rows
        ]

    def image_hashes(self, scans: pd.DataFrame) -> list[str]:
        """SHA-256 of every image that each selected scan is prepared from, joined by blanks, its own first."""
        pairs = zip(scans["image_sha256"], scans["companions"], strict=True)
        return [" ".join([own, *(self._images[name].sha256 for name in others.split())]) for own, others in pairs]

    @cached_property
    def _images(self) -> dict[str, ImageRef]:
        columns = ["modality", "size_bytes", "sha256"]
        rows = self.tables.manifest.set_index("scan_id")[columns].itertuples(name=None)
        return {scan_id: ImageRef(modality, self.uris[scan_id], size, sha) for scan_id, modality, size, sha in rows}


def index_cohort(
    store: Store,
    name: str,
    root: str,
    rehash: bool = False,
    on_start: Callable[[int], Callable[[], None]] | None = None,
) -> IndexedCohort:
    """Read a BIDS root and keep its tables in the store; where no file is new or changed, the store's index stands.

    Args:
        store: Where the tables go.
        name: The cohort's name.
        root: URL of the BIDS root.
        rehash: Read every file again, also where size and modification mark are unchanged.
        on_start: Called with the number of images; gives what is called after each, for a progress bar.
    """
    bids_root = BidsRoot(root)
    previous = None if rehash else latest_index(store, name, root)
    listing = bids_root.listing()
    listed = listing_digest(name, listing)
    if previous is not None and previous.listing == listed:
        return previous
    known = {} if previous is None else _known_hashes(previous.tables.manifest)

    def hashes(files: list[FileInfo] | tuple[FileInfo, ...]) -> dict[str, str]:
        done = on_start(len(files)) if on_start else lambda: None
        return bids_root.hashes(files, known, done)

    withdrawals = read_withdrawals(store)
    tables = index_bids(name, listing, bids_root.read, hashes)  # type: ignore[arg-type]
    # What a person's tables say of them is not copied again.
    tables = replace(tables, clinical=withdrawals.without_people(bids_root.url, tables.clinical))
    withdrawn = withdrawals.scan_ids(bids_root.url, tables.manifest)
    indexed = IndexedCohort(name, bids_root.url, _index_digest(tables), tables, listed, withdrawn)
    if previous is None or previous.digest != indexed.digest:
        for table in TABLES:
            store.write_table(layout.index_table(name, root, indexed.digest, table), getattr(tables, table))
    if previous is None or (previous.digest, previous.listing) != (indexed.digest, listed):
        latest = {"digest": indexed.digest, "root": bids_root.url, "listing": listed}
        store.write_json(layout.latest_index(name, root), latest)
    return indexed


def latest_index(store: Store, name: str, root: str) -> IndexedCohort | None:
    """The newest index of a cohort from the store alone, or None where it was never indexed."""
    key = layout.latest_index(name, root)
    if not store.exists(key):
        return None
    latest = store.read_json(key)
    index_digest = latest["digest"]
    read = {table: store.read_table(layout.index_table(name, root, index_digest, table)) for table in TABLES}
    url, tables = root.rstrip("/"), BidsIndex(**read)
    withdrawn = read_withdrawals(store).scan_ids(url, tables.manifest)
    return IndexedCohort(name, url, index_digest, tables, latest.get("listing", ""), withdrawn)


def selection_exclusions(selection: Selection) -> list[Excluded]:
    """Records of the scans that a study cannot use although they are of its kind."""
    return [
        Excluded(str(row["scan_id"]), str(row["sha256"]), str(row["stage"]), str(row["reason"]))
        for row in selection.excluded.to_dict("records")
    ]


def _known_hashes(manifest: pd.DataFrame) -> dict[tuple[str, int, str], str]:
    read = manifest[manifest["sha256"] != ""]
    rows = zip(read["path"], read["size_bytes"], read["version"], read["sha256"], strict=True)
    return {(path, int(size), version): sha256 for path, size, version, sha256 in rows}


def _index_digest(tables: BidsIndex) -> str:
    texts = [getattr(tables, table).to_csv(index=False) for table in TABLES]
    return digest([hashlib.sha256(text.encode()).hexdigest() for text in texts])
