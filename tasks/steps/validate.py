"""Score cohorts by the registered model, and measure how well it predicts ages that it has never seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from infra import layout, registry, tracking
from infra.model_table import QUALITY_COLUMNS
from infra.settings import Settings
from infra.storage import Store
from infra.study import AGE_BAND, Study
from tasks.science.report.csv_files import csv_text
from tasks.science.statistics.baselines import (
    VOLUME_COLUMNS,
    fit_mean_age,
    fit_volume_baseline,
    predict_constant,
    predict_volume,
)
from tasks.science.statistics.bootstrap import age_band_months, metric_table
from tasks.science.statistics.comparison import paired_mae_table
from tasks.steps.progress import CohortState, FittedModel, predictions_key, validation_key
from tasks.steps.quality import quality_table
from tasks.steps.validation_tables import validation_tables

# Enough for the threads that fetch them from a remote store, and a few GB.
SCANS_AT_A_TIME = 256


@task(task_run_name="score-{fit_key:.8}", cache_policy=NO_CACHE)
def score_cohorts(
    settings: Settings,
    store: Store,
    fit_key: str,
    registered: dict[str, Any],
    states: list[CohortState],
    on_start: Callable[[int], Callable[[], None]],
) -> None:
    """Predict every prepared scan of the given cohorts by the model that is in the registry, and keep the table."""
    missing = [state for state in states if not store.exists(layout.predictions(predictions_key(fit_key, state)))]
    if not missing:
        return
    tracking.connect(settings)
    model = load_registered(store, registered)
    advance = on_start(sum(len(state.prepared) for state in missing))
    for state in missing:
        scans = state.prepared
        keys = [layout.prepared_volume(state.recipe_key, str(sha)) for sha in scans["sha256"]]
        outputs = predict_prepared(store, model, keys, scans["age_years"].astype(float).to_numpy(), advance)
        unreadable = outputs[outputs["status"].isin(["unreadable", "refused"])]
        if len(unreadable):
            # A fault of storage must not be kept as if it were a property of the scan.
            raise OSError(f"{len(unreadable)} prepared scans could not be read: {unreadable['reason'].iloc[0]}")
        # The store holds the quality figures of the images already, and the fit says what it cannot give.
        told = outputs.drop(columns=["absent", "quality_flags", *QUALITY_COLUMNS]).assign(
            model_version=registered["uri"]
        )
        # The scan's key in the store tells it from one of the same name in another data set.
        named = scans[["scan_id", "sha256"]].rename(columns={"sha256": "scan_key"}).reset_index(drop=True)
        table = pd.concat([named, told], axis=1)
        store.write_table(layout.predictions(predictions_key(fit_key, state)), table)


def load_registered(store: Store, registered: dict[str, Any]) -> Any:
    """The registered model, allowed to read prepared scans: those of a remote store from copies on this machine."""
    return registry.load(registered["uri"], [store.url if store.is_local else str(store.cache)])


def predict_prepared(
    store: Store, model: Any, keys: list[str], ages_years: np.ndarray, advance: Callable[[], None]
) -> pd.DataFrame:
    """One output row per prepared scan. Each is read once, so that a cohort need not fit into the cache."""
    tables = []
    for start in range(0, max(len(keys), 1), SCANS_AT_A_TIME):
        part = slice(start, start + SCANS_AT_A_TIME)
        with store.holding(keys[part]) as paths:
            inputs = pd.DataFrame({"prepared": [str(path) for path in paths], "age_years": ages_years[part]})
            tables.append(registry.predict(model, inputs, advance))
    return pd.concat(tables, ignore_index=True)


def predictions_of(store: Store, fit_key: str, state: CohortState) -> pd.DataFrame:
    """A cohort's predictions beside everything that is known of each scan's subject."""
    table = store.read_table(layout.predictions(predictions_key(fit_key, state)))
    taken = {name: f"{name}_reported" for name in [*table.columns, "role"] if name != "scan_id"}
    clinical = state.prepared.rename(columns={name: new for name, new in taken.items() if name in state.prepared})
    return clinical.assign(role=state.spec.role).merge(table, on="scan_id", validate="one_to_one")


def joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Stack cohorts' tables; a column that is text in one cohort and numbers in another becomes text."""
    kinds: dict[str, set[bool]] = {}
    for table in tables:
        for name in table.columns[table.notna().any()]:
            kinds.setdefault(str(name), set()).add(bool(pd.api.types.is_numeric_dtype(table[name])))
    mixed = [name for name, found in kinds.items() if len(found) > 1]
    text = [table.assign(**{name: table[name].astype("str") for name in mixed if name in table}) for table in tables]
    # An all-missing column carries no type; leaving it out keeps the others' types as they are.
    stacked = pd.concat([table.dropna(axis="columns", how="all") for table in text], ignore_index=True)
    return stacked.reindex(columns=list(dict.fromkeys(name for table in tables for name in table.columns)))


def volume_figures(store: Store, states: list[CohortState], scans: pd.DataFrame) -> pd.DataFrame:
    """Tissue volumes of prepared scans of the given cohorts; on the scans' index."""
    tables = [
        quality_table(store, state.spec.name, state.indexed.root, state.recipe_key, state.prepared["sha256"]).set_index(
            state.prepared["sha256"]
        )
        for state in states
        if len(state.prepared)
    ]
    known = pd.concat([table[list(VOLUME_COLUMNS)] for table in tables])
    # Cohorts may share scans, whose figures are the same.
    known = known[~known.index.duplicated()]
    return known.loc[scans["sha256"]].set_axis(scans.index)


