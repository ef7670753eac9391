"""Which version of a model is in use: gates, rollback and the decisions so far."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.options import (
    AsJson,
    Data,
    Home,
    Profile,
    StoreUrl,
    Study,
    app,
    errors_in_words,
    execution,
    run_flow,
    study_path,
    tell,
)

EXIT_REFUSED = 4
Model = Annotated[
    str, typer.Argument(metavar="STUDY|MODEL", help="Study file or shipped study, or a model's name in the registry.")
]


@app.command(epilog="Example: `padflow promote phantom --home demo --data demo/data --dry-run`")
def promote(
    study: Study,
    version: Annotated[str | None, typer.Option(help="Ask about this version; left out: the study's newest.")] = None,
    model: Annotated[str | None, typer.Option(help="One of the study's [[models]]; left out: the first.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be decided, and record nothing.")] = False,
    profile: Profile = None,
    home: Home = None,
    store: StoreUrl = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Ask the study's gates again whether its model becomes the champion. Exit code 4: they refuse it."""
    with errors_in_words():
        execution(home, store, data)
        from flows.decide import decision_lines
        from flows.decide import promote as flow

        decision = run_flow(flow, study_path(study, profile), version, dry_run, model)
    tell(as_json, decision, lambda: typer.echo("\n".join(decision_lines(decision))))
    if decision["kind"] == "refused":
        raise typer.Exit(EXIT_REFUSED)


@app.command(epilog='Example: `padflow rollback brain-age --reason "site C drifts" --home demo`')
def rollback(
    model: Model,
    reason: Annotated[str, typer.Option(help="Why; it is kept with the decision.")] = "",
    profile: Profile = None,
    home: Home = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Return to the champion before this one; again, and further back."""
    with errors_in_words():
        execution(home, store)
        from flows.decide import decision_lines
        from flows.decisions import roll_back_model

        decision = roll_back_model(model, profile, reason)
    tell(as_json, decision, lambda: typer.echo("\n".join(decision_lines(decision))))


@app.command(epilog="Example: `padflow decisions brain-age --home demo`")
def decisions(
    model: Model, profile: Profile = None, home: Home = None, store: StoreUrl = None, as_json: AsJson = False
) -> None:
    """List every decision on a model, oldest first, and set the registry's aliases right where they differ."""
    with errors_in_words():
        execution(home, store)
        from flows.decisions import decisions_of, decisions_table
        from flows.status import out

        chain = decisions_of(model, profile)
    tell(as_json, list(chain.decisions), lambda: out.print(decisions_table(chain)))
