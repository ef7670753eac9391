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
from tasks.science.statistics.association import AssociationFit, fit_association
from tasks.science.statistics.multiplicity import add_fdr
from tasks.steps.progress import CohortState, association_key
from tasks.steps.validate import predictions_of


@task(task_run_name="associate-{spec.name}", cache_policy=NO_CACHE)
def associate(store: Store, fit_key: str, spec: AssociationSpec, states: list[CohortState]) -> None:
    """Fit one association on the rows that the model could score, and keep it."""
    table = pd.concat([predictions_of(store, fit_key, state) for state in states], ignore_index=True)
    unscored = int((table["status"] != "ok").sum())
    fit = fit_association(spec, table[table["status"] == "ok"].reset_index(drop=True))
    problems = [*fit.problems]
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


def read_fit(store: Store, key: str) -> tuple[AssociationFit, dict[str, Any]]:
    """An association as it was kept, with its record."""
    record = store.read_json(layout.association(key))
    fit = AssociationFit(
        name=record["name"],
        coefficients=pd.DataFrame(record["coefficients"]),
        n_used=record["n_used"],
        n_dropped=record["n_dropped"],
        method=record["method"],
        problems=record["problems"],
    )
    return fit, record


def association_table(store: Store, fit_key: str, specs: tuple[AssociationSpec, ...], states: list[CohortState]) -> Any:
    """All associations of the study in one table; the FDR family is every term of interest in it."""
    kept = [read_fit(store, association_key(fit_key, spec, cohorts_of(spec, states))) for spec in specs]
    fits = add_fdr([fit for fit, _ in kept])
    tables = []
    for fit, (_, record) in zip(fits, kept, strict=True):
        facts = {
            "model": record["name"],
            "formula": record["formula"],
            "method": record["method"],
            "n_used": record["n_used"],
            "n_dropped": sum(record["n_dropped"].values()),
            "problems": " ".join(record["problems"]),
        }
        tables.append(fit.coefficients.assign(**facts))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


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
