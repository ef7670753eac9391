"""Two of the four published studies from `padflow run` alone, on phantoms that they write themselves.

The other two run the same way by hand: `padflow run ms-flair --profile tiny`, `padflow run infant-myelination …`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest

from tests.command_line import CommandLine

pytestmark = [pytest.mark.studies, pytest.mark.timeout(1800)]
# Each study's models, and what it relates brain age to.
MODELS = {"clinical-2d": 2, "rank-n-contrast": 6}
ASSOCIATIONS = {
    "clinical-2d": {"diagnosis", "ad-progression", "pd-progression"},
    "rank-n-contrast": {"diagnosis", "ad-cdr-sb", "pd-updrs-iii"},
}
Run = tuple[str, CommandLine, dict[str, Any], str]


@pytest.fixture(scope="module", params=MODELS)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A study that has run once: its name, its command line, what it printed as JSON, and its report."""
    folder = tmp_path_factory.mktemp(request.param)
    padflow = CommandLine(folder / "home", str(folder / "data"))
    padflow.patience_s = 1500
    result = json.loads(padflow("run", request.param, "--profile", "tiny", "--json"))
    return request.param, padflow, result, Path(result["report"]).read_text()


def test_every_model_is_trained_validated_and_shown_beside_the_others(finished: Run) -> None:
    name, _, result, page = finished
    arms = list(result["models"])
    assert len(arms) == MODELS[name]
    errors = [row for row in result["metrics"] if (row["metric"], row["predictor"]) == ("mae", "model")]
    raw = [row for row in errors if (row["correction"], row["group"]) == ("raw", "overall")]
    cohorts = {row["cohort"] for row in raw}
    assert {(row["arm"], row["cohort"]) for row in raw} == {(arm, cohort) for arm in arms for cohort in cohorts}
    assert all(row["estimate"] > 0 for row in raw)
    assert "Comparison of the models" in page
    for arm in arms:
        assert arm in page


def test_the_report_shows_what_the_paper_compared(finished: Run) -> None:
    name, _, result, page = finished
    assert {row["model"] for row in result["associations"]} >= ASSOCIATIONS[name]
    if name == "rank-n-contrast":
        assert "raining size" in page
        assert {row["arm"] for row in result["associations"]} == {"rnc", "plain"}


def test_mlflow_has_a_run_of_the_study_one_per_model_and_one_per_member(finished: Run) -> None:
    name, padflow, result, _ = finished
    database = f"sqlite:///{padflow.home / 'mlflow.db'}"
    # Both named: the registry of another test in this process would be taken else.
    client = mlflow.MlflowClient(database, database)
    (experiment,) = (e for e in client.search_experiments() if e.name == f"{name}-tiny")
    runs = client.search_runs([experiment.experiment_id])
    parent = {run.info.run_id: run.data.tags.get("mlflow.parentRunId") for run in runs}
    (top,) = (run_id for run_id, above in parent.items() if above is None)
    models = {run_id for run_id, above in parent.items() if above == top}
    assert models == {model["run_id"] for model in result["models"].values()}
    assert {above for above in parent.values() if above not in (None, top)} == models
    assert all(run.info.status == "FINISHED" for run in runs)


def test_the_gates_are_asked_about_the_model_that_is_named(finished: Run) -> None:
    name, padflow, result, _ = finished
    *_, last = result["models"]
    padflow("promote", name, "--profile", "tiny", "--model", last, "--dry-run", code=1)
    registered = result["models"][last]["uri"].split("/")[1]
    assert f"{registered}: version 1 is the champion already" in padflow.stderr
    # However its number is spelt.
    padflow("promote", name, "--profile", "tiny", "--version", "01", "--dry-run", code=1)
    assert "version 1 is the champion already" in padflow.stderr
    padflow("promote", name, "--profile", "tiny", "--version", "77", "--dry-run", code=1)
    assert "the registry has no version 77, expected one of 1" in padflow.stderr
    padflow("promote", name, "--profile", "tiny", "--model", "nobody", code=1)
    assert f"no model 'nobody'; its models: {', '.join(result['models'])}" in padflow.stderr


def test_a_second_run_has_nothing_to_do(finished: Run) -> None:
    name, padflow, _, _ = finished
    padflow("run", name, "--profile", "tiny")
    assert "nothing to do" in padflow.stderr
