"""The templates that scans are brought to: MNI152NLin2009aSym, 1 mm, as nilearn ships it, or one that a study gives.

MNI's files are read from nilearn's folder without importing nilearn, which would pull in a machine-learning library.

Reference: Fonov et al. 2011, doi:10.1016/j.neuroimage.2010.07.033.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from scipy import ndimage

from ...records import ScanRejected
from ..arrays import Affine, Mask, Volume
from .nifti import read_volume
from .orientation import to_ras

MNI_FILES = {
    "t1": "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
    "grey": "mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz",
    "white": "mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz",
}
MNI_NAME = "MNI152NLin2009aSym"
MNI_FULL_PROBABILITY = 255.0
# The MNI brain is larger than most: people's linear scale to it is about 1.0 to 1.2.
MNI_USUAL_SCALE = 1.08


@dataclass(frozen=True, eq=False)
class Template:
    """An average brain in its own RAS+ space, without skull. Its arrays are shared and read-only.

    Attributes:
        name: Names the space in sidecars and file names.
        t1: Intensities, shape (i, j, k), float32, 0 outside the brain.
        grey: How probable grey matter is, 0 to 1, same shape, float32.
        white: How probable white matter is, 0 to 1, same shape, float32.
        brain: True inside the brain, ventricles included, same shape.
        affine: Voxel indices to the template's RAS+ mm, shape (4, 4).
        digest: Of the bytes that it was read from.
        usual_scale: By how much a scan's brain is usually enlarged to fit it, as a length.
    """

    name: str
    t1: Volume = field(repr=False)
    grey: Volume = field(repr=False)
    white: Volume = field(repr=False)
    brain: Mask = field(repr=False)
    affine: Affine = field(repr=False)
    digest: str
    usual_scale: float = 1.0

    @cached_property
    def box_mm(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest (x, y, z) of the box that holds the brain, RAS+ mm, outer faces of the voxels."""
        box = ndimage.find_objects(self.brain.astype(np.uint8))[0]
        low = np.array([axis.start for axis in box]) - 0.5
        high = np.array([axis.stop for axis in box]) - 0.5
        steps = np.diag(self.affine)[:3]
        return low * steps + self.affine[:3, 3], high * steps + self.affine[:3, 3]

    @cached_property
    def centre_mm(self) -> np.ndarray:
        """Middle of the brain's box, RAS+ mm."""
        return np.array(self.box_mm).mean(axis=0)


@cache
def mni() -> Template:
    """The average of 152 adults that ships inside nilearn; shape (197, 233, 189), 1 mm."""
    contents = {name: _nilearn_file(file) for name, file in MNI_FILES.items()}
    t1, affine = read_volume(contents["t1"])
    grey, white = (read_volume(contents[name])[0] / np.float32(MNI_FULL_PROBABILITY) for name in ("grey", "white"))
    brain = ndimage.binary_fill_holes(t1 > 0)
    return _template(MNI_NAME, t1, grey, white, brain, affine, _digest(contents), MNI_USUAL_SCALE)


def given_template(name: str, contents: dict[str, bytes]) -> Template:
    """Read a template that a study brings, such as an infant one of a certain age.

    Args:
        name: Names its space.
        contents: Bytes of NIfTI files on one grid: `t1`, skull-stripped, or with the mask `brain`; `grey` and `white`,
            tissue probabilities (0 to 1, or to any maximum).

    Returns:
        The template in RAS+ order.

    Raises:
        ValueError: A file cannot be read, the grids differ, are oblique, or there is no brain: a caller's mistake.
    """
    try:
        read = {which: to_ras(*read_volume(content)) for which, content in contents.items()}
    except ScanRejected as rejection:
        raise ValueError(f"template {name!r} cannot be read: {rejection}") from rejection
    t1, affine = read["t1"]
    for which, (volume, other) in read.items():
        if volume.shape != t1.shape or not np.allclose(other, affine, atol=1e-3):
            raise ValueError(f"template {name!r}: {which} and t1 lie on different grids; resample one to the other's")
    if np.abs(affine[:3, :3] - np.diag(np.diag(affine)[:3])).max() > 1e-3:
        raise ValueError(f"template {name!r} lies obliquely in its space; resample it to a grid along the axes")
    brain = ndimage.binary_fill_holes((read["brain"][0] if "brain" in read else t1) > 0)
    if brain.mean() > 0.9 or brain.sum() < 1000:
        raise ValueError(f"template {name!r} has no background of zeros; give its brain mask as `brain`")
    grey, white = (read[which][0] / np.float32(max(float(read[which][0].max()), 1e-9)) for which in ("grey", "white"))
    return _template(name, t1 * brain, grey, white, brain, affine, _digest(contents), 1.0)


def _template(
    name: str, t1: Volume, grey: Volume, white: Volume, brain: Mask, affine: Affine, digest: str, usual_scale: float
) -> Template:
    """Cached arrays are shared by every caller, so nobody may write to them."""
    for array in (t1, grey, white, brain, affine):
        array.setflags(write=False)
    return Template(name, t1, grey, white, brain, affine, digest, usual_scale)


def _nilearn_file(name: str) -> bytes:
    package = importlib.util.find_spec("nilearn")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("nilearn carries the MNI template; install it (nilearn>=0.14)")
    return (Path(package.submodule_search_locations[0]) / "datasets" / "data" / name).read_bytes()


@cache
def mni_digest() -> str:
    """Name MNI's template by its bytes without decompressing them, since another nilearn may ship another one."""
    return _digest({name: _nilearn_file(file) for name, file in MNI_FILES.items()})


def _digest(contents: dict[str, bytes]) -> str:
    combined = hashlib.sha256()
    for which in sorted(contents):
        combined.update(which.encode() + hashlib.sha256(contents[which]).digest())
    return combined.hexdigest()
