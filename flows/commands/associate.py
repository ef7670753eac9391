"""Clinical association: of a study, of any table, or of estimates that sites share."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from flows.commands.options import (
    EXIT_FAILED,
    AsJson,
    Data,
    Home,
    Profile,
    StoreUrl,
    app,
    errors_in_words,
    execution,
    run_flow,
    study_path,
    tell,
)

StudyOrNone = Annotated[
    list[str] | None, typer.Argument(metavar="[STUDY]", help="Study file (TOML), or the name of a shipped study.")
]
TableUrl = Annotated[
    str | None, typer.Option("--table", help="Instead of a study: a CSV, TSV or Parquet table, path or URL.")
]
Models = Annotated[
    str | None,
    typer.Option("--models", help="With --table: TOML file of [[associations]], or a shipped analysis (ms, …)."),
]
Estimates = Annotated[
    list[str] | None,
    typer.Option("--estimates", metavar="FILE…", help="Instead of a study: sites' tables of estimates."),
]
Out = Annotated[str | None, typer.Option("--out", help="With --table or --estimates: folder or URL to write to.")]

Figures = Annotated[bool, typer.Option("--figures/--no-figures", help="Whether to draw figures beside the tables.")]


@app.command(
    epilog="Examples: `padflow associate phantom --home demo --data demo/data`; "
    "`padflow associate --table clinic.csv --models ms --out results`; "
    "`padflow associate --estimates oslo/effects.csv graz/effects.csv --out results`"
)
def associate(
    study: StudyOrNone = None,
    table: TableUrl = None,
    models: Models = None,
    estimates: Estimates = None,
    out: Out = None,
    figures: Figures = True,
    profile: Profile = None,
    home: Home = None,
    store: StoreUrl = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Fit the declared associations of brain-PAD: those of a study that the store lacks, or on a table of your own."""
    # Behind --estimates more files may follow without the flag again.
    files = [*estimates, *(study or [])] if estimates else []
    named = [] if files else study or []
    _check_usage(named, table, models, files, out)
    if not named:
        _without_study(table, models, files, str(out), figures, as_json)
        return
    with errors_in_words():
        execution(home, store, data)
        from flows.associate import associate as flow

        done = run_flow(flow, study_path(named[0], profile))
    said = f"fitted: {', '.join(done)}" if done else "nothing to do: every declared association is fitted already"
    tell(as_json, {"fitted": done}, lambda: typer.echo(said))


def _check_usage(
    study: list[str], table: str | None, models: str | None, estimates: list[str], out: str | None
) -> None:
    if len(study) > 1:
        raise typer.BadParameter(f"expected one STUDY, found {len(study)}: {', '.join(study)}")
    given = [name for name, value in (("STUDY", study), ("--table", table), ("--estimates", estimates)) if value]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise typer.BadParameter(f"expected one of STUDY, --table TABLE and --estimates FILE, found {found}")
    if (models is not None) != (table is not None):
        lacking, there = ("--models", "--table") if models is None else ("--table", "--models")
        if table or models:
            raise typer.BadParameter(f"{there} needs {lacking}, as in --table TABLE --models SPEC --out DIR")
    if (out is None) != bool(study):
        what = "--out DIR is needed: where to write" if not study else "--out is for --table and --estimates"
        raise typer.BadParameter(what)


def _without_study(
    table: str | None, models: str | None, estimates: list[str], out: str, figures: bool, as_json: bool
) -> None:
    # Models of a few columns gain nothing by threads within a product, and lose much where cores are shared.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with errors_in_words():
        from flows.table_analysis import associate_estimates, associate_table, lines, summary

        if table is not None:
            analysis, files = associate_table(table, str(models), out, figures)
        else:
            analysis, files = associate_estimates(estimates, out, figures)
    tell(
        as_json,
        summary(analysis, files),
        lambda: typer.echo("\n".join([*lines(analysis), "", f"{len(files)} files in {out}"])),
    )
    if not any(fit.kind for fit in analysis.fits):
        raise typer.Exit(EXIT_FAILED)
