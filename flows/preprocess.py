"""Index every cohort of a study and prepare every scan that the store lacks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from distributed import Client
from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner
from rich.progress import Progress

from flows.progress_bars import counter, progress_bars
from flows.run_names import run_name
from flows.workspace import Workspace, open_workspace
from infra import layout
from infra.atlases import check_atlas
from infra.clusters import connect
from infra.preflight import demands_of, fit_workers
from infra.storage import Store
from infra.templates import check_grids
from tasks.records import Recipe, ScanRef
from tasks.science.imaging.degradations import Degradation
from tasks.steps.preprocess import SLICE_SCANS, prepare_slice, prepare_suspects, slices
from tasks.steps.progress import CohortState
from tasks.steps.quality import quality_table

# Two slices at a time, so that the end of one does not leave workers idle.
SLICES_AT_A_TIME = 2
CAUSES_SHOWN = 5


class ScansLeft(RuntimeError):
    """Storage or a worker failed for some scans; the next run does them."""


RUNNER: Any = ThreadPoolTaskRunner(max_workers=SLICES_AT_A_TIME)


@flow(name="preprocess", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
def preprocess(
    study_path: str, rehash: bool = False, retry_excluded: bool = False, indexed: bool = False
) -> dict[str, int]:
    """Prepare what is missing; scans that are prepared or excluded already are not touched.

    Args:
        study_path: The study file.
        rehash: Read every file again when indexing.
        retry_excluded: Try scans again that preprocessing has excluded.
        indexed: The cohorts have been indexed a moment ago, and the store's index is taken.

    Returns:
        How many scans were `prepared` and `excluded` by this run.

    Raises:
        ScansLeft: Some scans could be neither prepared nor excluded.
    """
    workspace = open_workspace(study_path)
    with progress_bars() as progress:
        states = workspace.stored_states() if indexed else workspace.index(progress, rehash)
        if retry_excluded:
            workspace.forget_exclusions(states)
            states = workspace.stored_states()
        results = [prepare_missing(own, view, progress) for own, view in workspace.by_recipe(states)]
    counts = summary([part for result in results for part in result])
    for own, view in workspace.by_recipe(workspace.stored_states()):
        _keep_figures(own, view, progress.console.out)
    return counts


def prepare_missing(workspace: Workspace, states: list[CohortState], progress: Progress) -> list[dict[str, Any]]:
    """Prepare what one recipe lacks."""
    # Cohorts may share scans, and a scan is its bytes.
    missing = list({scan.key: scan for state in states for scan in state.missing}.values())
    if not missing:
        return []
    recipe, key = workspace.study.recipe, workspace.recipe_key
    workspace.store.check_writable()
    check_grids(recipe)
    check_atlas(workspace.study.explanation, recipe)
    # Workers write there, and are what gets killed; the flow's own few objects are not worth a look.
    workspace.store.remove_old_drafts([layout.prepared_folder(key), layout.montage_folder(key)])
    advance = counter(progress, "preprocess")(len(missing))
    witness = states[0].indexed
    latest = layout.latest_index(witness.name, witness.root)
    demands = demands_of(workspace.settings, workspace.store, recipe, key, missing, latest)
    say = progress.console.out
    with connect(workspace.settings, say) as client, fit_workers(client, demands, say):
        return fan_out(client, workspace.store, missing, recipe, key, advance)


def _keep_figures(workspace: Workspace, states: list[CohortState], say: Callable[[str], None]) -> None:
    """Gather quality figures once, beside hours of computing: later stages read one object, not every sidecar."""
    for state in states:
        name, root, shas = state.spec.name, state.indexed.root, state.prepared["sha256"]
        figures = quality_table(workspace.store, name, root, state.recipe_key, shas)
        stripped = int(figures["skull_stripped"].sum()) if len(figures) else 0
        if stripped:
            say(f"{name}: {stripped} of {len(figures)} scans came skull-stripped")


def fan_out(
    client: Client,
    store: Store,
    scans: Sequence[ScanRef],
    recipe: Recipe,
    recipe_key: str,
    advance: Callable[[], None],
    slice_scans: int = SLICE_SCANS,
    degradation: Degradation | None = None,
) -> list[dict[str, Any]]:
    """Prepare scans in slices, and those that a worker died of when nothing else runs any more.

    Returns:
        What became of each slice's scans, and of the suspects.
    """
    futures = []
    for number, part in enumerate(slices(scans, slice_scans)):
        first = number * slice_scans
        cohorts = "+".join(dict.fromkeys(scan.cohort for scan in part))
        label = f"{cohorts}-{first + 1} to {first + len(part)} of {len(scans)}"
        futures.append(prepare_slice.submit(client, store, part, recipe, recipe_key, label, advance, degradation))
    results = [future.result() for future in futures]
    suspects = [scan for result in results for scan in result["suspects"]]
    if suspects:
        again = prepare_suspects.submit(client, store, suspects, recipe, recipe_key, advance, degradation)
        results.append(again.result())
    return results


def summary(results: list[dict[str, Any]]) -> dict[str, int]:
    """Count what slices gave.

    Raises:
        ScansLeft: Some scans could be neither prepared nor excluded.
    """
    failed = {scan: why for result in results for scan, why in result["failed"].items()}
    if failed:
        raise ScansLeft(
            f"{len(failed)} scans are left, since storage or a worker failed for them; run the same command again:\n"
            + "\n".join(_by_cause(failed))
        )
    return {name: sum(result[name] for result in results) for name in ("prepared", "excluded")}


def _by_cause(failed: dict[str, str]) -> list[str]:
    """One line for all scans that failed alike: ten thousand equal lines tell no more."""
    scans: dict[str, list[str]] = {}
    for scan, why in failed.items():
        # What differs between scans of one cause are the object's own name and hashes.
        scans.setdefault(re.sub(r"\S*/\S+?(?=:? )|[0-9a-f]{8}…", "", why), []).append(scan)
    lines = []
    for alike in sorted(scans.values(), key=len, reverse=True)[:CAUSES_SHOWN]:
        more = f" (and {len(alike) - 1} more alike)" if len(alike) > 1 else ""
        lines.append(f"  {alike[0]}{more}: {failed[alike[0]]}")
    return lines
