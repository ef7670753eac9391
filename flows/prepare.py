"""Prepare what is missing, and start no server and no cluster where nothing is."""

from __future__ import annotations

from flows.interruption import start_embedded_server
from flows.progress_bars import progress_bars
from flows.workspace import open_workspace
from infra.templates import check_grids
from tasks.steps.progress import CohortState


def prepare_study(
    study_path: str, rehash: bool = False, retry_excluded: bool = False
) -> tuple[dict[str, int], list[CohortState]]:
    """Index a study's cohorts and run the flow of preprocessing on the scans that the store lacks, if any.

    Args:
        study_path: The study file.
        rehash: Read every file again when indexing.
        retry_excluded: Try scans again that preprocessing has excluded.

    Returns:
        How many scans were `prepared` and `excluded` by this run, and where each cohort stands now.
    """
    workspace = open_workspace(study_path)
    with progress_bars() as progress:
        states = workspace.index(progress, rehash)
    if retry_excluded:
        workspace.forget_exclusions(states)
        states = workspace.stored_states()
    lacking = [own for own, view in workspace.by_recipe(states) if any(state.missing for state in view)]
    if not lacking:
        return {"prepared": 0, "excluded": 0}, states
    workspace.store.check_writable()
    for own in lacking:
        check_grids(own.study.recipe)
    # Loading Prefect takes seconds, as much as all of the above for a finished cohort of thousands.
    from flows.preprocess import preprocess

    start_embedded_server()
    return preprocess(study_path, indexed=True), workspace.stored_states()