@task(task_run_name="validate-{model.study.name}-{model.study.arm}", cache_policy=NO_CACHE)
def validate_model(store: Store, model: FittedModel) -> dict[str, pd.DataFrame]:
    """Measure the model on every external and clinical cohort beside two baselines that know no network.

    Args:
        store: Where predictions and figures lie.
        model: The fitted model with all cohorts. Baselines are fitted on its training scans alone.

    Returns:
        `metrics`: one row per cohort, predictor (`model`, `mean age`, `tissue volumes`), correction (`raw`,
        `bias-corrected`), group, level and metric; and the tables of `validation_tables`.
    """
    study, fit_key, states = model.study, model.fit_key, model.scored
    training = [state for state in model.states if state.spec.role == "train"]
    rows = store.read_table(f"{layout.fit_folder(fit_key)}/rows.parquet")
    trained = rows[rows["split"] == "train"].reset_index(drop=True)
    figures = volume_figures(store, training, trained)
    mean_age = fit_mean_age(trained["target_years"].to_numpy())
    volume = fit_volume_baseline(figures.assign(age_years=trained["target_years"])) if len(trained) > 3 else None
    tables = []
    together = [state for state in states if not state.spec.apart]
    predictions = {state.spec.name: predictions_of(store, fit_key, state) for state in together}
    for state in together:
        scored = _with_bands(study, measured(predictions[state.spec.name]))
        if scored.empty:
            continue
        by_predictor = {("model", "raw"): scored["predicted_age_years"].to_numpy()}
        if scored["corrected_age_years"].notna().all():
            by_predictor["model", "bias-corrected"] = scored["corrected_age_years"].to_numpy()
        by_predictor["mean age", "raw"] = predict_constant(mean_age, len(scored))
        if volume is not None:
            by_predictor["tissue volumes", "raw"] = predict_volume(volume, volume_figures(store, [state], scored))
        for (predictor, correction), predicted in by_predictor.items():
            table = _metrics(study, scored.assign(predicted_age_years=predicted))
            if predictor != "model":
                table = pd.concat([table, _gain(study, scored, predicted)], ignore_index=True)
            tables.append(table.assign(cohort=state.spec.name, predictor=predictor, correction=correction))
    metrics = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    known = [_with_bands(study, measured(table)) for table in predictions.values()]
    others = validation_tables(store, model, joined([table for table in known if len(table)]) if known else None)
    key = validation_key(study, fit_key, states)
    for name, table in {"metrics": metrics, **others}.items():
        store.write(layout.validation_table(key, name, "csv"), csv_text(table).encode())
    for name, table in others.items():
        store.write_table(layout.validation_table(key, name, "parquet"), table)
    # Last, since it says that the others are there.
    store.write_table(layout.validation(key), metrics)
    return {"metrics": metrics, **others}


def log_validation(settings: Settings, registered: dict[str, Any], tables: dict[str, pd.DataFrame]) -> None:
    """Show a model's validation beside its fit: every table, and the raw figures of whole cohorts."""
    client = tracking.connect(settings)
    run_id = registered["run_id"]
    metrics = tables["metrics"]
    tracking.log_text(client, run_id, csv_text(metrics), "validation.csv")
    for name, table in tables.items():
        if name != "metrics" and len(table):
            tracking.log_text(client, run_id, csv_text(table), f"validation/{name}.csv")
    if metrics.empty:
        return
    raw = metrics[(metrics["correction"] == "raw") & (metrics["group"] == "overall")]
    named = {
        f"validation/{row['cohort']}/{str(row['predictor']).replace(' ', '_')}/{row['metric']}": float(row["estimate"])
        for row in raw.to_dict("records")
    }
    tracking.log_metrics(client, run_id, named)


def measured(predictions: pd.DataFrame) -> pd.DataFrame:
    """The scans that an error can be measured on, with the target as their age: predicted, and with a known target."""
    known = (predictions["status"] == "ok") & predictions["target_years"].notna()
    rows = predictions[known].reset_index(drop=True)
    return rows.assign(age_years=rows["target_years"])


def _with_bands(study: Study, scored: pd.DataFrame) -> pd.DataFrame:
    """Bands of months where the study counts months; bands of years are made where they are needed."""
    if study.target.unit == "months" and AGE_BAND not in scored:
        return scored.assign(age_band=age_band_months(scored["age_years"]))
    return scored


def _metrics(study: Study, scored: pd.DataFrame) -> pd.DataFrame:
    groups, columns = _groups(study, scored)
    return metric_table(scored[columns], groups, study.validation.resamples, study.validation.seed)


def _groups(study: Study, scored: pd.DataFrame) -> tuple[tuple[str, ...], list[str]]:
    """The study's groups of which a cohort has several levels, and the columns that are needed to tell them."""
    several = [name for name in study.validation.groups if name in scored and scored[name].nunique(dropna=True) > 1]
    groups = tuple(name for name in study.validation.groups if name in several or name == AGE_BAND)
    made = [AGE_BAND] if AGE_BAND in scored and AGE_BAND not in several else []
    return groups, ["participant_id", "age_years", "predicted_age_years", *several, *made]


def _gain(study: Study, scored: pd.DataFrame, baseline: Any) -> pd.DataFrame:
    """The model's MAE minus a baseline's, on the same scans, for the whole and for each level."""
    groups, columns = _groups(study, scored)
    spec = study.validation
    return paired_mae_table(scored[columns], baseline, groups, spec.resamples, spec.seed).assign(
        metric="mae_difference"
    )
