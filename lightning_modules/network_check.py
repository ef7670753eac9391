"""Whether a study's network can be built and fits its scans: asked before hours of preparing them, not after."""

from __future__ import annotations

import torch

from tasks.records import NetworkSpec

from .networks.build import build_network


def check_network(spec: NetworkSpec, shape: tuple[int, ...]) -> None:
    """Refuse a network that could not be fitted on a study's grid. Nothing is allocated.

    Args:
        spec: The network.
        shape: Of the prepared volumes, (i, j, k).

    Raises:
        ValueError: The layers, head or age bins cannot be built, or the grid is too small for the layers.
    """
    with torch.device("meta"):
        side = build_network(spec).smallest_side_voxels
    seen = spec.crop_voxels or shape
    if min(seen) < side:
        raise ValueError(
            f"the network {spec.name!r} needs every side to have at least {side} voxels; it would see {tuple(seen)}. "
            "Prepare at a finer resolution, enlarge field_of_view_mm or crop_voxels, or take another network."
        )
