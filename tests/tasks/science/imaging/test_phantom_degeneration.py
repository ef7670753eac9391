"""What is planted in AD and PD must come back from the tables by ordinary statistics, in values that scales have."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from tasks.science.imaging.phantom import PhantomSpec, draw_cohort, write_phantom
from tasks.science.imaging.phantom_degeneration import ALZHEIMER, DISEASES, PARKINSON, degeneration_effects
from tasks.science.statistics.mixed_model import fit_mixed

SPEC = PhantomSpec(
    subjects=3000, sites=2, seed=4, patients=0.5, sessions=3, age_range_years=(50.0, 85.0), disease="neurodegeneration"
)
BOX_SCORES = (0.0, 0.5, 1.0, 2.0, 3.0)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """One row per visit, with the truth."""
    rows = []
    for person in draw_cohort(SPEC):
        for visit in person.visits:
            own = {"number": person.number, "sex": person.sex, "site": person.site, "diagnosis": person.diagnosis}
            own |= {"years": visit.years_since_baseline, "age": visit.age_years, "pad": visit.true_pad_years}
            rows.append(own | dict(visit.scores))
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def changes(table: pd.DataFrame) -> pd.DataFrame:
    """One row per person: the baseline and what changed per year."""
    first, last = (table.groupby("number").nth(which).set_index("number") for which in (0, -1))
    for name in ("pad", "cdr_sb", "updrs_iii"):
        first[f"{name}_per_year"] = (last[name] - first[name]) / last["years"]
    return first


@pytest.mark.parametrize("disease", DISEASES, ids=lambda disease: disease.name)
def test_the_gap_and_its_tie_to_severity_are_the_planted_ones(changes: pd.DataFrame, disease) -> None:
    ill, well = changes[changes["diagnosis"] == disease.name], changes[changes["diagnosis"] == "CU"]
    planted = degeneration_effects()
    gap = ill["pad"].mean() - well["pad"].mean()
    assert gap == pytest.approx(planted[f"diagnosis_{disease.name.lower()}_years"], abs=0.5)
    fit = stats.linregress(ill[disease.scale] - planted[f"{disease.scale}_centre"], ill["pad"])
    assert abs(fit.slope - planted[f"{disease.scale}_years_per_point"]) < 4 * fit.stderr
    assert abs(fit.intercept - disease.pad_years) < 4 * fit.intercept_stderr
    assert fit.rvalue > 0.5


@pytest.mark.parametrize("disease", DISEASES, ids=lambda disease: disease.name)
def test_the_gap_grows_with_progression(table: pd.DataFrame, changes: pd.DataFrame, disease) -> None:
    planted = degeneration_effects()["progression_years_per_year"]
    ill = changes[changes["diagnosis"] == disease.name]
    assert ill["pad_per_year"].mean() == pytest.approx(planted[disease.name], abs=0.06)
    # Noise of the scale weakens the tie, but does not hide it.
    assert stats.spearmanr(ill["pad_per_year"], ill[f"{disease.scale}_per_year"]).statistic > 0.3
    assert stats.spearmanr(ill["pad"], ill[f"{disease.scale}_per_year"]).statistic > 0.15
    rows = table[table["diagnosis"].isin([disease.name, "CU"])]
    ill_rows = (rows["diagnosis"] == disease.name).astype(float)
    design = pd.DataFrame({"one": 1.0, "ill": ill_rows, "years": rows["years"], "ill:years": ill_rows * rows["years"]})
    fit = fit_mixed(rows["pad"], design, rows["number"])
    assert fit.fixed["ill:years"] == pytest.approx(planted[disease.name], abs=0.06)


def test_every_value_is_on_its_scale(table: pd.DataFrame) -> None:
    sums = {0.0}
    for _ in range(6):
        sums = {total + box for total in sums for box in BOX_SCORES}
    assert set(table["cdr_sb"].dropna()) <= sums
    assert set(table["mmse"]) <= set(range(31))
    assert set(table["updrs_iii"].dropna()) <= set(range(133))
    assert set(table["hoehn_yahr"].dropna()) <= {1, 2, 3, 4, 5}
    given = {
        kind: {name for name in ("mmse", "cdr_sb", "updrs_iii", "hoehn_yahr") if rows[name].notna().all()}
        for kind, rows in table.groupby("diagnosis")
    }
    assert given == {"CU": {"mmse", "cdr_sb"}, "AD": {"mmse", "cdr_sb"}, "PD": {"mmse", "updrs_iii", "hoehn_yahr"}}
    means = table[table["years"] == 0].groupby("diagnosis")[["mmse", "cdr_sb"]].mean()
    assert means.loc["CU", "mmse"] > 28 > means.loc["PD", "mmse"] - 1.5
    assert means.loc["AD", "mmse"] < 23
    assert means.loc["CU", "cdr_sb"] == 0
    assert table.loc[table["diagnosis"] == "AD", "cdr_sb"].min() > 0
    patients = table[table["diagnosis"] != "CU"]
    assert stats.spearmanr(patients["updrs_iii"], patients["hoehn_yahr"], nan_policy="omit").statistic > 0.6
    assert stats.spearmanr(patients["mmse"], patients["cdr_sb"], nan_policy="omit").statistic < -0.7


def test_groups_are_even_and_neither_scanner_nor_sex_tells_of_them(changes: pd.DataFrame) -> None:
    counts = changes["diagnosis"].value_counts()
    assert counts["CU"] == pytest.approx(1500, abs=1)
    assert counts["AD"] == pytest.approx(counts["PD"], abs=1)
    for column in ("site", "sex"):
        assert (
            pd.crosstab(changes["diagnosis"], changes[column], normalize="index").iloc[:, 0].between(0.49, 0.51).all()
        )
    for kind in ("CU", "AD", "PD"):
        ages = changes.loc[changes["diagnosis"] == kind, "age"]
        assert stats.kstest(ages, "uniform", args=(50, 35)).pvalue > 1e-3


def test_patients_of_a_cohort_of_all_ages_are_not_young() -> None:
    people = draw_cohort(PhantomSpec(subjects=200, disease="neurodegeneration"))
    assert min(p.visits[0].age_years for p in people if p.diagnosis != "CU") >= 50
    assert min(p.visits[0].age_years for p in people) < 22


def test_a_larger_cohort_begins_with_the_smaller_one() -> None:
    fewer, more = (draw_cohort(PhantomSpec(subjects=n, disease="neurodegeneration")) for n in (9, 30))
    assert more[:9] == fewer
    assert {ALZHEIMER.name, PARKINSON.name, "CU"} == {person.diagnosis for person in fewer}


def test_the_tables_hold_what_was_drawn(tmp_path: Path) -> None:
    spec = PhantomSpec(subjects=3, sites=1, patients=0.7, sessions=2, spacing_mm=8.0, disease="neurodegeneration")
    truth = write_phantom(spec, tmp_path)
    notes = json.loads((tmp_path / "participants.json").read_text())
    with (tmp_path / "participants.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert list(rows[0]) == list(notes)
    for row, person in zip(rows, truth.people, strict=True):
        assert row["diagnosis"] in notes["diagnosis"]["Levels"]
        with (tmp_path / row["participant_id"] / f"{row['participant_id']}_sessions.tsv").open(newline="") as file:
            visits = list(csv.DictReader(file, delimiter="\t"))
        for name in ("mmse", "cdr_sb", "updrs_iii", "hoehn_yahr"):
            assert visits[0][name] == row[name]
            for written, visit in zip(visits, person.visits, strict=True):
                assert written[name] == ("n/a" if name not in visit.scores else f"{visit.scores[name]:g}")
    planted = json.loads((tmp_path / "derivatives" / "phantom-truth" / "truth.json").read_text())
    assert planted["spec"]["disease"] == "neurodegeneration"
    assert planted["diagnosis_ad_years"] == 7.0


@pytest.mark.parametrize(
    ("spec", "digest"),
    [
        (PhantomSpec(subjects=2, sites=2, seed=3, sessions=2, spacing_mm=8.0), "fdddd90d0ed04f29"),
        (
            PhantomSpec(subjects=2, population="infants", age_range_years=(0.0, 2.0), sessions=2, spacing_mm=8.0),
            "f5ce7f0c3b5cc4e5",
        ),
    ],
    ids=["ms", "infants"],
)
def test_phantoms_from_before_there_was_a_choice_of_disease_are_what_they_were(
    spec: PhantomSpec, digest: str, tmp_path: Path
) -> None:
    write_phantom(spec, tmp_path)
    # Volumes are sums over images, whose last digit is the machine's own.
    tsvs = [path for path in sorted(tmp_path.rglob("*.tsv")) if path.name != "volumes.tsv"]
    tables = [tmp_path / "participants.json", *tsvs]
    found = hashlib.sha256(b"".join(path.read_bytes() for path in tables)).hexdigest()
    assert found[:16] == digest
    written = json.loads((tmp_path / "derivatives" / "phantom-truth" / "truth.json").read_text())
    assert not {"disease", "duration_years_per_year"} & set(written["spec"])


def test_a_disease_of_adults_is_refused_for_infants() -> None:
    with pytest.raises(ValueError, match=r"disease is 'neurodegeneration', expected to be left out for infants"):
        PhantomSpec(subjects=1, population="infants", age_range_years=(0.0, 2.0), disease="neurodegeneration")
