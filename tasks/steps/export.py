"""Export a cohort's prepared scans as BIDS derivatives, which need no padflow to be read."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from infra import layout
from infra.storage import Store
from tasks.records import digest
from tasks.science.cohort import derivatives
from tasks.science.cohort.derivative_tables import (
    column_notes,
    excluded_table,
    people_and_sessions,
    quality_table,
    tsv,
)
from tasks.science.cohort.derivatives import DerivativeNames
from tasks.science.imaging.exchange import itk_affine, nifti_gz, prepared_brain
from tasks.steps.progress import CohortState

EXPORT_VERSION = 1
DESCRIPTION = "dataset_description.json"
NOT_ASKED_FOR, NOT_PREPARED = "unused", "missing"


@dataclass(frozen=True)
class ExportedScan:
    """A scan's files in the target."""

    files: tuple[str, ...]
    quality: dict[str, float]
    written: bool


@dataclass(frozen=True)
class _Job:
    """What one scan's export needs; the volume is read by the thread that writes it."""

    source: Store
    target: Store
    there: frozenset[str]
    recipe_key: str
    paths: dict[str, str]


def check_target(target: Store, study: str) -> None:
    """Refuse a folder that holds anything but an earlier export of this study, whose tables would be overwritten.

    Raises:
        ValueError: It holds something else.
    """
    if target.exists(DESCRIPTION):
        held = json.loads(target.read(DESCRIPTION))
        owner = held.get("PadflowStudy") if isinstance(held, dict) else None
        if owner == study:
            return
        what = f"the export of the study {owner!r}" if owner else "another data set"
    elif not target.keys():
        return
    else:
        what = f"files, but no {DESCRIPTION} of an earlier export"
    raise ValueError(f"{target.url} holds {what}; nothing was written. Give this export a destination of its own.")


def export_cohort(
    state: CohortState, study: str, source: Store, target: Store, threads: int, done: Callable[[], None]
) -> dict[str, Any]:
    """Write what the target lacks of a cohort's prepared scans, and tables that account for every indexed scan.

    Args:
        state: Where the cohort stands.
        study: The study's name.
        source: The store of prepared scans.
        target: The data set's root; `check_target` comes first.
        threads: Scans at a time; compression leaves the interpreter free for the others.
        done: Called after each scan, for a progress bar.

    Returns:
        The cohort's counts, `written`, `there_already`, and `left_over`: files of scans that are not of this export.
    """
    there = frozenset(target.keys())
    root_uri = _as_uri(state.indexed.root)
    description = derivatives.dataset_description(state.spec.name, study, version("padflow"), root_uri)
    # First, since it marks the folder as this study's; the tables come last.
    target.write(DESCRIPTION, _json(description))
    target.write(".bidsignore", derivatives.BIDS_IGNORE.encode())
    manifest = state.indexed.tables.manifest
    paths = dict(zip(manifest["scan_id"], manifest["path"], strict=True))
    job = _Job(source, target, there, state.recipe_key, paths)

    def one(row: dict[str, Any]) -> ExportedScan:
        exported = _export_scan(job, row)
        done()
        return exported

    exported = _in_threads(one, state.prepared.to_dict("records"), threads)
    sessions = _write_tables(state, study, target, exported, threads)
    known = {file for scan in exported for file in scan.files} | sessions
    written = sum(scan.written for scan in exported)
    return {
        "name": state.spec.name,
        "folder": target.url,
        **state.counts,
        "written": written,
        "there_already": len(exported) - written,
        "left_over": sorted(key for key in there - known if key.startswith("sub-") and "/." not in key),
    }


def _in_threads(work: Callable[[Any], Any], items: list[Any], threads: int) -> list[Any]:
    pool = ThreadPoolExecutor(threads)
    try:
        return list(pool.map(work, items))
    finally:
        # After an error or an interrupt, what has not begun never does.
        pool.shutdown(cancel_futures=True)


