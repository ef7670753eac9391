"""Where a voxel is in the head never depends on how the array is stored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import aff2axcodes, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.orientations import apply_orientation as nibabel_apply
from scipy.spatial.transform import Rotation

from tasks.records import Recipe
from tasks.science.imaging.grid import study_grid, template_on_grid
from tasks.science.imaging.montage import montage_png
from tasks.science.imaging.orientation import apply_affine, spacing_mm, to_ras
from tasks.science.imaging.resampling import block_mean, resample
from tasks.science.imaging.template import mni

CODES = ["RAS", "LPS", "PIR", "ASL", "IRP", "SAL", "LAS"]


def stored_as(volume: np.ndarray, affine: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    change = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(codes)))
    return nibabel_apply(volume, change), affine @ inv_ornt_aff(change, volume.shape)


@settings(max_examples=25, deadline=None)
@given(
    codes=st.sampled_from(CODES),
    angles=st.tuples(*[st.floats(-20, 20)] * 3),
    spacing=st.tuples(*[st.floats(0.5, 6)] * 3),
)
def test_to_ras_undoes_any_storage_order(
    codes: str, angles: tuple[float, float, float], spacing: tuple[float, float, float]
) -> None:
    volume = np.random.default_rng(1).normal(size=(5, 6, 7))
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = (3, -40, 12)
    upright, upright_affine = to_ras(*stored_as(volume, affine, codes))
    np.testing.assert_array_equal(upright, volume)
    np.testing.assert_allclose(upright_affine, affine, atol=1e-9)
    assert aff2axcodes(upright_affine) == ("R", "A", "S")


def test_block_mean_keeps_world_coordinates() -> None:
    affine = np.diag([1.0, 2.0, 1.0, 1.0])
    affine[:3, 3] = (-10, 4, 7)
    grid = np.moveaxis(np.indices((12, 8, 12)), 0, -1).reshape(-1, 3)
    volume = (apply_affine(affine, grid) @ [1.0, 2.0, 3.0]).reshape(12, 8, 12)
    small, small_affine = block_mean(volume, affine, 4.0)
    assert small.shape == (3, 4, 3)
    where = np.moveaxis(np.indices(small.shape), 0, -1).reshape(-1, 3)
    np.testing.assert_allclose(small.ravel(), apply_affine(small_affine, where) @ [1.0, 2.0, 3.0], rtol=1e-5)


def test_resample_of_a_plane_is_exact_on_an_oblique_grid() -> None:
    affine = np.diag([1.0, 1.5, 3.0, 1.0])
    grid = np.moveaxis(np.indices((40, 30, 20)), 0, -1).reshape(-1, 3)
    volume = (apply_affine(affine, grid) @ [1.0, -2.0, 0.5]).reshape(40, 30, 20)
    target = np.eye(4)
    target[:3, :3] = Rotation.from_euler("xyz", (5, -8, 11), degrees=True).as_matrix()
    target[:3, 3] = (15, 15, 20)
    found = resample(volume, affine, (8, 9, 10), target, 1.0)
    where = np.moveaxis(np.indices(found.shape), 0, -1).reshape(-1, 3)
    np.testing.assert_allclose(found.ravel(), apply_affine(target, where) @ [1.0, -2.0, 0.5], atol=1e-3)


@pytest.mark.parametrize("resolution_mm", [1.0, 2.0, 4.0, 8.0])
def test_grid_holds_the_whole_template_brain(resolution_mm: float) -> None:
    shape, affine = study_grid(Recipe(resolution_mm=resolution_mm), mni())
    low, high = mni().box_mm
    first, last = apply_affine(affine, np.array([[-0.5] * 3, np.array(shape) - 0.5]))
    assert (first <= low + 1e-6).all()
    assert (last >= high - 1e-6).all()
    assert aff2axcodes(affine) == ("R", "A", "S")
    np.testing.assert_allclose(spacing_mm(affine), resolution_mm)
    np.testing.assert_allclose((first + last) / 2, (low + high) / 2, atol=1e-6)


def test_peng_grid_has_the_published_shape() -> None:
    assert study_grid(Recipe(), mni())[0] == (160, 192, 160)


def test_template_on_grid_keeps_the_brain_volume() -> None:
    shape, affine = study_grid(Recipe(resolution_mm=4.0), mni())
    brain = template_on_grid(mni(), shape, affine)[3]
    assert brain.sum() * 4.0**3 == pytest.approx(float(mni().brain.sum()), rel=0.02)


@pytest.mark.parametrize("recipe", [Recipe(field_of_view_mm=(120.0, 192.0, 160.0)), Recipe(resolution_mm=0.0)])
def test_grid_that_cannot_serve_is_the_callers_mistake(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match="recipe"):
        study_grid(recipe, mni())


def test_montage_does_not_depend_on_storage_order() -> None:
    volume, affine = block_mean(mni().t1, mni().affine, 4.0)
    pictures = {montage_png(*stored_as(volume, affine, codes), title="sub-01") for codes in ("RAS", "LPS", "PIR")}
    assert len(pictures) == 1
    assert pictures.pop().startswith(b"\x89PNG")
