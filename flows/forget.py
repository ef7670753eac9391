"""A person's withdrawn consent, in a study's store: what would go, and its going."""

from __future__ import annotations

import difflib
from typing import Any

from flows.workspace import Workspace, open_workspace
from infra import tracking
from infra.study import resolve_root
from tasks.science.imaging.recipe import recipe_digest
from tasks.steps.forget import OUT_OF_REACH, forget, models_trained_on
from tasks.steps.traces import Person, Traces, counts_of, find_person, find_traces
from tasks.steps.withdrawal import read_withdrawals


def forget_subject(study_path: str, subject: str, cohort: str | None, delete: bool) -> dict[str, Any]:
    """Say which models were trained on a person and what was made of their scans; take the latter away if asked.

    Args:
        study_path: The study file.
        subject: participant_id, with or without `sub-`.
        cohort: Which cohort's, where people of several data sets have that name.
        delete: Whether to delete; otherwise nothing is written.

    Returns:
        Facts as JSON can hold them.

    Raises:
        ValueError: Nobody of that name was ever indexed, or people of several data sets have it.
    """
    workspace = open_workspace(study_path)
    participant_id = subject if subject.startswith("sub-") else f"sub-{subject}"
    person = _person(workspace, participant_id, cohort)
    store, settings = workspace.store, workspace.settings
    recipes = {recipe_digest(arm.recipe): arm.recipe for arm in workspace.study.arms}
    traces = find_traces(settings, store, person, recipes)
    client = tracking.connect(settings) if settings.has_registry else None
    models = models_trained_on(client, traces)
    if delete:
        forget(settings, store, client, person, traces)
    return {
        "subject": participant_id,
        "data_set": person.root,
        "cohorts": sorted(set(person.scans["cohort"])),
        "images": len(person.scans),
        "models": models,
        "found": counts_of(traces),
        "kept": list(_kept(person, traces)),
        "deleted": delete,
        "withdrawn": (person.root, participant_id) in read_withdrawals(store).people,
        "out_of_reach": list(OUT_OF_REACH),
    }


def _person(workspace: Workspace, participant_id: str, cohort: str | None) -> Person:
    roots = {spec.name: resolve_root(spec.root, workspace.settings.data) for spec in workspace.study.cohorts}
    if cohort is not None and cohort not in roots:
        raise ValueError(f"{cohort!r}: no such cohort of the study; there are: {', '.join(roots)}")
    chosen = {root: name for name, root in reversed(roots.items()) if cohort in (None, name)}
    everyone = {root: find_person(workspace.store, root, participant_id) for root in chosen}
    found = {root: person for root, person in everyone.items() if len(person.scans)}
    if not found:
        raise ValueError(_unknown(workspace, participant_id, list(chosen.values())))
    if len(found) > 1:
        raise ValueError(
            f"{participant_id} stands in several data sets: {', '.join(chosen[root] for root in found)}; these may be "
            "different people. Say which with --cohort."
        )
    return next(iter(found.values()))


def _unknown(workspace: Workspace, participant_id: str, cohorts: list[str]) -> str:
    known = {
        str(name)
        for state in workspace.stored_states()
        if state.spec.name in cohorts
        for name in state.indexed.tables.manifest["participant_id"]
    }
    near = difflib.get_close_matches(participant_id, sorted(known), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{participant_id}: nobody of that name was ever indexed in {', '.join(cohorts)}{hint}"


def _kept(person: Person, traces: Traces) -> list[str]:
    names = sorted(set(person.shared["scan_id"]))
    return [f"{key}: {', '.join(names)} has the same bytes" for key in traces.kept]