def _export_scan(job: _Job, row: dict[str, Any]) -> ExportedScan:
    sha256 = str(row["sha256"])
    sidecar = json.loads(job.source.read(layout.prepared_sidecar(job.recipe_key, sha256)))
    channels = [str(name) for name in sidecar["channels"]]
    reference = str(sidecar["reference"])
    names = DerivativeNames(str(row["scan_id"]), str(sidecar["space"]), reference)
    images = [names.image(channel) for channel in channels]
    files = _file_names(names, images)
    scan_ids = [str(row["scan_id"]), *str(row["companions"]).split()]
    raw = {scan_id.rsplit("_", 1)[-1]: job.paths[scan_id] for scan_id in scan_ids}
    made_from = digest(["derivatives", EXPORT_VERSION, job.recipe_key, sha256, files, raw])
    exported = ExportedScan(files, dict(sidecar["quality"]), written=False)
    mark = files[-1]
    if job.there.issuperset(files) and _made_from(job.target, mark) == made_from:
        return exported
    if mark in job.there:
        job.target.delete(mark)
    volume = _read_volume(job, sha256, len(channels))
    affine, placed_by = np.array(sidecar["affine"]), derivatives.sources_of(reference, raw, reference)
    contents: dict[str, bytes] = {
        f"{names.mask}.nii.gz": nifti_gz(prepared_brain(volume), affine, sidecar["space"]),
        f"{names.mask}.json": _json(derivatives.mask_notes(placed_by, sidecar)),
        f"{names.transform}.txt": itk_affine(np.array(sidecar["native_to_mni"])).encode(),
        f"{names.transform}.json": _json(derivatives.transform_notes(placed_by, sidecar)),
    }
    ours = {**sidecar, "scan_id": row["scan_id"], "sha256": sha256, "made_from": made_from}
    for channel, stem, data in zip(channels, images, volume, strict=True):
        notes = derivatives.image_notes(channel, derivatives.sources_of(channel, raw, reference), sidecar)
        contents[f"{stem}.nii.gz"] = nifti_gz(data, affine, sidecar["space"])
        contents[f"{stem}.json"] = _json({**notes, "Padflow": ours})
    for file in files:
        job.target.write(file, contents[file])
    return ExportedScan(files, exported.quality, written=True)


def _file_names(names: DerivativeNames, images: list[str]) -> tuple[str, ...]:
    """In the order of writing: the first image's notes come last and tell that everything of the scan is there."""
    texts = [f"{names.transform}.txt", *(f"{stem}.json" for stem in (names.transform, names.mask, *images[::-1]))]
    return (*(f"{stem}.nii.gz" for stem in (*images, names.mask)), *texts)


def _made_from(target: Store, mark: str) -> str | None:
    try:
        held = json.loads(target.read(mark))
    except ValueError:
        return None
    return dict(held.get("Padflow", {})).get("made_from") if isinstance(held, dict) else None


def _read_volume(job: _Job, sha256: str, channels: int) -> np.ndarray:
    key = layout.prepared_volume(job.recipe_key, sha256)
    volume = np.load(io.BytesIO(job.source.read(key)), allow_pickle=False)
    if volume.ndim != 4 or len(volume) != channels:
        raise ValueError(
            f"{job.source.uri(key)}: found shape {volume.shape}, its sidecar says {channels} channels. "
            "Remove it and run `padflow preprocess` again."
        )
    return volume


def _write_tables(
    state: CohortState, study: str, target: Store, exported: list[ExportedScan], threads: int
) -> set[str]:
    people, sessions = people_and_sessions(state.prepared)
    files, figures = [scan.files[0] for scan in exported], [scan.quality for scan in exported]
    tables = {
        "participants.tsv": tsv(people),
        "participants.json": _json(column_notes(people)),
        "quality.tsv": tsv(quality_table(state.prepared, files, figures)),
        "excluded.tsv": tsv(excluded_table(_absent(state))),
        "README.md": derivatives.readme(state.spec.name, study, state.counts).encode(),
    }
    of_sessions = {f"{person}/{person}_sessions.tsv": tsv(table) for person, table in sessions.items()}
    if sessions:
        tables["sessions.json"] = _json(column_notes(next(iter(sessions.values()))))
    _in_threads(lambda item: target.write(*item), list({**of_sessions, **tables}.items()), threads)
    return set(of_sessions)


def _absent(state: CohortState) -> list[tuple[str, str, str]]:
    """Every indexed scan that is not prepared, with what became of it."""
    unused = zip(state.selection.unused["scan_id"], state.selection.unused["reason"], strict=True)
    return [
        *((item.scan_id, item.stage, item.reason) for item in state.excluded),
        *((str(scan_id), NOT_ASKED_FOR, str(reason)) for scan_id, reason in unused),
        *((scan.scan_id, NOT_PREPARED, "run `padflow preprocess`, then export again") for scan in state.missing),
    ]


def _as_uri(root: str) -> str:
    return root if "://" in root else Path(root).absolute().as_uri()


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode()
