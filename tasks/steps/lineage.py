"""From a model to the scans that it was trained on, and from a scan to every model: from the store and the registry."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from infra import layout
from infra.storage import Store

COLUMNS = ["participant_id", "session_id", "scan_id", "sha256", "role"]


@dataclass(frozen=True)
class Fit:
    """One fit that lies in the store.

    Attributes:
        key: Names it.
        scans: Its scans: `COLUMNS` and `images`, SHA-256 of each image, joined by blanks. `role` is train, validation,
            calibration or test; several, where members of a cross-validation differ.
    """

    key: str
    scans: pd.DataFrame


def fits(store: Store) -> list[Fit]:
    """Every whole fit of a store."""
    return [fit for folder in sorted(store.names("fits")) if (fit := fit_in(store, folder)) is not None]


def fit_in(store: Store, fit_key: str) -> Fit | None:
    """The fit of a key, or of the beginning of one; None where it is not whole."""
    if not store.exists(layout.fit_record(fit_key)):
        return None
    record = store.read_json(layout.fit_record(fit_key))
    rows = store.read_table(f"{layout.fit_folder(fit_key)}/rows.parquet")
    # Fits of earlier versions tell neither the parts of each member nor the images of a session.
    rows = rows.assign(role=rows.get("parts", rows["split"]), images=rows.get("images", rows["sha256"]))
    return Fit(str(record["fit_key"]), rows[[*COLUMNS, "images"]].sort_values("scan_id", ignore_index=True))


def scans_of_images(fit: Fit, names: Collection[str]) -> pd.DataFrame:
    """The fit's scans that were prepared under one of some keys, or from one of some images."""
    made_from = fit.scans["images"].map(lambda images: not set(images.split()).isdisjoint(names))
    return fit.scans[fit.scans["sha256"].isin(names) | made_from.astype(bool)]


def scans_of_subject(fit: Fit, participant_id: str, cohort: str | None) -> pd.DataFrame:
    """The fit's scans of a person, by name; in one cohort, or in whichever has somebody of that name."""
    labels = fit.scans["participant_id"]
    wanted = labels == f"{cohort}/{participant_id}" if cohort else labels.str.endswith(f"/{participant_id}")
    return fit.scans[wanted]


def versions_of(client: MlflowClient | None, fit_key: str) -> list[dict[str, Any]]:
    """Name, version and aliases under which a fit stands in the registry now."""
    if client is None:
        return []
    found = client.search_model_versions(f"tags.`padflow.fit_key` = '{fit_key}'")
    return [version_facts(client, version) for version in sorted(found, key=lambda one: (one.name, int(one.version)))]


def version_facts(client: MlflowClient, version: ModelVersion) -> dict[str, Any]:
    """What is shown of a version; a search leaves its aliases out."""
    aliases = client.get_registered_model(version.name).aliases
    return {
        "model": f"models:/{version.name}/{version.version}",
        "aliases": sorted(alias for alias, number in aliases.items() if str(number) == str(version.version)),
        "run_id": version.run_id,
    }


def scored(store: Store, scan_keys: Collection[str]) -> pd.DataFrame:
    """Predictions of scans by models that may never have been trained on them.

    Returns:
        Columns table (its key in the store), scan_id, scan_key, fit_key and model_version.
    """
    tables = []
    for name in sorted(store.names("predictions")):
        table = store.read_table(f"predictions/{name}")
        if "scan_key" in table:
            found = table[table["scan_key"].isin(scan_keys)]
            tables.append(found.assign(table=f"predictions/{name}"))
    columns = ["table", "scan_id", "scan_key", "fit_key", "model_version"]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)
