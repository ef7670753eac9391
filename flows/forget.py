"""A person's withdrawn consent, in a study's store: what would go, and its going."""

from __future__ import annotations

import difflib
from typing import Any

from flows.workspace import Workspace, open_workspace
from infra import tracking
from infra.settings import load_settings
from infra.storage import Store
from infra.study import resolve_root
from tasks.science.imaging.recipe import recipe_digest
from tasks.steps.forget import OUT_OF_REACH, forget, models_trained_on
from tasks.steps.person import Person, data_sets, find_person, participants
from tasks.steps.traces import Traces, counts_of, find_traces
from tasks.steps.withdrawal import read_withdrawals


def forget_subject(study_path: str | None, subject: str, cohort: str | None, delete: bool) -> dict[str, Any]:
    """Say which models were trained on a person and what was made of their scans; take the latter away if asked.

    Args:
        study_path: The study whose cohorts are meant; none: every data set that the store has ever indexed.
        subject: participant_id, with or without `sub-`.
        cohort: Which cohort's, where people of several data sets have that name.
        delete: Whether to delete; otherwise nothing is written.

    Returns:
        Facts as JSON can hold them.

    Raises:
        ValueError: Nobody of that name was ever indexed, or people of several data sets have it.
    """
    workspace = open_workspace(study_path) if study_path else None
    settings = load_settings()
    store = Store(settings.store, settings.cache, settings.cache_bytes)
    participant_id = subject if subject.startswith("sub-") else f"sub-{subject}"
    person = _person(store, _roots(store, workspace), participant_id, cohort)
    arms = workspace.study.arms if workspace else ()
    traces = find_traces(settings, store, person, {recipe_digest(arm.recipe): arm.recipe for arm in arms})
    client = tracking.connect(settings) if settings.has_registry else None
    models = models_trained_on(client, traces)
    if delete:
        forget(settings, store, client, person, traces)
    return {
        "subject": participant_id,
        "data_set": person.root,
        "cohorts": sorted(person.cohorts),
        "images": len(person.scans),
        "models": models,
        "found": counts_of(traces),
        "kept": list(_kept(person, traces)),
        "deleted": delete,
        "withdrawn": (person.root, participant_id) in read_withdrawals(store).people,
        "out_of_reach": list(OUT_OF_REACH),
    }


def _roots(store: Store, workspace: Workspace | None) -> list[tuple[str, str]]:
    """Name and BIDS root of each cohort that is looked into."""
    if workspace is None:
        return [(folder.split("/")[1].rsplit("-", 1)[0], root) for folder, root in data_sets(store).items()]
    data = workspace.settings.data
    return [(spec.name, resolve_root(spec.root, data).rstrip("/")) for spec in workspace.study.cohorts]


def _person(store: Store, roots: list[tuple[str, str]], participant_id: str, cohort: str | None) -> Person:
    names = sorted({name for name, _ in roots})
    if cohort is not None and cohort not in names:
        raise ValueError(f"{cohort!r}: no such cohort; there are: {', '.join(names) or 'none'}")
    chosen = {root: name for name, root in reversed(roots) if cohort in (None, name)}
    everyone = {root: find_person(store, root, participant_id) for root in chosen}
    found = {root: person for root, person in everyone.items() if len(person.scans)}
    if not found:
        raise ValueError(_unknown(store, participant_id, chosen))
    if len(found) > 1:
        raise ValueError(
            f"{participant_id} stands in several data sets: {', '.join(f'{chosen[root]} ({root})' for root in found)}; "
            "these may be different people. Say which with --cohort, and the study where that is not enough."
        )
    return next(iter(found.values()))


def _unknown(store: Store, participant_id: str, chosen: dict[str, str]) -> str:
    known = {name for root in chosen for name in participants(store, root)}
    near = difflib.get_close_matches(participant_id, sorted(known), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    where = ", ".join(chosen.values()) or store.url
    return f"{participant_id}: nobody of that name was ever indexed in {where}{hint}"


def _kept(person: Person, traces: Traces) -> list[str]:
    names = sorted(set(person.shared["scan_id"]))
    return [f"{key}: {', '.join(names)} has the same bytes" for key in traces.kept]
