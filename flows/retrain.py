"""What runs by schedule: `infra/prefect.yaml` deploys these flows. A study's name or path is all that they are told.

Where they run, and with which credentials, the worker's environment says. What is done is skipped, so that a run that
finds nothing new does nothing, and two runs of one study at the same time do its work once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.events import emit_event
from prefect.states import Completed, State

from flows.associate import associate
from flows.decide import decide
from flows.notify import NOTIFYING
from flows.preprocess import preprocess
from flows.progress_bars import progress_bars
from flows.run_names import run_name
from flows.study import run_study, stages_left
from flows.train import train
from flows.validate import validate
from flows.workspace import open_workspace
from infra import tracking
from infra.decisions import read_chain
from infra.study_file import study_reference
from tasks.steps.new_scans import NewScans, find_new_scans

NEW_SCANS, SHIFT = "padflow.new-scans", "padflow.shift"


@flow(name="preprocess-new-scans", flow_run_name=run_name, **NOTIFYING)
def preprocess_new_scans(study: str, profile: str | None = None) -> State[Any]:
    """Prepare the scans that have come, and say by an event when there are enough of them, or when they have shifted.

    Args:
        study: A study file's path, or the name of a shipped one.
        profile: A profile of it.
    """
    path = study_reference(study, profile)
    counts = preprocess(path)
    workspace = open_workspace(path)
    model = workspace.study.arms[0].registered_model
    chain = read_chain(workspace.store, workspace.settings, model)
    # Before the first fit there is no registry yet, and none is made for a question.
    client = tracking.connect(workspace.settings) if workspace.settings.has_registry else None
    found = find_new_scans(workspace.store, chain, workspace.stored_states(), client)
    spec = workspace.study.retraining
    resource = {"prefect.resource.id": f"padflow.study.{workspace.study.name}", "padflow.model": model}
    payload = {"study": study, "profile": profile or "", "new_scans": found.count, "shifts": list(found.shifts)}
    if found.enough(spec):
        emit_event(NEW_SCANS, resource, payload=payload)
    if found.shifted(spec):
        emit_event(SHIFT, resource, payload=payload)
    said = f"prepared {counts['prepared']}, excluded {counts['excluded']} scans; {_news(found)}"
    return Completed(message=said, data={**counts, "new_scans": found.count, "shifts": list(found.shifts)})


def _news(found: NewScans) -> str:
    moved = ", ".join(f"{row['figure']} by {row['smd']:+.1f} SD" for row in found.shifts)
    return f"{found.count} are not trained on yet" + (f"; they differ from the others: {moved}" if moved else "")


@flow(name="retrain", flow_run_name=run_name, **NOTIFYING)
def retrain(study: str, profile: str | None = None) -> State[Any]:
    """Fit and register the study's model on the prepared scans, unless it is fitted on these already.

    Args:
        study: A study file's path, or the name of a shipped one.
        profile: A profile of it.
    """
    registered = train(study_reference(study, profile))
    said = ", ".join(model["uri"] for model in registered.values())
    return Completed(message=f"registered as challenger: {said}", data=registered)


@flow(name="validate-challenger", flow_run_name=run_name, **NOTIFYING)
def validate_challenger(study: str, profile: str | None = None) -> State[Any]:
    """Score and measure the newest version, and decide whether it becomes the champion.

    Args:
        study: A study file's path, or the name of a shipped one.
        profile: A profile of it.
    """
    path = study_reference(study, profile)
    validate(path)
    decided = decide(path)
    return Completed(message=_said_of(decided), data=decided)


@flow(name="associate-study", flow_run_name=run_name, **NOTIFYING)
def associate_study(study: str, profile: str | None = None) -> State[Any]:
    """Fit the declared associations that the store lacks.

    Args:
        study: A study file's path, or the name of a shipped one.
        profile: A profile of it.
    """
    done = associate(study_reference(study, profile))
    return Completed(message=f"fitted: {', '.join(done)}" if done else "nothing to do", data=done)


@flow(name="retraining", flow_run_name=run_name, **NOTIFYING)
def retraining(study: str, profile: str | None = None) -> State[Any]:
    """Everything that a month's new scans ask for, in order: prepare, train, validate, decide, associate, report.

    Args:
        study: A study file's path, or the name of a shipped one.
        profile: A profile of it.
    """
    path = study_reference(study, profile)
    workspace = open_workspace(path)
    with progress_bars() as progress:
        left = stages_left(workspace, workspace.index(progress))
    if not left:
        return Completed(message="nothing to do: no new scans, and every stage is in the store", data={"stages": []})
    result = run_study(path, indexed=True)
    page = Path(result["report"])
    settings = workspace.settings
    slug = "".join(c if c.isalnum() else "-" for c in workspace.study.name.lower())
    create_link_artifact(page.as_uri(), link_text=f"Report of {workspace.study.name}", key=f"report-{slug}")
    create_markdown_artifact(_where(settings.shown_tracking_uri, result), key=f"mlflow-{slug}")
    decided = ", ".join(filter(None, (f"{arm} {kind}".strip() for arm, kind in result["decided"].items())))
    return Completed(message=f"did {', '.join(left)}; {decided}", data={"stages": left, **result})


def _said_of(decided: dict[str, dict[str, Any]]) -> str:
    return "; ".join(f"{made['model']}: {made['kind']}, {made['reason']}" for made in decided.values())


def _where(tracking: str, result: dict[str, Any]) -> str:
    lines = [f"MLflow: [{tracking}]({tracking})" if tracking.startswith("http") else f"MLflow: `{tracking}`", ""]
    for model in result["model"].values():
        address = f"{tracking.rstrip('/')}/#/models/{model['name']}/versions/{model['version']}"
        lines.append(f"- [{model['uri']}]({address})" if tracking.startswith("http") else f"- `{model['uri']}`")
    return "\n".join(lines)
