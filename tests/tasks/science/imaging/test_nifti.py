"""Every kind of file that is no scan is refused, quickly, in little memory, for its own reason."""

from __future__ import annotations

import gzip
import io
import time
import tracemalloc
import zlib

import nibabel as nib
import numpy as np
import pytest

from tasks.records import ScanRejected
from tasks.science.imaging.nifti import read_scan, read_volume

SHAPE = (12, 13, 14)
AFFINE = np.array([[-9.0, 0.5, 0, 50], [0.5, 9.0, 0, -60], [0, 0, 8.0, -70], [0, 0, 0, 1.0]])


def image(data: np.ndarray | None = None, affine: np.ndarray = AFFINE, kind: type = nib.Nifti1Image) -> nib.Nifti1Image:
    voxels = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) if data is None else data
    made = kind(voxels, affine)
    made.set_sform(affine, 1)
    made.set_qform(None, 0)
    return made


def patched(content: bytes, offset: int, patch: bytes) -> bytes:
    return content[:offset] + patch + content[offset + len(patch) :]


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64, ">i2", ">f4"])
def test_voxels_and_affine_agree_with_nibabel(kind: type, dtype: str) -> None:
    data = np.random.default_rng(0).uniform(0, 200, SHAPE).astype(dtype)
    made = image(data, kind=kind)
    if np.dtype(dtype).byteorder == ">":
        made = kind(data, AFFINE, made.header.as_byteswapped(">"))
        made.set_sform(AFFINE, 1)
    for content in (made.to_bytes(), gzip.compress(made.to_bytes())):
        volume, affine = read_volume(content)
        assert volume.dtype == np.float32
        np.testing.assert_allclose(volume, made.get_fdata(), rtol=1e-6)
        np.testing.assert_allclose(affine, made.affine)


def test_header_scaling_is_applied() -> None:
    made = image()
    made.header.set_slope_inter(2.5, -3.0)
    made.header["scl_slope"], made.header["scl_inter"] = 2.5, -3.0
    content = patched(image().to_bytes(), 112, np.array([2.5, -3.0], "<f4").tobytes())
    np.testing.assert_allclose(read_volume(content)[0], np.asarray(image().dataobj) * 2.5 - 3.0)


def test_trailing_singleton_and_gzip_members_are_fine() -> None:
    single = image(np.asarray(image().dataobj)[..., None]).to_bytes()
    assert read_volume(single)[0].shape == SHAPE
    content = image().to_bytes()
    members = gzip.compress(content[:1000]) + gzip.compress(content[1000:])
    np.testing.assert_array_equal(read_volume(members)[0], read_volume(content)[0])


def test_few_nonfinite_voxels_become_zero_and_are_told() -> None:
    data = np.ones(SHAPE, np.float32)
    data[0, 0, :3] = (np.nan, np.inf, 5.0)
    scan = read_scan(image(data).to_bytes())
    assert scan.nonfinite_fraction == pytest.approx(2 / data.size)
    assert scan.volume[0, 0].tolist()[:3] == [0.0, 0.0, 5.0]


def _nan_background() -> bytes:
    data = np.ones(SHAPE, np.float32)
    data[:6] = np.nan
    return image(data).to_bytes()


def _rgb() -> bytes:
    colours = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    return image(colours).to_bytes()


def _no_codes() -> bytes:
    made = image()
    made.set_sform(AFFINE, 0)
    return made.to_bytes()


def _mirrored_forms() -> bytes:
    made = image()
    made.set_qform(AFFINE @ np.diag([-1.0, 1, 1, 1]), 1)
    return made.to_bytes()


def _with_affine(*rows: list[float]) -> bytes:
    return patched(image().to_bytes(), 280, np.array(rows, "<f4").tobytes())


