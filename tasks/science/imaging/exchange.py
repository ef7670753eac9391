"""Volumes and transforms in the forms that other tools open: NIfTI-1, and ITK's text file of an affine."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
from scipy import ndimage

from ..arrays import Affine, Mask, Volume

# Values of a float have few repeats to find: level 1 is three times as fast as level 6 for 2% more bytes.
GZIP_LEVEL = 1
MNI_CODE = 4
OTHER_TEMPLATE_CODE = 5
LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def nifti_gz(volume: Volume | Mask, affine: Affine, space: str) -> bytes:
    """Write a volume as .nii.gz; the same volume gives the same bytes.

    A prepared float16 becomes float32, which holds each of its values exactly; NIfTI has no float16.

    Args:
        volume: Shape (i, j, k); bool and integers are stored as uint8, anything else as float32.
        affine: Voxel indices to the space's RAS+ mm, shape (4, 4), without shear.
        space: Name of the template space; tells readers whether coordinates are MNI's.

    Returns:
        The file's bytes, sform and qform set alike.
    """
    stored = volume.astype(np.float32 if np.issubdtype(volume.dtype, np.floating) else np.uint8)
    image = nib.Nifti1Image(stored, affine)
    code = MNI_CODE if space.startswith("MNI") else OTHER_TEMPLATE_CODE
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    image.header.set_xyzt_units("mm")
    # Without a time stamp, or two exports of one scan would differ.
    return gzip.compress(image.to_bytes(), GZIP_LEVEL, mtime=0)


def itk_affine(moving_to_template: Affine) -> str:
    """Write a registration as ITK's text file, which ANTs, SimpleITK, nitransforms and 3D Slicer read.

    ITK resamples by pulling: the file maps points of the template to points of the moving image, in LPS+ mm. It is the
    inverse of what is given here, its axes x and y turned.

    Args:
        moving_to_template: The moving image's RAS+ mm to the template's RAS+ mm, shape (4, 4).

    Returns:
        The file's text.
    """
    pulling = LPS_FROM_RAS @ np.linalg.inv(moving_to_template) @ LPS_FROM_RAS
    numbers = [*pulling[:3, :3].ravel().tolist(), *pulling[:3, 3].tolist()]
    return (
        "#Insight Transform File V1.0\n"
        "#Transform 0\n"
        "Transform: AffineTransform_double_3_3\n"
        f"Parameters: {' '.join(repr(number) for number in numbers)}\n"
        "FixedParameters: 0 0 0\n"
    )


def prepared_brain(channels: np.ndarray) -> Mask:
    """Recover the brain mask of a prepared scan, which is 0 outside it.

    Args:
        channels: Prepared volumes, shape (channels, i, j, k).

    Returns:
        True inside the brain, shape (i, j, k); holes are filled, since a value inside may be 0 by chance or for want
        of signal in one contrast.
    """
    return np.asarray(ndimage.binary_fill_holes((channels != 0).any(axis=0)))
