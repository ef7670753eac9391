"""What a registered model may read: files and S3 objects below its roots, and nothing else by whatever address."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra.image_roots import ImageRefused, ImageRoots, recordable, shown


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root with an image in it, and a secret beside it."""
    for name, text in (("root/sub/a b.nii", "image"), ("root-secret/x.nii", "secret"), ("secret.nii", "secret")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "root" / "out").symlink_to(tmp_path)
    (tmp_path / "root" / "leak.nii").symlink_to(tmp_path / "secret.nii")
    (tmp_path / "root" / "in.nii").symlink_to(tmp_path / "root" / "sub" / "a b.nii")
    (tmp_path / "alias").symlink_to(tmp_path / "root")
    return tmp_path


@pytest.mark.parametrize(
    "address",
    [
        "{root}/sub/a b.nii",
        "{root}/sub/../sub/./a b.nii",
        "{root}/in.nii",
        "{top}/alias/sub/a b.nii",
        "{top}/root-secret/../root/in.nii",
        "file://{root}/sub/a%20b.nii",
        "FILE://localhost{root}/in.nii",
    ],
)
def test_what_lies_below_a_root_is_read_by_whatever_way_it_is_named(tree: Path, address: str) -> None:
    roots = ImageRoots.given([str(tree / "alias")])
    assert roots.read(address.format(root=tree / "root", top=tree)) == b"image"


@pytest.mark.parametrize(
    "address",
    [
        "{top}/secret.nii",
        "{root}/../secret.nii",
        "{root}/leak.nii",
        "{root}/out/secret.nii",
        "{top}/root-secret/x.nii",
        "{root}",
        "{root}/..",
        "file://{root}/%2e%2e/secret.nii",
        "file://{root}/..%2fsecret.nii",
        "file://elsewhere{root}/in.nii",
        "file://{root}%00/in.nii",
        "file::{root}/in.nii",
        "simplecache::file://{top}/secret.nii",
        "filecache::s3://bucket/allowed/a.nii",
        "zip://a.nii::file://{root}/in.nii",
        "local://{root}/in.nii",
        "http://127.0.0.1:1/a.nii",
        "https://bucket/allowed/a.nii",
        "ftp://h/a",
        "memory://a",
        "data://text/plain,hi",
        "reference://{root}/in.nii",
        "s3a://bucket/allowed/a.nii",
        "s3://bucket/other/a.nii",
        "s3://bucket/allowed-not/a.nii",
        "s3://bucket/allowed/../other/a.nii",
        "s3://bucket/allowed/%2e%2e/other/a.nii",
        "s3://bucket/allowed/%252e%252e/other/a.nii",
        "s3://bucket/allowed//../../other",
        "s3://bucket/allowed/a.nii?versionId=1",
        "s3://bucket/allowed/*",
        "s3://key:secret@bucket/allowed/a.nii",
        "s3://bucket:80/allowed/a.nii",
        "S3://other/allowed/a.nii",
        "~/a.nii",
        "a.nii",
        "",
        " ",
        "\0",
        "{root}/\0",
        "/dev/stdin",
        "/proc/self/environ",
        "//etc/passwd",
    ],
)
def test_no_other_address_is_read(tree: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    roots = ImageRoots.given([str(tree / "root" / "sub"), str(tree / "root" / "in.nii"), "s3://bucket/allowed"])
    with pytest.raises((ImageRefused, FileNotFoundError, OSError)) as caught:
        roots.read(address.format(root=tree / "root", top=tree))
    assert isinstance(caught.value, ImageRefused)


def test_a_refusal_tells_nothing_of_what_is_there(tree: Path) -> None:
    roots = ImageRoots.given([str(tree / "root")])
    said = set()
    for name in ("secret.nii", "absent.nii", "root/leak.nii"):
        with pytest.raises(ImageRefused) as refusal:
            roots.read(str(tree / name))
        said.add(str(refusal.value))
    assert len(said) == 1


def test_a_pipe_or_folder_below_a_root_ends_at_once(tree: Path) -> None:
    os.mkfifo(tree / "root" / "pipe")
    roots = ImageRoots.given([str(tree / "root")])
    for name in ("pipe", "sub"):
        with pytest.raises(OSError, match=r"not a file|directory"):
            roots.read(str(tree / "root" / name))


def test_a_folder_that_becomes_a_link_meanwhile_leads_nowhere(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "root" / "day").mkdir()
    (tree / "root" / "day" / "secret.nii").write_text("image")
    really_open = os.open

    def open_late(path: str, flags: int) -> int:
        (tree / "root" / "day").rename(tree / "root" / "night")
        (tree / "root" / "day").symlink_to(tree)
        return really_open(path, flags)

    monkeypatch.setattr(os, "open", open_late)
    with pytest.raises(ImageRefused, match="changed"):
        ImageRoots.given([str(tree / "root")]).read(str(tree / "root" / "day" / "secret.nii"))


def test_roots_come_from_the_environment_too_and_a_wrong_one_is_said(tree: Path) -> None:
    roots = ImageRoots.given([], f" {tree / 'root'} ,, s3://bucket/x")
    assert roots.roots == (str(tree / "root"), "s3://bucket/x")
    for wrong in ("data/images", "http://host/x", "s3://key:secret@bucket"):
        with pytest.raises(ValueError, match=r"PADFLOW_IMAGE_ROOTS|absolute path") as error:
            ImageRoots.given([], wrong)
        assert "secret" not in str(error.value)


def test_no_root_reads_nothing(tree: Path) -> None:
    with pytest.raises(ImageRefused):
        ImageRoots.given([]).read(str(tree / "secret.nii"))


def test_an_address_is_shown_without_what_is_secret_or_breaks_a_line() -> None:
    assert shown("s3://key:secret@bucket/a?X-Amz-Signature=1") == "s3://…@bucket/a?…"
    assert "\n" not in shown("a\nb")
    assert len(shown("x" * 5000)) == 200
    assert recordable(["http://x/y", "/data"]) == ("/data",)


def test_s3_objects_are_read_below_their_prefix_alone(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "padflow",
        "AWS_SECRET_ACCESS_KEY": "padflow",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = fsspec.filesystem("s3", skip_instance_cache=True)
    bucket.mkdir("roots")
    bucket.pipe({"roots/allowed/a b.nii": b"image", "roots/other.nii": b"secret"})
    roots = ImageRoots.given(["s3://roots/allowed/"])
    assert roots.read("s3://roots/allowed/a b.nii") == b"image"
    with pytest.raises(ImageRefused):
        roots.read("s3://roots/other.nii")
    with pytest.raises(FileNotFoundError):
        roots.read("s3://roots/allowed/absent.nii")
