"""The phantom cohort must be what its truth says, or nothing that is measured on it means anything."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage, stats

from tasks.science.imaging.phantom import PhantomSpec, PhantomTruth, draw_cohort, draw_sites, write_phantom
from tasks.science.imaging.phantom_acquisition import acquire, draw_site
from tasks.science.imaging.phantom_anatomy import Anatomy, ageing_years, draw_anatomy, tissues
from tasks.science.imaging.phantom_people import ANATOMY, education_years, planted_effects, stream
from tasks.science.imaging.phantom_template import template_head
from tasks.science.imaging.template import mni

COARSE = PhantomSpec(subjects=3, sites=2, seed=3, sessions=2, spacing_mm=4.0)
GRID_MM = 3.0
THIN = (slice(2, None, 3), slice(None, None, 3), slice(None, None, 3))


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def person_anatomy(seed: int, number: int = 0) -> Anatomy:
    return draw_anatomy(stream(seed, ANATOMY, number), "FM"[number % 2])


def grid(spacing_mm: float = GRID_MM) -> tuple[np.ndarray, tuple[int, int, int]]:
    """A straight RAS grid around the head frame's brain."""
    low, high = np.array([-90.0, -120.0, -90.0]), np.array([90.0, 96.0, 105.0])
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = low
    shape = tuple(int(n) for n in np.ceil((high - low) / spacing_mm))
    return affine, (shape[0], shape[1], shape[2])


def in_mni(data: np.ndarray, voxel_to_mni: np.ndarray, step: int = 3) -> np.ndarray:
    """A volume on every third voxel of the template's grid, symmetric about x = 0."""
    thin = np.diag([step, step, step, 1.0])
    thin[0, 3] = 2
    to_voxel = np.linalg.inv(voxel_to_mni) @ mni().affine @ thin
    shape = mni().brain[THIN].shape
    smooth = ndimage.gaussian_filter(data.astype(np.float32), 0.7)
    return ndimage.affine_transform(smooth, to_voxel[:3, :3], to_voxel[:3, 3], output_shape=shape, order=1)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> PhantomTruth:
    return write_phantom(COARSE, tmp_path_factory.mktemp("phantom") / "cohort")


