"""What is written for other tools is read back by them with the same meaning."""

from __future__ import annotations

import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.science.imaging.exchange import itk_affine, nifti_gz, prepared_brain

AFFINE = np.array([[2.0, 0, 0, -79], [0, 2, 0, -112], [0, 0, 2, -74], [0, 0, 0, 1]])


def test_every_float16_survives(tmp_path: Path) -> None:
    patterns = np.arange(2**16, dtype=np.uint16).view(np.float16)
    volume = patterns[np.isfinite(patterns)].reshape(-1, 8, 4)
    path = tmp_path / "x.nii.gz"
    path.write_bytes(nifti_gz(volume, AFFINE, "MNI152NLin2009aSym"))
    image = nib.nifti1.load(path)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(image.dataobj), volume.astype(np.float32))


@pytest.mark.parametrize(("space", "code"), [("MNI152NLin2009aSym", 4), ("UNCInfant12", 5)])
def test_both_forms_of_the_affine_name_the_space(tmp_path: Path, space: str, code: int) -> None:
    path = tmp_path / "x.nii.gz"
    content = nifti_gz(np.zeros((5, 6, 7), bool), AFFINE, space)
    assert content == nifti_gz(np.zeros((5, 6, 7), bool), AFFINE, space)
    path.write_bytes(content)
    header = nib.nifti1.load(path).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (code, code)
    np.testing.assert_array_equal(header.get_sform(), AFFINE)
    np.testing.assert_array_equal(header.get_qform(), AFFINE)
    assert header.get_xyzt_units()[0] == "mm"
    assert header.get_data_dtype() == np.uint8


@settings(max_examples=20)
@given(values=st.lists(st.floats(-0.3, 0.3), min_size=12, max_size=12))
def test_itk_pulls_template_points_back_to_the_source(values: list[float]) -> None:
    moving_to_template = np.eye(4)
    moving_to_template[:3] += np.reshape(values, (3, 4)) * [1, 1, 1, 100]
    text = itk_affine(moving_to_template)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.txt"
        path.write_text(text)
        transform = sitk.ReadTransform(str(path))
    source_ras = np.array([11.0, -23.0, 37.0])
    template_ras = (moving_to_template @ [*source_ras, 1])[:3]
    found_lps = transform.TransformPoint((template_ras * [-1, -1, 1]).tolist())
    np.testing.assert_allclose(np.array(found_lps) * [-1, -1, 1], source_ras, atol=1e-6)


def test_sitk_resamples_a_source_onto_an_exported_grid(tmp_path: Path) -> None:
    """The two files together, as `antsApplyTransforms` uses them: a bright corner lands where the affine says."""
    source = np.zeros((20, 22, 24), np.float32)
    source[4:7, 5:8, 15:18] = 1
    source_affine = np.diag([1.5, 1.5, 1.5, 1.0])
    source_affine[:3, 3] = -10
    to_template = np.array([[0, -1, 0, 6.0], [1, 0, 0, 4], [0, 0, 1, -2], [0, 0, 0, 1]])
    grid = np.diag([2.0, 2, 2, 1])
    grid[:3, 3] = -24
    (tmp_path / "source.nii.gz").write_bytes(nifti_gz(source, source_affine, "native"))
    (tmp_path / "grid.nii.gz").write_bytes(nifti_gz(np.zeros((24, 24, 24), np.float32), grid, "MNI"))
    (tmp_path / "x.txt").write_text(itk_affine(to_template))
    moved = sitk.Resample(
        sitk.ReadImage(str(tmp_path / "source.nii.gz")),
        sitk.ReadImage(str(tmp_path / "grid.nii.gz")),
        sitk.ReadTransform(str(tmp_path / "x.txt")),
    )
    found = np.argwhere(sitk.GetArrayFromImage(moved).T > 0.5).mean(axis=0)
    expected = np.linalg.inv(grid) @ to_template @ source_affine @ [5, 6, 16, 1]
    np.testing.assert_allclose(found, expected[:3], atol=0.5)


def test_the_brain_has_no_holes_where_a_contrast_is_0() -> None:
    brain = np.zeros((9, 9, 9), bool)
    brain[2:7, 2:7, 2:7] = True
    channels = np.stack([brain, brain]).astype(np.float16)
    channels[:, 4, 4, 4] = 0
    channels[1, 2:4] = 0
    np.testing.assert_array_equal(prepared_brain(channels), brain)
