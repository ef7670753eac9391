"""Make the maps of where the model reads age that the study declares and the store lacks."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.progress_bars import counter, progress_bars
from flows.run_names import run_name
from flows.validate import fitted
from flows.workspace import Workspace, open_workspace
from infra import layout
from infra.storage import Store
from tasks.steps.explain import RECORD, REGIONS, explanation_key, methods_left
from tasks.steps.explain import explain as explain_one
from tasks.steps.progress import FittedModel

TOP_REGIONS = 5


@flow(name="explain", flow_run_name=run_name, validate_parameters=False)
def explain(study_path: str) -> dict[str, Any]:
    """Make every declared map of every model; each has a key of its own, so an added one leaves the others alone.

    Returns:
        The maps that this run made (`made`), and for each declared one where its files are, on how many subjects, how
        repeatable, and the regions that lead.
    """
    workspace = open_workspace(study_path)
    result: dict[str, Any] = {"made": [], "maps": {}}
    if not any(arm.explanation.methods for arm in workspace.study.arms):
        return result
    for arm, states in workspace.by_model(workspace.stored_states()):
        if arm.study.explanation.methods:
            _explain_model(arm, fitted(arm, states), result)
    return result


def _explain_model(workspace: Workspace, model: FittedModel, result: dict[str, Any]) -> None:
    study, store = workspace.study, workspace.store
    missing = methods_left(study, store, model.fit_key, model.states)
    with progress_bars() as progress:
        for method in study.explanation.methods:
            name = f"{study.arm}: {method}" if study.arm else method
            if method in missing:
                explain_one(store, model, method, counter(progress, f"explain {name}"))
                result["made"].append(name)
            key = explanation_key(study, model.fit_key, model.states, method)
            result["maps"][name] = _summary(store, key)


def _summary(store: Store, key: str) -> dict[str, Any]:
    record = store.read_json(layout.explanation(key, RECORD))
    regions = store.read_table(layout.explanation(key, REGIONS))
    leading = regions[regions["set"] == regions["set"].iloc[0]].head(TOP_REGIONS)
    return {
        "folder": store.uri(layout.explanation(key, RECORD)).removesuffix(f"/{RECORD}"),
        "n_subjects": record["n_subjects"],
        "repeatability": record["repeatability"],
        "leading_regions": leading["region"].tolist(),
    }


def explanation_lines(result: dict[str, Any]) -> list[str]:
    """What the command line prints of it."""
    if not result["maps"]:
        return ['the study declares no maps; add [explanation] with methods = ["smoothgrad", "grad_ram"] to its file']
    lines = []
    for method, one in result["maps"].items():
        done = "made" if method in result["made"] else "there already"
        r = "not defined" if one["repeatability"] is None else f"r = {one['repeatability']:.2f}"
        lines.append(f"{method} ({done}): {one['n_subjects']} subjects, two halves agree by {r}")
        lines.append(f"  leading regions: {'; '.join(one['leading_regions'])}")
        lines.append(f"  {one['folder']}")
    return lines
