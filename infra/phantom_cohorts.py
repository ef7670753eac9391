"""Cohorts that a study file describes instead of finding them: phantoms, written once below the data folder."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from infra.local_files import one_at_a_time
from infra.study import CohortSpec, Study, resolve_root
from tasks.records import digest
from tasks.science.imaging.phantom import PhantomSpec, write_phantom
from tasks.science.imaging.phantom_infants import MONTHS_PER_YEAR
from tasks.science.imaging.phantom_spec import CUSTOMARY

FOLDER = "phantoms"
MONTHS = "age_range_months"
DIGEST_DIGITS = 10


def customary_spec(given: dict[str, Any]) -> PhantomSpec:
    """A phantom cohort of which only some fields are given; the others are as is customary for who is scanned.

    Args:
        given: Fields of a `PhantomSpec`; `age_range_months` may stand in place of `age_range_years`.

    Raises:
        ValueError: A field is unknown, or a value impossible.

    >>> customary_spec({"subjects": 3, "population": "infants", "age_range_months": [0, 12]}).age_range_years
    (0.0, 1.0)
    """
    known = [field.name for field in fields(PhantomSpec)]
    for name in given:
        if name not in (*known, MONTHS):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(known)}"
            raise ValueError(f"unknown key {name!r}; {hint}")
    if "subjects" not in given:
        raise ValueError("subjects is missing; say how many people the phantom has")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    if MONTHS in values:
        values["age_range_years"] = tuple(months / MONTHS_PER_YEAR for months in values.pop(MONTHS))
    customary = CUSTOMARY.get(str(values.get("population", "adults")), {})
    return PhantomSpec(**(customary | CUSTOMARY.get(str(values.get("disease")), {}) | values))


def phantom_problems(cohort: CohortSpec) -> list[str]:
    """What is wrong with a cohort's phantom, in words; nothing where it has none."""
    if cohort.phantom is None:
        return []
    problems = []
    if "://" in cohort.root or cohort.root.startswith("/") or not cohort.root.strip("/.") or ".." in cohort.root:
        problems.append(
            f"cohort {cohort.name!r} has a phantom, so its root names a folder below the data; found {cohort.root!r}"
        )
    try:
        customary_spec(cohort.phantom)
    except (ValueError, TypeError) as error:
        problems.append(f"cohort {cohort.name!r}: phantom: {error}")
    return problems


def phantom_root(cohort: CohortSpec) -> str:
    """Where a phantom lies below the data: another spec is another folder, so that it never meets the old one's scans.

    >>> from infra.study import CohortSpec
    >>> phantom_root(CohortSpec("a", "train", "site-a", phantom={"subjects": 3}))[:16]
    'phantoms/site-a-'
    """
    name = digest(asdict(customary_spec(cohort.phantom or {})))[:DIGEST_DIGITS]
    return f"{FOLDER}/{cohort.root.strip('/')}-{name}"


def with_phantom_roots(study: Study) -> Study:
    """A study whose phantom cohorts have the roots that they are written to."""
    cohorts = tuple(c if c.phantom is None else replace(c, root=phantom_root(c)) for c in study.cohorts)
    return replace(study, cohorts=cohorts, models=tuple(with_phantom_roots(arm) for arm in study.models))


def write_absent_phantoms(
    cohorts: tuple[CohortSpec, ...],
    data: str,
    workers: int,
    progress: Callable[[str], Callable[[int], Callable[[], None]]],
) -> None:
    """Write every phantom cohort that is not there yet. A killed run leaves nothing that a later one could take for it.

    Args:
        cohorts: A study's, with the roots of `with_phantom_roots`.
        data: The data folder.
        workers: Processes.
        progress: Given a description and then a number of people, gives what is called after each of them.

    Raises:
        ValueError: A phantom is absent, and the data is no folder of this machine.
    """
    for cohort in cohorts:
        if cohort.phantom is None:
            continue
        root = resolve_root(cohort.root, data)
        if "://" in root:
            raise ValueError(
                f"cohort {cohort.name!r} is a phantom, which is written to a folder of this machine; the data is at "
                f"{data}. Give --data a local folder, or write it by `padflow phantom`, copy it to {data}, and leave "
                "the cohort's `phantom` out of the study."
            )
        _write_once(customary_spec(cohort.phantom), Path(root), workers, progress(f"phantom {cohort.name}"))


def _write_once(spec: PhantomSpec, folder: Path, workers: int, start: Callable[[int], Callable[[], None]]) -> None:
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.draft")
    with one_at_a_time(folder.with_name(f".{folder.name}.lock")):
        if folder.exists():
            return
        # Whoever wrote this was killed, or would hold the lock.
        shutil.rmtree(draft, ignore_errors=True)
        advance = start(spec.subjects)
        write_phantom(spec, draft, workers, lambda done, total: advance())
        draft.rename(folder)
