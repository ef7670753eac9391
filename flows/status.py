"""Where a study or a cohort stands, printed from the store alone and without loading any engine."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.progress_bars import counter, progress_bars
from flows.workspace import Workspace
from infra import layout
from infra.settings import load_settings
from infra.storage import Store
from tasks.steps.index import index_cohort
from tasks.steps.progress import CohortState, excluded_share

# Where output goes to a file, tables keep the width that they need.
NARROWEST = 120
out = Console(markup=False, highlight=False)
if not out.is_terminal:
    out = Console(markup=False, highlight=False, width=max(out.width, NARROWEST))
# Of one kind: a table of a million people who were never scanned is one fault, not a million.
PROBLEMS_SHOWN = 10
# A terminal table of thousands takes longer than everything else, and nobody reads it.
EXCLUSIONS_SHOWN = 100
COUNTS = ("indexed", "unused", "prepared", "excluded", "missing")


def print_status(workspace: Workspace, as_json: bool) -> tuple[float, int]:
    """Print what became of every indexed scan; gives the share of excluded scans and the number of missing ones."""
    states = workspace.stored_states()
    if as_json:
        print(json.dumps({"cohorts": [cohort_json(state) for state in states]}, indent=1))
        return excluded_share(states), sum(len(state.missing) for state in states)
    out.print(flow_table(states))
    excluded = [(state.spec.name, item) for state in states for item in state.excluded]
    if excluded:
        table = Table("cohort", "scan", "stage", "reason", title="Excluded scans", title_justify="left")
        for cohort, item in excluded[:EXCLUSIONS_SHOWN]:
            add_row(table, cohort, item.scan_id, item.stage, item.reason)
        out.print(table)
    if len(excluded) > EXCLUSIONS_SHOWN:
        out.print(f"and {len(excluded) - EXCLUSIONS_SHOWN} more excluded scans; `--json` lists them all")
    missing = [(state.spec.name, scan.scan_id) for state in states for scan in state.missing]
    if missing:
        out.print(f"{len(missing)} scans are not prepared yet, the first is {missing[0][1]}; `padflow run` does them")
    return excluded_share(states), len(missing)


def index_root(root: str, cohort: str | None, rehash: bool, as_json: bool) -> None:
    """Index one BIDS root and print what was found."""
    settings = load_settings()
    url = root if "://" in root else str(Path(root).absolute())
    name = cohort or "".join(c if c.isalnum() or c in "-_" else "-" for c in url.rstrip("/").rsplit("/", 1)[-1])
    store = Store(settings.store, settings.cache, settings.cache_bytes)
    with progress_bars() as progress:
        indexed = index_cohort(store, name, url, rehash, counter(progress, f"index {name}"))
    tables = indexed.tables
    manifest = store.uri(layout.index_table(name, url, indexed.digest, "manifest"))
    clinical = store.uri(layout.index_table(name, url, indexed.digest, "clinical"))
    if as_json:
        counts = tables.manifest["modality"].value_counts().to_dict()
        body = {"cohort": name, "scans": counts, "manifest": manifest, "clinical": clinical}
        print(json.dumps({**body, "problems": as_rows(tables.problems)}, indent=1))
        return
    by_modality = ", ".join(f"{count} {kind}" for kind, count in tables.manifest["modality"].value_counts().items())
    subjects = tables.manifest["participant_id"].nunique()
    out.print(f"{name}: {len(tables.manifest)} scans ({by_modality or 'none'}) of {subjects} subjects")
    for kind, rows in tables.problems.groupby("kind", sort=False):
        for row in rows.head(PROBLEMS_SHOWN).to_dict("records"):
            out.print(f"  {kind}: {row['path']}: {row['message']}", style="yellow")
        if len(rows) > PROBLEMS_SHOWN:
            out.print(f"  {kind}: and {len(rows) - PROBLEMS_SHOWN} more; --json prints all", style="yellow")
    out.print(f"manifest  {manifest}\nclinical  {clinical}", soft_wrap=True)


def flow_table(states: list[CohortState]) -> Table:
    """Scans of each cohort by what became of them."""
    table = Table("cohort", "role", *COUNTS, title="Scans", title_justify="left")
    for state in states:
        add_row(table, state.spec.name, state.spec.role, *(str(state.counts[name]) for name in COUNTS))
    return table


def add_row(table: Table, *cells: str) -> None:
    """Add a row as plain text: a term like group[depr] would be taken for markup and lose its level."""
    table.add_row(*(Text(cell) for cell in cells))


def cohort_json(state: CohortState) -> dict[str, Any]:
    """A cohort's counts, and which scans are excluded or missing."""
    return {
        "name": state.spec.name,
        "role": state.spec.role,
        **state.counts,
        "exclusions": [asdict(item) for item in state.excluded],
        "missing_scans": [scan.scan_id for scan in state.missing],
    }


def as_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table for JSON, through pandas' own writer, which turns what is undefined into null."""
    return list(json.loads(table.to_json(orient="records")))
