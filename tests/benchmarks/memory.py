"""Memory of the flow's own process over the cohort's size, and of a worker over one scan after another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.no_op import MIB, measured
from tests.benchmarks.real_scans import WHY_ABSENT, raw_scans
from tests.benchmarks.rows import Row

FEW, MANY = 1_000, 10_000
FLAT_MIB = 100
WORKER_BAR_GIB = 1.5
SCANS = 3
RETURNED_MIB = 300
"""What a worker may keep above what it held when its libraries were loaded: less than one more scan would take."""


def rows() -> list[Row]:
    """One row for the flow; for a worker, one for its peak and one for what it gives back."""
    return [_of_the_flow(), *_of_a_worker()]


def _of_the_flow() -> Row:
    peaks = {}
    for count in (FEW, MANY):
        with tempfile.TemporaryDirectory() as home:
            peaks[count] = measured(Path(home), count)["peak_mib"]
    growth = peaks[MANY] - peaks[FEW]
    return Row(
        f"the flow's own memory, from {FEW:,} to {MANY:,} scans",
        f"flat, ± {FLAT_MIB} MB",
        f"{growth:+.0f} MiB (peak resident {peaks[FEW]:.0f} and {peaks[MANY]:.0f} MiB)",
        abs(growth) * MIB <= FLAT_MIB * 1e6,
    )


def _of_a_worker() -> list[Row]:
    scans = raw_scans()[:SCANS]
    if not scans:
        return [Row("a worker's memory on a 1 mm T1w", f"≤ {WORKER_BAR_GIB} GiB", "not measured", None, WHY_ABSENT)]
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "tests.benchmarks.memory", home, *map(str, scans)]
        environment = {**os.environ, "PADFLOW_HOME": home, "PADFLOW_WORKERS": "1"}
        printed = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(printed.splitlines()[-1])
    peak_gib = max(one["peak_mib"] for one in found["scans"]) / 1024
    kept_mib = max(one["after_mib"] for one in found["scans"]) - found["before_mib"]
    after = ", ".join(f"{one['after_mib']:.0f}" for one in found["scans"])
    return [
        Row(
            f"a worker's peak on a 1 mm T1w, {SCANS} scans one after the other",
            f"≤ {WORKER_BAR_GIB} GiB",
            f"{peak_gib:.2f} GiB",
            peak_gib <= WORKER_BAR_GIB,
        ),
        Row(
            "what that worker holds after each scan",
            f"returned: ≤ {RETURNED_MIB} MiB above what it held before",
            f"{after} MiB, {found['before_mib']:.0f} MiB before (template included)",
            kept_mib <= RETURNED_MIB,
        ),
    ]


def main(home: Path, paths: list[str]) -> None:
    """Prepare scans on one worker of the flow's own cluster, and ask the worker what it holds."""
    from infra.clusters import connect
    from infra.settings import load_settings
    from infra.storage import Store
    from tasks.records import Recipe
    from tasks.science.imaging.recipe import recipe_digest
    from tasks.steps.prepare import prepare_one
    from tests.benchmarks.real_scans import scan_ref

    settings = load_settings(home)
    store = Store(settings.store, home / "cache")
    recipe = Recipe()
    key = recipe_digest(recipe)
    found: dict[str, Any] = {"scans": []}
    with connect(settings) as client:
        found["before_mib"] = client.submit(load_template_alone, pure=False).result()
        for path in paths:
            client.submit(forget_peak, pure=False).result()
            scan = scan_ref(Path(path))
            client.submit(prepare_one, store.url, str(store.cache), scan, recipe, key, pure=False).result()
            peak, after = client.submit(peak_and_now_mib, pure=False).result()
            found["scans"].append({"peak_mib": peak, "after_mib": after})
    print(json.dumps(found))


def load_template_alone() -> float:
    """What a worker holds before its first scan: libraries and the template, which every scan shares."""
    import tasks.steps.prepare
    from tasks.science.imaging.template import mni

    assert tasks.steps.prepare
    mni()
    return peak_and_now_mib()[1]


def forget_peak() -> None:
    """Let the kernel's high-water mark begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_and_now_mib() -> tuple[float, float]:
    """Highest and present resident memory of this process."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak, now = (int(lines[name].split()[0]) / 1024 for name in ("VmHWM", "VmRSS"))
    return peak, now


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
