"""A study's associations reach its model's run and its report as the files that a manuscript takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mlflow import MlflowClient

from infra import layout
from infra.settings import Settings
from infra.storage import Store
from infra.study import CohortSpec
from tasks.records import AssociationSpec
from tasks.science.report.association_section import association_section
from tasks.science.statistics.association import fit_association
from tasks.science.statistics.fit_record import to_record
from tasks.steps.associate import analysis_of
from tasks.steps.progress import CohortState, FittedModel, association_key
from tasks.steps.publish import packed, publication_key, publication_of, publish_associations

from ..science.report.made_up_analysis import clinic
from .test_compare import with_folds

SPEC = AssociationSpec("edss", "brain_pad_years ~ edss + age_years", cohorts=("clinic",), effects=("edss",))


def test_files_are_packed_alike_whenever_they_are_packed() -> None:
    files = {"tables/effects.csv": b"a,b\n1,2\n", "methods.txt": b"Nothing ran."}
    assert packed(files) == packed(dict(files))


def test_what_is_published_is_in_the_run_and_in_the_report(
    tmp_path: Path, registry: tuple[Settings, MlflowClient, str]
) -> None:
    settings, client, run_id = registry
    store = Store(str(tmp_path / "store"), tmp_path / "cache")
    table = clinic(60, sessions=1)
    columns = ["scan_id", "participant_id", "session_id", "sha256", "age_years", "target_years"]
    prepared = table.assign(scan_id=table["participant_id"], sha256="0", target_years=table["age_years"])[columns]
    prepared = prepared.fillna({"age_years": 40.0, "target_years": 40.0})
    state = CohortState(CohortSpec("clinic", "clinical", "clinic"), None, None, "r", (), prepared, ())  # type: ignore[arg-type]
    study = replace(with_folds(0).arms[0], associations=(SPEC,))
    model = FittedModel(study, [state], {"fit_key": "f" * 16}, {"run_id": run_id})
    key = layout.association(association_key(model.fit_key, SPEC, [state]))
    store.write_json(key, to_record(fit_association(SPEC, table)))
    assert publication_of(store, model) == {}

    publish_associations.fn(settings, store, model, with_figures=True)
    files = publication_of(store, model)
    place = client.get_run(run_id).data.tags["padflow.associations"]
    found = {item.path.removeprefix(f"{place}/") for item in client.list_artifacts(run_id, f"{place}/figures")}
    assert found == {name for name in files if name.startswith("figures/")}
    assert {"methods.txt", "report.html", "tables/effects.tex", "figures/partial-regression-edss-edss.pdf"} <= set(
        files
    )

    section = association_section(analysis_of(store, model.fit_key, study.associations, [state]), files)
    assert section is not None
    assert {figure.drawing.name for part in section.models for figure in part.figures} == {
        "figure-partial-regression-edss-edss",
        "figure-coefficients-edss",
    }
    # Models that are compared with the first get their tables alone, under a key of their own.
    publish_associations.fn(settings, store, model, with_figures=False)
    assert store.exists(publication_key(model, with_figures=False))
    assert publication_key(model, with_figures=False) != publication_key(model, with_figures=True)
