"""Declared models on a table that a user brings: no scan, no server, no tracking. A study's flow is the same code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from infra.analysis_file import find_analysis, load_models
from infra.result_folder import check_folder, write_files
from infra.tables import read_table
from tasks.science.report.csv_files import csv_text, without_guards
from tasks.science.report.publication import publish
from tasks.science.statistics.analysis import Analysis, analyse
from tasks.science.statistics.association_fit import AssociationFit
from tasks.science.statistics.estimate_tables import combined_estimates, estimate_rows
from tasks.science.statistics.fit_record import to_record

EFFECTS = "effects.csv"
RECORD = "analysis.json"
# Known before any model is fitted; what else is written depends on the models.
ALWAYS_WRITTEN = (
    EFFECTS,
    RECORD,
    "methods.txt",
    "methods.md",
    "report.html",
    "tables/effects.csv",
    "figures/forest.svg",
)
# A screen of a thousand models is read from its file.
MOST_DESCRIBED = 20


def associate_table(table: str, models: str, out: str, figures: bool = True) -> tuple[Analysis, list[str]]:
    """Fit declared models on a table and write what they came to.

    Args:
        table: Path or URL of a CSV, TSV or Parquet table, one row per scan or session.
        models: A TOML file of models, or the name of a shipped one.
        out: Folder or URL to write to.
        figures: Whether to draw figures, too.

    Returns:
        The analysis, and where its files are.
    """
    specs = load_models(models)
    inputs = (table, str(find_analysis(models.partition("#")[0])))
    check_folder(out, ALWAYS_WRITTEN, inputs)
    read = read_table(table)
    found = analyse(specs, read.rows)
    analysis = Analysis(found.fits, found.effects, (*read.problems, *found.problems))
    return analysis, write_files(out, _files(analysis, figures), inputs)


def associate_estimates(files: Sequence[str], out: str, figures: bool = True) -> tuple[Analysis, list[str]]:
    """Combine what sites share of their estimates, by random-effects meta-analysis; no row leaves a site.

    Args:
        files: Tables with `model, term, estimate, se, n` and, unless each file is one site, `site`; what
            `padflow associate --table` writes as effects.csv is one.
        out: Folder or URL to write to.
        figures: Whether to draw figures, too.

    Returns:
        The analysis, and where its files are.
    """
    check_folder(out, ALWAYS_WRITTEN, files)
    read = [(url, read_table(url)) for url in files]
    rows = [estimate_rows(without_guards(table.rows), url) for url, table in read]
    found = combined_estimates(pd.concat(rows, ignore_index=True))
    said = [sentence for _, table in read for sentence in table.problems]
    analysis = Analysis(found.fits, found.effects, (*said, *found.problems))
    return analysis, write_files(out, _files(analysis, figures), files)


def summary(analysis: Analysis, files: Sequence[str]) -> dict[str, Any]:
    """What a script reads: effects, problems per model and about the table, and where the files are."""
    return {
        "effects": [{str(k): _plain(v) for k, v in row.items()} for row in analysis.effects.to_dict("records")],
        "models": [
            {
                "name": fit.name,
                "method": fit.method,
                "n_used": fit.n_used,
                "n_subjects": fit.n_subjects,
                "n_dropped": fit.n_dropped,
                "n_missing": dict(fit.n_missing),
                "random_effects": {name: _plain(value) for name, value in fit.random_effects.items()},
                "problems": list(fit.problems),
                "notes": list(fit.notes),
            }
            for fit in analysis.fits
        ],
        "problems": list(analysis.problems),
        "files": list(files),
    }


def lines(analysis: Analysis) -> list[str]:
    """What a person reads: one line per effect of interest, then what is to be known."""
    shown = []
    for row in analysis.effects[analysis.effects["of_interest"].astype(bool)].to_dict("records"):
        if pd.isna(row["estimate"]):
            shown.append(f"{row['model']}: not fitted")
            continue
        figures = f"{row['estimate']:.6g} [{row['ci_low']:.6g}, {row['ci_high']:.6g}]"
        chance = f"p {_chance(row['p_value'])}, q {_chance(row['q_value'])}"
        shown.append(
            f"{row['model']}: {row['term']} {figures}, SE {row['se']:.4g}, {chance}, n = {_size(row['n_used'])}"
        )
    shown += ["", *(_model_line(fit) for fit in analysis.fits if fit.kind and len(analysis.fits) <= MOST_DESCRIBED)]
    said = [*analysis.problems, *(f"{fit.name}: {sentence}" for fit in analysis.fits for sentence in fit.problems)]
    return [*shown, *([""] if said else []), *dict.fromkeys(said)]


def _chance(p_value: float) -> str:
    """A p or q value to three digits, since a person may copy it; `effects.csv` has them all.

    >>> _chance(0.04217), _chance(1e-9), _chance(float("nan"))
    ('= 0.0422', '< 0.0001', 'not estimable')
    """
    if pd.isna(p_value):
        return "not estimable"
    return f"= {p_value:.3g}" if p_value >= 1e-4 else "< 0.0001"


def _size(n: float) -> str:
    return "not given" if pd.isna(n) else f"{n:.0f}"


def _model_line(fit: AssociationFit) -> str:
    figures = [f"variance of {name} {value:.4f}" for name, value in fit.random_effects.items()]
    found = fit.diagnostics[fit.diagnostics["figure"] == "deviance"]["value"]
    restricted = "restricted " if "REML" in fit.method else ""
    figures += [f"−2 log {restricted}likelihood {value:.4f}" for value in found]
    figures += [f"{row.term}: I² {row.i2:.0%}, τ² {row.tau2:.3g}" for row in fit.heterogeneity.itertuples()]
    dropped = ", ".join(f"{n} {reason}" for reason, n in fit.n_dropped.items())
    groups = fit.diagnostics[fit.diagnostics["figure"] == "groups"]["value"]
    named = fit.groups not in ("", "participant_id") and len(groups)
    of_whom = f"in {int(groups.iloc[0])} groups by {fit.groups}" if named else f"of {fit.n_subjects} subjects"
    used = f"{fit.n_used} rows {of_whom}" if fit.n_used else "how many rows is not given"
    rows = f"{used}; dropped: {dropped or 'none'}"
    return "; ".join([f"{fit.name}: {fit.method}", rows, *figures])


def _files(analysis: Analysis, figures: bool) -> dict[str, bytes]:
    effects = analysis.effects.assign(
        problems=analysis.effects["problems"].map(" ".join), notes=analysis.effects["notes"].map(" ".join)
    )
    record = {"problems": list(analysis.problems), "models": [to_record(fit) for fit in analysis.fits]}
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    files = {EFFECTS: csv_text(effects, digits=None).encode(), RECORD: text.encode()}
    return {**files, **publish(analysis, figures)}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
