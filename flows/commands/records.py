"""What is on record of registered models and of the people whose scans they were made from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import AsJson, Data, Home, Profile, StoreUrl, app, errors_in_words, execution
from flows.commands.options import study_path as path_of

Cohort = Annotated[str | None, typer.Option(help="Cohort, where several have somebody of that name.")]


@app.command(epilog="Example: `padflow card models:/brain-age@champion --out card.html`")
def card(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="models:/NAME@ALIAS or models:/NAME/VERSION.")],
    out: Annotated[Path | None, typer.Option(help="Write it here (.md or .html).")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Print or write a registered model's card."""
    with errors_in_words():
        execution(home)
        from flows.lineage import model_card

        kind = "json" if as_json else "md" if out is None else out.suffix.removeprefix(".")
        if kind not in ("json", "md", "html"):
            raise ValueError(f"--out {out}: expected a name that ends in .md or .html")
        text = model_card(model, kind)
        if out is None:
            typer.echo(text)
            return
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
        typer.echo(str(out))


@app.command(epilog="Example: `padflow lineage models:/brain-age@champion`; `padflow lineage --subject sub-01`")
def lineage(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="models:/…, a fit's key, or a table of predictions.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="Every model that was trained on this person.")] = None,
    cohort: Cohort = None,
    scan: Annotated[str | None, typer.Option(help="Every model that was trained on the image of this SHA-256.")] = None,
    home: Home = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """From a prediction or model to study, manifests and scans; from a scan to every model."""
    with errors_in_words():
        execution(home, store)
        from flows.lineage import lineage_of_models, models_of_scans
        from flows.record_tables import print_models, print_scans

        if model is not None:
            print_models(lineage_of_models(model), as_json)
        else:
            print_scans(models_of_scans(subject, cohort, scan), as_json)


@app.command(epilog="Example: `padflow forget sub-01 --cohort healthy` shows what would go; with `--yes` it goes.")
def forget(
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="participant_id, as sub-01.")],
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="Whose cohorts are meant; none: all in the store.")
    ] = None,
    cohort: Cohort = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; otherwise nothing is written.")] = False,
    profile: Profile = None,
    home: Home = None,
    store: StoreUrl = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Withdrawn consent: the models trained on a person, and an end to what was made of their scans."""
    with errors_in_words():
        execution(home, store, data)
        from flows.forget import forget_subject
        from flows.record_tables import print_forgotten

        print_forgotten(forget_subject(path_of(study, profile) if study else None, subject, cohort, yes), as_json)
