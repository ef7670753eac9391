"""Whose consent is withdrawn: a person's images, by every index of their data set that a store has ever held."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from infra import layout
from infra.storage import Store
from tasks.steps.withdrawal import read_withdrawals

MANIFEST = "manifest.parquet"


@dataclass(frozen=True)
class Person:
    """Whose traces they are.

    Attributes:
        participant_id: In the data set.
        root: The data set's BIDS root.
        folders: Cohorts of the store that are indexes of the data set.
        scans: Every image that any index of it in the store has ever listed: manifest rows.
        shared: Manifest rows of other people whose bytes equal one of these images'.
    """

    participant_id: str
    root: str
    folders: tuple[str, ...]
    scans: pd.DataFrame = field(repr=False)
    shared: pd.DataFrame = field(repr=False)

    @property
    def images(self) -> set[str]:
        """SHA-256 of the person's images."""
        return set(self.scans["sha256"]) - {""}

    @property
    def cohorts(self) -> set[str]:
        """Names under which studies have the data set."""
        return set(self.scans["cohort"])

    @property
    def own_images(self) -> set[str]:
        """Those that nobody else's equal."""
        return self.images - set(self.shared["sha256"])


def data_sets(store: Store) -> dict[str, str]:
    """Each cohort's folder in the store → the BIDS root that it is an index of."""
    folders = [f"cohorts/{name}" for name in sorted(store.names("cohorts"))]
    latest = {folder: f"{folder}/latest.json" for folder in folders}
    return {folder: store.read_json(key)["root"].rstrip("/") for folder, key in latest.items() if store.exists(key)}


def find_person(store: Store, root: str, participant_id: str) -> Person:
    """Gather a person's images from every index of their data set, old ones included."""
    root, roots = root.rstrip("/"), data_sets(store)
    own = tuple(folder for folder, place in roots.items() if place == root)
    withdrawn = read_withdrawals(store).people
    others = []
    for folder, place in roots.items():
        newest = store.read_json(f"{folder}/latest.json")["digest"][: layout.KEY_LENGTH]
        manifest = _manifest(store, f"{folder}/{newest}")
        gone = {person for where, person in withdrawn if where == place}
        # Another copy of the data set lists the same bytes under the same name: the same person.
        others.append(manifest[~manifest["participant_id"].isin(gone | {participant_id})])
    manifests = [_manifest(store, index) for folder in own for index in indexes_of(store, folder)]
    scans = _rows([manifest[manifest["participant_id"] == participant_id] for manifest in manifests])
    shared = _rows(others)
    images = set(scans["sha256"]) - {""}
    return Person(participant_id, root, own, scans, shared[shared["sha256"].isin(images)])


def participants(store: Store, root: str) -> set[str]:
    """Everybody whom the newest indexes of a data set list."""
    found: set[str] = set()
    for folder, place in data_sets(store).items():
        if place == root:
            newest = store.read_json(f"{folder}/latest.json")["digest"][: layout.KEY_LENGTH]
            found |= set(_manifest(store, f"{folder}/{newest}")["participant_id"])
    return found


def _manifest(store: Store, index: str) -> pd.DataFrame:
    return store.read_table(f"{index}/{MANIFEST}")


def indexes_of(store: Store, folder: str) -> list[str]:
    """Every index that a cohort has ever had."""
    return [f"{folder}/{name}" for name in sorted(store.names(folder)) if "." not in name]


def _rows(tables: list[pd.DataFrame]) -> pd.DataFrame:
    columns = ["scan_id", "cohort", "participant_id", "modality", "path", "sha256"]
    if not tables:
        return pd.DataFrame(columns=columns)
    return pd.concat(tables, ignore_index=True)[columns].drop_duplicates(ignore_index=True)
