"""Export what a study has prepared, for tools that know nothing of padflow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from flows.progress_bars import counter, progress_bars
from flows.workspace import NotReady, Workspace, open_workspace
from infra.storage import Store
from tasks.steps.export import check_target, export_cohort
from tasks.steps.progress import CohortState


def export_study(study_path: str, destination: str, cohorts: Sequence[str] = ()) -> dict[str, Any]:
    """Write one BIDS derivatives data set per cohort; what is there already is not written again.

    Args:
        study_path: The study file.
        destination: Folder or URL; each cohort gets a folder of its name in it.
        cohorts: Names of the cohorts to export; none: all.

    Returns:
        `destination`, and `cohorts` with the counts of each.

    Raises:
        NotReady: Nothing is prepared yet.
        ValueError: A cohort is not the study's, or the destination holds something else.
    """
    workspace = open_workspace(study_path)
    study, settings = workspace.study, workspace.settings
    states = _asked_for(workspace, cohorts)
    root = destination.rstrip("/") if "://" in destination else os.path.abspath(destination)  # noqa: PTH100
    targets = [Store(f"{root}/{state.spec.name}", settings.cache, settings.cache_bytes) for state in states]
    for target in targets:
        check_target(target, study.name)
    results = []
    with progress_bars() as progress:
        for state, target in zip(states, targets, strict=True):
            done = counter(progress, f"export {state.spec.name}")(len(state.prepared))
            results.append(export_cohort(state, study.name, workspace.store, target, settings.workers, done))
    return {"destination": root, "cohorts": results}


def _asked_for(workspace: Workspace, cohorts: Sequence[str]) -> list[CohortState]:
    known = [spec.name for spec in workspace.study.cohorts]
    unknown = [name for name in cohorts if name not in known]
    if unknown:
        raise ValueError(f"--cohort {unknown[0]}: the study has no such cohort; there are: {', '.join(known)}")
    states = [state for state in workspace.stored_states() if not cohorts or state.spec.name in cohorts]
    prepared = [state for state in states if len(state.prepared)]
    if not prepared:
        raise NotReady(
            f"nothing to export: no scan of {', '.join(state.spec.name for state in states)} is prepared under this "
            f"recipe in {workspace.store.url}; run `padflow preprocess` on the study first"
        )
    return prepared


def export_lines(result: dict[str, Any]) -> list[str]:
    """Say in words what an export did."""
    lines = []
    for cohort in result["cohorts"]:
        parts = ", ".join(f"{cohort[part]} {part}" for part in ("excluded", "unused", "missing"))
        lines.append(
            f"{cohort['name']}: {cohort['prepared']} scans in {cohort['folder']} ({cohort['written']} written, "
            f"{cohort['there_already']} there already); of {cohort['indexed']} indexed: {parts}"
        )
        if cohort["left_over"]:
            lines.append(
                f"  {len(cohort['left_over'])} files there are not of this export, the first is "
                f"{cohort['left_over'][0]}; remove them if an earlier state of the study wrote them"
            )
    return lines
