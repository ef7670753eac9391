"""Prepare one scan on a worker: read, check, compute, write. Imports no Prefect, so that workers start fast."""

from __future__ import annotations

import hashlib
import io
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from infra import layout
from infra.bids_root import read_verified
from infra.storage import Store, json_bytes
from infra.templates import load_template
from tasks.records import Excluded, PreparedScan, Recipe, ScanRef, ScanRejected, digest
from tasks.science.imaging.degradations import DEGRADATION_VERSION, Degradation, degrade
from tasks.science.imaging.grid import study_grid
from tasks.science.imaging.recipe import prepare_scan, prepared_montage, recipe_digest
from tasks.science.imaging.template import Template
from tasks.steps.memory import gives_back_memory


@lru_cache(maxsize=4)
def open_store(url: str, cache: str) -> Store:
    """One connection per process: a filesystem object must not cross a fork."""
    return Store(url, Path(cache))


@gives_back_memory
def prepare_one(
    store_url: str, cache: str, scan: ScanRef, recipe: Recipe, recipe_key: str, degradation: Degradation | None = None
) -> PreparedScan | Excluded:
    """Make a scan's prepared volume, or its exclusion, in the store.

    Args:
        store_url: Where outputs go.
        cache: Local cache folder of that store.
        scan: Which scan; the bytes of its images are checked against their hashes before anything else.
        recipe: How to prepare it.
        recipe_key: Names what is made beside the scan's bytes (`preparation_key`), computed once by the flow.
        degradation: How the images are made worse first, to see what the model makes of them.

    Returns:
        A small record; the volume itself stays in the store.

    Raises:
        OSError: Storage failed, or the source changed: to be retried, never counted as a bad scan.
        ValueError: The recipe's grid fits no scan: a caller's mistake, which the flow refuses before any scan.
    """
    if preparation_key(recipe, degradation) != recipe_key:
        raise OSError("this worker's numerical libraries differ from the flow's; install the same lock on every worker")
    store = open_store(store_url, cache)
    done = stored_scan(store, scan, recipe_key)
    if done is not None:
        return done
    try:
        contents = {image.modality: read_verified(image) for image in scan.images}
    except ScanRejected as rejection:
        return write_exclusion(store, recipe_key, _excluded(scan, rejection))
    template = load_template(recipe, scan.template)
    # A mistake of the recipe is no scan's fault.
    study_grid(recipe, template)
    try:
        if degradation is not None:
            contents = {name: degrade(content, degradation, scan.key) for name, content in contents.items()}
        outputs = _outputs(contents, scan, recipe, template)
    except ScanRejected as rejection:
        return write_exclusion(store, recipe_key, _excluded(scan, rejection))
    except OSError:
        raise
    except Exception as error:
        # A scan that trips over a fault of ours must not stop the other ten thousand; the reason says what to report.
        reason = f"unexpected {type(error).__name__}: {error}; report it with this scan's header, then --retry-excluded"
        return write_exclusion(store, recipe_key, Excluded(scan.scan_id, scan.key, "unexpected", reason))
    store.publish(layout.prepared_volume(recipe_key, scan.key), outputs.volume)
    store.publish(layout.montage(recipe_key, scan.key), outputs.montage)
    store.publish(layout.prepared_sidecar(recipe_key, scan.key), outputs.sidecar)
    return PreparedScan(scan.scan_id, scan.key, layout.prepared_volume(recipe_key, scan.key), outputs.quality)


def preparation_key(recipe: Recipe, degradation: Degradation | None = None) -> str:
    """Name everything beside a scan's bytes that shapes what is prepared of it: the recipe's digest, if nothing else.

    Degraded scans lie in folders of their own, so that none is ever taken for a cohort's scan.
    """
    key = recipe_digest(recipe)
    return key if degradation is None else digest([key, DEGRADATION_VERSION, asdict(degradation)])


@dataclass(frozen=True)
class Outputs:
    """The bytes of a prepared scan's objects, all made before any is written."""

    volume: bytes
    montage: bytes
    sidecar: bytes
    quality: dict[str, float]


def _outputs(contents: dict[str, bytes], scan: ScanRef, recipe: Recipe, template: Template) -> Outputs:
    prepared = prepare_scan(contents, recipe, template)
    buffer = io.BytesIO()
    np.save(buffer, prepared.volume, allow_pickle=False)
    montage = prepared_montage(prepared, scan.scan_id, recipe, template)
    sources = [{"modality": image.modality, "sha256": image.sha256} for image in scan.images]
    volume = buffer.getvalue()
    # Copies of a scan under another name, compressed or labelled anew, are told by what they become.
    facts = {"sources": sources, "volume_sha256": hashlib.sha256(volume).hexdigest()}
    return Outputs(volume, montage, json_bytes({**prepared.sidecar, **facts}), prepared.quality)


def _excluded(scan: ScanRef, rejection: ScanRejected) -> Excluded:
    return Excluded(scan.scan_id, scan.key, rejection.stage, rejection.reason)


def stored_scan(store: Store, scan: ScanRef, recipe_key: str) -> PreparedScan | None:
    """What another run or another worker has finished since the flow listed what is missing."""
    volume, sidecar = (at(recipe_key, scan.key) for at in (layout.prepared_volume, layout.prepared_sidecar))
    # The sidecar is written last.
    if not store.exists(sidecar) or not store.exists(volume):
        return None
    return PreparedScan(scan.scan_id, scan.key, volume, store.read_json(sidecar)["quality"])


def write_exclusion(store: Store, recipe_key: str, excluded: Excluded) -> Excluded:
    """Keep an exclusion beside the prepared scans, so that it is neither lost nor tried again under the same recipe."""
    key = layout.excluded_scan(recipe_key, excluded.sha256)
    store.publish_json(key, {"scan_id": excluded.scan_id, "stage": excluded.stage, "reason": excluded.reason})
    return excluded
