"""From a prediction to what made it, and from a scan to every model that was trained on it."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from infra import layout, registry, tracking
from infra.settings import Settings, load_settings
from infra.storage import Store, read_uri
from tasks.steps.card import FACTS, FOLDER, MARKDOWN, PAGE
from tasks.steps.lineage import Fit, fit_in, fits, scans_of_images, scans_of_subject, scored, version_facts, versions_of

SEPARATORS = {".csv": ",", ".tsv": "\t"}
PARQUET = ".parquet"


def lineage_of_models(what: str) -> list[dict[str, Any]]:
    """What models were made of.

    Args:
        what: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, a fit key, or a table that `padflow predict --out` wrote.

    Returns:
        Of each model: version and aliases, study, digests of recipe and manifests, and its scans with their parts.
    """
    settings = load_settings()
    client = tracking.connect(settings) if settings.has_registry else None
    store = Store(settings.store, settings.cache, settings.cache_bytes)
    suffix = what[what.rfind(".") :]
    named = _named_in(what, suffix) if suffix in (*SEPARATORS, PARQUET) else [what]
    return [
        _of_version(client, store, one) if one.startswith("models:/") else _of_fit(client, store, one) for one in named
    ]


def _of_fit(client: MlflowClient | None, store: Store, fit_key: str) -> dict[str, Any]:
    fit = fit_in(store, fit_key) if len(fit_key) >= layout.KEY_LENGTH and fit_key.isalnum() else None
    if fit is None:
        raise ValueError(
            f"{fit_key}: no fit of that key in {store.url}; expected models:/NAME@ALIAS, models:/NAME/VERSION, the key "
            "of a fit, or a table of predictions (.csv, .tsv, .parquet)"
        )
    return _described(client, fit, versions_of(client, fit.key))


def _named_in(url: str, suffix: str) -> list[str]:
    """The versions that a table of predictions names; the fits, where it comes from a server that knew no version."""
    content = io.BytesIO(read_uri(url))
    table = pd.read_parquet(content) if suffix == PARQUET else pd.read_csv(content, sep=SEPARATORS[suffix])
    for column in ("model_version", "fit_key"):
        if column in table:
            return sorted(set(table[column].dropna().astype(str)))
    raise ValueError(f"{url}: found no column model_version or fit_key; expected a table of predictions")


def _of_version(client: MlflowClient | None, store: Store, uri: str) -> dict[str, Any]:
    if client is None:
        raise ValueError(f"{uri}: there is no registry at MLFLOW_REGISTRY_URI (or --home)")
    name, number = registry.exact_version(client, uri).removeprefix("models:/").rsplit("/", 1)
    try:
        version = client.get_model_version(name, number)
    except MlflowException as error:
        raise ValueError(f"{uri}: {error.message}") from error
    fit_key = str(version.tags.get("padflow.fit_key", ""))
    fit = fit_in(store, fit_key) if fit_key else None
    if fit is None:
        raise ValueError(f"{uri}: its fit {fit_key[:16] or '(none)'} is not in {store.url}; give the study's --store")
    return _described(client, fit, [version_facts(client, version)])


def _described(client: MlflowClient | None, fit: Fit, versions: list[dict[str, Any]]) -> dict[str, Any]:
    logged: dict[str, str] = {}
    study = ""
    if client is not None and versions:
        run = client.get_run(versions[0]["run_id"])
        logged, study = run.data.params, client.get_experiment(run.info.experiment_id).name
    return {
        "fit_key": fit.key,
        "versions": versions,
        "study": study,
        "digests": {name: value for name, value in logged.items() if "_digest" in name},
        "scans_by_role": {str(role): int(n) for role, n in fit.scans["role"].value_counts().items()},
        "scans": fit.scans.drop(columns="images").to_dict("records"),
    }


def models_of_scans(subject: str | None, cohort: str | None, scan: str | None) -> dict[str, Any]:
    """Every model that was trained on a person's scans, or on an image, and what was predicted for them.

    Args:
        subject: participant_id.
        cohort: Its cohort; none: whichever has somebody of that name.
        scan: SHA-256 of an image, or the key of a prepared scan.
    """
    settings: Settings = load_settings()
    client = tracking.connect(settings) if settings.has_registry else None
    store = Store(settings.store, settings.cache, settings.cache_bytes)
    models, keys = [], {scan} if scan else set()
    for fit in fits(store):
        found = scans_of_images(fit, {scan}) if scan else scans_of_subject(fit, _participant(subject), cohort)
        if len(found):
            keys |= set(found["sha256"])
            shown = found.drop(columns="images").to_dict("records")
            models.append({"fit_key": fit.key, "versions": versions_of(client, fit.key), "scans": shown})
    keys |= set() if scan else _keys_of(store, _participant(subject), cohort)
    return {"models": models, "predictions": scored(store, keys).to_dict("records")}


def _participant(subject: str | None) -> str:
    if not subject:
        raise ValueError("say of whom: a MODEL, --subject sub-01, or --scan with the SHA-256 of an image")
    return subject if subject.startswith("sub-") else f"sub-{subject}"


def _keys_of(store: Store, participant_id: str, cohort: str | None) -> set[str]:
    """Hashes of a person's images by the newest indexes."""
    found: set[str] = set()
    for folder in store.names("cohorts"):
        latest = f"cohorts/{folder}/latest.json"
        if not store.exists(latest) or (cohort and folder.rsplit("-", 1)[0] != cohort):
            continue
        manifest = store.read_table(
            f"cohorts/{folder}/{store.read_json(latest)['digest'][: layout.KEY_LENGTH]}/manifest.parquet"
        )
        found |= set(manifest.loc[manifest["participant_id"] == participant_id, "sha256"]) - {""}
    return found


def model_card(uri: str, kind: str) -> str:
    """A registered model's card: `json`, `md` or `html`.

    Raises:
        ValueError: There is no such model, or nobody wrote a card for it.
    """
    client = tracking.connect(load_settings())
    name, number = registry.exact_version(client, uri).removeprefix("models:/").rsplit("/", 1)
    file = {"json": FACTS, "md": MARKDOWN, "html": PAGE}[kind]
    try:
        version = client.get_model_version(name, number)
        return registry.artifact_text(str(version.run_id), f"{FOLDER}/{file}")
    except (MlflowException, OSError) as error:
        raise ValueError(f"{uri}: found no model card ({error}); expected one that padflow registered") from error
