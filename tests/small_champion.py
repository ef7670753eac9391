"""A small registered model with random weights: how it is consumed does not depend on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from safetensors.torch import save

from infra import registry, tracking
from infra.settings import Settings
from lightning_modules.networks.build import build_network
from tasks.records import NetworkSpec, Recipe, TargetSpec
from tasks.science.imaging.recipe import recipe_digest

RECIPE = Recipe(resolution_mm=4.0)
NETWORK = NetworkSpec(channels=(4, 8, 8, 8, 8, 8), age_range_years=(0.0, 110.0), bin_width_years=5.0)
NAME = "small"
URI = f"models:/{NAME}@champion"


def small_weights(seed: int) -> bytes:
    """One member's file."""
    import torch

    torch.manual_seed(seed)
    return save({name: tensor.contiguous() for name, tensor in build_network(NETWORK).state_dict().items()})


def register_small(
    client: MlflowClient, settings: Settings, image_roots: tuple[str, ...] = (), **changes: Any
) -> registry.RegisteredVersion:
    """Register it under the name `small`, as challenger and champion."""
    run_id = tracking.start_run(client, tracking.experiment_id(client, settings, NAME), NAME, {})
    contract = registry.Contract(
        **{
            "recipe": RECIPE,
            "recipe_digest": recipe_digest(RECIPE),
            "network": NETWORK,
            "target": TargetSpec(),
            "age_range_years": (0.0, 110.0),
            "age_bias": None,
            "intervals": {"raw": {"half_width_years": 7.0}},
            "fit_key": "small-fit",
            "study_digest": "none",
            "image_roots": image_roots,
            **changes,
        }
    )
    version = registry.register(client, run_id, NAME, contract, [small_weights(seed) for seed in (1, 2)], {})
    tracking.finish_run(client, run_id, succeeded=True)
    client.set_registered_model_alias(NAME, "champion", version.version)
    return version


def one_scan(shared: Path, folder: Path) -> Path:
    """A real T1w where there is one beside the checkout, else a phantom's."""
    real = sorted(shared.glob("ds002748/sub-*/anat/*_T1w.nii.gz"))
    if real:
        return real[0]
    from tasks.science.imaging.phantom import PhantomSpec, write_phantom

    print("real data is absent: ../shared/data does not stand beside the checkout; a phantom takes its place")
    write_phantom(PhantomSpec(subjects=1, sites=1, spacing_mm=3.0), folder)
    return next(folder.glob("sub-*/anat/*_T1w.nii.gz"))
