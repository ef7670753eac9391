"""A cohort of phantom heads as a BIDS tree, with the truth beside it.

Public cohorts never tell a brain's true age, so a pipeline can only be shown to be right on heads whose ages, affines
and clinical effects were planted. These are made from the MNI152 template, and nothing in them comes from a person.
"""

from __future__ import annotations

import csv
import gzip
import json
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .phantom_acquisition import Site, acquire, as_nifti, draw_site
from .phantom_anatomy import draw_anatomy
from .phantom_people import ANATOMY, SCAN, Person, Visit, draw_person, planted_effects, stream

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
}
README = """Phantom heads made by padflow from the MNI152 template: no scan of any person is in here.

The truth that was planted (brain age, brain-PAD, affines, sites) is in derivatives/phantom-truth.
"""


@dataclass(frozen=True)
class PhantomSpec:
    """What a phantom cohort is made of. Equal specs give equal bytes.

    Attributes:
        subjects: How many participants; a larger cohort begins with the participants of a smaller one.
        sites: How many scanners.
        seed: Start of every random stream; cohorts of different seeds share neither people nor scanners.
        patients: Fraction with multiple sclerosis.
        sessions: Visits of each participant, about a year apart.
        variant: `head` with skull, scalp and face, or `stripped`: brain only on a background of zeros.
        age_range_years: Youngest and oldest age at baseline; filled evenly.
        spacing_mm: Nominal voxel size; each site's own varies about it and is anisotropic.
        site_offset: Number of the first site: a cohort of the same seed with other scanners.
    """

    subjects: int
    sites: int = 2
    seed: int = 0
    patients: float = 0.4
    sessions: int = 1
    variant: Literal["head", "stripped"] = "head"
    age_range_years: tuple[float, float] = (20.0, 85.0)
    spacing_mm: float = 2.0
    site_offset: int = 0

    def __post_init__(self) -> None:
        low, high = self.age_range_years
        limits: tuple[tuple[str, bool, str], ...] = (
            ("subjects", self.subjects >= 1, "at least 1"),
            ("sites", self.sites >= 1, "at least 1"),
            ("seed", self.seed >= 0, "0 or more"),
            ("patients", 0 <= self.patients <= 1, "a fraction from 0 to 1"),
            ("sessions", self.sessions >= 1, "at least 1"),
            ("variant", self.variant in ("head", "stripped"), "head or stripped"),
            ("age_range_years", 16 <= low < high <= 100, "(youngest, oldest) within 16 to 100"),
            ("spacing_mm", 0.5 <= self.spacing_mm <= 8, "from 0.5 to 8"),
            ("site_offset", self.site_offset >= 0, "0 or more"),
        )
        for name, holds, expected in limits:
            if not holds:
                found = getattr(self, name)
                raise ValueError(f"{name} is {found!r}, expected {expected}; set PhantomSpec({name}=…) accordingly")


@dataclass(frozen=True)
class PhantomScan:
    """One scan and what is true of it; `scanner_to_mni` is a 4×4 affine in RAS+ mm, row by row."""

    participant_id: str
    session_id: str
    path: str
    age_years: float
    true_brain_pad_years: float
    brain_age_years: float
    site: str
    shape: tuple[int, ...]
    scanner_to_mni: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class PhantomTruth:
    """Everything that was planted: scans in order of participant and session."""

    root: Path
    planted: dict[str, object]
    sites: tuple[Site, ...]
    people: tuple[Person, ...]
    scans: tuple[PhantomScan, ...]


def draw_cohort(spec: PhantomSpec) -> tuple[Person, ...]:
    """Draw the participants without making any image.

    >>> [person.diagnosis for person in draw_cohort(PhantomSpec(subjects=5))].count("MS")
    2
    """
    draw = (spec.sites, spec.patients, spec.sessions, spec.age_range_years)
    return tuple(draw_person(spec.seed, number, *draw) for number in range(spec.subjects))


def draw_sites(spec: PhantomSpec) -> tuple[Site, ...]:
    """Draw the scanners without making any image."""
    numbers = range(spec.site_offset, spec.site_offset + spec.sites)
    return tuple(draw_site(spec.seed, number, spec.spacing_mm) for number in numbers)


def write_phantom(
    spec: PhantomSpec, root: Path, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> PhantomTruth:
    """Make a cohort whose answers are known, to test and to demonstrate a whole study on.

    Args:
        spec: What to make.
        root: Folder of the BIDS tree; made if absent.
        workers: Processes; the bytes do not depend on how many.
        progress: Called after each participant with (participants done, all participants).

    Returns:
        The truth, which is also written below `derivatives/phantom-truth`.

    Raises:
        ValueError: The folder already holds something, or `workers` is below 1.
    """
    root = Path(root)
    if workers < 1:
        raise ValueError(f"workers is {workers}, expected at least 1; pass workers=1 to stay in this process")
    if root.exists() and any(root.iterdir()):
        raise ValueError(f"{root} is not empty, expected a new folder; choose another one or delete its content")
    people, sites = draw_cohort(spec), draw_sites(spec)
    (root / TRUTH_FOLDER / "transforms").mkdir(parents=True)
    scans: list[PhantomScan] = []
    for done, made in enumerate(_made(spec, people, root, workers), start=1):
        scans.extend(made)
        if progress is not None:
            progress(done, len(people))
    truth = PhantomTruth(root, planted_effects(spec.age_range_years), sites, people, tuple(scans))
    _write_tables(spec, truth)
    _write_truth(spec, truth)
    return truth


def _made(spec: PhantomSpec, people: Sequence[Person], root: Path, workers: int) -> Iterable[list[PhantomScan]]:
    jobs = [(spec, person, root) for person in people]
    if workers == 1:
        yield from map(_make_person, jobs)
        return
    # Spawned, not forked: threads of a parent's numerical libraries do not survive a fork.
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_make_person, jobs)


