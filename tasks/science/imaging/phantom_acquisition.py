"""How a site's scanner sees a head: where the grid lies, the slices' thickness, the bias field, gain and noise."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from .phantom_anatomy import PLAIN, Anatomy, Detail, Tissues, tissues
from .phantom_contrasts import Contrast, contrast_named
from .phantom_sites import Site, draw_site
from .phantom_template import template_head

__all__ = ["Scan", "acquire", "as_nifti", "displacement", "draw_site", "position"]

BRAIN_MARGIN_MM = 8.0
T1W = contrast_named("T1w")
# Between two contrasts of a session a head moves this much (standard deviation, each axis).
DISPLACEMENT_DEG, DISPLACEMENT_MM = 1.0, 1.2
# A thick slice is the sum of thin ones at most this far apart.
THIN_MM = 1.3
FWHM_PER_SD = 2 * (2 * np.log(2)) ** 0.5


@dataclass(frozen=True)
class Scan:
    """An acquired volume with its truth.

    Attributes:
        data: Shape (i, j, k), int16 or float32, scanner units.
        affine: Voxel indices to scanner RAS+ mm.
        scanner_to_mni: The subject's true affine, RAS+ mm to MNI152NLin2009aSym mm.
        tissues: What filled the voxels; those of the thin slices, where thick slices were made of them.
        tissue_voxel_ml: Volume of a voxel of `tissues`.
    """

    data: np.ndarray
    affine: np.ndarray
    scanner_to_mni: np.ndarray
    tissues: Tissues
    tissue_voxel_ml: float

    def volumes_ml(self) -> dict[str, float]:
        """True volume of each tissue within the brain; white matter counts its lesions and what is unmyelinated."""
        inside = self.tissues.brain
        names = ("grey", "white", "csf", "ventricle", "lesion", "unmyelinated")
        found = {name: share for name, share in self.tissues.fractions.items() if name in names}
        volumes = {name: float(share[inside].sum(dtype=np.float64)) for name, share in found.items()}
        parts = {name: volumes.get(name, 0.0) for name in ("lesion", "unmyelinated")}
        whole = {"grey": volumes["grey"], "white": volumes["white"] + sum(parts.values())}
        whole |= {"csf": volumes["csf"] + volumes["ventricle"], "ventricles": volumes["ventricle"]} | parts
        return {name: round(value * self.tissue_voxel_ml, 3) for name, value in whole.items()}


def acquire(
    anatomy: Anatomy,
    brain_age_years: float,
    site: Site,
    rng: np.random.Generator,
    stripped: bool,
    contrast: Contrast = T1W,
    detail: Detail = PLAIN,
    pose: np.ndarray | None = None,
) -> Scan:
    """Scan a head once: a new position in the scanner, new noise.

    Args:
        anatomy: The head.
        brain_age_years: What the anatomy shows that day.
        site: The scanner.
        rng: The scan's own stream.
        stripped: Leave brain only, with a background of exact zeros.
        contrast: What the image shows, and the thickness of its slices.
        detail: Lesions, myelination and reference tissues.
        pose: Head mm to scanner mm, where the session has fixed it.

    Returns:
        The scan.
    """
    head_to_scanner = position(rng) if pose is None else pose
    affine, shape = _prescription(anatomy, head_to_scanner, site, rng)
    thin, thin_shape, n_thin = _thin_slices(affine, shape, contrast)
    content = tissues(anatomy, brain_age_years, np.linalg.inv(head_to_scanner) @ thin, thin_shape, detail)
    signal = np.zeros(int(np.prod(thin_shape)), dtype=np.float32)
    signal[content.index] = _contrast(content, contrast.table(site)) * _bias(site, content, thin)
    if contrast.thickness_mm is not None:
        signal = _thick(signal.reshape(thin_shape), contrast.thickness_mm, thin, n_thin).ravel()
    noise = np.float32(site.noise_sd) * rng.standard_normal((2, signal.size), dtype=np.float32)
    received = np.float32(site.gain) * (np.hypot(signal + noise[0], noise[1]) + np.float32(contrast.offset))
    if stripped:
        received[~_brain_voxels(content, n_thin)] = 0
    received = received.reshape(shape)
    data = np.rint(np.minimum(received, 32767)).astype(np.int16) if site.integers else received
    voxel_ml = float(abs(np.linalg.det(thin[:3, :3]))) / 1000
    return Scan(data, affine, anatomy.head_to_mni @ np.linalg.inv(head_to_scanner), content, voxel_ml)


def displacement(rng: np.random.Generator) -> np.ndarray:
    """How a head moves between two contrasts of one session: scanner mm to scanner mm, rigid."""
    moved = np.eye(4)
    moved[:3, :3] = Rotation.from_euler("xyz", DISPLACEMENT_DEG * rng.standard_normal(3), degrees=True).as_matrix()
    moved[:3, 3] = DISPLACEMENT_MM * rng.standard_normal(3)
    return moved


def _thin_slices(
    affine: np.ndarray, shape: tuple[int, int, int], contrast: Contrast
) -> tuple[np.ndarray, tuple[int, int, int], int]:
    """The grid that tissue is laid on: for thick slices, an odd number of thin ones in place of each."""
    if contrast.thickness_mm is None:
        return affine, shape, 1
    n = 2 * int(np.ceil(np.linalg.norm(affine[:3, 2]) / THIN_MM) // 2) + 1
    thin = affine.copy()
    thin[:3, 2] /= n
    thin[:3, 3] -= (n - 1) / 2 * thin[:3, 2]
    return thin, (shape[0], shape[1], shape[2] * n), n


def _thick(signal: np.ndarray, thickness_mm: float, thin: np.ndarray, n_thin: int) -> np.ndarray:
    """Integrate thin slices through a Gaussian profile and keep the middle of each thick one; gaps are never seen."""
    sd = thickness_mm / FWHM_PER_SD / np.linalg.norm(thin[:3, 2])
    smooth = ndimage.gaussian_filter1d(signal, float(sd), axis=2, mode="nearest", truncate=3.0)
    return np.ascontiguousarray(smooth[:, :, n_thin // 2 :: n_thin])


def _brain_voxels(content: Tissues, n_thin: int) -> np.ndarray:
    """What skull stripping keeps, flat; of thick slices, those that are brain at their middle."""
    kept = np.zeros(content.shape, dtype=bool)
    kept.ravel()[content.index[content.brain]] = True
    return np.ascontiguousarray(kept[:, :, n_thin // 2 :: n_thin]).ravel()


def position(rng: np.random.Generator) -> np.ndarray:
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


def _contrast(content: Tissues, table: dict[str, float]) -> np.ndarray:
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
