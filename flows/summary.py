"""What the command line prints: where a study stands and what came out, for a person or, as JSON, for a script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from flows.decide import decision_lines
from flows.progress_bars import progress_bars
from flows.status import add_row, as_rows, cohort_json, flow_table, out
from flows.validate import fitted_models
from flows.workspace import Workspace
from infra import layout
from infra.settings import load_settings
from infra.storage import Store
from tasks.science.report.units import Unit, metrics_in_unit
from tasks.steps.associate import association_table
from tasks.steps.progress import FittedModel, excluded_share, validation_key
from tasks.steps.report import local_report


def print_summary(workspace: Workspace, as_json: bool) -> float:
    """Print a finished study's figures and where to look further; gives the share of excluded scans."""
    states = workspace.stored_states()
    models = fitted_models(workspace, states)
    metrics = pd.concat([_metrics_of(workspace.store, model) for model in models], ignore_index=True)
    associations = pd.concat([_associations_of(workspace.store, model) for model in models], ignore_index=True)
    report = local_report(workspace.settings, workspace.study)
    if as_json:
        body = {
            "cohorts": [cohort_json(state) for state in states],
            "model": _registered(models[0]),
            "models": {model.study.arm: _registered(model) for model in models},
            "decisions": {model.study.arm: model.decision for model in models},
            "metrics": as_rows(metrics),
            "associations": as_rows(associations),
            "report": str(report),
            "tracking_uri": workspace.settings.shown_tracking_uri,
        }
        print(json.dumps(body, indent=1))
    else:
        out.print(flow_table(states))
        out.print(_metrics_table(metrics, workspace.study.target.unit))
        if not associations.empty:
            out.print(_association_table(associations))
        for model in models:
            if model.decision:
                out.print("\n".join(decision_lines(model.decision, model.chain.champion or "none")), soft_wrap=True)
        _print_places(workspace, [_registered(model) for model in models], report)
    return excluded_share(states)


def _registered(model: FittedModel) -> dict[str, Any]:
    return {**model.registered, "aliases": list(model.aliases)}


def _metrics_of(store: Store, model: FittedModel) -> pd.DataFrame:
    if not model.scored:
        return pd.DataFrame()
    key = layout.validation(validation_key(model.study, model.fit_key, model.scored))
    return store.read_table(key).assign(arm=model.study.arm)


def _associations_of(store: Store, model: FittedModel) -> pd.DataFrame:
    table = association_table(store, model.fit_key, model.study.associations, model.scored)
    return table.assign(arm=model.study.arm)


def print_predictions(table: pd.DataFrame, destination: Path | None, as_json: bool) -> None:
    """Print predictions, or write them where the user asked."""
    if destination is not None:
        writers = {".csv": table.to_csv, ".tsv": lambda path, index: table.to_csv(path, sep="\t", index=index)}
        writer: Any = writers.get(destination.suffix, table.to_parquet if destination.suffix == ".parquet" else None)
        if writer is None:
            raise ValueError(f"--out {destination}: expected a name that ends in .csv, .tsv or .parquet")
        destination.parent.mkdir(parents=True, exist_ok=True)
        writer(destination, index=False)
        out.print(f"{len(table)} rows in {destination}", soft_wrap=True)
        return
    if as_json:
        print(json.dumps(as_rows(table), indent=1))
        return
    shown = Table("image", "brain age", "spread", "brain-PAD", "status", "reason, and what is unusual")
    for row in table.to_dict("records"):
        figures = [_years(row[name]) for name in ("predicted_age_years", "ensemble_spread_years", "brain_pad_years")]
        said = "; ".join(filter(None, (str(row["reason"]), str(row["quality_flags"]))))
        add_row(shown, str(row["image"]), *figures, str(row["status"]), said)
    out.print(shown)


def make_phantom(folder: Path, given: dict[str, Any], as_json: bool) -> None:
    """Write a phantom cohort, with a progress bar; what is not given is as is customary for who is scanned."""
    from infra.phantom_cohorts import customary_spec
    from tasks.science.imaging.phantom import write_phantom

    spec = customary_spec(given)
    workers = load_settings().workers
    with progress_bars() as progress:
        bar = progress.add_task(f"phantom {folder.name}", total=spec.subjects)
        truth = write_phantom(
            spec, folder, workers, lambda done, total: progress.update(bar, completed=done, total=total)
        )
    body = {"root": str(folder), "subjects": spec.subjects, "scans": len(truth.scans)}
    body |= {"truth": str(folder / "derivatives" / "phantom-truth")}
    if as_json:
        print(json.dumps(body))
    else:
        said = f"{spec.subjects} subjects, {len(truth.scans)} scans in {folder}, the planted truth in {body['truth']}"
        out.print(said, soft_wrap=True)


def _metrics_table(metrics: pd.DataFrame, unit: Unit) -> Table:
    title = "Brain age of unseen cohorts: estimate [95% CI over subjects]"
    table = Table("cohort", "predictor", "", "n", f"MAE, {unit}", "R²", "r", title=title, title_justify="left")
    if metrics.empty:
        return table
    overall = metrics_in_unit(metrics[metrics["group"] == "overall"], unit)
    for keys, rows in overall.groupby(["cohort", "correction", "predictor", "arm"], sort=False):
        cohort, correction, predictor, arm = map(str, keys)
        by_metric = rows.set_index("metric")
        cells = [
            _estimate(by_metric.loc[name]) if name in by_metric.index else "" for name in ("mae", "r2", "pearson_r")
        ]
        named = f"{predictor} {arm}".rstrip() if predictor == "model" else predictor
        add_row(table, cohort, named, correction, str(rows["n_subjects"].iloc[0]), *cells)
    return table


def _association_table(associations: pd.DataFrame) -> Table:
    title = "Associations of brain-PAD (raw)"
    table = Table("model", "term", "estimate [95% CI]", "p", "q", "n", title=title, title_justify="left")
    for row in associations.to_dict("records"):
        if not row.get("of_interest"):
            continue
        cells = [f"{row[name]:.3g}" if pd.notna(row[name]) else "–" for name in ("p_value", "q_value")]
        term = "not fitted" if pd.isna(row["term"]) else str(row["term"])
        add_row(table, f"{row['arm']} {row['model']}".lstrip(), term, _estimate(row), *cells, str(row["n_used"]))
    return table


def _print_places(workspace: Workspace, registered: list[dict[str, Any]], report: Path) -> None:
    tracking = workspace.settings.shown_tracking_uri
    embedded = tracking.startswith("sqlite:")
    serve = f"mlflow server --backend-store-uri {tracking} --port 5000, then http://127.0.0.1:5000"
    lines = [
        f"report  {report}",
        f"        open it in a browser: xdg-open {report}",
        *(f"model   {model['uri']} ({' and '.join(model['aliases'])})" for model in registered),
        f"MLflow  {tracking}",
        f"        open it: {serve if embedded else tracking}",
        f"store   {workspace.store.url}",
    ]
    out.print("\n".join(lines), soft_wrap=True)


def _estimate(row: Any) -> str:
    if pd.isna(row["ci_low"]):
        return "not estimable" if pd.isna(row["estimate"]) else f"{row['estimate']:.2f}"
    return f"{row['estimate']:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"


def _years(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.1f}"
