"""Printed: lineage of models and scans, and what became of a person's."""

from __future__ import annotations

import json
from typing import Any

from rich.table import Table

from flows.status import add_row, out

SCANS_SHOWN = 20


def print_models(models: list[dict[str, Any]], as_json: bool) -> None:
    """Print what models were made of."""
    if as_json:
        print(json.dumps(models, indent=1))
        return
    for model in models:
        out.print(f"{_versions(model) or 'in no registry here'}\nfit      {model['fit_key']}", soft_wrap=True)
        if model["study"]:
            out.print(f"study    {model['study']}", soft_wrap=True)
        for name, value in model["digests"].items():
            out.print(f"{name}  {value}", soft_wrap=True)
        by_role = ", ".join(f"{count} {role}" for role, count in model["scans_by_role"].items())
        out.print(_scans(model["scans"], f"Scans: {by_role}"))


def print_scans(found: dict[str, Any], as_json: bool) -> None:
    """Print every model of a scan."""
    if as_json:
        print(json.dumps(found, indent=1))
        return
    if not found["models"]:
        out.print("no model in this store was trained on it")
    for model in found["models"]:
        out.print(_scans(model["scans"], _versions(model) or f"fit {model['fit_key'][:16]}, in no registry here"))
    if found["predictions"]:
        table = Table("scan", "model", "table in the store", title="Predicted by", title_justify="left")
        for row in found["predictions"]:
            add_row(table, row["scan_id"], row["model_version"], row["table"])
        out.print(table)


def print_forgotten(told: dict[str, Any], as_json: bool) -> None:
    """Print what was, or would be, taken away."""
    if as_json:
        print(json.dumps(told, indent=1))
        return
    out.print(
        f"{told['subject']} of {', '.join(told['cohorts'])} ({told['data_set']}): {told['images']} images indexed",
        soft_wrap=True,
    )
    if told["models"]:
        table = Table("model", "part", "scans", "fit", title="Models trained on them", title_justify="left")
        for model in told["models"]:
            named = _versions(model) or "in no registry here"
            add_row(table, named, ", ".join(model["roles"]), str(model["scans"]), model["fit_key"][:16])
        out.print(table)
    else:
        out.print("no model in this store was trained on them")
    title = "Deleted" if told["deleted"] else "Would be deleted"
    table = Table("what", "number", title=title, title_justify="left")
    for name, count in told["found"].items():
        add_row(table, name, str(count))
    out.print(table)
    for line in told["kept"]:
        out.print(f"kept: {line}", soft_wrap=True)
    out.print("Stays, or is out of reach:", *(f"- {line}" for line in told["out_of_reach"]), sep="\n", soft_wrap=True)
    out.print(
        "The scans are excluded from every later run: consent withdrawn."
        if told["deleted"]
        else "Nothing was written. To delete, and to keep the scans out of every later run: the same with --yes.",
        soft_wrap=True,
    )


def _versions(model: dict[str, Any]) -> str:
    return "; ".join(
        f"{version['model']} ({', '.join(version['aliases']) or 'no alias'})" for version in model["versions"]
    )


def _scans(scans: list[dict[str, Any]], title: str) -> Table:
    table = Table("scan", "subject", "part", "sha256", title=title, title_justify="left")
    for row in scans[:SCANS_SHOWN]:
        add_row(table, row["scan_id"], row["participant_id"], row["role"], row["sha256"][:16])
    if len(scans) > SCANS_SHOWN:
        table.caption = f"and {len(scans) - SCANS_SHOWN} more; --json lists all"
    return table
