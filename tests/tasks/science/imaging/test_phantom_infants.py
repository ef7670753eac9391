"""Infants must grow and myelinate as planted: the T1w/T2w ratio of their images has to tell their age."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from tasks.science.imaging.phantom import PhantomSpec, draw_cohort, write_phantom
from tasks.science.imaging.phantom_acquisition import Scan, acquire
from tasks.science.imaging.phantom_anatomy import Detail, draw_anatomy
from tasks.science.imaging.phantom_contrasts import draw_protocol
from tasks.science.imaging.phantom_infants import (
    ADULT_SHAPE_YEARS,
    assessed_months,
    delay_months,
    grown,
    head_scale,
    myelin,
    unmyelinated_share,
)
from tasks.science.imaging.phantom_people import ANATOMY, stream
from tasks.science.imaging.phantom_template import template_head

MONTHS = (0.0, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0, 21.0, 24.0)
COHORT = PhantomSpec(
    subjects=4,
    sites=2,
    seed=2,
    population="infants",
    age_range_years=(0.0, 2.0),
    patients=0.25,
    sessions=2,
    contrasts=("T1w", "T2w"),
    slices="mixed",
    spacing_mm=5.0,
    in_plane_mm=4.0,
)


def scanned(name: str, months: float) -> Scan:
    """The same infant at the same site, at an age; noise, bias field and offset are in the image."""
    anatomy = grown(draw_anatomy(stream(1, ANATOMY, 0), "F"), months)
    site, contrast = draw_protocol(1, 0, name, False, 3.0, 1.0, True)
    detail = Detail({"unmyelinated": unmyelinated_share(months)}, True)
    rng = np.random.default_rng(int(months))
    return acquire(anatomy, ADULT_SHAPE_YEARS, site, rng, False, contrast, detail, np.eye(4))


def tissue(scan: Scan, *names: str) -> np.ndarray:
    volume = np.zeros(scan.data.size, dtype=np.float32)
    volume[scan.tissues.index] = sum(scan.tissues.fractions[name] for name in names)
    return volume.reshape(scan.data.shape)


@pytest.fixture(scope="module")
def pairs() -> dict[float, tuple[Scan, Scan]]:
    return {months: (scanned("T1w", months), scanned("T2w", months)) for months in MONTHS}


def white_over_grey(scan: Scan) -> float:
    white, grey = tissue(scan, "white", "unmyelinated") > 0.9, tissue(scan, "grey") > 0.9
    return float(np.median(scan.data[white]) / np.median(scan.data[grey]))


def ratio_white_over_grey(t1w: Scan, t2w: Scan) -> float:
    """The T1w/T2w ratio image, T2w brought to T1w by the truth, in white matter relative to cortex."""
    to_voxel = np.linalg.inv(t2w.scanner_to_mni @ t2w.affine) @ t1w.scanner_to_mni @ t1w.affine
    moved = ndimage.affine_transform(
        t2w.data.astype(np.float32), to_voxel[:3, :3], to_voxel[:3, 3], output_shape=t1w.data.shape, order=1
    )
    ratio = t1w.data / np.maximum(moved, 1e-3)
    white, grey = tissue(t1w, "white", "unmyelinated") > 0.9, tissue(t1w, "grey") > 0.9
    return float(np.median(ratio[white]) / np.median(ratio[grey]))


def test_ratio_of_white_matter_to_cortex_rises_from_birth_to_two_years(pairs: dict[float, tuple[Scan, Scan]]) -> None:
    found = [ratio_white_over_grey(*pairs[months]) for months in MONTHS]
    assert found[0] < 0.8
    assert found[MONTHS.index(12.0)] > 1.15
    assert np.all(np.diff(found) > 0)


def test_t1w_turns_round_before_t2w(pairs: dict[float, tuple[Scan, Scan]]) -> None:
    t1w, t2w = ([white_over_grey(pairs[months][which]) for months in MONTHS] for which in (0, 1))
    assert np.all(np.diff(t1w) > 0)
    assert np.all(np.diff(t2w) < 0)
    t1w_months, t2w_months = np.interp(1, t1w, MONTHS), np.interp(-1, -np.array(t2w), MONTHS)
    assert 5 < t1w_months < 7
    assert 8 < t2w_months < 10
    assert t1w[-1] > 1.3
    assert t2w[-1] < 0.85


def test_heads_grow_and_the_true_affine_says_so(pairs: dict[float, tuple[Scan, Scan]]) -> None:
    determinants = [np.linalg.det(pairs[months][0].scanner_to_mni[:3, :3]) for months in MONTHS]
    assert np.all(np.diff(determinants) < 0)
    assert determinants[0] / determinants[-1] == pytest.approx((head_scale(24) / head_scale(0)) ** 3)
    brains = [sum(pairs[months][0].volumes_ml()[name] for name in ("grey", "white", "csf")) for months in (0, 6, 12)]
    # The BME-X templates of real infants hold 492, 794 and 904 ml.
    np.testing.assert_allclose(brains, (492, 794, 904), rtol=0.15)
    shares = [v["unmyelinated"] / v["white"] for v in (pairs[m][0].volumes_ml() for m in (0.0, 24.0))]
    assert shares[0] > 0.9 > 0.05 > shares[1]


def test_back_and_centre_myelinate_before_the_front() -> None:
    delay, head = delay_months(), template_head()

    def at(x: float, y: float, z: float) -> float:
        return float(delay.at(np.array([[x], [y], [z]], dtype=np.float32))[0])

    centre, occipital, frontal, temporal = at(24, -18, 14), at(22, -80, 5), at(20, 52, 5), at(42, 2, -30)
    assert centre < occipital < 0 < min(temporal, frontal)
    assert frontal - centre > 4
    steps = np.stack(np.gradient(delay.values, delay.spacing_mm))
    assert np.linalg.norm(steps, axis=0).max() < 0.4
    at_birth, grown_up = (1 - unmyelinated_share(months).values for months in (0.0, 24.0))
    assert grown_up.min() > 0.9
    assert at_birth.max() < 0.2
    assert np.all(np.diff(myelin(np.linspace(-5, 40, 200))) > 0)
    white = head.white.values[::4, ::4, ::4] > 0.9
    points = 4.0 * np.argwhere(white).T + np.reshape(head.white.origin_mm, (3, 1))
    assert abs(delay.at(points.astype(np.float32)).mean()) < 0.4


def test_only_abnormal_infants_lag_far_behind_their_age() -> None:
    spec = PhantomSpec(subjects=400, population="infants", age_range_years=(0.0, 2.0), patients=0.1, sites=3)
    people = draw_cohort(spec)
    gaps = {kind: [12 * p.visits[0].true_pad_years for p in people if p.diagnosis == kind] for kind in ("HC", "AM")}
    assert len(gaps["AM"]) == pytest.approx(40, abs=1)
    assert np.std(gaps["HC"]) == pytest.approx(0.6, abs=0.08)
    assert max(gaps["AM"]) < -1.5
    assert np.mean(gaps["AM"]) < -4
    months = np.sort([12 * p.visits[0].age_years for p in people if p.diagnosis == "HC"])
    assert np.abs(months - np.linspace(0, 24, len(months))).max() < 1
    assert min(assessed_months(p.visits[0]) for p in people) == 0


def test_an_infant_cohort_has_its_ages_in_its_tables(tmp_path: Path) -> None:
    truth = write_phantom(COHORT, tmp_path / "infants")
    with (truth.root / "participants.tsv").open(encoding="utf-8") as file:
        people = list(csv.DictReader(file, delimiter="\t"))
    assert {row["diagnosis"] for row in people} == {"HC", "AM"}
    for row, person in zip(people, truth.people, strict=True):
        assert float(row["age_months"]) == pytest.approx(12 * float(row["age"]), abs=0.01)
        assert float(row["myelination_age_months"]) == assessed_months(person.visits[0])
        with (truth.root / row["participant_id"] / f"{row['participant_id']}_sessions.tsv").open() as file:
            visits = list(csv.DictReader(file, delimiter="\t"))
        assert 2 < float(visits[1]["age_months"]) - float(visits[0]["age_months"]) < 4
    assert len(truth.scans) == 16
    assert {scan.contrast.thickness_mm is None for scan in truth.scans} == {True, False}
    for scan in truth.scans:
        image = nib.load(truth.root / scan.path)
        assert image.shape == scan.shape
        assert np.linalg.det(np.array(scan.scanner_to_mni)[:3, :3]) > 1.2
