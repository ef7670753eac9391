"""What the registry shows of the decisions on a model: its aliases, a version's tags, and each record with its run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from infra import layout
from infra.decisions import Chain, Draft, append, mark_told, other_chains, read_chain
from infra.settings import Settings
from infra.storage import Store

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous-champion"
TRIES = 5
PAUSE_S = 0.2
FIGURES = ("estimate", "ci_low", "ci_high", "bound_low", "bound_high", "n_subjects")


def name_challenger(client: MlflowClient, model: str, version: str) -> None:
    """Let consumers find the newest version by `challenger`; who is champion is decided by gates, later."""
    client.set_registered_model_alias(model, CHALLENGER, version)


def champion_by_alias(client: MlflowClient, model: str) -> str | None:
    """The version that the registry itself calls champion."""
    return _aliases(client, model).get(CHAMPION)


def check_version(client: MlflowClient, model: str, version: str) -> None:
    """Ask the registry whether it still has a version: what the chain knows of one outlives it.

    Raises:
        ValueError: It was deleted, or was never there.
    """
    if version in (there := _versions(client, model)):
        return
    expected = f"expected one of {', '.join(there)}" if there else "nor any other of this model"
    raise ValueError(
        f"{model}: the registry has no version {version}, {expected}: it was deleted, or never registered. "
        "Name a version that is there, or train another model."
    )


def adopt(client: MlflowClient, store: Store, chain: Chain, decided_at: str) -> Chain:
    """Begin a chain with the champion that somebody has named before there were decisions."""
    champion = None if chain.decisions else champion_by_alias(client, chain.model)
    if champion is None:
        return chain
    reason = f"version {champion} was the champion before decisions were kept"
    # Whoever lists the decisions later reads it too: the sentence of the command that adopted is gone by then.
    others = other_chains(store, chain)
    reason += f" here; decisions on a model of this name in other registries: {others}" if others else ""
    return append(store, chain, Draft("adopted", champion, reason), decided_at)


def follow(client: MlflowClient, store: Store, settings: Settings, model: str) -> tuple[Chain, list[str]]:
    """Have the registry show what was decided: what a killed command, or a hand, left otherwise is set right.

    Returns:
        The chain, and what was found wrong, a sentence each.
    """
    found: list[str] = []
    while True:
        chain = read_chain(store, settings, model)
        if not chain.decisions:
            return chain, found + _begun_anew(client, store, chain)
        found += _show(client, store, chain)
        # Who sets an alias late looks at the chain once more, so that the last one to set it sets the newest.
        if read_chain(store, settings, model).head == chain.head:
            mark_told(store, chain)
            return chain, found


def _begun_anew(client: MlflowClient, store: Store, chain: Chain) -> list[str]:
    """A champion without decisions, beside decisions of another registry, may be that one under another address."""
    champion = champion_by_alias(client, chain.model)
    others = other_chains(store, chain) if champion else ""
    if not others:
        return []
    return [
        f"{chain.model}: version {champion} is the champion, and the store holds no decision on it in this registry, "
        f"but decisions on a model of this name in others: {others}. If one of these is this registry under an earlier "
        "address, home or host name, its history, and what was rolled back from, is unknown here: put the files of its "
        f"folder in place of those in {store.uri(chain.folder)}, or name the registry as before (MLFLOW_REGISTRY_URI)."
    ]


def _show(client: MlflowClient, store: Store, chain: Chain) -> list[str]:
    problems = []
    held = _aliases(client, chain.model)
    for alias, version in ((PREVIOUS, chain.previous), (CHAMPION, chain.champion)):
        if version is None:
            if alias not in held:
                continue
            if alias == CHAMPION:
                # Consumers load by it: no version is worse than one that nobody decided on.
                problems.append(
                    f"{chain.model}: alias {alias} is version {held[alias]}, by decision there is none: left as it is"
                )
            # Who was champion before the adopted one is known to the registry alone.
            elif not chain.only_adopted:
                _patiently(client.delete_registered_model_alias, chain.model, alias)
                if not chain.untold:
                    problems.append(
                        f"{chain.model}: alias {alias} was version {held[alias]}, by decision there is none: taken away"
                    )
            continue
        try:
            # Not every registry takes a deleted version's aliases away.
            client.get_model_version(chain.model, version)
            if held.get(alias) != version:
                _patiently(client.set_registered_model_alias, chain.model, alias, version)
        except MlflowException as error:
            if not _absent(error):
                raise
            problems.append(_gone(client, chain, alias, version, held.get(alias)))
            continue
        if held.get(alias) not in (None, version) and not chain.untold:
            problems.append(
                f"{chain.model}: alias {alias} was version {held[alias]}, by decision it is {version}: set back"
            )
    for number in chain.untold:
        _tell(client, store, chain, chain.decisions[number - 1])
    return problems


def _gone(client: MlflowClient, chain: Chain, alias: str, version: str, held: str | None) -> str:
    shown = f"the alias shows version {held}" if held else "the alias shows none"
    said = (
        f"{chain.model}: version {version} is the {alias} by decision, and the registry has no such version ({shown})"
    )
    if alias == PREVIOUS:
        return f"{said}; a rollback passes over it"
    if set(chain.champions[:-1]) & set(_versions(client, chain.model)):
        return f"{said}; `padflow rollback {chain.model}` returns to the last one that is there"
    return f"{said}, nor one to roll back to; `padflow promote STUDY --version N` names another champion"


def _patiently(action: Callable[..., None], *arguments: str) -> None:
    for left in reversed(range(TRIES)):
        try:
            action(*arguments)
            return
        except MlflowException as error:
            # Of two that set an alias or a tag for the first time at the same moment MLflow lets one fail.
            if _absent(error) or not left:
                raise
            time.sleep(PAUSE_S)


def _tell(client: MlflowClient, store: Store, chain: Chain, decision: dict[str, Any]) -> None:
    candidate = decision.get("candidate")
    if not candidate:
        return
    try:
        for name, value in decision_tags(decision).items():
            _patiently(client.set_model_version_tag, chain.model, candidate["version"], name, value)
        text = store.read(layout.decision(chain.folder, decision["number"])).decode()
        client.log_text(candidate["run_id"], text, f"decisions/{decision['number']:06d}.json")
    except MlflowException as error:
        # A version that was deleted since takes its tags along; the record stays in the store.
        if not _absent(error):
            raise


def decision_tags(decision: dict[str, Any]) -> dict[str, str]:
    """A decision as tags of the version that it was made on: gates in words, figures for a script."""
    said = f"{decision['kind']} (decision {decision['number']}, {decision['decided_at']})"
    tags = {"padflow.decision": said, "padflow.decision_reason": decision["reason"]}
    if decision["champion_before"]:
        tags["padflow.champion_before"] = decision["champion_before"]
    for gate in decision["gates"]:
        tags[f"padflow.gate.{gate['gate']}"] = f"{gate['outcome']}: {gate['sentence']}"
        figures = {name: gate[name] for name in FIGURES if gate[name] is not None}
        tags[f"padflow.figures.{gate['gate']}"] = json.dumps(figures)
    return tags


def _versions(client: MlflowClient, model: str) -> list[str]:
    found = client.search_model_versions(f"name = '{model}'")
    return sorted((str(version.version) for version in found), key=int)


def _aliases(client: MlflowClient, model: str) -> dict[str, str]:
    try:
        return {str(name): str(version) for name, version in client.get_registered_model(model).aliases.items()}
    except MlflowException as error:
        if not _absent(error):
            raise
        return {}


def _absent(error: MlflowException) -> bool:
    return error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
