"""An index stands while no file is new or changed, and is made anew when one is, or when it is asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra.bids_root import BidsRoot
from infra.storage import Store
from tasks.records import Recipe
from tasks.steps.index import index_cohort

LONG_AGO_NS = 1_600_000_000_000_000_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "cache")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two subjects, written long ago."""
    root = tmp_path / "bids"
    for name in ("sub-01", "sub-02"):
        (root / name / "anat").mkdir(parents=True)
        (root / name / "anat" / f"{name}_T1w.nii.gz").write_bytes(name.encode())
    (root / "dataset_description.json").write_text("{}")
    (root / "participants.tsv").write_text("participant_id\tage\nsub-01\t30\nsub-02\t40\n")
    for path in root.rglob("*.*"):
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return root


@pytest.fixture
def read_paths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is read from BIDS roots."""
    seen: list[str] = []
    original = BidsRoot.read
    monkeypatch.setattr(BidsRoot, "read", lambda self, path, *part: seen.append(path) or original(self, path, *part))
    return seen


def test_a_second_index_reads_nothing(store: Store, root: Path, read_paths: list[str]) -> None:
    first = index_cohort(store, "site", str(root))
    assert len(read_paths) == 3
    read_paths.clear()
    second = index_cohort(store, "site", str(root))
    assert read_paths == []
    assert second.digest == first.digest
    assert second.tables.manifest.equals(first.tables.manifest)


def test_one_changed_scan_is_read_alone(store: Store, root: Path, read_paths: list[str]) -> None:
    first = index_cohort(store, "site", str(root))
    read_paths.clear()
    (root / "sub-02" / "anat" / "sub-02_T1w.nii.gz").write_bytes(b"other bytes")
    second = index_cohort(store, "site", str(root))
    assert sorted(read_paths) == ["participants.tsv", "sub-02/anat/sub-02_T1w.nii.gz"]
    same = first.tables.manifest["sha256"] == second.tables.manifest["sha256"]
    assert same.tolist() == [True, False]


def test_a_changed_table_is_read_and_the_scans_are_not(store: Store, root: Path, read_paths: list[str]) -> None:
    index_cohort(store, "site", str(root))
    read_paths.clear()
    (root / "participants.tsv").write_text("participant_id\tage\nsub-01\t31\nsub-02\t40\n")
    assert index_cohort(store, "site", str(root)).tables.clinical["age_years"].tolist() == [31.0, 40.0]
    assert read_paths == ["participants.tsv"]


def test_rehash_finds_bytes_that_changed_under_the_same_size_and_time(store: Store, root: Path) -> None:
    first = index_cohort(store, "site", str(root))
    changed = root / "sub-02" / "anat" / "sub-02_T1w.nii.gz"
    changed.write_bytes(b"sub-XX")
    os.utime(changed, ns=(LONG_AGO_NS, LONG_AGO_NS))
    assert index_cohort(store, "site", str(root)).digest == first.digest
    second = index_cohort(store, "site", str(root), rehash=True)
    assert (first.tables.manifest["sha256"] == second.tables.manifest["sha256"]).tolist() == [True, False]


def test_other_index_code_indexes_anew(
    store: Store, root: Path, read_paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    index_cohort(store, "site", str(root))
    read_paths.clear()
    monkeypatch.setattr("tasks.science.cohort.listing._code_digest", lambda: "another release")
    index_cohort(store, "site", str(root))
    assert read_paths == ["participants.tsv"]


def test_one_bad_file_does_not_cost_the_others_their_index(store: Store, root: Path, read_paths: list[str]) -> None:
    people = [f"sub-{n:02}" for n in range(1, 6)]
    for name in people[2:]:
        (root / name / "anat").mkdir(parents=True)
    images = {name: root / name / "anat" / f"{name}_T1w.nii.gz" for name in people}
    images["sub-03"].symlink_to("../.git/annex/objects/not-fetched")
    images["sub-04"].touch()
    images["sub-05"].touch()
    os.truncate(images["sub-05"], 200 * 2**30)
    (root / "sub-03" / "sub-03_sessions.tsv").symlink_to("../.git/annex/objects/not-fetched-either")
    ages = "\n".join(f"{name}\t30" for name in people)
    (root / "participants.tsv").write_text(f"participant_id\tage\n{ages}\n")
    indexed = index_cohort(store, "site", str(root))
    assert sorted(read_paths) == ["participants.tsv", *(f"{name}/anat/{name}_T1w.nii.gz" for name in people[:2])]
    selection = indexed.select(Recipe(), {})
    assert selection.scans["participant_id"].tolist() == people[:2]
    said = dict(zip(selection.excluded["participant_id"], selection.excluded["reason"], strict=True))
    assert said["sub-03"].startswith("the file is a broken link, so its content is not here; fetch it")
    assert said["sub-04"] == "the file has 0 bytes; copy it again and index the cohort anew"
    assert said["sub-05"].startswith("the file is larger than 2 GiB, which no scan of a head is")
    kinds = set(zip(indexed.tables.problems["path"], indexed.tables.problems["kind"], strict=True))
    assert kinds >= {
        ("sub-03/anat/sub-03_T1w.nii.gz", "absent-file"),
        ("sub-03/sub-03_sessions.tsv", "unusable-table"),
        ("sub-05/anat/sub-05_T1w.nii.gz", "oversized-file"),
    }
    # What is fetched later is hashed then.
    images["sub-03"].unlink()
    images["sub-03"].write_bytes(b"fetched")
    again = index_cohort(store, "site", str(root)).select(Recipe(), {})
    assert again.scans["participant_id"].tolist() == people[:3]
