"""A cohort of any size that costs nothing to make: real files and objects, of a few bytes each."""

from __future__ import annotations

import os
from pathlib import Path

from infra import layout
from infra.storage import Store
from infra.study_file import load_study
from tasks.records import Excluded
from tasks.science.imaging.recipe import recipe_digest
from tasks.steps.index import IndexedCohort
from tasks.steps.prepare import write_exclusion

STUDY = """
name = "simulated"

[[cohorts]]
name = "healthy"
role = "train"
root = "bids"

[recipe]
resolution_mm = 4.0
"""
EXCLUDED_OF = 100
"""One scan in so many is excluded."""


def write_study(folder: Path) -> Path:
    """The study file of a simulated cohort."""
    path = folder / "simulated.toml"
    path.write_text(STUDY)
    return path


def write_bids(root: Path, subjects: int) -> None:
    """A BIDS root of one T1w per subject, each file with bytes of its own."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text("{}")
    (root / "participants.tsv").write_bytes(participants(subjects))
    for number in range(subjects):
        name = subject(number)
        anat = f"{root}/{name}/anat"
        os.makedirs(anat)  # noqa: PTH103 (a Path per file would take longer than the file)
        with open(f"{anat}/{name}_T1w.nii.gz", "wb") as file:  # noqa: PTH123
            file.write(name.encode())


def subject(number: int) -> str:
    """A made-up participant."""
    return f"sub-{number:06d}"


def participants(subjects: int) -> bytes:
    """A participants.tsv with what a cohort has of its people."""
    lines = [
        f"{subject(number)}\t{20 + number % 600 / 10:.1f}\t{'FM'[number % 2]}\tsite-{number % 7}\t{number % 29}"
        for number in range(subjects)
    ]
    return "\n".join(["participant_id\tage\tsex\tsite\tscore", *lines, ""]).encode()


def finish(store: Store, study: Path, indexed: IndexedCohort) -> None:
    """Put a finished object of a few bytes into a local store for every scan, and an exclusion for some."""
    key = recipe_digest(load_study(study).recipe)
    scans = indexed.tables.manifest
    store.local_path(layout.prepared_folder(key)).mkdir(parents=True)
    for number, (scan_id, sha256) in enumerate(zip(scans["scan_id"], scans["sha256"], strict=True)):
        if number % EXCLUDED_OF == 0:
            write_exclusion(store, key, Excluded(scan_id, sha256, "quality", "a made-up reason of the usual length"))
            continue
        for place in (layout.prepared_volume(key, sha256), layout.prepared_sidecar(key, sha256)):
            store.local_path(place).write_bytes(b"{}")
