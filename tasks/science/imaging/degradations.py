"""Raw scans made worse on purpose, to see how a model's error grows before a worse scanner shows it.

Degradations act on the image file itself, before any preprocessing, as a scanner or a converter would: a recipe that
corrects a bias field, or finds out how a head really lies, is part of what is tested.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

from ...records import ScanRejected
from ..arrays import Affine, Volume
from .nifti import read_scan
from .orientation import apply_affine, nearest_axes, spacing_mm
from .slices import SliceProtocol, simulate_acquisition

DegradationKind = Literal["thicker_slices", "noise", "bias_field", "header_turn"]
# Raised when a change of these functions alters what they give.
DEGRADATION_VERSION = 1
STAGE = "degradation"
# Thinner than any scan's own voxels: slices keep the in-plane resolution that they have.
OWN_IN_PLANE_MM = 0.2
SAME_MM = 0.01


@dataclass(frozen=True)
class Degradation:
    """One way to make a scan worse.

    Attributes:
        kind: `thicker_slices`: contiguous axial slices of `strength` mm; `noise`: Rician noise whose standard deviation
            is `strength` of the mean signal; `bias_field`: a smooth field whose logarithm has the standard deviation
            `strength` over the head; `header_turn`: the header turns the head by `strength` degrees about one of its
            axes, while the voxels stay as they are.
        strength: In the unit of its kind.
        seed: Of what is random; every scan draws its own.
    """

    kind: DegradationKind
    strength: float
    seed: int = 0


def degrade(content: bytes, degradation: Degradation, scan_key: str) -> bytes:
    """Make an image file worse.

    Args:
        content: The bytes of a .nii or .nii.gz file.
        degradation: How.
        scan_key: Hexadecimal name of the scan, from which its own randomness is drawn: the same scan and degradation
            give the same bytes, and two scans of a cohort do not get the same field. The images of one session get the
            same turn.

    Returns:
        The bytes of a .nii file, float32.

    Raises:
        ScanRejected: The file cannot be read, or is too thin for such slices.
    """
    scan = read_scan(content)
    rng = np.random.default_rng([degradation.seed, int(scan_key[:12], 16)])
    if degradation.kind == "thicker_slices":
        volume, affine = _thicker(scan.volume, scan.affine, degradation.strength)
    elif degradation.kind == "noise":
        # The images of a session share the scan's name and a coil, but no noise.
        own = np.random.default_rng([degradation.seed, int(scan_key[:12], 16), zlib.crc32(content)])
        volume, affine = with_rician_noise(scan.volume, degradation.strength, own), scan.affine
    elif degradation.kind == "bias_field":
        volume, affine = with_bias_field(scan.volume, scan.affine, degradation.strength, rng), scan.affine
    else:
        volume, affine = scan.volume, turned_header(scan.volume.shape, scan.affine, degradation.strength, rng)
    return _nifti(volume, affine)


def _thicker(volume: Volume, affine: Affine, thickness_mm: float) -> tuple[Volume, Affine]:
    if thickness_mm <= spacing_mm(affine)[nearest_axes(affine)[2]] + SAME_MM:
        # A scan of thicker slices has nothing thinner to show.
        return volume, affine
    protocol = SliceProtocol("axial", thickness_mm, gap_mm=0.0, in_plane_mm=OWN_IN_PLANE_MM)
    try:
        return simulate_acquisition(volume, affine, protocol)
    except ValueError as error:
        raise ScanRejected(STAGE, str(error)) from error


def with_rician_noise(volume: Volume, share: float, rng: np.random.Generator) -> Volume:
    """Add the noise of a magnitude image: Gaussian noise in both channels of the complex signal.

    Voxels that are exactly 0 stay so, since a scanner measures no such thing: somebody has taken them away (skull
    stripping, defacing). An image with negative values is no magnitude image and gets Gaussian noise.

    Args:
        volume: Intensities, shape (i, j, k).
        share: Standard deviation of each channel's noise, as a share of the mean signal of what is no background.
        rng: Source of randomness.

    Returns:
        float32, same shape.

    Reference: Gudbjartsson & Patz 1995, doi:10.1002/mrm.1910340618.
    """
    sigma = np.float32(share * float(volume[foreground(volume)].mean()))
    real = volume + sigma * rng.standard_normal(volume.shape, dtype=np.float32)
    if volume.min() < 0:
        return np.where(volume == 0, np.float32(0), real)
    noisy = np.hypot(real, sigma * rng.standard_normal(volume.shape, dtype=np.float32))
    return np.where(volume == 0, np.float32(0), noisy)


def with_bias_field(volume: Volume, affine: Affine, log_sd: float, rng: np.random.Generator) -> Volume:
    """Multiply by the exponential of a random quadratic over space: uneven sensitivity of a coil.

    Args:
        volume: Intensities, shape (i, j, k).
        affine: Voxel indices to RAS+ mm.
        log_sd: Standard deviation of the field's logarithm over what is no background.
        rng: Source of randomness.

    Returns:
        float32, same shape; the mean of the logarithm over what is no background is 0.
    """
    scale = np.max(np.array(volume.shape) * spacing_mm(affine)) / 2
    axes = [(np.arange(size, dtype=np.float32) - (size - 1) / 2) * step / scale
            for size, step in zip(volume.shape, spacing_mm(affine).astype(np.float32), strict=True)]  # fmt: skip
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    terms = (x, y, z, x * x, y * y, z * z, x * y, x * z, y * z)
    field = np.zeros(volume.shape, dtype=np.float32)
    for weight, term in zip(rng.standard_normal(len(terms)), terms, strict=True):
        field += np.float32(weight) * term
    inside = field[foreground(volume)]
    field = (field - inside.mean()) * np.float32(log_sd / max(float(inside.std()), 1e-6))
    return np.asarray(volume * np.exp(field), dtype=np.float32)


def turned_header(shape: tuple[int, ...], affine: Affine, degrees: float, rng: np.random.Generator) -> Affine:
    """Turn what the header says about a random axis of the world, around the middle of the volume.

    Returns:
        The affine of a header that is wrong, shape (4, 4).
    """
    axis = np.zeros(3)
    axis[int(rng.integers(3))] = 1.0 if rng.random() < 0.5 else -1.0
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * axis).as_matrix()
    middle = apply_affine(affine, (np.array([shape]) - 1) / 2)[0]
    turn[:3, 3] = middle - turn[:3, :3] @ middle
    return np.asarray(turn @ affine)


def foreground(volume: Volume) -> np.ndarray:
    """What is brighter than the image's mean: tissue, whatever the scanner's units and however much air there is."""
    return np.asarray(volume > volume.mean())


def _nifti(volume: Volume, affine: Affine) -> bytes:
    image = nib.Nifti1Image(np.asarray(volume, dtype=np.float32), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    # An affine with shear is no quaternion, and the sform says all.
    image.set_qform(None, code=0)
    return bytes(image.to_bytes())