def test_equal_specs_give_equal_bytes_whatever_the_workers(cohort: PhantomTruth, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    again = write_phantom(COARSE, tmp_path / "again", workers=2, progress=lambda done, of: seen.append((done, of)))
    assert files(cohort.root) == files(again.root)
    assert again.scans == cohort.scans
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_larger_cohort_begins_with_the_smaller_one(cohort: PhantomTruth, tmp_path: Path) -> None:
    fewer = write_phantom(replace(COARSE, subjects=1), tmp_path / "fewer")
    for scan in fewer.scans:
        assert (fewer.root / scan.path).read_bytes() == (cohort.root / scan.path).read_bytes()
    assert draw_cohort(replace(COARSE, subjects=40))[:7] == draw_cohort(replace(COARSE, subjects=7))


def test_other_seeds_give_other_people_and_sites() -> None:
    first, second = PhantomSpec(subjects=4, seed=1), PhantomSpec(subjects=4, seed=2)
    assert not {s.name for s in draw_sites(first)} & {s.name for s in draw_sites(second)}
    assert not {s.gain for s in draw_sites(first)} & {s.gain for s in draw_sites(second)}
    assert draw_sites(replace(first, site_offset=2))[0] == draw_site(1, 2)
    assert not np.allclose(person_anatomy(1).warp, person_anatomy(2).warp)


def test_names_and_tables_follow_bids(cohort: PhantomTruth) -> None:
    root = cohort.root
    assert json.loads((root / "dataset_description.json").read_text())["BIDSVersion"] == "1.9.0"
    people = rows(root / "participants.tsv")
    assert list(people[0]) == list(json.loads((root / "participants.json").read_text()))
    assert [row["participant_id"] for row in people] == ["sub-0001", "sub-0002", "sub-0003"]
    for row in people:
        subject = row["participant_id"]
        healthy = row["diagnosis"] == "HC"
        assert all((row[name] == "n/a") == healthy for name in ("phenotype", "edss", "disease_duration"))
        visits = rows(root / subject / f"{subject}_sessions.tsv")
        assert [visit["session_id"] for visit in visits] == ["ses-1", "ses-2"]
        assert visits[0]["age"] == row["age"]
        for visit in visits:
            session = visit["session_id"]
            assert (root / subject / session / "anat" / f"{subject}_{session}_T1w.nii.gz").is_file()
    assert not any("" in row.values() for row in people)


def test_one_session_has_no_session_folder(tmp_path: Path) -> None:
    truth = write_phantom(PhantomSpec(subjects=1, sites=1, spacing_mm=6.0), tmp_path)
    assert [scan.path for scan in truth.scans] == ["sub-0001/anat/sub-0001_T1w.nii.gz"]
    assert not (tmp_path / "sub-0001" / "sub-0001_sessions.tsv").exists()


def test_truth_files_say_what_the_truth_says(cohort: PhantomTruth) -> None:
    folder = cohort.root / "derivatives" / "phantom-truth"
    table = rows(folder / "truth.tsv")
    written = json.loads((folder / "truth.json").read_text())
    assert written["diagnosis_ms_years"] == 6.0
    assert set(written["sites"]) == {site.name for site in cohort.sites}
    for row, scan in zip(table, cohort.scans, strict=True):
        assert float(row["age"]) + float(row["true_brain_pad"]) == pytest.approx(float(row["brain_age"]), abs=1e-6)
        name = f"{scan.participant_id}_{scan.session_id}_from-scanner_to-MNI152NLin2009aSym.txt"
        np.testing.assert_allclose(np.loadtxt(folder / "transforms" / name), scan.scanner_to_mni, atol=1e-8)


@pytest.mark.parametrize("duration_years_per_year", [0.15, 0.4])
def test_planted_effects_come_back_by_least_squares(duration_years_per_year: float) -> None:
    spec = PhantomSpec(subjects=6000, seed=5, sessions=3, duration_years_per_year=duration_years_per_year)
    planted = planted_effects(spec.age_range_years, duration_years_per_year)
    assert planted["duration_years_per_year"] == duration_years_per_year
    people = draw_cohort(spec)
    design, pad, slopes = [], [], {"HC": [], "MS": []}
    for person in people:
        first, last = person.visits[0], person.visits[-1]
        ill = first.edss is not None and first.duration_years is not None
        edss = first.edss - planted["edss_centre"] if ill else 0.0
        duration = first.duration_years - planted["duration_centre"] if ill else 0.0
        education = education_years(spec.seed, person.number)
        design.append([1.0, float(ill), edss, duration, first.age_years, education])
        pad.append(first.true_pad_years)
        slopes[person.diagnosis].append((last.true_pad_years - first.true_pad_years) / last.years_since_baseline)
    x, y = np.array(design), np.array(pad)
    beta, *_ = np.linalg.lstsq(x, y, rcond=None)
    error = np.sqrt(np.var(y - x @ beta) * np.diag(np.linalg.inv(x.T @ x)))
    effects = ("diagnosis_ms_years", "edss_years_per_point", "duration_years_per_year")
    expected = [*(planted[name] for name in effects), 0.0, 0.0]
    assert np.all(np.abs(beta[1:] - expected) < 4 * error[1:])
    assert np.std(y - x @ beta) == pytest.approx(2.0, abs=0.08)
    assert y[x[:, 1] == 1].mean() - y[x[:, 1] == 0].mean() == pytest.approx(6.0, abs=0.25)
    assert np.mean(slopes["MS"]) == pytest.approx(0.6, abs=0.02)
    assert np.mean(slopes["HC"]) == pytest.approx(0.0, abs=0.02)


def test_clinical_values_are_possible() -> None:
    for person in draw_cohort(PhantomSpec(subjects=500, seed=8, sessions=4, patients=0.5)):
        for visit in person.visits:
            if visit.edss is None or visit.duration_years is None:
                assert (person.diagnosis, person.phenotype) == ("HC", "n/a")
                continue
            assert 2 * visit.edss == round(2 * visit.edss)
            assert visit.edss != 0.5
            assert 0 <= visit.edss <= 10
            assert visit.duration_years < visit.age_years - 11


@pytest.mark.parametrize("patients", [0.0, 0.4])
def test_scanner_and_sex_tell_nothing_of_age(patients: float) -> None:
    ages, sexes, site_values = [], [], []
    for seed in range(60):
        spec = PhantomSpec(subjects=40, sites=3, seed=seed, patients=patients)
        sites = draw_sites(spec)
        for person in draw_cohort(spec):
            site = sites[person.site]
            ages.append(person.visits[0].age_years)
            sexes.append(person.sex)
            box = (*site.voxel_mm, *site.field_of_view_mm, site.headroom_mm)
            site_values.append([person.site, np.log(site.gain), site.bias_sd, site.noise_sd, *box])
    for column in np.array(site_values).T:
        assert abs(stats.spearmanr(column, ages).statistic) < 4 / np.sqrt(len(ages))
    by_site = [np.array(ages)[np.array(site_values)[:, 0] == number] for number in range(3)]
    assert stats.kruskal(*by_site).pvalue > 1e-3
    assert np.mean(np.array(sexes) == "F") == pytest.approx(0.5, abs=0.02)
    assert stats.kstest(ages, "uniform", args=(20, 65)).pvalue > 1e-3


def test_field_of_view_does_not_depend_on_brain_age() -> None:
    anatomy, site = person_anatomy(4), draw_site(4, 0, spacing_mm=6.0)
    young, old = (acquire(anatomy, age, site, np.random.default_rng(1), stripped=False) for age in (20.0, 85.0))
    assert young.data.shape == old.data.shape
    np.testing.assert_array_equal(young.affine, old.affine)


@pytest.mark.parametrize("number", range(3))
def test_ventricles_grow_and_tissue_shrinks_with_brain_age(number: int) -> None:
    anatomy = person_anatomy(6, number)
    affine, shape = grid()
    volumes = {"ventricle": [], "grey": [], "csf": []}
    for age in (-50.0, 5.0, 20.0, 30.0, 45.0, 60.0, 75.0, 85.0, 110.0, 300.0):
        made = tissues(anatomy, age, affine, shape)
        for name, values in volumes.items():
            values.append(float(made.fractions[name].sum()) * GRID_MM**3 / 1000)
    assert all(np.all(np.diff(values[1:-1]) * sign > 0) for values, sign in _signed(volumes))
    assert volumes["ventricle"][7] > 2.5 * volumes["ventricle"][2]
    assert volumes["ventricle"][-1] < 1.2 * volumes["ventricle"][-2]
    assert volumes["ventricle"][0] > 0


def _signed(volumes: dict[str, list[float]]) -> list[tuple[list[float], int]]:
    return [(volumes["ventricle"], 1), (volumes["csf"], 1), (volumes["grey"], -1)]


def test_ageing_is_monotone_and_smooth() -> None:
    ages = np.arange(-40.0, 180.0, 0.25)
    years = np.array([ageing_years(age) for age in ages])
    steps = np.diff(years) / 0.25
    assert np.all(steps >= 0)
    assert np.all(np.abs(np.diff(steps)) < 0.05)
    assert np.all(steps[(ages[:-1] >= 15) & (ages[1:] <= 95)] == 1)


def test_fractions_are_fractions_and_the_warp_does_not_fold() -> None:
    for number in range(4):
        anatomy = person_anatomy(9, number)
        affine, shape = grid()
        made = tissues(anatomy, 60.0, affine, shape)
        total = sum(made.fractions.values())
        assert all(share.min() >= -1e-6 for share in made.fractions.values())
        assert total.max() < 1 + 1e-5
        assert total[made.brain].min() > 1 - 1e-5
        gradient = (
            np.stack([np.stack(np.gradient(part, 5.0)) for part in anatomy.warp]) + np.eye(3)[..., None, None, None]
        )
        assert np.linalg.det(np.moveaxis(gradient, (0, 1), (-2, -1))).min() > 0


@pytest.mark.parametrize("number", range(4))
def test_true_affine_takes_the_brain_onto_the_template(number: int) -> None:
    site = draw_site(2, number, spacing_mm=3.0)
    scan = acquire(person_anatomy(2, number), 45.0, site, np.random.default_rng(number), stripped=False)
    brain, template = mni().brain[THIN], mni().t1[THIN]

    def likeness(shift_mm: tuple[float, ...]) -> float:
        moved = np.eye(4)
        moved[:3, 3] = shift_mm
        return float(
            np.corrcoef(in_mni(scan.data, moved @ scan.scanner_to_mni @ scan.affine)[brain], template[brain])[0, 1]
        )

    here = likeness((0, 0, 0))
    assert here > 0.5
    for axis in range(3):
        for shift_mm in (-6.0, 6.0):
            assert likeness(tuple(shift_mm * (axis == k) for k in range(3))) < here


def test_left_stays_left_through_every_orientation() -> None:
    """The template is symmetric, so only the planted asymmetry of lobes and ventricles can show a flip."""
    orientations, envelope, ventricles = [], [], []
    for number in range(8):
        site = draw_site(7, number, spacing_mm=3.0)
        scan = acquire(person_anatomy(7, number), 70.0, site, np.random.default_rng(number), stripped=True)
        orientations.append(site.orientation)
        for images, value in ((envelope, 1.0), (ventricles, scan.tissues.fractions["ventricle"][scan.tissues.brain])):
            volume = np.zeros(scan.data.size, dtype=np.float32)
            volume[scan.tissues.index[scan.tissues.brain]] = value
            images.append(in_mni(volume.reshape(scan.data.shape), scan.scanner_to_mni @ scan.affine))
    average = np.mean(envelope, axis=0)
    right_minus_left = (average - average[::-1])[33:].sum(axis=(0, 2))
    assert len(set(orientations)) == 8
    front, back = right_minus_left[45:].sum(), right_minus_left[:45].sum()
    assert front > 50 > -50 > back
    left, right = np.sum(ventricles, axis=0)[:32].sum(), np.sum(ventricles, axis=0)[33:].sum()
    assert left > 1.03 * right


def test_same_world_point_holds_the_same_tissue_on_every_grid() -> None:
    anatomy = person_anatomy(1)
    affine, shape = grid()
    flipped = affine @ np.array([[-1, 0, 0, shape[0] - 1], [0, 0, 1, 0], [0, -1, 0, shape[2] - 1], [0, 0, 0, 1.0]])
    volumes = []
    for matrix, size in ((affine, shape), (flipped, (shape[0], shape[2], shape[1]))):
        made = tissues(anatomy, 50.0, matrix, size)
        volume = np.zeros(int(np.prod(size)), dtype=np.float32)
        volume[made.index] = made.fractions["white"]
        volumes.append(volume.reshape(size))
    turned = np.swapaxes(volumes[1][::-1, ::-1], 1, 2)
    assert np.corrcoef(turned.ravel(), volumes[0].ravel())[0, 1] > 0.999


def test_sites_differ_in_obliqueness_order_and_type(cohort: PhantomTruth) -> None:
    sites = [draw_site(0, number) for number in range(8)]
    assert len({site.orientation for site in sites}) == 8
    assert {any(site.oblique_deg) for site in sites} == {True, False}
    assert {site.integers for site in sites} == {True, False}
    for scan in cohort.scans:
        image = nib.load(cohort.root / scan.path)
        site = next(site for site in cohort.sites if site.name == scan.site)
        oblique = np.rad2deg(nib.affines.obliquity(image.affine)).max()
        assert (oblique > 3) == any(site.oblique_deg)
        assert image.get_data_dtype() == (np.int16 if site.integers else np.float32)
        np.testing.assert_allclose(image.header.get_zooms(), site.voxel_mm, rtol=1e-4)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)


