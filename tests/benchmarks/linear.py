"""A simulated cohort of up to 100,000 scans: how indexing, planning, status and report grow with it.

Files, objects and tables are real, of a few bytes each. Times are of the processor, so that a busy machine does not
bend the curve.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.status import cohort_json
from infra.storage import Store
from infra.study_file import load_study
from tasks.science.imaging.recipe import recipe_digest
from tasks.science.report.cautions import find_cautions
from tasks.science.report.page import render_report
from tasks.steps.index import IndexedCohort, index_cohort, latest_index
from tasks.steps.progress import CohortState, cohort_state, finished_scans
from tests.benchmarks import simulated
from tests.benchmarks.rows import Row
from tests.tasks.science.report.made_up_study import made_up_predictions, made_up_study

SIZES = (10_000, 50_000, 100_000)
LARGEST_EXPONENT = 1.15
"""A power of the size above this is no noise of the clock: n log n has 1.08 over these sizes."""
PARTS = {
    "index": "indexing anew (list, hash, read tables, check)",
    "index again": "indexing an unchanged root (list, compare)",
    "plan": "planning (select scans, ask the store what is done)",
    "status": "status (read the index, plan, print as JSON)",
    "report": "report (cautions, tables, figures, page)",
}


def rows() -> list[Row]:
    """One row per part: seconds at each size, and the fitted power of the size."""
    times: dict[str, list[float]] = {part: [] for part in PARTS}
    for size in SIZES:
        print(f"  {size:,} scans", file=sys.stderr, flush=True)
        for part, took_s in measured(size).items():
            times[part].append(took_s)
    return [_row(part, taken) for part, taken in times.items()]


def _row(part: str, taken_s: list[float]) -> Row:
    exponent = float(np.polyfit(np.log(SIZES), np.log(taken_s), 1)[0])
    sizes = " / ".join(f"{size // 1000}k" for size in SIZES)
    return Row(
        f"{PARTS[part]}, {sizes} scans",
        f"linear: power of the size ≤ {LARGEST_EXPONENT}",
        f"{' / '.join(f'{took:.2f}' for took in taken_s)} s, power {exponent:.2f}",
        exponent <= LARGEST_EXPONENT,
    )


def measured(size: int) -> Mapping[str, float]:
    """Processor seconds of each part on one cohort."""
    times: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulated.write_bids(folder / "bids", size)
        study = simulated.write_study(folder)
        store = Store(str(folder / "store"), folder / "cache")
        root = str(folder / "bids")
        indexed = clocked(times, "index", lambda: index_cohort(store, "healthy", root))
        clocked(times, "index again", lambda: index_cohort(store, "healthy", root))
        simulated.finish(store, study, indexed)
        state = clocked(times, "plan", lambda: _plan(store, study, indexed))
        assert state.counts["prepared"] == size - size // simulated.EXCLUDED_OF
        clocked(times, "status", lambda: json.dumps(cohort_json(_status(store, study, root)), indent=1))
    contents = replace(made_up_study(), predictions=made_up_predictions(size // 2), exclusions=_exclusions(size))
    clocked(times, "report", lambda: render_report(replace(contents, cautions=find_cautions(contents))))
    return times


def _plan(store: Store, path: Path, indexed: IndexedCohort) -> CohortState:
    study = load_study(path)
    finished = finished_scans(store, recipe_digest(study.recipe))
    return cohort_state(store, study.cohorts[0], indexed, study, finished)


def _status(store: Store, path: Path, root: str) -> CohortState:
    indexed = latest_index(store, "healthy", root)
    assert indexed is not None
    return _plan(store, path, indexed)


def _exclusions(size: int) -> pd.DataFrame:
    numbers = range(0, size, simulated.EXCLUDED_OF)
    names = [f"healthy/{simulated.subject(number)}_T1w" for number in numbers]
    return pd.DataFrame({"cohort": "healthy", "scan_id": names, "stage": "quality", "reason": "a made-up reason"})


def clocked(times: dict[str, float], part: str, work: Callable[[], Any]) -> Any:
    """Run something and keep the processor seconds of this process."""
    start = time.process_time()
    result = work()
    times[part] = time.process_time() - start
    return result
