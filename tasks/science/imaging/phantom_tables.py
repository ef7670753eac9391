"""The files around the images of a phantom cohort: BIDS tables for everybody, and the truth for judges."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from .phantom_contrasts import Contrast
from .phantom_infants import age_months, assessed_months
from .phantom_people import Person, Visit, education_years
from .phantom_sites import Site
from .phantom_spec import PhantomSpec

BIDS_VERSION = "1.9.0"
TRUTH_FOLDER = "derivatives/phantom-truth"
PARTICIPANT_COLUMNS = {
    "participant_id": {"Description": "Participant"},
    "age": {"Description": "Age at baseline", "Units": "year"},
    "sex": {"Description": "Sex", "Levels": {"F": "female", "M": "male"}},
    "site": {"Description": "Scanner"},
    "diagnosis": {"Description": "Diagnosis", "Levels": {"HC": "healthy control", "MS": "multiple sclerosis"}},
    "phenotype": {
        "Description": "Course of multiple sclerosis; n/a for healthy controls",
        "Levels": {
            "CIS": "clinically isolated syndrome",
            "RRMS": "relapsing-remitting",
            "SPMS": "secondary progressive",
            "PPMS": "primary progressive",
        },
    },
    "edss": {"Description": "Expanded Disability Status Scale at baseline, 0 to 10 in half points without 0.5"},
    "disease_duration": {"Description": "Time since onset at baseline", "Units": "year"},
    "education_years": {"Description": "Education; goes with nothing else in here", "Units": "year"},
}
INFANT_COLUMNS = {
    "participant_id": PARTICIPANT_COLUMNS["participant_id"],
    "age": PARTICIPANT_COLUMNS["age"],
    "sex": PARTICIPANT_COLUMNS["sex"],
    "site": PARTICIPANT_COLUMNS["site"],
    "diagnosis": {"Description": "Diagnosis", "Levels": {"HC": "healthy control", "AM": "abnormal myelination"}},
    "age_months": {"Description": "Age at baseline", "Units": "month"},
    "myelination_age_months": {"Description": "Myelination age as a reader states it", "Units": "month"},
}
OLDER_COLUMNS = {name: PARTICIPANT_COLUMNS[name] for name in ("participant_id", "age", "sex", "site")} | {
    "diagnosis": {
        "Description": "Diagnosis",
        "Levels": {"CU": "cognitively unimpaired", "AD": "Alzheimer's disease", "PD": "Parkinson's disease"},
    },
    "mmse": {"Description": "Mini-Mental State Examination at baseline, 0 to 30; 30 is best"},
    "cdr_sb": {"Description": "Clinical Dementia Rating, sum of boxes, at baseline, 0 to 18; n/a in PD"},
    "updrs_iii": {"Description": "MDS-UPDRS part III (motor examination) at baseline, 0 to 132; n/a without PD"},
    "hoehn_yahr": {"Description": "Hoehn and Yahr stage at baseline, 1 to 5; n/a without PD"},
    "education_years": PARTICIPANT_COLUMNS["education_years"],
}
COLUMNS = {"ms": PARTICIPANT_COLUMNS, "infants": INFANT_COLUMNS, "neurodegeneration": OLDER_COLUMNS}
# The columns that change from session to session.
STATE_COLUMNS = {
    "ms": ("edss", "disease_duration"),
    "infants": ("age_months", "myelination_age_months"),
    "neurodegeneration": ("mmse", "cdr_sb", "updrs_iii", "hoehn_yahr"),
}
README = """Phantom heads made by padflow from the MNI152 template: no scan of any person is in here.

