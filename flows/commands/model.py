"""Registered models and those who use them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import EXIT_TOO_MANY_EXCLUDED, AsJson, Home, app, errors_in_words, execution


def _age(years: float | None) -> float | None:
    # An age that is no number would be taken as none given, and the brain-PAD left out without a word.
    if years is not None and not (math.isfinite(years) and years > 0):
        raise typer.BadParameter(f"{years:g} is no age; give years as a number above 0, or leave --age out.")
    return years


@app.command(epilog="Example: `padflow predict models:/brain-age@champion sub-01_T1w.nii.gz --age 54.5 --out ages.csv`")
def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="models:/NAME@ALIAS or models:/NAME/VERSION.")],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE…", help="NIfTI: path, URL, or `T1w=PATH,T2w=PATH`."),
    ],
    out: Annotated[Path | None, typer.Option(help="Write the table here (.csv, .tsv or .parquet).")] = None,
    age: Annotated[
        float | None, typer.Option(help="Age in years, where all images are of one subject.", callback=_age)
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Brain age of new scans with a registered model."""
    with errors_in_words():
        execution(home)
        from flows.predict import predict_images
        from flows.summary import print_predictions
        from infra.settings import load_settings

        table = predict_images(load_settings(), model, images, age)
        print_predictions(table, out, as_json)
    if (table["status"] != "ok").any():
        raise typer.Exit(EXIT_TOO_MANY_EXCLUDED)
