"""`python -m torch.distributed.run --standalone --nproc-per-node N -m lightning_modules JOB.json` fits one network."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import TypeAdapter
from torch.distributed.elastic.multiprocessing.errors import record

from tasks.records import TrainingJob

from .fit import fit
from .parent_watch import watch_parents

USAGE = "usage: python -m torch.distributed.run --standalone --nproc-per-node N -m lightning_modules JOB.json"


# The launcher then ends its own long report with the rank's traceback instead of leaving it far above.
@record
def main(arguments: list[str]) -> None:
    """Read the job and fit it; rank zero prints one JSON line per epoch and writes the job's output folder."""
    if len(arguments) != 1:
        raise SystemExit(USAGE)
    watch_parents()
    fit(TypeAdapter(TrainingJob).validate_json(Path(arguments[0]).read_bytes()))


if __name__ == "__main__":
    main(sys.argv[1:])
