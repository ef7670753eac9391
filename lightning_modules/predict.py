"""Predict ages from prepared scans, on one device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from tasks.records import NetworkSpec

from .data import read_stored
from .networks.build import expected_ages_of, load_network
from .networks.inputs import network_input


def predict_ages(
    network_spec: NetworkSpec,
    weights_path: Path,
    volume_paths: Sequence[Path],
    batch_size: int = 8,
    channels: Sequence[str] = ("T1w",),
) -> Float[np.ndarray, " n"]:
    """Predict one age per prepared scan.

    One device and evaluation mode: each scan is predicted once, and alike in any company.

    Args:
        network_spec: The specification that the weights were fitted with.
        weights_path: A safetensors file.
        volume_paths: `.npy` files of prepared scans on one grid, shape (channels, i, j, k).
        batch_size: Scans at a time; bounds memory.
        channels: Names of the volumes' channels, in order.

    Returns:
        Expected ages in years, float64, shape (n,), in the order of the paths.

    Raises:
        ValueError: The weights or a volume are not what the specification expects, or a prediction is not finite.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = load_network(network_spec, weights_path).to(device)
    ages: list[np.ndarray] = []
    for start in range(0, len(volume_paths), batch_size):
        volumes = torch.stack([read_stored(Path(path)) for path in volume_paths[start : start + batch_size]])
        batch = network_input(volumes.to(device).float(), network_spec, channels)
        ages.append(expected_ages_of(network, network_spec, batch).numpy())
    predicted = np.concatenate(ages) if ages else np.empty(0, dtype=np.float64)
    if not np.isfinite(predicted).all():
        first = volume_paths[int(np.flatnonzero(~np.isfinite(predicted))[0])]
        raise ValueError(f"the prediction of {first} is not finite; the weights in {weights_path} may have diverged.")
    return predicted
