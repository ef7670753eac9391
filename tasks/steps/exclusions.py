"""Why scans have no prepared volume, from the store: one object each, so that a remote one is read once per machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from infra import layout
from infra.storage import Store, replace_file


def read_exclusions(store: Store, recipe_key: str, marks: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What stands in the exclusions of one recipe.

    Args:
        store: Where they are.
        recipe_key: The recipe's digest.
        marks: SHA-256 of each excluded scan → the store's mark of its exclusion, which changes when it is written
            anew ("" where the store has none: such a one is read every time).

    Returns:
        SHA-256 → `stage` and `reason`.
    """
    place = _cache_file(store, recipe_key)
    kept = {} if store.is_local else _kept(place)
    found = {sha: kept[sha][1] for sha, mark in marks.items() if mark and kept.get(sha, ("",))[0] == mark}
    unread = [sha for sha in marks if sha not in found]
    texts = store.read_many([layout.excluded_scan(recipe_key, sha) for sha in unread])
    found.update(zip(unread, map(json.loads, texts), strict=True))
    if unread and not store.is_local:
        # Other cohorts of the recipe have theirs in the same file.
        replace_file(place, json.dumps({**kept, **{sha: (marks[sha], found[sha]) for sha in unread}}).encode())
    return {sha: found[sha] for sha in marks}


def _cache_file(store: Store, recipe_key: str) -> Path:
    name = hashlib.sha256(store.uri(layout.prepared_folder(recipe_key)).encode()).hexdigest()[: layout.KEY_LENGTH]
    return cache_folder(store) / f"{name}.json"


def cache_folder(store: Store) -> Path:
    """Where this machine keeps what it has read of a remote store's exclusions."""
    return store.cache / "exclusions"


def _kept(place: Path) -> dict[str, tuple[str, dict[str, str]]]:
    try:
        return dict(json.loads(place.read_bytes()))
    except (FileNotFoundError, ValueError):
        return {}
