"""Gather a finished study into one HTML page, keep it, and attach it to the MLflow run."""

from __future__ import annotations

import io
import platform
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import task
from prefect.artifacts import create_link_artifact
from prefect.cache_policies import NO_CACHE

from infra import layout, tracking
from infra.decisions import Chain
from infra.settings import Settings
from infra.storage import Store, replace_file
from infra.study import Study
from tasks.records import digest
from tasks.science.report.cautions import find_cautions
from tasks.science.report.contents import ReportContents
from tasks.science.report.page import render_report
from tasks.science.statistics.formula import parse
from tasks.steps.associate import analysis_of
from tasks.steps.compare import gather_comparison
from tasks.steps.explain import explanations_of
from tasks.steps.members import member_key, members_of
from tasks.steps.progress import CohortState, FittedModel, association_key, validation_key
from tasks.steps.publish import publication_of
from tasks.steps.quality_report import contact_sheets, quality_figures, quality_flags
from tasks.steps.robustness import robustness_key, stored_robustness
from tasks.steps.validate import joined, predictions_of
from tasks.steps.validation_tables import NAMES

EXAMPLES = 4
PREDICTION_COLUMNS = ("predicted_age_years", "brain_pad_years", "corrected_brain_pad_years", "sex", "site", "reason")


def report_key(study: Study, models: list[FittedModel]) -> str:
    """Names the report of one state of a study: whatever it shows is part of the name."""
    return digest(["report", 8, study.digest(), [_model_key(model) for model in models]])


def _model_key(model: FittedModel) -> list[Any]:
    study, states, scored = model.study, model.states, model.scored
    parts = [
        [
            state.counts,
            state.rows_digest,
            state.clinical_digest,
            list(map(asdict, state.excluded)),
            _irregularities(state),
        ]
        for state in states
    ]
    specs = [
        association_key(model.fit_key, spec, [s for s in scored if s.spec.name in spec.cohorts])
        for spec in study.associations
    ]
    registered = [model.registered["uri"], model.registered["run_id"]]
    decided = [model.decision["mark"] if model.decision else "", champion_since(model.chain)]
    validation = [validation_key(study, model.fit_key, scored), robustness_key(model)]
    return [model.fit_key, registered, parts, validation, specs, decided]


def champion_since(chain: Chain) -> tuple[str, int] | None:
    """The version in use, and the number of the decision by which it is; later ones that changed nothing are no part.

    A version's own decision cannot tell this: a rollback, or a later version, changes who is champion and not that.
    """
    changes = [each["number"] for each in chain.decisions if each["champion_after"] != each["champion_before"]]
    return (chain.champion, int(changes[-1])) if chain.champion and changes else None


@task(task_run_name="report-{study.name}", cache_policy=NO_CACHE)
def write_report(
    study: Study,
    study_text: str,
    settings: Settings,
    store: Store,
    models: list[FittedModel],
) -> Path:
    """Render the report, keep it in the store and on this machine, and link it from MLflow and Prefect."""
    contents = gather(study_text, store, models)
    page = render_report(replace(contents, cautions=find_cautions(contents)))
    key = layout.report(report_key(study, models))
    path = local_report(settings, study)
    replace_file(path, page.encode())
    client = tracking.connect(settings)
    for model in models:
        tracking.log_file(client, model.registered["run_id"], path, "report")
        tracking.add_tags(client, model.registered["run_id"], {"padflow.report": store.uri(key)})
    create_link_artifact(link=path.as_uri(), link_text=f"Report of {study.name}", description=store.uri(key))
    # Last, since the store says what is done: a report that never reached MLflow is written again.
    store.write(key, page.encode())
    return path


def local_report(settings: Settings, study: Study) -> Path:
    """Where the newest report of a study lies on this machine."""
    return settings.home / "reports" / f"{study.name}.html"


