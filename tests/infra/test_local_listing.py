"""A local listing has every file once, through links, with marks that change when the bytes do."""

from __future__ import annotations

import os
from pathlib import Path

from infra.local_listing import list_folder


def test_files_are_listed_with_size_and_time_to_the_nanosecond(tmp_path: Path) -> None:
    (tmp_path / "sub-01" / "anat").mkdir(parents=True)
    file = tmp_path / "sub-01" / "anat" / "a.nii"
    file.write_bytes(b"123")
    os.utime(file, ns=(1_700_000_000_000_000_001, 1_700_000_000_000_000_001))
    (tmp_path / "README").touch()
    listed = list_folder(str(tmp_path))
    assert [(item.path, item.size_bytes) for item in listed] == [("README", 0), ("sub-01/anat/a.nii", 3)]
    assert listed[1].version == "1700000000000000001"


def test_links_give_what_they_point_to_and_never_go_round(tmp_path: Path) -> None:
    kept = tmp_path / "elsewhere" / "sub-01"
    kept.mkdir(parents=True)
    (kept / "a.nii").write_bytes(b"1234")
    root = tmp_path / "bids"
    (root / "sub-02").mkdir(parents=True)
    (root / "sub-01").symlink_to(kept)
    (root / "sub-02" / "b.nii").symlink_to(kept / "a.nii")
    (root / "sub-02" / "gone.nii").symlink_to(kept / "nowhere")
    (root / "sub-02" / "up").symlink_to(root)
    (kept / "again").symlink_to(kept)
    (root / "sub-02" / "itself.nii").symlink_to(root / "sub-02" / "itself.nii")
    listed = {item.path: item for item in list_folder(str(root))}
    assert {path: item.size_bytes for path, item in listed.items()} == {
        "sub-01/a.nii": 4,
        "sub-02/b.nii": 4,
        "sub-02/gone.nii": 0,
        "sub-02/itself.nii": 0,
    }
    assert listed["sub-02/gone.nii"].version == listed["sub-02/itself.nii"].version == "absent"
    before = listed["sub-02/b.nii"].version
    (kept / "a.nii").write_bytes(b"4321")
    os.utime(kept / "a.nii", ns=(1, 1))
    assert next(item.version for item in list_folder(str(root)) if item.path == "sub-02/b.nii") != before


def test_an_absent_folder_has_no_files(tmp_path: Path) -> None:
    assert list_folder(str(tmp_path / "absent")) == []
