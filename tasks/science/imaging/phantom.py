"""A cohort of phantom heads as a BIDS tree, with the truth beside it.

Public cohorts never tell a brain's true age, so a pipeline can only be shown to be right on heads whose ages, affines
and clinical effects were planted. These are made from the MNI152 template, and nothing in them comes from a person.
"""

from __future__ import annotations

import gzip
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from .phantom_acquisition import Scan, acquire, as_nifti, displacement, position
from .phantom_anatomy import PLAIN, Anatomy, Detail, draw_anatomy
from .phantom_contrasts import CONTRASTS, Contrast, draw_protocol
from .phantom_degeneration import degeneration_effects, draw_older
from .phantom_infants import (
    ADULT_SHAPE_YEARS,
    MONTHS_PER_YEAR,
    age_months,
    draw_infant,
    grown,
    infant_effects,
    unmyelinated_share,
)
from .phantom_lesions import Lesions, draw_lesions, lesion_share
from .phantom_people import (
    ANATOMY,
    CONTRAST,
    LESIONS,
    MISSING,
    SCAN,
    SLICES,
    Person,
    Visit,
    draw_person,
    planted_effects,
    stream,
)
from .phantom_sites import Site, draw_site
from .phantom_spec import PhantomSpec
from .phantom_tables import (
    TRUTH_FOLDER,
    PhantomScan,
    PhantomTruth,
    entities,
    participant_id,
    scan_path,
    session_id,
    write_tables,
    write_truth,
)

__all__ = ["PhantomScan", "PhantomSpec", "PhantomTruth", "draw_cohort", "draw_sites", "write_phantom"]

MNI = "MNI152NLin2009aSym"


def draw_cohort(spec: PhantomSpec) -> tuple[Person, ...]:
    """Draw the participants without making any image.

    >>> [person.diagnosis for person in draw_cohort(PhantomSpec(subjects=5))].count("MS")
    2
    """
    draw = (spec.sites, spec.patients, spec.sessions, spec.age_range_years)
    draws: dict[str, Callable[..., Person]] = {
        "ms": partial(draw_person, duration_years_per_year=spec.duration_years_per_year),
        "neurodegeneration": draw_older,
        "infants": draw_infant,
    }
    draw_one = draws[spec.cast]
    return tuple(draw_one(spec.seed, number, *draw) for number in range(spec.subjects))


def _planted(spec: PhantomSpec) -> dict[str, object]:
    if spec.cast == "ms":
        return planted_effects(spec.age_range_years, spec.duration_years_per_year)
    return infant_effects() if spec.cast == "infants" else degeneration_effects()


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
    left_out = tuple(path for person in people for path in _left_out_paths(spec, person))
    truth = PhantomTruth(root, _planted(spec), sites, people, tuple(scans), left_out)
    write_tables(spec, truth)
    write_truth(spec, truth)
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
    """Scan one participant at every visit, in every contrast that the session does not lack."""
    spec, person, root = job
    anatomy = draw_anatomy(stream(spec.seed, ANATOMY, person.number), person.sex)
    lesions = None if spec.plain else draw_lesions(stream(spec.seed, LESIONS, person.number))
    scans = []
    for visit in person.visits:
        head, shape_years, detail = _head(spec, visit, anatomy, lesions)
        reference = None
        for name in kept_contrasts(spec, person, visit):
            rng, pose = _pose(spec, person, visit, name)
            site, contrast = _protocol(spec, person, visit, name)
            scan = acquire(head, shape_years, site, rng, spec.variant == "stripped", contrast, detail, pose)
            path = scan_path(spec, person, visit, name)
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            # No time and no name in the gzip header, so that equal scans are equal bytes.
            (root / path).write_bytes(gzip.compress(as_nifti(scan).to_bytes(), compresslevel=1, mtime=0))
            to_reference = np.eye(4) if reference is None else np.linalg.inv(reference) @ scan.scanner_to_mni
            reference = scan.scanner_to_mni if reference is None else reference
            _write_transforms(spec, root, entities(spec, person, visit), name, scan, to_reference)
            scans.append(_record(spec, person, visit, path, site, contrast, scan, to_reference))
    return scans


