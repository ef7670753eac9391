"""A screen over many clinical variables: 1,000 OLS models with HC3 errors on 10,000 rows, as a user runs it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from tests.benchmarks.rows import Row

MODELS, ROWS, CORES, BAR_S = 1000, 10_000, 2, 60.0


def rows() -> list[Row]:
    """Time the whole command, from the Parquet table to the written files."""
    with tempfile.TemporaryDirectory() as folder:
        table, models, out = (str(Path(folder, name)) for name in ("clinic.parquet", "screen.toml", "out"))
        clinic().to_parquet(table)
        columns = ", ".join(f'"marker_{k}"' for k in range(MODELS))
        Path(models).write_text(
            '[[associations]]\nname = "screen"\nformula = "{marker} ~ brain_pad_years + age_years + sex + site"\n'
            f'effects = ["brain_pad_years"]\nscreen = {{ marker = [{columns}] }}\n'
        )
        command = [sys.executable, "-m", "flows.cli", "associate", "--table", table, "--models", models, "--out", out]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, preexec_fn=_two_cores)
        duration = time.perf_counter() - start
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = spent.ru_utime + spent.ru_stime
        effects = pd.read_csv(Path(out, "effects.csv"))
    fitted = effects.loc[effects["of_interest"], "estimate"].notna().sum()
    what = f"a screen of {MODELS:,} OLS/HC3 models × {ROWS:,} rows through `padflow associate --table`, {CORES} cores"
    return [
        Row(
            what,
            f"< {BAR_S:.0f} s",
            f"{duration:.0f} s ({cpu:.0f} s of CPU; {fitted:,} fitted)",
            bool(duration < BAR_S and fitted == MODELS),
        )
    ]


def clinic() -> pd.DataFrame:
    """Seeded markers, each with its own missing values."""
    rng = np.random.default_rng(0)
    markers = rng.normal(size=(ROWS, MODELS))
    markers[rng.random((ROWS, MODELS)) < 0.02] = np.nan
    people = pd.DataFrame(
        {
            "participant_id": [f"sub-{i:05d}" for i in range(ROWS)],
            "brain_pad_years": rng.normal(0, 5, ROWS),
            "age_years": rng.uniform(20, 80, ROWS),
            "sex": rng.choice(["F", "M"], ROWS),
            "site": rng.choice(list("abcd"), ROWS),
        }
    )
    return pd.concat([people, pd.DataFrame(markers, columns=[f"marker_{k}" for k in range(MODELS)])], axis=1)


def _two_cores() -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
