"""The model card of a registered fit: gathered from the store, logged beside the model, refreshed by the validation."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import Any

import pandas as pd

from infra import layout, tracking
from infra.settings import Settings
from tasks.science.report.card import card_sections
from tasks.science.report.card_text import CardSection, as_html, as_markdown
from tasks.steps.progress import CohortState, FittedModel

FOLDER = "model-card"
FACTS, MARKDOWN, PAGE = "card.json", "card.md", "card.html"
ENVIRONMENT = "environment."
REPORTED = (
    "name",
    "seed",
    "duration_s",
    "energy_kwh",
    "gpus",
    "world_size",
    "threads_per_process",
    "device",
    "precision",
)


def log_card(settings: Settings, model: FittedModel, metrics: pd.DataFrame) -> None:
    """Write a model's card to its MLflow run, in place of an earlier one.

    Args:
        settings: Where MLflow is.
        model: What was fitted and registered.
        metrics: The validation's table; empty before it.
    """
    client, run_id = tracking.connect(settings), model.registered["run_id"]
    facts = gather_card(model, metrics, client.get_run(run_id).data.params)
    title, sections = card_of(facts)
    tracking.log_text(client, run_id, json.dumps(facts, indent=1, allow_nan=False), f"{FOLDER}/{FACTS}")
    tracking.log_text(client, run_id, as_markdown(title, sections), f"{FOLDER}/{MARKDOWN}")
    tracking.log_text(client, run_id, as_html(title, sections), f"{FOLDER}/{PAGE}")


def card_of(facts: dict[str, Any]) -> tuple[str, list[CardSection]]:
    """Title and sections."""
    return f"Model card: {facts['model']['name']}, version {facts['model']['version']}", card_sections(facts)


def gather_card(model: FittedModel, metrics: pd.DataFrame, logged: dict[str, str]) -> dict[str, Any]:
    """Everything that a card shows, as JSON can hold it.

    Args:
        model: As `log_card` takes it.
        metrics: As `log_card` takes it.
        logged: Parameters of the fit's MLflow run, which hold digests and versions of when it was fitted.
    """
    study, record, registered = model.study, model.record, model.registered
    recipe, network = asdict(study.recipe), asdict(study.network)
    counts = ((part, [record["subjects_by_split"][part], n]) for part, n in record["scans_by_split"].items())
    facts = {
        "model": {
            "name": registered["name"],
            "version": registered["version"],
            "address": registered["uri"],
            "study": study.name,
            "model of the study": study.arm or "the only one",
            "members": len(record["members"]),
            "fit key": record["fit_key"],
        },
        "target": "chronological age" if study.target.column == "age_years" else study.target.column,
        "unit": study.target.unit,
        "age_range_years": record["age_range_years"],
        "cohorts": [_cohort(state) for state in model.states],
        "parts": dict(counts),
        "recipe": {
            **{name: recipe[name] for name in ("name", "resolution_mm", "mask", "skull_strip", "bias_correction")},
            "images": list(study.recipe.contrasts),
            "channels": list(study.recipe.channel_names),
            "template": [template.name for template in study.recipe.templates] or "MNI152NLin2009aSym",
        },
        "network": {name: value for name, value in network.items() if value not in ((), None)},
        "training": _training(model),
        "members": [{"name": n, **{k: m[k] for k in REPORTED if k in m}} for n, m in record["members"].items()],
        "calibration": {name: record[name] for name in ("age_bias", "why_no_age_bias", "intervals")},
        "metrics": json.loads(metrics.to_json(orient="records")) if len(metrics) else [],
        "versions": {n.removeprefix(ENVIRONMENT): v for n, v in logged.items() if n.startswith(ENVIRONMENT)},
        "lineage": {
            **{n.replace("_digest.", " of ").replace("_", " "): v for n, v in logged.items() if "_digest" in n},
            "weights SHA-256": record["weights_sha256"],
            "MLflow run": registered["run_id"],
            "scans": f"{layout.fit_folder(record['fit_key'])}/rows.parquet of the store; padflow lineage lists them",
        },
    }
    return dict(json.loads(json.dumps(facts, default=str)))


def _training(model: FittedModel) -> dict[str, Any]:
    training = asdict(model.study.training)
    names = ("objective", "loss", "epochs", "batch_size", "optimizer", "learning_rate", "schedule", "precision")
    folds = model.study.ensemble.folds
    return {
        **{name: training[name] for name in names},
        "seeds": list(model.study.seeds),
        "folds": folds or "none",
        "most training subjects": model.study.train_subjects or "all",
    }


def _cohort(state: CohortState) -> dict[str, Any]:
    people = state.prepared.drop_duplicates("participant_id")
    ages = state.prepared["age_years"].astype(float).dropna()
    spread = {"mean": ages.mean(), "sd": ages.std(ddof=1), "low": ages.min(), "high": ages.max()}
    # Reasons may name people; stages do not.
    why = Counter(item.stage for item in state.excluded)
    return {
        "name": state.spec.name,
        "role": state.spec.role,
        "subjects": len(people),
        **state.counts,
        "ages": {name: None if value != value else float(value) for name, value in spread.items()}
        if len(ages)
        else None,
        "sex": _levels(people, "sex"),
        "sites": _levels(people, "site"),
        "exclusions": dict(why.most_common()),
    }


def _levels(people: pd.DataFrame, column: str) -> dict[str, int]:
    if column not in people:
        return {}
    values = people[column].astype(object).where(people[column].notna(), "")
    return {str(level): int(count) for level, count in values.astype(str).value_counts().sort_index().items()}