BAD_FILES = {
    "empty": (b"", "empty"),
    "text": (b"participant_id\tage\n" * 60, "not a NIfTI"),
    "short": (image().to_bytes()[:100], "not a NIfTI"),
    "pair": (patched(image().to_bytes(), 344, b"ni1\0"), ".hdr/.img"),
    "truncated": (image().to_bytes()[:-10], "cut short"),
    "truncated gzip": (gzip.compress(image().to_bytes())[:-40], "gzip stream ends early"),
    "damaged gzip": (patched(gzip.compress(image().to_bytes()), 40, b"\xff" * 60), "gzip stream"),
    "series": (image(np.ones((*SHAPE, 3), np.int16)).to_bytes(), "series of 3 volumes"),
    "slice": (image(np.ones((12, 13, 1), np.int16)).to_bytes(), "localiser"),
    "two-dimensional": (image(np.ones((12, 13), np.int16)).to_bytes(), "2 dimensions"),
    "colours": (_rgb(), "colours"),
    "complex": (image(np.ones(SHAPE, np.complex64)).to_bytes(), "datatype 32"),
    "nan background": (_nan_background(), "NaN or infinite"),
    "zeros": (image(np.zeros(SHAPE, np.int16)).to_bytes(), "blank"),
    "constant": (image(np.full(SHAPE, 7, np.int16)).to_bytes(), "blank"),
    "no codes": (_no_codes(), "codes are both 0"),
    "forms disagree": (_mirrored_forms(), "disagree about left and right"),
    "singular": (_with_affine([9, 9, 0, 0], [0, 0, 0, 0], [0, 0, 8, 0]), "nearly coincide"),
    "zero axis": (_with_affine([0, 0, 0, 0], [0, 9, 0, 0], [0, 0, 8, 0]), "voxels of 0"),
    "not finite": (_with_affine([np.nan, 0, 0, 0], [0, 9, 0, 0], [0, 0, 8, 0]), "NaN or infinite"),
    "metres": (_with_affine([0.009, 0, 0, 0], [0, 0.009, 0, 0], [0, 0, 0.009, 0]), "is the unit millimetre"),
    "huge voxels": (_with_affine([50, 0, 0, 0], [0, 50, 0, 0], [0, 0, 50, 0]), "is the unit millimetre"),
    "small field of view": (_with_affine([2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]), "field of view"),
    "negative size": (patched(image().to_bytes(), 42, np.array([-5], "<i2").tobytes()), "dimensions"),
    "offset": (patched(image().to_bytes(), 108, np.array([1e30], "<f4").tobytes()), "start at byte"),
    "more than announced": (image().to_bytes() + bytes(2**21), "more than"),
}


@pytest.mark.parametrize("which", BAD_FILES)
def test_bad_file_is_refused_for_its_own_reason(which: str) -> None:
    content, reason = BAD_FILES[which]
    with pytest.raises(ScanRejected, match=reason):
        read_volume(content)


def _header_claiming(sizes: list[int]) -> bytes:
    header = nib.Nifti2Header()
    header["dim"] = [3, *sizes, 1, 1, 1, 1]
    header["sform_code"] = 1
    header["srow_x"][0] = header["srow_y"][1] = header["srow_z"][2] = 1.0
    header.set_data_dtype(np.int16)
    header["vox_offset"] = 544
    held = io.BytesIO()
    header.write_to(held)
    return held.getvalue() + bytes(4)


def _bomb(header: bytes, zeros: int) -> bytes:
    pressed = zlib.compressobj(9, wbits=31)
    parts = [pressed.compress(header)]
    parts += [pressed.compress(bytes(2**24)) for _ in range(zeros // 2**24)]
    return b"".join([*parts, pressed.flush()])


@pytest.mark.parametrize("which", ["header", "gzip"])
def test_bombs_are_refused_quickly_in_little_memory(which: str) -> None:
    if which == "header":
        content = gzip.compress(_header_claiming([60_000, 60_000, 60_000]))
    else:
        content = _bomb(_header_claiming([100, 100, 100]), 2**29)
    tracemalloc.start()
    begun_s = time.process_time()
    with pytest.raises(ScanRejected, match="60000" if which == "header" else "more than"):
        read_volume(content)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - begun_s < 1.0
    assert peak_bytes < 16 * 2**20


def test_an_honest_header_of_more_than_a_worker_holds_is_refused_before_memory_is_taken() -> None:
    header = nib.Nifti2Header()
    header.set_data_shape((500, 500, 300))
    header.set_data_dtype(np.float64)
    header.set_sform(np.diag([0.4, 0.4, 0.6, 1.0]), 1)
    stream = zlib.compressobj(1, zlib.DEFLATED, 31)
    content = stream.compress(header.binaryblock + bytes(4 + 2**24)) + stream.flush()
    tracemalloc.start()
    with pytest.raises(ScanRejected, match=r"announces 572 MiB of voxels, over the limit of 512"):
        read_volume(content)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_scan_is_inflated_once() -> None:
    data = np.random.default_rng(0).integers(0, 999, (128, 128, 128)).astype(np.float64)
    content = gzip.compress(image(data, np.diag([1.0, 1.0, 1.0, 1.0])).to_bytes(), 1)
    tracemalloc.start()
    read_volume(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The stored float64 (16 MiB, in a buffer that grows by an eighth) and its float32 copy.
    assert peak < 1.9 * data.nbytes
