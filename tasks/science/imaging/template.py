"""The MNI template that every scan is brought to: MNI152NLin2009aSym, 1 mm, as nilearn ships it (skull-stripped).

The files are read from nilearn's folder without importing nilearn, which would pull in a machine-learning library.

Reference: Fonov et al. 2011, doi:10.1016/j.neuroimage.2010.07.033.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..arrays import Affine, Mask, Volume
from .nifti import read_volume

FILE_NAMES = {
    "t1": "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
    "grey": "mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz",
    "white": "mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz",
}
FULL_PROBABILITY = 255.0


def _content(which: str) -> bytes:
    package = importlib.util.find_spec("nilearn")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("nilearn carries the MNI template; install it (nilearn>=0.14)")
    return (Path(package.submodule_search_locations[0]) / "datasets" / "data" / FILE_NAMES[which]).read_bytes()


def _frozen(volume: np.ndarray) -> np.ndarray:
    """Cached arrays are shared by every caller, so nobody may write to them."""
    volume.setflags(write=False)
    return volume


@cache
def mni_template() -> tuple[Volume, Affine]:
    """T1w intensities of the average brain.

    Returns:
        Volume of shape (197, 233, 189), float32, 0 outside the brain, and its affine to MNI RAS+ mm. Read-only.
    """
    volume, affine = read_volume(_content("t1"))
    return _frozen(volume), _frozen(affine)


@cache
def mni_brain_mask() -> Mask:
    """True inside the average brain, ventricles included.

    Returns:
        Shape (197, 233, 189), bool, on the template's grid. Read-only.
    """
    return _frozen(ndimage.binary_fill_holes(mni_template()[0] > 0))


@cache
def mni_tissues() -> tuple[Volume, Volume]:
    """How probable grey and white matter are in the average brain.

    Returns:
        Grey and white matter, each of shape (197, 233, 189), float32, 0 to 1, on the template's grid. Read-only.
    """
    grey, _ = read_volume(_content("grey"))
    white, _ = read_volume(_content("white"))
    return _frozen(grey / np.float32(FULL_PROBABILITY)), _frozen(white / np.float32(FULL_PROBABILITY))


@cache
def brain_box_mm() -> tuple[np.ndarray, np.ndarray]:
    """Corners of the box that holds the average brain.

    Returns:
        Lowest and highest (x, y, z) in MNI RAS+ mm, outer faces of the voxels.
    """
    affine = mni_template()[1]
    box = ndimage.find_objects(mni_brain_mask().astype(np.uint8))[0]
    low = np.array([axis.start for axis in box]) - 0.5
    high = np.array([axis.stop for axis in box]) - 0.5
    steps = np.diag(affine)[:3]
    return low * steps + affine[:3, 3], high * steps + affine[:3, 3]


@cache
def template_digest() -> str:
    """Name the template by its bytes, since another nilearn may ship another one.

    Returns:
        64 hexadecimal digits over the three files.
    """
    combined = hashlib.sha256()
    for which in sorted(FILE_NAMES):
        combined.update(hashlib.sha256(_content(which)).digest())
    return combined.hexdigest()
