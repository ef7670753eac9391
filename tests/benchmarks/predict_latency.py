"""`padflow predict` of raw 1 mm scans by a registered model: how long a user waits for the first one and the next."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.real_scans import WHY_ABSENT, raw_scans
from tests.benchmarks.rows import Row

MORE_SCANS = 2
MODEL = "latency"
WHAT = "`padflow predict` of a raw 1 mm T1w, preprocessing included"


def rows() -> list[Row]:
    """One row: seconds of a whole command for one scan, and of each further scan in the same command."""
    scans = raw_scans()[: 1 + MORE_SCANS]
    if not scans:
        return [Row(WHAT, "", "not measured", None, WHY_ABSENT)]
    with tempfile.TemporaryDirectory() as name:
        environment = {**os.environ, "PADFLOW_HOME": name, "PREFECT_HOME": f"{name}/prefect"}
        subprocess.run([sys.executable, "-m", "tests.benchmarks.predict_latency"], check=True, env=environment)
        # Fills the page cache with libraries, as any command before would have.
        _seconds(scans[:1], environment)
        first_s, all_s = (_seconds(some, environment) for some in (scans[:1], scans))
    further_s = (all_s - first_s) / MORE_SCANS
    return [
        Row(
            WHAT,
            "",
            f"{first_s:.0f} s for the first scan (start of the command and loading of the model included), "
            f"{further_s:.1f} s for each further one",
            None,
            "A registered SFCN of the published size, one member. Most of it is the preprocessing that travels with "
            "the model: registration, bias field, 1 mm grid.",
        )
    ]


def _seconds(scans: list[Path], environment: dict[str, str]) -> float:
    command = [sys.executable, "-m", "flows.cli", "predict", f"models:/{MODEL}@challenger", *map(str, scans), "--json"]
    start = time.perf_counter()
    printed = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout
    took_s = time.perf_counter() - start
    if printed.count('"ok"') != len(scans):
        raise RuntimeError(f"expected {len(scans)} predictions with status ok, found {printed}")
    return took_s


def main() -> None:
    """Register a network of the published size with weights as they begin; how good it is does not matter here."""
    from safetensors.torch import save

    from infra import registry, tracking
    from infra.settings import load_settings
    from lightning_modules.networks.build import build_network
    from tasks.records import NetworkSpec, Recipe, TargetSpec
    from tasks.science.imaging.recipe import recipe_digest

    settings = load_settings()
    client = tracking.connect(settings)
    run_id = tracking.start_run(client, tracking.experiment_id(client, settings, MODEL), MODEL, {})
    recipe, network = Recipe(), NetworkSpec()
    weights = save({name: tensor.contiguous() for name, tensor in build_network(network).state_dict().items()})
    contract = registry.Contract(
        recipe=recipe,
        recipe_digest=recipe_digest(recipe),
        network=network,
        target=TargetSpec(),
        age_range_years=(0.0, 120.0),
        age_bias=None,
        intervals={},
        fit_key="none",
        study_digest="none",
    )
    registry.register(client, run_id, MODEL, contract, [weights], {})
    tracking.finish_run(client, run_id, succeeded=True)


if __name__ == "__main__":
    main()
