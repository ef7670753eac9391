"""Regions of the template and of users' atlases, and means of maps over them."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from tasks.records import Recipe
from tasks.science.cohort.age_spread import spread_over_ages
from tasks.science.imaging.grid import study_grid, template_on_grid
from tasks.science.imaging.map_average import MapAverage, split_halves
from tasks.science.imaging.orientation import apply_affine
from tasks.science.imaging.regions import (
    OUTSIDE,
    RegionSet,
    Sphere,
    atlas_regions,
    known_places,
    region_sums,
    region_voxels,
    sphere_regions,
    tissue_regions,
)
from tasks.science.imaging.template import mni

NAMES = b"index\tname\n0\tbackground\n3\tleft half\n17\tright half\n40\tnowhere\n"
Grid = tuple[tuple[int, int, int], np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def grid() -> Grid:
    """Shape, affine and brain of a study at 4 mm."""
    shape, affine = study_grid(Recipe(resolution_mm=4.0), mni())
    return shape, affine, template_on_grid(mni(), shape, affine)[3]


def world_of(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    return apply_affine(affine, indices).reshape(*shape, 3)


def halves_atlas(affine: np.ndarray, shape: tuple[int, int, int] = (60, 70, 60), dtype: type = np.int16) -> bytes:
    """Label 3 to the left of MNI's midline, 17 to the right, stored on whatever grid."""
    x_mm = world_of(shape, affine)[..., 0]
    labels = np.where(x_mm < 0, 3, 17).astype(dtype)
    inside = np.linalg.norm(world_of(shape, affine) - (0, -18, 12), axis=-1) < 70
    return nib.Nifti1Image(labels * inside.astype(dtype), affine).to_bytes()