def _make_person(job: tuple[PhantomSpec, Person, Path]) -> list[PhantomScan]:
    """Scan one participant at every visit."""
    spec, person, root = job
    anatomy = draw_anatomy(stream(spec.seed, ANATOMY, person.number), person.sex)
    site = draw_site(spec.seed, spec.site_offset + person.site, spec.spacing_mm)
    scans = []
    for visit in person.visits:
        rng = stream(spec.seed, SCAN, person.number, visit.session)
        scan = acquire(anatomy, visit.brain_age_years, site, rng, spec.variant == "stripped")
        path = _scan_path(spec, person, visit)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        # No time and no name in the gzip header, so that equal scans are equal bytes.
        (root / path).write_bytes(gzip.compress(as_nifti(scan).to_bytes(), compresslevel=1, mtime=0))
        transform = f"{_entities(spec, person, visit)}_from-scanner_to-MNI152NLin2009aSym.txt"
        np.savetxt(root / TRUTH_FOLDER / "transforms" / transform, scan.scanner_to_mni, fmt="%.9f")
        scans.append(
            PhantomScan(
                participant_id=_participant_id(person),
                session_id=_session_id(spec, visit),
                path=path.as_posix(),
                age_years=visit.age_years,
                true_brain_pad_years=visit.true_pad_years,
                brain_age_years=visit.brain_age_years,
                site=site.name,
                shape=scan.data.shape,
                scanner_to_mni=tuple(tuple(float(v) for v in row) for row in scan.scanner_to_mni),
            )
        )
    return scans


def _participant_id(person: Person) -> str:
    return f"sub-{person.number + 1:04d}"


def _session_id(spec: PhantomSpec, visit: Visit) -> str:
    return f"ses-{visit.session + 1}" if spec.sessions > 1 else "n/a"


def _entities(spec: PhantomSpec, person: Person, visit: Visit) -> str:
    subject = _participant_id(person)
    return f"{subject}_{_session_id(spec, visit)}" if spec.sessions > 1 else subject


def _scan_path(spec: PhantomSpec, person: Person, visit: Visit) -> Path:
    folder = Path(_participant_id(person))
    if spec.sessions > 1:
        folder /= _session_id(spec, visit)
    return folder / "anat" / f"{_entities(spec, person, visit)}_T1w.nii.gz"


def _write_tables(spec: PhantomSpec, truth: PhantomTruth) -> None:
    """What a reader of the dataset sees: descriptions, participants and sessions."""
    made_by = [{"Name": "padflow phantom"}]
    description = {"Name": "padflow phantom", "BIDSVersion": BIDS_VERSION, "DatasetType": "raw", "License": "CC0"}
    _write_json(truth.root / "dataset_description.json", description | {"GeneratedBy": made_by})
    (truth.root / "README").write_text(README, encoding="utf-8")
    _write_json(truth.root / "participants.json", PARTICIPANT_COLUMNS)
    _write_json(truth.root / "T1w.json", {"Modality": "MR", "Manufacturer": "padflow phantom"})
    rows = []
    for person in truth.people:
        first, site = person.visits[0], truth.sites[person.site].name
        fixed = [_participant_id(person), first.age_years, person.sex, site, person.diagnosis, person.phenotype]
        rows.append([*fixed, first.edss, first.duration_years])
    _write_tsv(truth.root / "participants.tsv", list(PARTICIPANT_COLUMNS), rows)
    if spec.sessions == 1:
        return
    columns = ["session_id", "age", "years_since_baseline", "edss", "disease_duration"]
    for person in truth.people:
        subject = _participant_id(person)
        visits = [
            [_session_id(spec, v), v.age_years, v.years_since_baseline, v.edss, v.duration_years] for v in person.visits
        ]
        _write_tsv(truth.root / subject / f"{subject}_sessions.tsv", columns, visits)


def _write_truth(spec: PhantomSpec, truth: PhantomTruth) -> None:
    """What only a judge may see: the planted coefficients, the sites and every scan's true brain age and affine."""
    folder = truth.root / TRUTH_FOLDER
    description = {"Name": "Truth of the padflow phantom", "BIDSVersion": BIDS_VERSION, "DatasetType": "derivative"}
    _write_json(folder / "dataset_description.json", description | {"GeneratedBy": [{"Name": "padflow phantom"}]})
    sites = {site.name: asdict(site) for site in truth.sites}
    _write_json(folder / "truth.json", truth.planted | {"seed": spec.seed, "spec": asdict(spec), "sites": sites})
    parameters = [name for name in sites[truth.sites[0].name] if name not in ("name", "bias_terms")]
    rows = []
    for scan in truth.scans:
        own = [scan.participant_id, scan.session_id, scan.age_years, scan.true_brain_pad_years, scan.brain_age_years]
        rows.append([*own, scan.site, scan.shape, *(sites[scan.site][name] for name in parameters)])
    columns = ["participant_id", "session_id", "age", "true_brain_pad", "brain_age", "site", "shape", *parameters]
    _write_tsv(folder / "truth.tsv", columns, rows)


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
