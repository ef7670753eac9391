"""A person withdraws consent: what was made of their scans goes, and their scans stay excluded."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from infra.settings import Settings
from infra.storage import Store, replace_file
from tasks.steps.exclusions import cache_folder
from tasks.steps.lineage import fits, scans_of_images, versions_of
from tasks.steps.members import NOT_USED
from tasks.steps.person import Person
from tasks.steps.publish import MLFLOW_FOLDER
from tasks.steps.traces import Traces, csv_table, may_show, read_any_table, rows_that_go, shows
from tasks.steps.withdrawal import read_withdrawals, record_withdrawal

TAG = "padflow.trained_on_withdrawn"
OUT_OF_REACH = (
    "the cohorts' indexes, every one that there has been: name, path, size and hash of each of the person's files "
    "(manifest.parquet), and what was odd about them (problems.parquet). By these and by the record of the withdrawal "
    "their scans are known, excluded and found by this command again; the next index lists the files anew as long as "
    "they lie in the data set",
    "raw data, which padflow never deletes: the person's files and rows of participants.tsv stay where they are until "
    "you remove them",
    "weights of models that are named above: only training them anew without the person takes them back",
    "the list of each fit's scans (names, ages, hashes), by which this very question is answered, and which part of "
    "the study a person's name is in",
    "group figures of earlier runs: metrics, and mean maps with the names of the scans that they are the mean of",
    "exports (`padflow export` again names what is left over there), tables written by `padflow predict --out`, copies "
    "on other machines, and old versions where a bucket keeps them",
)


def models_trained_on(client: MlflowClient | None, traces: Traces) -> list[dict[str, Any]]:
    """Every fit that one of the scans played a part in, with its versions in the registry."""
    found = []
    for fit_key, scans in traces.fits.items():
        roles = sorted(set(", ".join(scans["role"]).split(", ")))
        found.append(
            {"fit_key": fit_key, "roles": roles, "scans": len(scans), "versions": versions_of(client, fit_key)}
        )
    return found


def forget(settings: Settings, store: Store, client: MlflowClient | None, person: Person, traces: Traces) -> None:
    """Take everything away that `find_traces` found. A run that was cut short is ended by another.

    The record comes first, so that a run that starts meanwhile leaves the scans alone; clinical tables are the one kind
    of object that changes under its key.
    """
    record_withdrawal(store, person.root, person.participant_id, person.own_images)
    for key in traces.rows:
        table = read_any_table(store, key)
        rest = table[~rows_that_go(table, person, traces.names)].reset_index(drop=True)
        if key.endswith(".csv"):
            store.write(key, rest.to_csv(index=False).encode())
        else:
            store.write_table(key, rest)
    for key in traces.objects:
        try:
            store.delete(key)
        except FileNotFoundError:
            continue
    for path in traces.files:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    _forget_cached_exclusions(store, traces)
    if client is not None:
        _clean_runs(client, person, traces)
        tag_versions(client, store, traces)


def tag_versions(client: MlflowClient, store: Store, traces: Traces) -> None:
    """Say at each registered version how many people who have withdrawn consent it was trained on."""
    images = read_withdrawals(store).images
    for fit in fits(store):
        scans = pd.concat([scans_of_images(fit, images), traces.fits.get(fit.key, fit.scans.head(0))])
        people = scans.loc[scans["role"] != NOT_USED, "participant_id"].nunique()
        for version in versions_of(client, fit.key) if people else []:
            name, number = version["model"].removeprefix("models:/").rsplit("/", 1)
            client.set_model_version_tag(name, number, TAG, f"{people} subject{'s' * (people != 1)}")


def _forget_cached_exclusions(store: Store, traces: Traces) -> None:
    for path in cache_folder(store).glob("*.json"):
        kept = json.loads(path.read_bytes())
        if not traces.names.keys.isdisjoint(kept):
            rest = {key: told for key, told in kept.items() if key not in traces.names.keys}
            replace_file(path, json.dumps(rest).encode())


def _clean_runs(client: MlflowClient, person: Person, traces: Traces) -> None:
    """MLflow's copies of tables with a row per scan, and of reports and figures, which show one."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    for run in client.search_runs(experiments, "tags.`padflow.fit_key` != ''") if experiments else []:
        run_id = run.info.run_id
        try:
            paths = _artifacts(client, run_id)
            published = {path for path in paths if path.startswith(f"{MLFLOW_FOLDER}/")}
            for path in {*paths} - published:
                if path.endswith(".csv"):
                    _rewrite_table(client, run_id, path, person, traces)
            gone = [
                path
                for path in paths
                if path.startswith("report/") and shows(_downloaded(client, run_id, path), person)
            ]
            # A publication goes as a whole: its pictures cannot be searched.
            tables = [path for path in sorted(published) if path.endswith((".csv", ".md", ".html"))]
            named = [path for path in tables if may_show(_downloaded(client, run_id, path), person)]
            gone += sorted({"/".join(path.split("/")[:2]) for path in named})
            files = get_artifact_repository(run.info.artifact_uri)
            for path in gone:
                files.delete_artifacts(path)
        except (MlflowException, OSError) as error:
            raise OSError(f"MLflow run {run_id}: {error}. Run the same command again.") from error


def _artifacts(client: MlflowClient, run_id: str, folder: str | None = None) -> list[str]:
    paths = []
    for item in client.list_artifacts(run_id, folder):
        paths += _artifacts(client, run_id, item.path) if item.is_dir else [item.path]
    return paths


def _rewrite_table(client: MlflowClient, run_id: str, path: str, person: Person, traces: Traces) -> None:
    table = csv_table(_downloaded(client, run_id, path))
    theirs = rows_that_go(table, person, traces.names)
    if theirs.any():
        client.log_text(run_id, table[~theirs].to_csv(index=False), path)


def _downloaded(client: MlflowClient, run_id: str, path: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run_id, path, folder)).read_bytes()