def axes(order: tuple[int, int, int], signs: tuple[int, int, int], step_mm: float = 3.0) -> np.ndarray:
    """An affine whose axes run in another order or direction, around the middle of the brain."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, (row, sign) in enumerate(zip(order, signs, strict=True)):
        affine[row, column] = sign * step_mm
    affine[:3, 3] = np.array([0.5, -18, 12]) - affine[:3, :3] @ ((np.array([60, 70, 60]) - 1) / 2)
    return affine


def test_known_places_are_nilearns_own_and_on_their_side() -> None:
    from nilearn.datasets import fetch_coords_seitzman_2018

    theirs = fetch_coords_seitzman_2018(ordered_regions=False)
    ours = known_places()
    np.testing.assert_allclose([one.centre_mm for one in ours], theirs.rois.to_numpy())
    assert [one.radius_mm for one in ours] == theirs.radius.tolist()
    for sphere, structure, network in zip(ours, theirs.regions, theirs.networks, strict=True):
        if structure != "cortexMid":
            assert sphere.region.startswith("left " if sphere.centre_mm[0] < 0 else "right ")
        if structure in ("cortexL", "cortexR"):
            assert sphere.region.startswith("left" if structure == "cortexL" else "right")
        if network == "DefaultMode" and structure == "cortexL":
            assert sphere.region == "left cortex: default mode"
    assert {"left thalamus", "right hippocampus", "left amygdala"} <= {one.region for one in ours}


def test_spheres_are_what_lies_within_their_radius(grid: Grid) -> None:
    shape, affine, _ = grid
    spheres = (
        Sphere("a", (20.0, -30.0, 10.0), 9.0),
        Sphere("b", (-24.3, 11.0, -8.0), 7.0),
        Sphere("a", (1.3, 41.0, 31.5), 0.1),
    )
    regions = sphere_regions(spheres, shape, affine)
    distances = [np.linalg.norm(world_of(shape, affine) - sphere.centre_mm, axis=-1) for sphere in spheres]
    assert np.array_equal(regions.labels == 2, distances[1] <= 7.0)
    expected = distances[0] <= 9.0
    # Too small for any voxel's middle: its own voxel stands for it.
    expected[np.unravel_index(distances[2].argmin(), shape)] = True
    assert np.array_equal(regions.labels == 1, expected)


def test_every_known_place_has_voxels_even_on_a_coarse_grid() -> None:
    shape, affine = study_grid(Recipe(resolution_mm=8.0), mni())
    assert region_voxels(sphere_regions(known_places(), shape, affine)).min() >= 1


def test_tissues_share_the_grid(grid: Grid) -> None:
    shape, affine, brain = grid
    _, grey, white, _ = template_on_grid(mni(), shape, affine)
    regions = tissue_regions(grey, white, brain)
    counts = dict(zip(regions.names, region_voxels(regions), strict=True))
    assert sum(counts.values()) == brain.size
    assert counts[OUTSIDE] == (~brain).sum()
    # The lateral ventricle and the corona radiata.
    at = {name: world_of(shape, affine) for name in ("cerebrospinal fluid", "white matter")}
    for name, place in (("cerebrospinal fluid", (10, -10, 22)), ("white matter", (26, -20, 32))):
        nearest = np.linalg.norm(at[name] - place, axis=-1).argmin()
        assert regions.names[regions.labels.ravel()[nearest] - 1] == name


@pytest.mark.parametrize(
    ("order", "signs"),
    [((0, 1, 2), (1, 1, 1)), ((0, 1, 2), (-1, 1, 1)), ((2, 0, 1), (-1, -1, 1)), ((1, 2, 0), (1, -1, -1))],
)
def test_an_atlas_lies_by_its_affine_whatever_its_axes(
    grid: Grid, order: tuple[int, int, int], signs: tuple[int, int, int]
) -> None:
    shape, affine, brain = grid
    regions = atlas_regions(halves_atlas(axes(order, signs), dtype=np.int16), NAMES, shape, affine, brain)
    assert regions.names == ("left half", "right half", "nowhere")
    x_mm = world_of(shape, affine)[..., 0]
    assert (x_mm[regions.labels == 1] < 1.5).all()
    assert (x_mm[regions.labels == 2] > -1.5).all()
    assert region_voxels(regions)[2] == 0
    assert region_voxels(regions)[:2].min() > 5000


def test_an_atlas_that_cannot_be_used_is_refused_with_a_reason(grid: Grid) -> None:
    upright = axes((0, 1, 2), (1, 1, 1))
    elsewhere = upright.copy()
    elsewhere[:3, 3] += 150
    giant = bytearray(halves_atlas(upright))
    giant[42:48] = np.array([1024, 1024, 1024], dtype="<i2").tobytes()
    probabilities = nib.Nifti1Image(np.random.default_rng(0).random((60, 70, 60), np.float32), upright).to_bytes()
    good = halves_atlas(upright)
    for image, names, said in (
        (elsewhere_atlas(elsewhere), NAMES, "template's space"),
        (bytes(giant), NAMES, "limit"),
        (probabilities, NAMES, "whole numbers"),
        (b"no image", NAMES, "cannot be read"),
        (good, b"index\tname\n3\tleft\n", "no name"),
        (good, b"label\tname\n3\tleft\n", "columns"),
        (good, NAMES + b"3\tagain\n", "twice"),
        (good, NAMES + b"x\tagain\n", "expected 1, 2"),
    ):
        with pytest.raises(ValueError, match=said):
            atlas_regions(image, names, *grid)


def elsewhere_atlas(affine: np.ndarray) -> bytes:
    labels = np.full((60, 70, 60), 3, dtype=np.int16)
    labels[0] = 17
    return nib.Nifti1Image(labels, affine).to_bytes()


def test_a_streamed_mean_is_the_mean_of_all(grid: Grid) -> None:
    shape, _, brain = grid
    random = np.random.default_rng(0)
    maps = random.normal(size=(5, *shape)).astype(np.float32) + brain
    labels = random.integers(0, 4, shape).astype(np.int32)
    average = MapAverage(brain, [RegionSet("set", labels, ("a", "b", "c", "empty"))])
    halves = split_halves(5, seed=1)
    assert sorted(halves.tolist()) == [0, 0, 0, 1, 1]
    for one, half in zip(maps, halves, strict=True):
        average.add(one, np.abs(one), int(half))
    np.testing.assert_allclose(average.signed, maps.mean(axis=0), atol=1e-6)
    means = [maps[halves == half].mean(axis=0)[brain] for half in (0, 1)]
    assert average.repeatability(of_magnitude=False) == pytest.approx(np.corrcoef(*means)[0, 1])
    table = average.regions().set_index("region")
    per_subject = np.array([np.abs(one)[labels == 2].mean() for one in maps])
    assert table.loc["b", "mean_magnitude"] == pytest.approx(per_subject.mean(), rel=1e-6)
    assert table.loc["b", "sd_over_subjects"] == pytest.approx(per_subject.std(ddof=1), rel=1e-5)
    assert table.loc["b", "mean_signed"] == pytest.approx(maps[:, labels == 2].mean(), rel=1e-5)
    assert table.loc["b", "share"] == pytest.approx(np.abs(maps)[:, labels == 2].sum() / np.abs(maps).sum(), rel=1e-6)
    assert table["rank"].dropna().tolist() == [1, 2, 3]
    assert table.loc["empty"].isna().sum() == 5
    assert table.index[-1] == "empty"


def test_noise_does_not_repeat_and_a_common_pattern_does(grid: Grid) -> None:
    shape, _, brain = grid
    random = np.random.default_rng(1)
    pattern = random.normal(size=shape)
    found = []
    for strength in (0.0, 3.0):
        average = MapAverage(brain, [])
        for half in (0, 1, 0, 1):
            one = (strength * pattern + random.normal(size=shape)).astype(np.float32)
            average.add(one, np.abs(one), half)
        found.append(average.repeatability(of_magnitude=False))
    assert abs(found[0]) < 0.05
    assert found[1] > 0.9


def test_sums_over_regions_leave_out_what_is_in_none() -> None:
    labels = np.array([[[0, 1], [2, 1]]], dtype=np.int32)
    values = np.array([[[5.0, 1.0], [7.0, 2.0]]], dtype=np.float32)
    assert region_sums(values, RegionSet("set", labels, ("a", "b", "c"))).tolist() == [3.0, 7.0, 0.0]


def test_people_are_spread_over_age_not_over_their_crowd() -> None:
    ages = np.concatenate([np.random.default_rng(0).uniform(20, 25, 200), np.linspace(30, 90, 12)])
    chosen = ages[spread_over_ages(ages, 8)]
    assert len(chosen) == 8
    assert (np.diff(chosen) > 0).all()
    assert (chosen > 30).sum() >= 6
