"""Fit the declared associations of brain-PAD on the clinical cohorts."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from infra import layout
from infra.storage import Store
from tasks.records import AssociationSpec
from tasks.science.statistics.analysis import Analysis, analyse, gathered
from tasks.science.statistics.fit_record import from_record, to_record
from tasks.steps.progress import CohortState, association_key
from tasks.steps.validate import joined, predictions_of


@task(task_run_name="associate-{spec.name}", cache_policy=NO_CACHE)
def associate(store: Store, fit_key: str, spec: AssociationSpec, states: list[CohortState]) -> None:
    """Fit one association on the rows that the model could score, and keep it."""
    tables = [predictions_of(store, fit_key, state).assign(data_set=state.indexed.root) for state in states]
    table, repeated = each_person_once(joined(tables))
    unscored = int((table["status"] != "ok").sum())
    fit = analyse([spec], table[table["status"] == "ok"].reset_index(drop=True)).fits[0]
    problems = [*fit.problems]
    if repeated:
        problems.append(f"{repeated} scans stand in more than one of the cohorts; each is used once")
    if unscored:
        problems.append(f"{unscored} scans have no prediction and are left out")
    key = layout.association(association_key(fit_key, spec, states))
    store.write_json(key, to_record(replace(fit, problems=tuple(problems))))


def each_person_once(table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Drop the second copy of a scan that two cohorts of one data set share: it is no second person.

    Returns:
        The table without copies, and how many there were.
    """
    copies = table.duplicated(["data_set", "participant_id", "session_id"])
    return table[~copies].drop(columns="data_set").reset_index(drop=True), int(copies.sum())


def analysis_of(store: Store, fit_key: str, specs: tuple[AssociationSpec, ...], states: list[CohortState]) -> Analysis:
    """Everything that a study's associations came to, as the store keeps it, corrected by declared family."""
    keys = [layout.association(association_key(fit_key, spec, cohorts_of(spec, states))) for spec in specs]
    return gathered([from_record(store.read_json(key)) for key in keys])


def association_table(
    store: Store, fit_key: str, specs: tuple[AssociationSpec, ...], states: list[CohortState]
) -> pd.DataFrame:
    """All associations of the study in one table; see `Analysis.effects`."""
    return analysis_of(store, fit_key, specs, states).effects if specs else pd.DataFrame()


def cohorts_of(spec: AssociationSpec, states: list[CohortState]) -> list[CohortState]:
    """The cohorts that an association names."""
    return [state for state in states if state.spec.name in spec.cohorts]