def test_the_box_never_cuts_the_brain() -> None:
    hull = template_head().hull
    inside = np.argwhere(hull.values < 0)
    points = np.c_[inside * hull.spacing_mm + hull.origin_mm, np.ones(len(inside))].T
    points = points[:, points[2] > -72]
    for number in range(12):
        scan = acquire(
            person_anatomy(13, number), 50.0, draw_site(13, number, 6.0), np.random.default_rng(number), stripped=False
        )
        voxels = (np.linalg.inv(scan.scanner_to_mni @ scan.affine) @ points)[:3]
        past_the_end = voxels.T - np.array(scan.data.shape)
        assert voxels.min() > -0.5
        assert past_the_end.max() < -0.5


def test_stripping_leaves_brain_on_exact_zeros() -> None:
    site = draw_site(0, 0, spacing_mm=3.0)
    whole, bare = (
        acquire(person_anatomy(0), 50.0, site, np.random.default_rng(0), stripped=stripped)
        for stripped in (False, True)
    )
    kept = np.zeros(bare.data.size, dtype=bool)
    kept[bare.tissues.index[bare.tissues.brain]] = True
    kept = kept.reshape(bare.data.shape)
    assert np.all(bare.data[~kept] == 0)
    np.testing.assert_array_equal(bare.data[kept], whole.data[kept])
    covered = sum(bare.tissues.fractions[name][bare.tissues.brain].max() for name in ("bone", "fat", "muscle"))
    assert covered < 1e-3
    assert np.mean(whole.data == 0) < 0.2
    fat = whole.tissues.index[whole.tissues.fractions["fat"] > 0.9]
    assert np.median(whole.data.ravel()[fat]) > np.median(whole.data[kept])


def test_misuse_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"subjects is 0, expected at least 1"):
        PhantomSpec(subjects=0)
    with pytest.raises(ValueError, match=r"age_range_years"):
        PhantomSpec(subjects=1, age_range_years=(60.0, 20.0))
    with pytest.raises(ValueError, match=r"workers is 0"):
        write_phantom(COARSE, tmp_path / "none", workers=0)
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        write_phantom(COARSE, tmp_path)
