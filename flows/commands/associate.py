"""Clinical association."""

from __future__ import annotations

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


@app.command(epilog="Example: `padflow associate phantom --home demo --data demo/data`")
def associate(
    study: Study,
    profile: Profile = None,
    home: Home = None,
    store: StoreUrl = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Fit the declared associations of brain-PAD that the store lacks."""
    with errors_in_words():
        execution(home, store, data)
        from flows.associate import associate as flow

        done = run_flow(flow, study_path(study, profile))
    said = f"fitted: {', '.join(done)}" if done else "nothing to do: every declared association is fitted already"
    tell(as_json, {"fitted": done}, lambda: typer.echo(said))
