"""MLflow tracking: one run per fit, logged from the flow's process alone, never from a training rank."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from infra.settings import Settings

PARAMETER_LIMIT = 500


def connect(settings: Settings) -> MlflowClient:
    """Point MLflow at the settings' servers; an embedded database is made here, before anything parallel."""
    if settings.tracking_uri.startswith("sqlite:"):
        settings.home.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(settings.tracking_uri)
    mlflow.set_registry_uri(settings.registry_uri)
    return MlflowClient(settings.tracking_uri, settings.registry_uri)


def experiment_id(client: MlflowClient, settings: Settings, name: str) -> str:
    """The study's experiment; with the embedded database its artefacts lie beside it, not in the working folder."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    embedded = settings.tracking_uri.startswith("sqlite:")
    location = (settings.home / "mlartifacts" / name).as_uri() if embedded else None
    return str(client.create_experiment(name, artifact_location=location))


def start_run(client: MlflowClient, experiment: str, name: str, tags: Mapping[str, str]) -> str:
    """Open a run and give its id."""
    return str(client.create_run(experiment, run_name=name, tags=dict(tags)).info.run_id)


def log_parameters(client: MlflowClient, run_id: str, values: Mapping[str, Any]) -> None:
    """Log nested settings as dotted parameters."""
    flat = [Param(name, str(value)[:PARAMETER_LIMIT]) for name, value in flatten(values).items()]
    client.log_batch(run_id, params=flat)


def log_curves(client: MlflowClient, run_id: str, prefix: str, curves: pd.DataFrame) -> None:
    """Log one metric per column of a table of epochs; undefined cells are left out."""
    import time

    now = int(time.time() * 1000)
    columns = [column for column in curves.columns if column != "epoch"]
    points = [
        Metric(f"{prefix}/{column}" if prefix else column, float(row[column]), now, int(row["epoch"]))
        for row in curves.to_dict("records")
        for column in columns
        if pd.notna(row[column])
    ]
    for start in range(0, len(points), 1000):
        client.log_batch(run_id, metrics=points[start : start + 1000])


def log_metrics(client: MlflowClient, run_id: str, values: Mapping[str, float]) -> None:
    """Log single figures; a figure that is not a number is not logged."""
    for name, value in values.items():
        if value == value:
            client.log_metric(run_id, name, float(value))


def log_file(client: MlflowClient, run_id: str, path: Path, folder: str | None = None) -> None:
    """Attach a file to a run."""
    client.log_artifact(run_id, str(path), folder)


def log_folder(client: MlflowClient, run_id: str, folder: Path, name: str) -> None:
    """Attach a folder's files to a run, as a folder of that name."""
    client.log_artifacts(run_id, str(folder), name)


def log_text(client: MlflowClient, run_id: str, text: str, name: str) -> None:
    """Attach a text to a run."""
    client.log_text(run_id, text, name)


def finish_run(client: MlflowClient, run_id: str, succeeded: bool) -> None:
    """Close a run."""
    client.set_terminated(run_id, "FINISHED" if succeeded else "FAILED")


def add_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Add tags to a run."""
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def environment() -> dict[str, str]:
    """What the fit ran on: enough to repeat it, nothing that identifies a user or holds a secret."""
    from infra.layout import library_versions

    names = ("torch", "pytorch-lightning", "numpy", "scipy", "SimpleITK", "nibabel", "pandas", "mlflow", "prefect")
    return {"python": platform.python_version(), "machine": platform.machine(), **library_versions(*names, "dask")}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names for nested settings.

    >>> flatten({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
