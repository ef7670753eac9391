"""How a site's scanner sees a head: where the grid lies, the contrast, the bias field, gain and noise."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

from .phantom_anatomy import Anatomy, Tissues, tissues
from .phantom_people import SITE, stream
from .phantom_template import template_head

ORIENTATIONS = ("LAS", "PSR", "RSA", "LPI", "ASL", "RAS", "PIR", "LSP")
# T1w signal relative to white matter. FLAIR or T2w would be another table over the same tissues.
T1W_SIGNAL = {"white": 1.0, "bone": 0.08, "marrow": 0.55, "fat": 1.2, "muscle": 0.45}
BRAIN_MARGIN_MM = 8.0


@dataclass(frozen=True)
class Site:
    """A scanner and its protocol. Nothing here depends on who is scanned.

    Attributes:
        name: Name in participants.tsv.
        orientation: Axis codes of the voxel array, as nibabel writes them.
        oblique_deg: Rotation of the grid about x, y and z.
        voxel_mm: Voxel size along the array's axes.
        field_of_view_mm: Extent left-right, front-back and up-down.
        headroom_mm: Air above the head's brain; the rest of the extent is face and neck.
        gain: White matter in scanner units.
        grey_signal: Grey matter relative to white matter.
        csf_signal: CSF relative to white matter.
        bias_sd: Spread of the logarithm of the bias field over the head.
        bias_terms: Coefficients of its polynomial.
        noise_sd: Standard deviation of each channel's noise, relative to white matter.
        integers: Whether files hold int16 rather than float32.
    """

    name: str
    orientation: str
    oblique_deg: tuple[float, ...]
    voxel_mm: tuple[float, ...]
    field_of_view_mm: tuple[float, ...]
    headroom_mm: float
    gain: float
    grey_signal: float
    csf_signal: float
    bias_sd: float
    bias_terms: tuple[float, ...]
    noise_sd: float
    integers: bool


@dataclass(frozen=True)
class Scan:
    """An acquired volume with its truth.

    Attributes:
        data: Shape (i, j, k), int16 or float32, scanner units.
        affine: Voxel indices to scanner RAS+ mm.
        scanner_to_mni: The subject's true affine, RAS+ mm to MNI152NLin2009aSym mm.
        tissues: What filled the voxels.
    """

    data: np.ndarray
    affine: np.ndarray
    scanner_to_mni: np.ndarray
    tissues: Tissues


def draw_site(seed: int, number: int, spacing_mm: float = 2.0) -> Site:
    """Draw a site from the cohort's seed alone.

    Array orientations take turns and every other site is oblique, so that two sites already differ in both.

    Args:
        seed: The cohort's seed; another seed gives other sites.
        number: Which site, from 0.
        spacing_mm: Nominal voxel size, about which the site's own varies.

    Returns:
        The site.
    """
    rng = stream(seed, SITE, number)
    in_plane, through_plane = spacing_mm * rng.uniform(0.85, 1.05), spacing_mm * rng.uniform(0.95, 1.35)
    tilt = rng.uniform(4, 14, 3) * rng.choice([-1, 1], 3) * ((seed + number) % 2)
    integers = bool((seed + number) % 3 != 2)
    start = int(stream(seed, SITE, 0, 1).integers(len(ORIENTATIONS)))
    return Site(
        name=f"site-{seed}-{number + 1}",
        orientation=ORIENTATIONS[(start + number) % len(ORIENTATIONS)],
        oblique_deg=tuple(round(float(t), 2) for t in tilt),
        voxel_mm=(round(in_plane, 3), round(in_plane, 3), round(through_plane, 3)),
        field_of_view_mm=tuple(round(float(v), 1) for v in rng.uniform((176, 214, 184), (198, 240, 226))),
        headroom_mm=round(rng.uniform(14, 30), 1),
        gain=round(float(np.exp(rng.uniform(np.log(200), np.log(2500)) if integers else rng.uniform(-1, 9))), 3),
        grey_signal=round(rng.uniform(0.58, 0.68), 3),
        csf_signal=round(rng.uniform(0.15, 0.26), 3),
        bias_sd=round(rng.uniform(0.05, 0.16), 3),
        bias_terms=tuple(round(float(v), 3) for v in rng.standard_normal(9)),
        noise_sd=round(rng.uniform(0.012, 0.035), 4),
        integers=integers,
    )


def acquire(anatomy: Anatomy, brain_age_years: float, site: Site, rng: np.random.Generator, stripped: bool) -> Scan:
    """Scan a head once: a new position in the scanner, new noise.

    Args:
        anatomy: The head.
        brain_age_years: What the anatomy shows that day.
        site: The scanner.
        rng: The scan's own stream.
        stripped: Leave brain only, with a background of exact zeros.

    Returns:
        The scan.
    """
    head_to_scanner = _position(rng)
    affine, shape = _prescription(anatomy, head_to_scanner, site, rng)
    content = tissues(anatomy, brain_age_years, np.linalg.inv(head_to_scanner) @ affine, shape)
    signal = np.zeros(int(np.prod(shape)), dtype=np.float32)
    signal[content.index] = _contrast(content, site) * _bias(site, content, affine)
    noise = np.float32(site.noise_sd) * rng.standard_normal((2, signal.size), dtype=np.float32)
    received = np.float32(site.gain) * np.hypot(signal + noise[0], noise[1])
    if stripped:
        kept = np.zeros(signal.size, dtype=bool)
        kept[content.index[content.brain]] = True
        received[~kept] = 0
    received = received.reshape(shape)
    data = np.rint(np.minimum(received, 32767)).astype(np.int16) if site.integers else received
    return Scan(data, affine, anatomy.head_to_mni @ np.linalg.inv(head_to_scanner), content)


def _position(rng: np.random.Generator) -> np.ndarray:
    """How the head lies in the coil: head mm to scanner mm, rigid; nodding is the largest freedom."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", rng.standard_normal(3) * (6, 2.5, 3), degrees=True).as_matrix()
    pose[:3, 3] = rng.standard_normal(3) * (4, 8, 10) + (0, 15, 5)
    return pose


