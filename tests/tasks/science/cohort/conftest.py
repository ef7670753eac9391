"""BIDS trees in memory: a path to its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from tasks.science.cohort.bids import BidsIndex, FileInfo, index_bids

IndexTree = Callable[[Mapping[str, bytes]], BidsIndex]


def index_memory(tree: Mapping[str, bytes]) -> BidsIndex:
    """Index a tree in memory; dataset_description.json is there unless the tree says otherwise."""
    full = {"dataset_description.json": b"{}", **tree}

    def hashes(files: Sequence[FileInfo]) -> dict[str, str]:
        return {file.path: hashlib.sha256(full[file.path]).hexdigest() for file in files}

    listing = [FileInfo(path, len(data), "v1") for path, data in full.items()]
    return index_bids("site-a", listing, full.__getitem__, hashes)


def index_folder(root: Path) -> BidsIndex:
    """Index a tree on disk."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    listing = [FileInfo(path.relative_to(root).as_posix(), path.stat().st_size, "v1") for path in paths]

    def hashes(files: Sequence[FileInfo]) -> dict[str, str]:
        return {file.path: hashlib.sha256((root / file.path).read_bytes()).hexdigest() for file in files}

    return index_bids(root.name, listing, lambda path: (root / path).read_bytes(), hashes)


@pytest.fixture(scope="session")
def index_tree() -> IndexTree:
    """Index a tree in memory."""
    return index_memory


@pytest.fixture(scope="session")
def index_root() -> Callable[[Path], BidsIndex]:
    """Index a tree on disk."""
    return index_folder
