"""Put a study's associations into the form that a manuscript takes, and attach it to the model's MLflow run."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from infra import layout, tracking
from infra.settings import Settings
from infra.storage import Store
from tasks.records import digest
from tasks.science.report.publication import publish
from tasks.steps.associate import analysis_of, cohorts_of
from tasks.steps.progress import FittedModel, association_key

MLFLOW_FOLDER = "associations"
# The earliest date that a zip file can hold: equal files give equal archives.
UNDATED = (1980, 1, 1, 0, 0, 0)


def publication_key(model: FittedModel, with_figures: bool) -> str:
    """Names what was written of a model's associations: the fits, what drew them, and the run that has it."""
    study, scored = model.study, model.scored
    fits = [association_key(model.fit_key, spec, cohorts_of(spec, scored)) for spec in study.associations]
    versions = layout.library_versions("matplotlib", "numpy", "scipy", "pandas")
    return layout.publication(digest(["publication", 1, versions, with_figures, fits, model.registered["run_id"]]))


@task(task_run_name="publish-associations", cache_policy=NO_CACHE)
def publish_associations(settings: Settings, store: Store, model: FittedModel, with_figures: bool) -> None:
    """Write tables, figures and the methods paragraph, and log them to the model's run.

    Args:
        settings: Where MLflow is.
        store: Holds the fits, and takes the files as one archive.
        model: Every association of it is fitted.
        with_figures: Whether figures are drawn, as for the first model of a study, which the report shows; of the
            others the tables tell what the comparison needs.
    """
    key = publication_key(model, with_figures)
    # A folder of its own, since a run keeps what was logged to it: an older state of the study is not overwritten.
    place = f"{MLFLOW_FOLDER}/{Path(key).stem}"
    analysis = analysis_of(store, model.fit_key, model.study.associations, model.scored)
    files = publish(analysis, with_figures)
    client = tracking.connect(settings)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        tracking.log_folder(client, model.registered["run_id"], Path(folder), place)
    tracking.add_tags(client, model.registered["run_id"], {"padflow.associations": place})
    # Last, since the store says what is done: what never reached MLflow is written again.
    store.write(key, packed(files))


def publication_of(store: Store, model: FittedModel) -> dict[str, bytes]:
    """What was published of a study's first model, by file name; nothing where it declares no association."""
    key = publication_key(model, with_figures=True)
    if not model.study.associations or not store.exists(key):
        return {}
    with zipfile.ZipFile(io.BytesIO(store.read(key))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(files: Mapping[str, bytes]) -> bytes:
    """Pack files as a zip archive; equal files give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, UNDATED), content, compress_type=zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