def _prescription(
    anatomy: Anatomy, head_to_scanner: np.ndarray, site: Site, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Lay the site's box around the head: centred sideways, hung from above; it may cut the neck, never the brain."""
    tilt = Rotation.from_euler("xyz", site.oblique_deg, degrees=True).as_matrix()
    brain = (np.eye(3, 4) @ head_to_scanner @ _brain_surface(anatomy)).T @ tilt
    low, high = brain.min(axis=0) - BRAIN_MARGIN_MM, brain.max(axis=0) + BRAIN_MARGIN_MM
    extent = np.maximum(site.field_of_view_mm, high - low)
    corner = (low + high - extent) / 2 + rng.uniform(-1, 1, 3) * np.minimum(4, (extent - (high - low)) / 2)
    corner[2] = np.clip(high[2] - BRAIN_MARGIN_MM + site.headroom_mm - extent[2], None, low[2])
    affine, shape = np.eye(4), []
    first = np.zeros(3)
    for axis, (code, step) in enumerate(zip(site.orientation, site.voxel_mm, strict=True)):
        world = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}[code]
        positive = code in "RAS"
        n = int(np.ceil(extent[world] / step))
        shape.append(n)
        affine[:3, axis] = tilt[:, world] * (step if positive else -step)
        first[world] = corner[world] + step * (0.5 if positive else n - 0.5)
    affine[:3, 3] = tilt @ first
    # NIfTI keeps affines as float32; the truth is written for the affine that a reader gets.
    return affine.astype(np.float32).astype(np.float64), (shape[0], shape[1], shape[2])


def _brain_surface(anatomy: Anatomy) -> np.ndarray:
    """Points on the brain's envelope in the head frame, homogeneous, shape (4, n)."""
    hull = template_head().hull
    voxels = np.argwhere(np.abs(hull.values) < hull.spacing_mm)[::7]
    points = (voxels * hull.spacing_mm + hull.origin_mm).T.astype(np.float32)
    points = points[:, points[2] > -74]
    moved = points - anatomy.displacement_mm(points)
    return np.linalg.inv(anatomy.head_to_mni) @ np.concatenate([moved, np.ones((1, moved.shape[1]))])


def _contrast(content: Tissues, site: Site) -> np.ndarray:
    table = T1W_SIGNAL | {"grey": site.grey_signal} | dict.fromkeys(("csf", "ventricle", "eye"), site.csf_signal)
    signal = np.zeros(len(content.index), dtype=np.float32)
    for name, share in content.fractions.items():
        signal += np.float32(table[name]) * share
    return signal


def _bias(site: Site, content: Tissues, affine: np.ndarray) -> np.ndarray:
    """The coil's uneven sensitivity: the exponential of a quadratic over the scanner's space."""
    voxels = np.stack(np.unravel_index(content.index, content.shape)).astype(np.float32)
    linear, offset = affine[:3, :3].astype(np.float32), affine[:3, 3].astype(np.float32)
    x, y, z = (sum(linear[r, c] * voxels[c] for c in range(3)) / 100 + offset[r] / 100 for r in range(3))
    terms = (x, y, z, x * x, y * y, z * z, x * y, x * z, y * z)
    field = sum(np.float32(c) * term for c, term in zip(site.bias_terms, terms, strict=True))
    return np.exp(np.float32(site.bias_sd) * (field - field.mean()) / field.std())


def as_nifti(scan: Scan) -> nib.Nifti1Image:
    """Put a scan into NIfTI with both transforms set to scanner coordinates."""
    image = nib.Nifti1Image(scan.data, scan.affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(scan.affine, code=1)
    image.set_qform(scan.affine, code=1)
    return image
