"""The decisions on a model, by a study's or the model's own name: to be listed, and to be gone back on."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from flows.progress_bars import console
from flows.status import add_row
from infra import tracking
from infra.decisions import Chain
from infra.settings import Settings, load_settings
from infra.storage import Store
from infra.study_file import find_study, load_study
from tasks.steps.decide import opened_chain, roll_back


def model_name(study_or_model: str, profile: str | None) -> str:
    """The registered model that a user named, by a study that registers it or by itself."""
    if study_or_model.startswith("models:/"):
        return study_or_model.removeprefix("models:/").partition("@")[0].partition("/")[0]
    try:
        path = find_study(study_or_model)
    except ValueError:
        if study_or_model.endswith(".toml") or "/" in study_or_model:
            raise
        return study_or_model
    return load_study(f"{path}#{profile}" if profile else path).registered_model


def decisions_of(study_or_model: str, profile: str | None) -> Chain:
    """Every decision on a model.

    Raises:
        ValueError: Nothing was decided on a model of this name.
    """
    name = model_name(study_or_model, profile)
    settings, store = _place()
    chain, problems = opened_chain(tracking.connect(settings), store, settings, name)
    _say(problems)
    if not chain.decisions:
        raise ValueError(f"nothing is decided on a model {name!r} in {store.url}; `padflow run STUDY` does")
    return chain


def roll_back_model(study_or_model: str, profile: str | None, reason: str) -> dict[str, Any]:
    """Return to the champion before this one."""
    settings, store = _place()
    client = tracking.connect(settings)
    decision, problems = roll_back(client, store, settings, model_name(study_or_model, profile), reason)
    _say(problems)
    return decision


def decisions_table(chain: Chain) -> Table:
    """One row per decision."""
    title = f"Decisions on {chain.model}; the champion is version {chain.champion or 'none'}"
    table = Table("", "when", "version", "decision", "champion", "reason", title=title, title_justify="left")
    for decision in chain.decisions:
        version = (decision.get("candidate") or {}).get("version") or "–"
        change = f"{decision['champion_before'] or '–'} → {decision['champion_after'] or '–'}"
        add_row(
            table,
            str(decision["number"]),
            decision["decided_at"],
            version,
            decision["kind"],
            change,
            decision["reason"],
        )
    return table


def _place() -> tuple[Settings, Store]:
    settings = load_settings()
    return settings, Store(settings.store, settings.cache, settings.cache_bytes)


def _say(problems: list[str]) -> None:
    for problem in problems:
        console.print(problem, style="yellow", markup=False, highlight=False, soft_wrap=True)
