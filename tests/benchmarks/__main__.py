"""`python -m tests.benchmarks [NAME…]`: measure, keep the figures, write the README's table.

Each benchmark is a module of this folder with a function `rows()`, and runs in a process of its own, so that none
sees another's memory or imports. All run where none is named.
"""

from __future__ import annotations

import importlib
import subprocess
import sys

from tests.benchmarks import rows, table

BENCHMARKS = (
    "orchestration",
    "registration",
    "fanout",
    "rerun",
    "memory",
    "linear",
    "planted_effects",
    "planted_stories",
    "bootstrap",
    "rank_n_contrast",
    "reading",
    "remote_epoch",
    "data_wait",
    "training_step",
    "ddp",
    "predict_latency",
    "association_coverage",
    "association_screen",
)


def main(names: list[str]) -> None:
    """Run benchmarks one after the other; one that fails does not keep the others from being written down."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise SystemExit(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    if len(names) == 1:
        measure(names[0])
        return
    failed = []
    for name in names or BENCHMARKS:
        print(f"benchmark {name}", flush=True)
        if subprocess.run([sys.executable, "-m", "tests.benchmarks", name], check=False).returncode:
            failed.append(name)
    if failed:
        raise SystemExit(f"these benchmarks failed: {', '.join(failed)}")


def measure(name: str) -> None:
    """Run one benchmark in this process and write down what it gave."""
    found = importlib.import_module(f"tests.benchmarks.{name}").rows()
    rows.keep(name, found)
    results = [result for other in BENCHMARKS if (result := rows.kept(other))]
    table.replace_block(table.BEGIN, table.END, table.as_markdown(results))
    for row in found:
        print(f"{row.what}: {row.found} (bar: {row.bar or 'none'}) {row.note}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
