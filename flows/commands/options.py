"""What every command shares: its options, the environment that they set, and how errors and results are told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.interruption import start_embedded_server, unwind_on_signals
from flows.progress_bars import console

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
    """What a flow is told of the study that the user named; loaded late, since `--help` needs no study."""
    from infra.study_file import study_reference

    return study_reference(study, profile)


def run_flow(flow: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Run a flow under Prefect's server: the user's, or one of this command's own."""
    start_embedded_server()
    return flow(*arguments, **named)


def exit_by_share(share: float, tolerance: float) -> None:
    """End with a code of its own where the study is whole but for too many excluded scans."""
    if share > tolerance:
        console.print(f"{share:.0%} of the scans are excluded; the study tolerates {tolerance:.0%}", style="yellow")
        raise typer.Exit(EXIT_TOO_MANY_EXCLUDED)


def tell(as_json: bool, result: Any, otherwise: Callable[[], None]) -> None:
    """Print a result for a script or for a person."""
    if as_json:
        typer.echo(json.dumps(result, indent=1, default=str))
    else:
        otherwise()
