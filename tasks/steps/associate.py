"""Fit the declared associations of brain-PAD on the clinical cohorts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from infra import layout
from infra.storage import Store
from tasks.records import AssociationSpec
from tasks.science.statistics.association import COLUMNS, fit_association
from tasks.science.statistics.multiplicity import benjamini_hochberg
from tasks.steps.progress import CohortState, association_key
from tasks.steps.validate import joined, predictions_of


@task(task_run_name="associate-{spec.name}", cache_policy=NO_CACHE)
def associate(store: Store, fit_key: str, spec: AssociationSpec, states: list[CohortState]) -> None:
    """Fit one association on the rows that the model could score, and keep it."""
    tables = [predictions_of(store, fit_key, state).assign(data_set=state.indexed.root) for state in states]
    table, repeated = each_person_once(joined(tables))
    unscored = int((table["status"] != "ok").sum())
    fit = fit_association(spec, table[table["status"] == "ok"].reset_index(drop=True))
    problems = [*fit.problems]
    if repeated:
        problems.append(f"{repeated} scans stand in more than one of the cohorts; each is used once")
    if unscored:
        problems.append(f"{unscored} scans have no prediction and are left out")
    record = {
        "name": spec.name,
        "formula": spec.formula,
        "method": fit.method,
        "n_used": int(fit.n_used),
        "n_dropped": _plain(fit.n_dropped),
        "problems": problems,
        "coefficients": _records(fit.coefficients),
    }
    store.write_json(layout.association(association_key(fit_key, spec, states)), record)


def each_person_once(table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Drop the second copy of a scan that two cohorts of one data set share: it is no second person.

    Returns:
        The table without copies, and how many there were.
    """
    copies = table.duplicated(["data_set", "participant_id", "session_id"])
    return table[~copies].drop(columns="data_set").reset_index(drop=True), int(copies.sum())


def association_table(
    store: Store, fit_key: str, specs: tuple[AssociationSpec, ...], states: list[CohortState]
) -> pd.DataFrame:
    """All associations of the study in one table; the FDR family is every term of interest in it.

    A model that could not be fitted is a row without a term, whose `problems` say why.
    """
    tables = []
    for spec in specs:
        record = store.read_json(layout.association(association_key(fit_key, spec, cohorts_of(spec, states))))
        coefficients = pd.DataFrame(record["coefficients"] or [{"term": None, "of_interest": True}])
        coefficients = coefficients.reindex(columns=list(COLUMNS)).drop(columns=["model", "n_used"])
        facts = {name: record[name] for name in ("formula", "method", "n_used")}
        facts |= {"model": record["name"], "n_dropped": sum(record["n_dropped"].values())}
        tables.append(coefficients.assign(**facts, problems=[record["problems"]] * len(coefficients)))
    if not tables:
        return pd.DataFrame()
    table = pd.concat(tables, ignore_index=True)
    numeric = ["estimate", "se", "statistic", "df", "p_value", "ci_low", "ci_high", "q_value"]
    table[numeric] = table[numeric].astype(float)
    family = table["of_interest"].astype(bool) & table["p_value"].notna()
    table.loc[family, "q_value"] = benjamini_hochberg(table.loc[family, "p_value"])
    return table


def cohorts_of(spec: AssociationSpec, states: list[CohortState]) -> list[CohortState]:
    """The cohorts that an association names."""
    return [state for state in states if state.spec.name in spec.cohorts]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    # JSON has no NaN: what is undefined is null, and becomes NaN again when it is read.
    return [{str(name): _plain(value) for name, value in row.items()} for row in table.to_dict("records")]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return json.loads(json.dumps(value))
