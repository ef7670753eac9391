"""Exclusions of a remote store are read once per machine, and again where they were written anew."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from infra import layout
from infra.storage import Store
from tasks.records import Excluded
from tasks.steps.exclusions import read_exclusions
from tasks.steps.prepare import write_exclusion

KEY = "f" * 64


def exclude(store: Store, sha256: str, reason: str) -> None:
    """Keep an exclusion, in place of the one that was there."""
    if layout.excluded_scan(KEY, sha256).rsplit("/", 1)[-1] in store.names(layout.prepared_folder(KEY)):
        store.delete(layout.excluded_scan(KEY, sha256))
    write_exclusion(store, KEY, Excluded("a/sub-01_T1w", sha256, "quality", reason))


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_what_was_written_last_is_what_is_read(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(tmp_path / "store") if kind == "local" else f"memory://{uuid.uuid4().hex}"
    store = Store(url, tmp_path / "cache")
    asked: list[str] = []
    original = Store.read
    monkeypatch.setattr(Store, "read", lambda self, key: asked.append(key) or original(self, key))

    def reasons() -> list[str]:
        asked.clear()
        return [said["reason"] for said in read_exclusions(store, KEY, marks).values()]

    marks = {"a1": "1", "b2": "1"}
    exclude(store, "a1", "first")
    exclude(store, "b2", "other")
    assert reasons() == ["first", "other"]
    assert len(asked) == 2
    assert reasons() == ["first", "other"]
    assert len(asked) == (2 if kind == "local" else 0)
    exclude(store, "a1", "second")
    marks["a1"] = "2"
    assert reasons() == ["second", "other"]
    assert len(asked) == (2 if kind == "local" else 1)
