"""Where results are written: inputs stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra.result_folder import check_folder, write_files


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_an_input_is_never_overwritten(tmp_path: Path, link: object) -> None:
    own, source = tmp_path / "out" / "effects.csv", tmp_path / "site.csv"
    own.parent.mkdir()
    (own if link is None else source).write_bytes(b"site")
    if callable(link):
        link(source, own)
    read = str(own if link is None else source)
    for attempt in (
        lambda: check_folder(str(own.parent), ["effects.csv"], [read]),
        lambda: write_files(f"{tmp_path}/./out/", {"effects.csv": b"1"}, [read]),
    ):
        with pytest.raises(ValueError, match=r"would be overwritten: it is the file effects\.csv"):
            attempt()
    assert own.read_bytes() == b"site"


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("", "is empty; expected a path or URL"),
        ("file", "file is a file; expected a folder"),
        ("file/below/it", "file is a file; expected a folder"),
        ("tables-is-a-file", "tables is a file; expected a folder"),
        ("folder-in-the-way", "is a folder, where a file is to be written"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_said_before_anything_is_fitted(
    tmp_path: Path, out: str, message: str
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "tables-is-a-file").mkdir()
    (tmp_path / "tables-is-a-file" / "tables").write_text("x")
    (tmp_path / "folder-in-the-way" / "effects.csv").mkdir(parents=True)
    with pytest.raises(ValueError, match=message):
        check_folder(str(tmp_path / out) if out else out, ["effects.csv", "tables/effects.csv"], [])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_said_before_anything_is_fitted(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ValueError, match="may not be written to"):
            check_folder(str(tmp_path / "out"), ["effects.csv"], [])
    finally:
        tmp_path.chmod(0o700)
