"""A study and its stages."""

from __future__ import annotations

import typer

from flows.commands.options import (
    EXIT_FAILED,
    AsJson,
    Cluster,
    Data,
    Home,
    Profile,
    Rehash,
    Retry,
    StoreUrl,
    Study,
    Workers,
    app,
    console,
    errors_in_words,
    execution,
    exit_by_share,
    run_flow,
    study_path,
    tell,
)
from flows.progress_bars import progress_bars


@app.command(epilog="Example: `padflow run phantom --home demo --data demo/data`")
def run(
    study: Study,
    profile: Profile = None,
    home: Home = None,
    store: StoreUrl = None,
    data: Data = None,
    workers: Workers = None,
    cluster: Cluster = None,
    rehash: Rehash = False,
    retry_excluded: Retry = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole study; what is done already is skipped."""
    with errors_in_words():
        execution(home, store, data, workers, cluster)
        from flows.study import run_study, stages_left
        from flows.summary import print_summary
        from flows.workspace import open_workspace

        path = study_path(study, profile)
        workspace = open_workspace(path)
        with progress_bars() as progress:
            left = stages_left(workspace, workspace.index(progress, rehash))
        if left or retry_excluded:
            console.print(f"to do: {', '.join(left) or 'excluded scans again'}")
            run_flow(run_study, path, rehash, retry_excluded, indexed=True)
        else:
            console.print("nothing to do: every stage of this study is in the store already", style="green")
        excluded_share = print_summary(open_workspace(path), as_json)
    exit_by_share(excluded_share, workspace.study.excluded_tolerance)


@app.command(epilog="Example: `padflow preprocess infra/studies/ds002748.toml --data /data --workers 8`")
def preprocess(
    study: Study,
    profile: Profile = None,
    home: Home = None,
    store: StoreUrl = None,
    data: Data = None,
    workers: Workers = None,
    cluster: Cluster = None,
    rehash: Rehash = False,
    retry_excluded: Retry = False,
    as_json: AsJson = False,
) -> None:
    """Index the cohorts and prepare every scan that the store lacks."""
    with errors_in_words():
        execution(home, store, data, workers, cluster)
        from flows.prepare import prepare_study
        from infra.study_file import load_study
        from tasks.steps.progress import excluded_share

        path = study_path(study, profile)
        result, states = prepare_study(path, rehash, retry_excluded)
        share, tolerance = excluded_share(states), load_study(path).excluded_tolerance
    tell(as_json, result, lambda: typer.echo(f"prepared {result['prepared']}, excluded {result['excluded']} scans"))
    exit_by_share(share, tolerance)


@app.command(epilog="Example: `padflow train phantom --home demo --data demo/data`")
def train(
    study: Study,
    profile: Profile = None,
    home: Home = None,
    store: StoreUrl = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Train the study's model on the prepared scans and register it."""
    with errors_in_words():
        execution(home, store, data)
        from flows.train import train as flow

        result = run_flow(flow, study_path(study, profile))
    lines = [f"registered {model['uri']} as challenger" for model in result.values()]
    tell(as_json, result, lambda: typer.echo("\n".join(lines)))


@app.command(epilog="Example: `padflow validate phantom --home demo --data demo/data`")
def validate(
    study: Study,
    profile: Profile = None,
    home: Home = None,
    store: StoreUrl = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Score the external and clinical cohorts by the registered model and measure it."""
    with errors_in_words():
        execution(home, store, data)
        from flows.validate import validate as flow

        result = run_flow(flow, study_path(study, profile))
    tell(as_json, result, lambda: typer.echo("validated; `padflow report` shows the metrics"))


@app.command(epilog="Example: `padflow explain phantom --home demo --data demo/data --json`")
def explain(
    study: Study,
    profile: Profile = None,
    home: Home = None,
    store: StoreUrl = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Make the declared maps of where in the brain the model reads age, and add them up by region."""
    with errors_in_words():
        execution(home, store, data)
        from flows.explain import explain as flow
        from flows.explain import explanation_lines

        result = run_flow(flow, study_path(study, profile))
    tell(as_json, result, lambda: typer.echo("\n".join(explanation_lines(result))))


@app.command(epilog="Example: `padflow status phantom --home demo --data demo/data --json`")
def status(
    study: Study,
    profile: Profile = None,
    home: Home = None,
    store: StoreUrl = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Say what became of every indexed scan, from the store alone."""
    with errors_in_words():
        execution(home, store, data)
        from flows.status import print_status
        from flows.workspace import open_workspace

        workspace = open_workspace(study_path(study, profile))
        share, missing = print_status(workspace, as_json)
    if missing:
        raise typer.Exit(EXIT_FAILED)
    exit_by_share(share, workspace.study.excluded_tolerance)


@app.command(epilog="Example: `padflow report phantom --home demo --data demo/data`")
def report(
    study: Study,
    profile: Profile = None,
    home: Home = None,
    store: StoreUrl = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Write the HTML report and print its path."""
    with errors_in_words():
        execution(home, store, data)
        from flows.study import report as flow

        path = run_flow(flow, study_path(study, profile))
    tell(as_json, {"report": str(path)}, lambda: typer.echo(str(path)))