The truth that was planted (brain age, brain-PAD, affines, sites) is in derivatives/phantom-truth.
"""


@dataclass(frozen=True)
class PhantomScan:
    """One scan and what is true of it.

    Affines are 4×4 in RAS+ mm, row by row: `scanner_to_mni`, and `to_reference` to the session's first contrast.
    `protocol` is the site as it was set for this scan; `volumes_ml` holds what fills the brain.
    """

    participant_id: str
    session_id: str
    path: str
    age_years: float
    true_brain_pad_years: float
    brain_age_years: float
    site: str
    shape: tuple[int, ...]
    scanner_to_mni: tuple[tuple[float, ...], ...]
    contrast: Contrast
    protocol: Site
    to_reference: tuple[tuple[float, ...], ...]
    volumes_ml: dict[str, float]


@dataclass(frozen=True)
class PhantomTruth:
    """Everything that was planted: scans in order of participant, session and contrast, and paths of those left out."""

    root: Path
    planted: dict[str, object]
    sites: tuple[Site, ...]
    people: tuple[Person, ...]
    scans: tuple[PhantomScan, ...]
    left_out: tuple[str, ...] = ()


def participant_id(person: Person) -> str:
    return f"sub-{person.number + 1:04d}"


def session_id(spec: PhantomSpec, visit: Visit) -> str:
    return f"ses-{visit.session + 1}" if spec.sessions > 1 else "n/a"


def entities(spec: PhantomSpec, person: Person, visit: Visit) -> str:
    subject = participant_id(person)
    return f"{subject}_{session_id(spec, visit)}" if spec.sessions > 1 else subject


def scan_path(spec: PhantomSpec, person: Person, visit: Visit, contrast: str) -> Path:
    """Where a scan lies below the BIDS root."""
    folder = Path(participant_id(person))
    if spec.sessions > 1:
        folder /= session_id(spec, visit)
    return folder / "anat" / f"{entities(spec, person, visit)}_{contrast}.nii.gz"


def write_tables(spec: PhantomSpec, truth: PhantomTruth) -> None:
    """What a reader of the dataset sees: descriptions, participants and sessions."""
    made_by = [{"Name": "padflow phantom"}]
    description = {"Name": "padflow phantom", "BIDSVersion": BIDS_VERSION, "DatasetType": "raw", "License": "CC0"}
    _write_json(truth.root / "dataset_description.json", description | {"GeneratedBy": made_by})
    (truth.root / "README").write_text(README, encoding="utf-8")
    for name in spec.contrasts:
        _write_json(truth.root / f"{name}.json", {"Modality": "MR", "Manufacturer": "padflow phantom"})
    columns = COLUMNS[spec.cast]
    _write_json(truth.root / "participants.json", columns)
    rows: list[list[Any]] = []
    for person in truth.people:
        first, site = person.visits[0], truth.sites[person.site].name
        fixed = [participant_id(person), first.age_years, person.sex, site, person.diagnosis]
        course = [person.phenotype] if "phenotype" in columns else []
        education = [education_years(spec.seed, person.number)] if "education_years" in columns else []
        rows.append([*fixed, *course, *_state(spec, first), *education])
    _write_tsv(truth.root / "participants.tsv", list(columns), rows)
    if spec.sessions == 1:
        return
    for person in truth.people:
        subject = participant_id(person)
        visits = [[session_id(spec, v), v.age_years, v.years_since_baseline, *_state(spec, v)] for v in person.visits]
        names = ["session_id", "age", "years_since_baseline", *STATE_COLUMNS[spec.cast]]
        _write_tsv(truth.root / subject / f"{subject}_sessions.tsv", names, visits)


def _state(spec: PhantomSpec, visit: Visit) -> list[float | None]:
    """What the clinic notes at a visit."""
    if spec.cast == "infants":
        return [age_months(visit), assessed_months(visit)]
    if spec.cast == "neurodegeneration":
        return [visit.scores.get(name) for name in STATE_COLUMNS[spec.cast]]
    return [visit.edss, visit.duration_years]


def write_truth(spec: PhantomSpec, truth: PhantomTruth) -> None:
    """What only a judge may see: the planted coefficients, the sites, true brain ages, affines and tissue volumes."""
    folder = truth.root / TRUTH_FOLDER
    description = {"Name": "Truth of the padflow phantom", "BIDSVersion": BIDS_VERSION, "DatasetType": "derivative"}
    _write_json(folder / "dataset_description.json", description | {"GeneratedBy": [{"Name": "padflow phantom"}]})
    sites = {site.name: asdict(site) for site in truth.sites}
    body = truth.planted | {"seed": spec.seed, "spec": spec.as_values(), "sites": sites}
    _write_json(folder / "truth.json", body | {"left_out": list(truth.left_out)})
    parameters = [name for name in sites[truth.sites[0].name] if name not in ("name", "bias_terms")]
    # One row a session, of its first contrast; the other contrasts are in scans.tsv.
    firsts = [scan for scan in truth.scans if scan.contrast.name == spec.contrasts[0]]
    rows: list[list[Any]] = []
    for scan in firsts:
        own = [scan.participant_id, scan.session_id, scan.age_years, scan.true_brain_pad_years, scan.brain_age_years]
        rows.append([*own, scan.site, scan.shape, *(getattr(scan.protocol, name) for name in parameters)])
    columns = ["participant_id", "session_id", "age", "true_brain_pad", "brain_age", "site", "shape", *parameters]
    _write_tsv(folder / "truth.tsv", columns, rows)
    volumes = list(firsts[0].volumes_ml)
    rows = [[scan.participant_id, scan.session_id, *(scan.volumes_ml[name] for name in volumes)] for scan in firsts]
    _write_tsv(folder / "volumes.tsv", ["participant_id", "session_id", *(f"{name}_ml" for name in volumes)], rows)
    _write_scans(folder, truth, parameters)


def _write_scans(folder: Path, truth: PhantomTruth, parameters: Sequence[str]) -> None:
    """One row per image: how it was acquired, and how far the head had moved since the session's first contrast."""
    rows = []
    for scan in truth.scans:
        moved = np.array(scan.to_reference)
        turn_deg = float(np.rad2deg(Rotation.from_matrix(moved[:3, :3]).magnitude()))
        own = [scan.participant_id, scan.session_id, scan.contrast.name, scan.path, scan.site, scan.shape]
        seen = [scan.contrast.thickness_mm, scan.contrast.offset, turn_deg, float(np.linalg.norm(moved[:3, 3]))]
        rows.append([*own, *seen, *(getattr(scan.protocol, name) for name in parameters)])
    columns = ["participant_id", "session_id", "contrast", "path", "site", "shape"]
    columns += ["slice_thickness_mm", "offset", "rotation_to_reference_deg", "shift_to_reference_mm", *parameters]
    _write_tsv(folder / "scans.tsv", columns, rows)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _write_tsv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, float):
        return f"{value:.10g}"
    return "x".join(_cell(v) for v in value) if isinstance(value, (tuple, list)) else str(value)
