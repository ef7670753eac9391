"""The command line: parse, load settings, call one flow, print where the result is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.interruption import start_embedded_server, unwind_on_signals
from flows.progress_bars import console, progress_bars

EXIT_FAILED = 1
EXIT_TOO_MANY_EXCLUDED = 3

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Brain-age studies from raw BIDS MRI to a registered model, an external validation and a report.",
    epilog="Start with `padflow run STUDY --data FOLDER`. "
    "Exit codes: 0 whole, 1 failed, 2 wrong usage, 3 more scans excluded than the study tolerates.",
)

Study = Annotated[str, typer.Argument(metavar="STUDY", help="Study file (TOML), or the name of a shipped study.")]
Profile = Annotated[str | None, typer.Option(help="Take this profile of the study file, as `tiny`.")]
Home = Annotated[Path | None, typer.Option(help="Folder of the embedded defaults [PADFLOW_HOME, .padflow].")]
StoreUrl = Annotated[str | None, typer.Option("--store", help="Object store, path or URL [PADFLOW_STORE].")]
Data = Annotated[str | None, typer.Option(help="Folder or URL that cohort roots are below [PADFLOW_DATA].")]
Workers = Annotated[int | None, typer.Option(min=1, help="How many workers to start [PADFLOW_WORKERS].")]
Cluster = Annotated[
    str | None, typer.Option(help="local, tcp://… or tls://…, slurm, kubernetes, or a profile [PADFLOW_CLUSTER].")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Retry = Annotated[bool, typer.Option("--retry-excluded", help="Try scans again that preprocessing has excluded.")]
Rehash = Annotated[bool, typer.Option("--rehash", help="Read every file again when indexing.")]


@contextmanager
def errors_in_words() -> Iterator[None]:
    """Turn an error that a user can act on into its message and an exit code; anything else keeps its traceback."""
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get("PADFLOW_DEBUG"):
            raise
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED) from error


def execution(
    home: Path | None = None,
    store: str | None = None,
    data: str | None = None,
    workers: int | None = None,
    cluster: str | None = None,
) -> None:
    """Put flags into the environment, which every flow and every process that it starts reads."""
    from infra.settings import load_settings

    unwind_on_signals()
    given = {
        "PADFLOW_HOME": None if home is None else str(home.absolute()),
        "PADFLOW_STORE": store,
        "PADFLOW_DATA": data,
        "PADFLOW_WORKERS": None if workers is None else str(workers),
        "PADFLOW_CLUSTER": cluster,
    }
    os.environ.update({name: value for name, value in given.items() if value is not None})
    load_settings()


def study_path(study: str, profile: str | None) -> str:
    """The path of what the user named, and behind a `#` its profile, which alters results and so travels along."""
    from infra.study_file import find_study

    return str(find_study(study).absolute()) + (f"#{profile}" if profile else "")


def run_flow(flow: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Run a flow under Prefect's server: the user's, or one of this command's own."""
    start_embedded_server()
    return flow(*arguments, **named)


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


def exit_by_share(share: float, tolerance: float) -> None:
    """End with a code of its own where the study is whole but for too many excluded scans."""
    if share > tolerance:
        console.print(f"{share:.0%} of the scans are excluded; the study tolerates {tolerance:.0%}", style="yellow")
        raise typer.Exit(EXIT_TOO_MANY_EXCLUDED)


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
    lines = [f"registered {model['uri']}, aliases {', '.join(model['aliases'])}" for model in result.values()]
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


@app.command(epilog="Example: `padflow predict models:/brain-age@champion sub-01_T1w.nii.gz --age 54.5 --out ages.csv`")
def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="models:/NAME@ALIAS or models:/NAME/VERSION.")],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE…", help="NIfTI: path, URL, or `T1w=PATH,T2w=PATH`."),
    ],
    out: Annotated[Path | None, typer.Option(help="Write the table here (.csv, .tsv or .parquet).")] = None,
    age: Annotated[float | None, typer.Option(help="Age in years, where all images are of one subject.")] = None,
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


def tell(as_json: bool, result: Any, otherwise: Callable[[], None]) -> None:
    """Print a result for a script or for a person."""
    if as_json:
        typer.echo(json.dumps(result, indent=1, default=str))
    else:
        otherwise()


if __name__ == "__main__":
    app()