def _head(spec: PhantomSpec, visit: Visit, anatomy: Anatomy, lesions: Lesions | None) -> tuple[Anatomy, float, Detail]:
    """What is there to be scanned at a visit: the head, the age of its surfaces, and its white matter."""
    if spec.population == "infants":
        share = unmyelinated_share(MONTHS_PER_YEAR * visit.brain_age_years)
        return grown(anatomy, age_months(visit)), ADULT_SHAPE_YEARS, Detail({"unmyelinated": share}, True)
    if lesions is None:
        return anatomy, visit.brain_age_years, PLAIN
    return anatomy, visit.brain_age_years, Detail({"lesion": lesion_share(lesions, visit, anatomy)}, True)


def kept_contrasts(spec: PhantomSpec, person: Person, visit: Visit) -> tuple[str, ...]:
    """The contrasts that a session has; the first that the spec names is never left out."""
    luck = stream(spec.seed, MISSING, person.number, visit.session).random(len(CONTRASTS))
    first, *others = spec.contrasts
    return (first, *(name for name in others if luck[CONTRASTS.index(name)] >= spec.missing))


def _left_out_paths(spec: PhantomSpec, person: Person) -> list[str]:
    lacking = [(visit, set(spec.contrasts) - set(kept_contrasts(spec, person, visit))) for visit in person.visits]
    return [scan_path(spec, person, visit, name).as_posix() for visit, names in lacking for name in sorted(names)]


def _pose(spec: PhantomSpec, person: Person, visit: Visit, name: str) -> tuple[np.random.Generator, np.ndarray | None]:
    """A scan's own random stream, and the head's position in it: a small move away from the session's first scan."""
    session = stream(spec.seed, SCAN, person.number, visit.session)
    if name == spec.contrasts[0] == "T1w":
        return session, None
    own = stream(spec.seed, CONTRAST, person.number, len(CONTRASTS) * visit.session + CONTRASTS.index(name))
    moved = displacement(own)
    return own, position(session) if name == spec.contrasts[0] else moved @ position(session)


def _protocol(spec: PhantomSpec, person: Person, visit: Visit, name: str) -> tuple[Site, Contrast]:
    """How a scan is acquired."""
    place = len(CONTRASTS) * visit.session + CONTRASTS.index(name)
    coin = stream(spec.seed, SLICES, person.number, place).random() < 0.5
    thick = spec.slices == "thick" or (spec.slices == "mixed" and coin)
    number, infants = spec.site_offset + person.site, spec.population == "infants"
    site, contrast = draw_protocol(spec.seed, number, name, thick, spec.spacing_mm, spec.in_plane_mm, infants)
    return site, replace(contrast, offset=0.0) if spec.plain else contrast


def _write_transforms(
    spec: PhantomSpec, root: Path, scan_entities: str, name: str, scan: Scan, to_reference: np.ndarray
) -> None:
    """The true affines of one scan, RAS+ mm to RAS+ mm."""
    source = "scanner" if name == spec.contrasts[0] else name
    affines = {f"from-{source}_to-{MNI}": scan.scanner_to_mni}
    if name != spec.contrasts[0]:
        affines[f"from-{name}_to-{spec.contrasts[0]}"] = to_reference
    for what, affine in affines.items():
        np.savetxt(root / TRUTH_FOLDER / "transforms" / f"{scan_entities}_{what}.txt", affine, fmt="%.9f")


def _record(
    spec: PhantomSpec,
    person: Person,
    visit: Visit,
    path: Path,
    site: Site,
    contrast: Contrast,
    scan: Scan,
    to_reference: np.ndarray,
) -> PhantomScan:
    return PhantomScan(
        participant_id=participant_id(person),
        session_id=session_id(spec, visit),
        path=path.as_posix(),
        age_years=visit.age_years,
        true_brain_pad_years=visit.true_pad_years,
        brain_age_years=visit.brain_age_years,
        site=site.name,
        shape=scan.data.shape,
        scanner_to_mni=_rows(scan.scanner_to_mni),
        contrast=contrast,
        protocol=site,
        to_reference=_rows(to_reference),
        volumes_ml=scan.volumes_ml(),
    )


def _rows(affine: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(v) for v in row) for row in affine)