def gather(study_text: str, store: Store, models: list[FittedModel]) -> ReportContents:
    """Read everything that the report shows from the store: the first model in full, the others in comparison."""
    primary = models[0]
    study, states, record, registered = primary.study, primary.states, primary.record, primary.registered
    fit_key, scored = primary.fit_key, primary.scored
    predictions = [predictions_of(store, fit_key, state) for state in scored if not state.spec.apart]
    table = joined(predictions) if predictions else pd.DataFrame()
    table = table.reindex(columns=[*table.columns, *(c for c in PREDICTION_COLUMNS if c not in table)])
    exclusions = [asdict(e) | {"cohort": state.spec.name} for state in states for e in state.excluded]
    curves = [
        pd.read_csv(io.BytesIO(store.read(member_key(fit_key, member, "curves.csv")))).assign(seed=member.name)
        for member in members_of(study)
    ]
    validation = _validation(store, primary)
    return ReportContents(
        study_name=study.name,
        study_digest=study.digest(),
        study_text=study_text,
        flow=pd.DataFrame([{"cohort": s.spec.name, "role": s.spec.role, **s.counts} for s in states]),
        exclusions=pd.DataFrame(exclusions, columns=["cohort", "scan_id", "stage", "reason"]),
        training=_training_facts(record),
        curves=pd.concat(curves, ignore_index=True),
        metrics=store.read_table(layout.validation(validation_key(study, fit_key, scored)))
        if scored
        else pd.DataFrame(),
        predictions=table,
        analysis=analysis_of(store, fit_key, study.associations, scored),
        publication=publication_of(store, primary),
        group_column=_group_column(study, table),
        montages=_examples(store, scored or states),
        quality=quality_figures(store, states),
        flags=quality_flags(study, store, states),
        sheets=contact_sheets(study, store, states),
        explanations=tuple(one for model in models for one in explanations_of(store, model)),
        provenance=_provenance(study, store, record, registered, states),
        coverage=validation.get("coverage", pd.DataFrame()),
        validation=validation,
        comparison=gather_comparison(store, models),
        unit=study.target.unit,
        decision=primary.decision,
        champion=champion_since(primary.chain),
        target=study.target.words,
    )


def _validation(store: Store, model: FittedModel) -> dict[str, pd.DataFrame]:
    """The tables beside the metrics, as validation has left them."""
    if not model.scored:
        return {}
    key = validation_key(model.study, model.fit_key, model.scored)
    tables = {name: store.read_table(layout.validation_table(key, name, "parquet")) for name in NAMES}
    growth, scans = stored_robustness(store, model)
    return {**tables, "robustness": growth, "robustness-scans": scans}


def _training_facts(record: dict[str, Any]) -> dict[str, Any]:
    members = list(record["members"].values())
    first = members[0]
    return {
        "n_subjects": record["subjects_by_split"],
        "n_scans": record["scans_by_split"],
        "members": len(members),
        "seeds": ", ".join(map(str, record["seeds"])),
        "best_epoch": first["best_epoch"],
        "epochs": first["epochs_run"],
        "best_val_mae_years": float(np.mean([member["val_mae_years"] for member in members])),
        "duration_s": float(sum(member["duration_s"] for member in members)),
        "age_range_years": record["age_range_years"],
        "age_bias": record["age_bias"] or f"not fitted: {record['why_no_age_bias']}",
        "hardware": first["device"],
        "processes": first["world_size"],
    }


def _group_column(study: Study, table: pd.DataFrame) -> str | None:
    """The first categorical predictor that an association declares: what the brain-PAD figure compares."""
    for spec in study.associations:
        for name in parse(spec.formula).columns:
            if name in table and name not in ("sex", "site") and not pd.api.types.is_numeric_dtype(table[name]):
                return name
    return None


def _examples(store: Store, states: list[CohortState]) -> tuple[tuple[str, bytes], ...]:
    scans = pd.concat([state.prepared for state in states], ignore_index=True).sort_values("age_years")
    if scans.empty:
        return ()
    chosen = scans.iloc[np.unique(np.linspace(0, len(scans) - 1, EXAMPLES).round().astype(int))]
    pictures = []
    for row in chosen.to_dict("records"):
        png = store.read(layout.montage(states[0].recipe_key, str(row["sha256"])))
        pictures.append((f"{row['scan_id']}, {row['age_years']:.0f} years", png))
    return tuple(pictures)


def _irregularities(state: CohortState) -> str:
    """What the index found odd, by kind; `padflow index` says each."""
    kinds = state.indexed.tables.problems["kind"].value_counts()
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none"


def _provenance(
    study: Study, store: Store, record: dict[str, Any], registered: dict[str, Any], states: list[CohortState]
) -> dict[str, Any]:
    return {
        "model": {
            "registered as": f"{registered['name']}, version {registered['version']}",
            "load it by": registered["uri"],
            "MLflow run": registered["run_id"],
            "fit": record["fit_key"],
        },
        "data": {
            "store": store.url,
            "recipe digest": states[0].recipe_key,
            **{f"manifest of {state.spec.name}": state.indexed.digest for state in states},
            **{f"irregularities of {state.spec.name}": _irregularities(state) for state in states},
        },
        "environment": {**tracking.environment(), "system": platform.system()},
    }
