"""Who has withdrawn consent, from the store: their scans stay excluded from every later run."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pandas as pd

from infra import layout
from infra.storage import Store

FOLDER = "withdrawn"


@dataclass(frozen=True)
class Withdrawals:
    """People and images that are not used any more.

    Attributes:
        people: BIDS root and participant_id of each.
        images: SHA-256 of their images that nobody else's equal, wherever they turn up.
    """

    people: frozenset[tuple[str, str]] = frozenset()
    images: frozenset[str] = frozenset()

    def scan_ids(self, root: str, manifest: pd.DataFrame) -> frozenset[str]:
        """Scans of a data set's manifest that are theirs: by their name in this root, or by their bytes in any."""
        gone = manifest["participant_id"].isin(self._of(root)) | manifest["sha256"].isin(self.images)
        return frozenset(manifest.loc[gone, "scan_id"].astype(str))

    def without_people(self, root: str, table: pd.DataFrame) -> pd.DataFrame:
        """A table of a data set without their rows."""
        gone = table["participant_id"].isin(self._of(root))
        return table[~gone].reset_index(drop=True) if gone.any() else table

    def _of(self, root: str) -> set[str]:
        return {person for place, person in self.people if place == root}


def read_withdrawals(store: Store) -> Withdrawals:
    """Everybody's, by one listing and one small object each."""
    keys = sorted(f"{FOLDER}/{name}" for name in store.names(FOLDER) if name.endswith(".json"))
    records = [json.loads(text) for text in store.read_many(keys)] if keys else []
    people = frozenset((record["root"], record["participant_id"]) for record in records)
    return Withdrawals(people, frozenset(image for record in records for image in record["images"]))


def record_withdrawal(store: Store, root: str, participant_id: str, images: set[str]) -> None:
    """Write down that a person's scans must not be used; what an earlier record holds is kept."""
    key = layout.withdrawal(root, participant_id)
    earlier = set(store.read_json(key)["images"]) if store.exists(key) else set()
    store.write_json(key, {"root": root, "participant_id": participant_id, "images": sorted(images | earlier)})
