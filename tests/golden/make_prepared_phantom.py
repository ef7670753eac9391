"""Make the golden figures of the recipe: run it only together with a raised RECIPE_VERSION.

`python -m tests.golden.make_prepared_phantom`
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tasks.records import Recipe
from tasks.science.imaging.phantom import PhantomSpec, write_phantom
from tasks.science.imaging.recipe import RECIPE_VERSION, prepare_scan

GOLDEN = Path(__file__).with_name("prepared_phantom.json")


def figures(folder: Path) -> dict[str, Any]:
    """Prepare one phantom head and describe the outcome: block means, quality, transform."""
    truth = write_phantom(PhantomSpec(subjects=1, sites=1, seed=7, patients=0.0, spacing_mm=3.0), folder / "phantom")
    prepared = prepare_scan((truth.root / truth.scans[0].path).read_bytes(), Recipe(resolution_mm=4.0))
    blocks = prepared.volume[0].astype(np.float64).reshape(4, 10, 4, 12, 4, 10).mean(axis=(1, 3, 5))
    return {
        "recipe_version": RECIPE_VERSION,
        "block_means": np.round(blocks, 4).ravel().tolist(),
        "quality": {name: round(value, 4) for name, value in prepared.quality.items()},
        "native_to_mni": np.round(prepared.sidecar["native_to_mni"], 4).tolist(),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        GOLDEN.write_text(json.dumps(figures(Path(scratch)), indent=1) + "\n")
