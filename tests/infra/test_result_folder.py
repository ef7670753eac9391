"""Where results are written: inputs and what is not padflow's stay, what an earlier run left does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra.result_folder import LIST, check_folder, write_files


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {LIST}


def test_what_an_earlier_run_wrote_and_nobody_changed_is_taken_away(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_files(str(out), {"effects.csv": b"1", "tables/a.csv": b"a", "tables/b.csv": b"b"})
    (out / "tables" / "b.csv").write_bytes(b"a reader's own")
    (out / "notes.txt").write_bytes(b"mine")
    write_files(str(out), {"effects.csv": b"2"})
    assert written(out) == {"effects.csv", "tables/b.csv", "notes.txt"}
    assert (out / "effects.csv").read_bytes() == b"2"


def test_nothing_outside_the_folder_is_taken_away(tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    other.mkdir()
    (other / "a.csv").write_bytes(b"a")
    write_files(str(out), {"tables/a.csv": b"a", "a.csv": b"a"})
    (out / "tables" / "a.csv").unlink()
    (out / "tables").rmdir()
    (out / "tables").symlink_to(other)
    (out / "a.csv").unlink()
    (out / "a.csv").symlink_to(other / "a.csv")
    with (out / LIST).open("a") as listed:
        digest = (out / LIST).read_text().split("\n")[1][:64]
        listed.write(f"{digest}  ../other/a.csv\n{digest}  /{other}/a.csv\n")
    write_files(str(out), {"effects.csv": b"1"})
    assert (other / "a.csv").read_bytes() == b"a"


def test_a_list_that_is_not_padflows_names_nothing(tmp_path: Path) -> None:
    write_files(str(tmp_path), {"a.csv": b"a"})
    listed = (tmp_path / LIST).read_text().split("\n", 1)[1]
    (tmp_path / LIST).write_text(listed)
    write_files(str(tmp_path), {"b.csv": b"b"})
    assert written(tmp_path) == {"a.csv", "b.csv"}


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


def test_an_input_that_an_earlier_run_wrote_is_not_taken_away(tmp_path: Path) -> None:
    write_files(str(tmp_path), {"tables/old.csv": b"a"})
    with pytest.raises(ValueError, match="would be overwritten"):
        check_folder(str(tmp_path), ["effects.csv"], [str(tmp_path / "tables" / "old.csv")])


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
