"""Data sets: index, export, phantom."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.commands.options import (
    AsJson,
    Data,
    Home,
    Profile,
    Rehash,
    StoreUrl,
    Study,
    Workers,
    app,
    errors_in_words,
    execution,
    study_path,
    tell,
)


@app.command(epilog="Example: `padflow index s3://site-a/bids --json`")
def index(
    root: Annotated[str, typer.Argument(metavar="ROOT", help="BIDS root: path or URL.")],
    cohort: Annotated[str | None, typer.Option(help="Name of the cohort [the root's last part].")] = None,
    home: Home = None,
    store: StoreUrl = None,
    rehash: Rehash = False,
    as_json: AsJson = False,
) -> None:
    """Turn a BIDS root into a manifest and a clinical table; say every irregularity."""
    with errors_in_words():
        execution(home, store)
        from flows.status import index_root

        index_root(root, cohort, rehash, as_json)


@app.command(epilog="Example: `padflow export phantom derivatives --home demo --data demo/data`")
def export(
    study: Study,
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="Folder or URL; a folder per cohort is made in it.")
    ],
    profile: Profile = None,
    cohort: Annotated[list[str] | None, typer.Option(help="Only this cohort; may be given several times.")] = None,
    home: Home = None,
    store: StoreUrl = None,
    data: Data = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Scans at a time [PADFLOW_WORKERS].")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the prepared scans as BIDS derivatives (NIfTI, JSON, tables), which other tools open."""
    with errors_in_words():
        execution(home, store, data, workers)
        from flows.export import export_lines, export_study

        result = export_study(study_path(study, profile), destination, cohort or ())
    tell(as_json, result, lambda: typer.echo("\n".join(export_lines(result))))


@app.command(
    epilog="Examples: `padflow phantom data/train --subjects 100 --sites 3 --seed 1 --patients 0`; "
    "`padflow phantom data/ms --contrasts T1w,T2w,FLAIR --missing 0.1`; "
    "`padflow phantom data/memory --disease neurodegeneration --sessions 3`; "
    "`padflow phantom data/infants --population infants`; `padflow phantom data/clinic --slices thick`"
)
def phantom(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the new BIDS data set.")],
    subjects: Annotated[int, typer.Option(min=1, help="How many people.")] = 20,
    sites: Annotated[int, typer.Option(min=1, help="How many scanners.")] = 2,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    population: Annotated[Literal["adults", "infants"], typer.Option(help="Who is scanned.")] = "adults",
    disease: Annotated[
        Literal["ms", "neurodegeneration"], typer.Option(help="Of adults: multiple sclerosis, or AD and PD in turns.")
    ] = "ms",
    patients: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Share with MS [0.4], with AD or PD [0.5], of infants with abnormal myelination [0.06]."
        ),
    ] = None,
    visits: Annotated[
        int, typer.Option("--sessions", min=1, help="Sessions per person, about a year apart; 3 months for infants.")
    ] = 1,
    ages: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Youngest and oldest, in years [20 85; AD and PD 50 85]; infants: months [0 24]."),
    ] = None,
    contrasts: Annotated[
        str | None, typer.Option(help="Images of each session, of T1w,T2w,FLAIR [T1w]; infants [T1w,T2w].")
    ] = None,
    missing: Annotated[float, typer.Option(min=0, max=1, help="Share that lack a contrast but the first.")] = 0.0,
    slices: Annotated[
        Literal["3d", "thick", "mixed"] | None, typer.Option(help="3D or thick axial slices [3d]; infants [mixed].")
    ] = None,
    spacing: Annotated[
        float | None, typer.Option(help="Nominal voxel size in mm [2; thick slices 1 in plane].")
    ] = None,
    stripped: Annotated[bool, typer.Option("--stripped", help="Brains without skull.")] = False,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Write a phantom cohort with planted effects, and the truth beside it."""
    with errors_in_words():
        execution(workers=workers)
        from flows.summary import make_phantom

        unit = 12.0 if population == "infants" else 1.0
        given = {
            "patients": patients,
            "age_range_years": None if ages is None else (ages[0] / unit, ages[1] / unit),
            "contrasts": None if contrasts is None else tuple(name.strip() for name in contrasts.split(",")),
            "slices": slices,
            "spacing_mm": spacing,
            "in_plane_mm": spacing,
        }
        fixed: dict[str, Any] = {
            "subjects": subjects,
            "sites": sites,
            "seed": seed,
            "sessions": visits,
            "missing": missing,
        }
        fixed |= {"disease": disease, "population": population, "variant": "stripped" if stripped else "head"}
        make_phantom(out, fixed | {name: value for name, value in given.items() if value is not None}, as_json)
