"""A fan-out of real scans: how much of the cores' time is spent in scans, and what else the wall clock holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import wraps
from pathlib import Path
from typing import Any

from tests.benchmarks.real_scans import ROOT, WHY_ABSENT, raw_scans
from tests.benchmarks.rows import Row

WORKERS = 2
BAR = 0.92
STUDY = """
name = "real"

[[cohorts]]
name = "real"
role = "train"
root = "ds002748"

[recipe]
resolution_mm = 1.0
"""
WHAT = "fan-out of 24 real 1 mm T1w scans on 2 workers"


def rows() -> list[Row]:
    """One row: scans' share of the fan-out's wall clock; the parts of the whole command stand in its note."""
    if not raw_scans():
        return [Row(WHAT, f"≥ {BAR:.0%} of the cores' time in scans", "not measured", None, WHY_ABSENT)]
    with tempfile.TemporaryDirectory() as name:
        found = _run(Path(name))
    in_scans = sum(scan["ended"] - scan["began"] for scan in found["scans"])
    first, last = min(s["began"] for s in found["scans"]), max(s["ended"] for s in found["scans"])
    whole_stage = in_scans / (WORKERS * (found["closed"] - found["connecting"]))
    from_submission = in_scans / (WORKERS * (last - found["submitted"]))
    idle_s = 2 * last - sum(max(s["ended"] for s in found["scans"] if s["pid"] == p) for p in found["pids"])
    return [
        Row(
            WHAT,
            f"≥ {BAR:.0%} of the cores' time in scans",
            f"{whole_stage:.1%} (cluster start and end included), {from_submission:.1%} (from the first submission to "
            "the last result)",
            whole_stage >= BAR,
            f"{len(found['scans'])} scans of {in_scans / len(found['scans']):.1f} s each. "
            f"{_parts(found, first, last)}; one core waits {idle_s:.1f} s for the other's last scan.",
        )
    ]


def _parts(found: dict[str, Any], first: float, last: float) -> str:
    moments = [
        ("until the cluster is asked for (loading, indexing, Prefect's server)", found["connecting"]),
        ("until the first slice is submitted (cluster start, preflight)", found["submitted"]),
        ("until the first scan begins", first),
        ("of scans", last),
        ("to end the cluster", found["closed"]),
        ("to end", found["ended"]),
    ]
    starts = [found["started"], *(moment for _, moment in moments)]
    parts = [f"{moment - start:.1f} s {what}" for (what, moment), start in zip(moments, starts, strict=False)]
    return f"The command took {found['ended'] - found['started']:.1f} s: {', '.join(parts)}"


def _run(folder: Path) -> dict[str, Any]:
    study = folder / "real.toml"
    study.write_text(STUDY)
    (folder / "marks").mkdir()
    (folder / "prefect").mkdir()
    environment = {
        **os.environ,
        "PADFLOW_HOME": str(folder / "home"),
        "PADFLOW_DATA": str(ROOT.parent),
        "PADFLOW_WORKERS": str(WORKERS),
        "PREFECT_HOME": str(folder / "prefect"),
        "BENCH_MARKS": str(folder / "marks"),
    }
    started = time.time()
    command = [sys.executable, "-m", "tests.benchmarks.fanout", str(study)]
    subprocess.run(command, check=True, env=environment)
    ended = time.time()
    marks = [json.loads(path.read_text()) for path in sorted((folder / "marks").glob("*.json"))]
    scans = [mark for mark in marks if "pid" in mark]
    others = {name: moment for mark in marks if "pid" not in mark for name, moment in mark.items()}
    return {"started": started, "ended": ended, "scans": scans, "pids": {s["pid"] for s in scans}, **others}


def mark(**values: Any) -> None:
    """Write down a moment where the benchmark finds it."""
    path = Path(os.environ["BENCH_MARKS"]) / f"{time.time_ns()}-{os.getpid()}.json"
    path.write_text(json.dumps(values))


def prepare_and_mark(*arguments: Any, **named: Any) -> Any:
    """Prepare one scan on a worker, and write down when."""
    from tasks.steps.prepare import prepare_one

    began = time.time()
    try:
        return prepare_one(*arguments, **named)
    finally:
        mark(pid=os.getpid(), began=began, ended=time.time())


def main(study: str) -> None:
    """`padflow preprocess STUDY` with marks at the fan-out's beginning and end."""
    from infra.settings import load_settings

    # As the command line does: Prefect reads its settings when it is imported.
    load_settings()
    from flows import preprocess as flow_module
    from flows.prepare import prepare_study
    from tasks.steps import preprocess as step

    step.prepare_one = prepare_and_mark  # type: ignore[assignment]
    connect, slices = flow_module.connect, flow_module.slices

    class Marked:
        """A cluster whose beginning and end are written down."""

        def __init__(self, *arguments: Any) -> None:
            mark(connecting=time.time())
            self._cluster = connect(*arguments)

        def __enter__(self) -> Any:
            return self._cluster.__enter__()

        def __exit__(self, *error: Any) -> Any:
            ended = self._cluster.__exit__(*error)
            mark(closed=time.time())
            return ended

    @wraps(slices)
    def marked_slices(*arguments: Any) -> Any:
        mark(submitted=time.time())
        return slices(*arguments)

    flow_module.connect = Marked  # type: ignore[assignment, misc]
    flow_module.slices = marked_slices
    prepare_study(study)


if __name__ == "__main__":
    main(sys.argv[1])
