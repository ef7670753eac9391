"""What a benchmark gives: a figure beside its bar."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
NO_GPU = "no GPU in this run"
VERSIONS = ("numpy", "scipy", "pandas", "SimpleITK", "dask", "distributed", "prefect", "s3fs", "moto")


@dataclass(frozen=True)
class Row:
    """One line of the README's table.

    Attributes:
        what: What was measured, in words.
        bar: What it should be, in words; "" where a figure only informs.
        found: What it was, in words.
        met: Whether the bar is met; None where there is none.
        note: What stands below the table: for a missed bar, the profile that explains it.
    """

    what: str
    bar: str
    found: str
    met: bool | None = None
    note: str = ""


def keep(name: str, rows: list[Row], folder: Path = RESULTS) -> None:
    """Keep a benchmark's rows beside it, with where and when they were measured."""
    if not rows:
        return
    body = {
        "benchmark": name,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: version(name) for name in VERSIONS},
        "rows": [asdict(row) for row in rows],
    }
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n")


def kept(name: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """What a benchmark gave when it last ran, or None."""
    path = folder / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.exists() else None


def machine() -> str:
    """What the figures depend on most."""
    cores = len(os.sched_getaffinity(0))
    return ", ".join([f"{cores} cores", _processor(), *_gpus(), f"Python {platform.python_version()}"])


def _gpus() -> list[str]:
    import torch

    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return [f"{names.count(name)} × {name}" for name in dict.fromkeys(names)]


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
