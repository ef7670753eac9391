"""Reading a NIfTI from bytes that nobody has vetted.

A cohort's bucket holds truncated uploads, localisers, colour maps and, once in a while, a file made to hurt. The
header is read from a bounded prefix and believed only within limits, so that no file takes more memory than its
announced volume, and every refusal says what to do next.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Header

from ...records import ScanRejected
from ..arrays import Affine, Volume
from .orientation import check_affine, spacing_mm

GZIP_MAGIC = b"\x1f\x8b"
HEADER_BYTES = 540  # NIfTI-2; NIfTI-1 has 348.
MAX_DIMENSION = 1024
MAX_VOXELS = 2**27
MAX_STORED_BYTES = 2**29  # With float32 copies of so many voxels a worker stays below 3 GiB.
MAX_OFFSET_BYTES = 2**24
TRAILING_BYTES = 2**20
PIECE_BYTES = 2**14
MAX_NONFINITE_FRACTION = 0.01
MIN_VOXELS_PER_AXIS = 8
MIN_FIELD_OF_VIEW_MM = 80.0
REAL_DATATYPES = frozenset({2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280})


@dataclass(frozen=True)
class NativeScan:
    """One volume as the scanner stored it.

    Attributes:
        volume: Intensities after the header's scaling, shape (i, j, k), float32, C order.
        affine: Voxel indices to RAS+ mm, shape (4, 4), float64.
        nonfinite_fraction: Part of the voxels that were NaN or infinite and are 0 now.
    """

    volume: Volume
    affine: Affine
    nonfinite_fraction: float


def _reject(reason: str) -> ScanRejected:
    return ScanRejected("read", reason)


def read_volume(content: bytes, max_voxels: int = MAX_VOXELS) -> tuple[Volume, Affine]:
    """Turn a file's bytes into a volume, or refuse it with a reason.

    Args:
        content: The bytes of a .nii or .nii.gz file.
        max_voxels: Largest volume for which memory is taken.

    Returns:
        Intensities, shape (i, j, k), float32, and the affine from voxel indices to RAS+ mm, shape (4, 4).

    Raises:
        ScanRejected: The file is no readable, single, three-dimensional volume of real numbers.
    """
    scan = read_scan(content, max_voxels)
    return scan.volume, scan.affine


def read_scan(content: bytes, max_voxels: int = MAX_VOXELS) -> NativeScan:
    """Do what `read_volume` does and tell how many voxels were not finite.

    Args:
        content: The bytes of a .nii or .nii.gz file.
        max_voxels: Largest volume for which memory is taken.

    Returns:
        The scan in its native frame.

    Raises:
        ScanRejected: The file is no readable, single, three-dimensional volume of real numbers.
    """
    if not content:
        raise _reject("the file is empty; upload it again")
    header = _read_header(bytes(_inflate(content, HEADER_BYTES)))
    shape = _checked_shape(header, max_voxels)
    affine = _checked_affine(header, shape)
    start, stored = _checked_layout(header, shape)
    raw = _inflate_exactly(content, start + int(np.prod(shape)) * stored.itemsize)
    volume = np.frombuffer(raw, dtype=stored, offset=start, count=int(np.prod(shape))).reshape(shape, order="F")
    finished, nonfinite_fraction = _finite(_scaled(volume, header))
    return NativeScan(finished, affine, nonfinite_fraction)


def _inflate(content: bytes, limit_bytes: int) -> bytes | bytearray:
    """Decompress at most `limit_bytes`, through concatenated gzip members (bgzip writes many)."""
    if not content.startswith(GZIP_MAGIC):
        return content[:limit_bytes]
    inflated = bytearray()
    whole, position = memoryview(content), 0
    try:
        while content.startswith(GZIP_MAGIC, position) and len(inflated) < limit_bytes:
            member = zlib.decompressobj(wbits=31)
            while not member.eof and len(inflated) < limit_bytes:
                # In pieces, since each member's end copies what is left over: a file of a million would take hours.
                piece = whole[position : position + PIECE_BYTES]
                if not piece:
                    raise _reject(
                        f"the gzip stream ends early after {len(inflated)} bytes; the upload was cut: repeat it"
                    )
                inflated += member.decompress(piece, limit_bytes - len(inflated))
                position += len(piece) - len(member.unused_data)
    except zlib.error as error:
        raise _reject(f"the gzip stream is damaged ({error}); compress or upload the file again") from error
    return inflated


def _inflate_exactly(content: bytes, expected_bytes: int) -> bytes | bytearray:
    inflated = _inflate(content, expected_bytes + TRAILING_BYTES)
    if len(inflated) < expected_bytes:
        raise _reject(
            f"the file is cut short: the header announces {expected_bytes} bytes, {len(inflated)} are there; "
            "upload it again"
        )
    if len(inflated) >= expected_bytes + TRAILING_BYTES:
        raise _reject(
            f"the file holds more than the {expected_bytes} bytes that its header announces; "
            "convert it again from the scanner's files"
        )
    return inflated


def _read_header(prefix: bytes) -> Nifti1Header:
    if prefix[344:348] == b"n+1\0":
        kind, length = nib.Nifti1Header, 348
    elif prefix[4:8] == b"n+2\0":
        kind, length = nib.Nifti2Header, 540
    elif prefix[344:348] == b"ni1\0" or prefix[4:8] == b"ni2\0":
        raise _reject("a NIfTI header whose voxels are in another file (.hdr/.img); store it as a single .nii.gz")
    else:
        raise _reject("not a NIfTI file: neither the NIfTI-1 nor the NIfTI-2 mark is there; convert it with dcm2niix")
    if len(prefix) < length:
        raise _reject(f"the file is cut short: a header needs {length} bytes, {len(prefix)} are there; upload it again")
    return kind.from_fileobj(io.BytesIO(prefix[:length]), check=False)


def _checked_shape(header: Nifti1Header, max_voxels: int) -> tuple[int, int, int]:
    dimensions = [int(size) for size in header["dim"]]
    count = dimensions[0]
    if not 3 <= count <= 7:
        raise _reject(f"the header announces {count} dimensions; a volume has 3")
    sizes = dimensions[1 : count + 1]
    if min(sizes) < 1 or max(sizes) > MAX_DIMENSION:
        raise _reject(f"the header announces dimensions {sizes}; 1 to {MAX_DIMENSION} voxels per axis are accepted")
    if any(size > 1 for size in sizes[3:]):
        raise _reject(f"the file holds a series of {int(np.prod(sizes[3:]))} volumes; extract the one to be used")
    shape = (sizes[0], sizes[1], sizes[2])
    if sizes[0] * sizes[1] * sizes[2] > max_voxels:
        raise _reject(f"the header announces {shape} voxels, over the limit of {max_voxels}; resample it first")
    if min(shape) < MIN_VOXELS_PER_AXIS:
        raise _reject(f"{shape} voxels: a localiser or a single slice, not a volume; at least 8 per axis are needed")
    return shape


def _checked_affine(header: Nifti1Header, shape: tuple[int, int, int]) -> Affine:
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    if sform_code <= 0 and qform_code <= 0:
        raise _reject("sform and qform codes are both 0: left and right cannot be told; convert it again with dcm2niix")
    qform = _qform(header) if qform_code > 0 else None
    affine = np.asarray(header.get_sform(), dtype=np.float64) if sform_code > 0 else qform
    if affine is None:
        raise _reject("the qform's quaternion is no rotation and there is no sform; convert the scan again")
    check_affine(affine)
    if qform is not None and np.linalg.det(affine[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0:
        raise _reject("sform and qform disagree about left and right; find out which is right and store that one only")
    extent_mm = np.array(shape) * spacing_mm(affine)
    if extent_mm.min() < MIN_FIELD_OF_VIEW_MM:
        raise _reject(
            f"the field of view is {extent_mm.round().astype(int).tolist()} mm; "
            f"a brain needs at least {MIN_FIELD_OF_VIEW_MM:.0f} mm per axis"
        )
    return affine


def _qform(header: Nifti1Header) -> Affine | None:
    try:
        return np.asarray(header.get_qform(), dtype=np.float64)
    except (ValueError, nib.spatialimages.HeaderDataError):
        return None


def _checked_layout(header: Nifti1Header, shape: tuple[int, int, int]) -> tuple[int, np.dtype]:
    code = int(header["datatype"])
    if code in (128, 2304):
        raise _reject("the voxels are colours (RGB): a screenshot or a colour map, not a scan")
    if code not in REAL_DATATYPES:
        raise _reject(f"NIfTI datatype {code} is not a real number type; store the scan as int16 or float32")
    stored = header.get_data_dtype()
    size_bytes = int(np.prod(shape)) * stored.itemsize
    if size_bytes > MAX_STORED_BYTES:
        raise _reject(
            f"the header announces {size_bytes // 2**20} MiB of voxels, over the limit of {MAX_STORED_BYTES // 2**20}; "
            "store the scan as int16 or float32, or resample it first"
        )
    offset = float(header["vox_offset"])
    if not np.isfinite(offset) or not 0 <= offset <= MAX_OFFSET_BYTES:
        raise _reject(f"the header says that voxels start at byte {offset}; at most {MAX_OFFSET_BYTES} is accepted")
    return max(int(offset), int(header.single_vox_offset)), stored


def _scaled(stored: np.ndarray, header: Nifti1Header) -> Volume:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    with np.errstate(over="ignore", invalid="ignore"):
        volume = np.array(stored, dtype=np.float32, order="C")
        if np.isfinite(slope) and slope != 0:
            volume *= np.float32(slope)
            volume += np.float32(intercept if np.isfinite(intercept) else 0.0)
    return volume


def _finite(volume: Volume) -> tuple[Volume, float]:
    finite = np.isfinite(volume)
    fraction = 1.0 - float(np.count_nonzero(finite)) / volume.size
    if fraction > MAX_NONFINITE_FRACTION:
        raise _reject(
            f"{fraction:.1%} of the voxels are NaN or infinite (limit {MAX_NONFINITE_FRACTION:.0%}); "
            "write 0 in the background"
        )
    if fraction > 0:
        volume = np.where(finite, volume, np.float32(0))
    low, high = float(volume.min()), float(volume.max())
    if low == high:
        raise _reject(f"every voxel has the value {low:g}; the scan is blank")
    return volume, fraction
