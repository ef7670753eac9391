"""Does the demo find what was planted? Three declared seeds, all reported, and a control with shuffled ages.

`make bench BENCH=planted_effects` makes new phantom cohorts for each seed, runs the shipped study on them from nothing,
and writes the table into the README between markers of its own. Nothing is chosen: the seeds are those below. Remove
`bench/` to measure anew.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.benchmarks.rows import Row
from tests.benchmarks.table import replace_block

SEEDS = (1, 2, 3)
PROJECT = Path(__file__).resolve().parents[2]
FOLDER = PROJECT / "bench"
BEGIN, END = "<!-- planted effects: begin -->", "<!-- planted effects: end -->"


def padflow(*arguments: str) -> str:
    """Run a command of padflow; its progress stays visible."""
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(command, check=True, cwd=PROJECT, stdout=subprocess.PIPE, text=True).stdout


def make_cohorts(data: Path, seed: int) -> None:
    """The demo's cohorts by its own script, with other seeds."""
    subprocess.run(["bash", "infra/demo_cohorts.sh", str(data), str(seed)], check=True, cwd=PROJECT, env=with_python())


def with_python() -> dict[str, str]:
    """The environment in which `padflow` is this interpreter's."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def metric(result: dict[str, Any], cohort: str, name: str, predictor: str = "model") -> dict[str, Any]:
    """One whole-cohort raw metric of a finished study."""
    wanted = {"cohort": cohort, "predictor": predictor, "correction": "raw", "group": "overall", "metric": name}
    return next(row for row in result["metrics"] if all(row[key] == value for key, value in wanted.items()))


def coefficient(result: dict[str, Any], model: str, term: str) -> dict[str, Any]:
    """One fitted coefficient of a finished study."""
    return next(row for row in result["associations"] if (row["model"], row["term"]) == (model, term))


def measure(folder: Path, seed: int) -> dict[str, Any]:
    """Run one seed from nothing and compare with what was planted; a seed that was timed already is not timed again."""
    timed = folder / "minutes.json"
    start = time.monotonic()
    if not timed.exists():
        shutil.rmtree(folder, ignore_errors=True)
        make_cohorts(folder / "data", seed)
    result = json.loads(padflow("run", "phantom", "--home", str(folder), "--data", str(folder / "data"), "--json"))
    if not timed.exists():
        timed.write_text(json.dumps((time.monotonic() - start) / 60))
    minutes = json.loads(timed.read_text())
    truth = json.loads((folder / "data" / "clinic" / "derivatives" / "phantom-truth" / "truth.json").read_text())
    slope = metric(result, "external", "calibration_slope")["estimate"]
    row = {
        "seed": seed,
        "minutes": minutes,
        "external": metric(result, "external", "mae"),
        "median_age_mae": median_age_error(folder / "data" / "external"),
        "slope": slope,
    }
    for name, model, term, planted in (
        ("diagnosis", "diagnosis", "diagnosis[MS]", truth["diagnosis_ms_years"]),
        ("edss", "severity", "edss", truth["edss_years_per_point"]),
    ):
        found = coefficient(result, model, term)
        row[name] = {**found, "expected": planted * slope, "z": (found["estimate"] - planted * slope) / found["se"]}
    return row


def median_age_error(cohort: Path) -> float:
    """MAE of predicting a cohort's own median age: what a model without any knowledge of the image could reach."""
    ages = pd.read_csv(cohort / "participants.tsv", sep="\t")["age"]
    return float((ages - ages.median()).abs().mean())


def measure_shuffled(folder: Path, control: Path) -> dict[str, Any]:
    """The same training on ages dealt out at random: the prepared scans are shared, since their bytes are the same."""
    shutil.rmtree(control, ignore_errors=True)
    shutil.copytree(folder / "data", control / "data")
    table = control / "data" / "train" / "participants.tsv"
    people = pd.read_csv(table, sep="\t", keep_default_na=False, dtype=str)
    people["age"] = np.random.default_rng(0).permutation(people["age"].to_numpy())
    people.to_csv(table, sep="\t", index=False)
    for made in ("prepared", "montages"):
        shutil.copytree(folder / "store" / made, control / "store" / made)
    result = json.loads(padflow("run", "phantom", "--home", str(control), "--data", str(control / "data"), "--json"))
    found = {name: metric(result, "external", "mae", name) for name in ("model", "mean age")}
    return {**found, "r": metric(result, "external", "pearson_r")}


def as_table(rows: list[dict[str, Any]], shuffled: dict[str, Any]) -> str:
    """The README's table."""
    lines = [
        "| phantom seed | external MAE [95% CI], years | predicting the median age | calibration slope "
        "| MS − HC: found (SE), expected, z | per EDSS point: found (SE), expected, z | minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [str(row["seed"]), interval(row["external"]), f"{row['median_age_mae']:.1f}", f"{row['slope']:.2f}"]
        for name in ("diagnosis", "edss"):
            found = row[name]
            cells.append(f"{found['estimate']:.2f} ({found['se']:.2f}), {found['expected']:.2f}, {found['z']:+.1f}")
        lines.append("| " + " | ".join([*cells, f"{row['minutes']:.1f}"]) + " |")
    lines += [
        "",
        f"The same training on shuffled ages (seed {SEEDS[0]}): external MAE {interval(shuffled['model'])}, "
        f"predicting the training cohort's mean age {interval(shuffled['mean age'])}; r {interval(shuffled['r'])}.",
        f"Measured on {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; "
        "expected is the planted effect × the model's calibration slope.",
    ]
    return "\n".join(lines)


def interval(row: dict[str, Any]) -> str:
    """An estimate with its interval."""
    return f"{row['estimate']:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"


def failures(rows: list[dict[str, Any]], shuffled: dict[str, Any]) -> list[str]:
    """What falls short of what the demo promises."""
    found = []
    for row in rows:
        if row["external"]["estimate"] > row["median_age_mae"] / 2:
            found.append(f"seed {row['seed']}: external MAE is above half of the median age's")
        for name in ("diagnosis", "edss"):
            if row[name]["estimate"] <= 0 or abs(row[name]["z"]) >= 3:
                found.append(f"seed {row['seed']}: the planted {name} effect is not found")
    if shuffled["model"]["ci_high"] < shuffled["mean age"]["estimate"]:
        found.append("training on shuffled ages gains something")
    return found


def rows() -> list[Row]:
    """Measure, write the table, and fail where the demo does not hold what it promises; it has no line elsewhere."""
    measured = [measure(FOLDER / f"seed-{seed}", seed) for seed in SEEDS]
    shuffled = measure_shuffled(FOLDER / f"seed-{SEEDS[0]}", FOLDER / "shuffled")
    table = as_table(measured, shuffled)
    print(table)
    replace_block(BEGIN, END, table)
    short = failures(measured, shuffled)
    if short:
        raise SystemExit("\n".join(short))
    return []
