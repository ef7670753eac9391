"""From a specification to a network, and from a weights file to a network that predicts.

This folder imports torch, safetensors and itself alone, so that it can travel inside a registered model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .age_bins import AgeBinSpec, bin_centres_years, expected_ages_years
from .sfcn import SFCN


class NetworkShape(AgeBinSpec, Protocol):
    """What of a network's specification shapes its layers."""

    @property
    def name(self) -> str: ...

    @property
    def channels(self) -> tuple[int, ...]: ...

    @property
    def dropout(self) -> float: ...

    @property
    def input_channels(self) -> int: ...


def build_network(spec: NetworkShape) -> SFCN:
    """Build the network that a specification names, with random weights.

    Raises:
        ValueError: No network has that name.
    """
    if spec.name != "sfcn":
        raise ValueError(f"no network is called {spec.name!r}; known: 'sfcn'.")
    return SFCN(
        channels=spec.channels,
        bins=len(bin_centres_years(spec)),
        dropout=spec.dropout,
        input_channels=spec.input_channels,
    )


def load_network(spec: NetworkShape, weights_path: Path) -> SFCN:
    """Rebuild a fitted network, ready to predict. Weights are safetensors alone: a pickle could run code.

    Args:
        spec: The specification that the weights were fitted with.
        weights_path: A safetensors file.

    Returns:
        The network in evaluation mode, on the CPU.

    Raises:
        ValueError: The file is no safetensors file, or its tensors are not those of the specification.
    """
    try:
        weights = load_file(weights_path, device="cpu")
    except SafetensorError as error:
        raise ValueError(
            f"{weights_path} is not a safetensors file ({error}); pickled checkpoints (.pt, .ckpt) are refused because "
            "they can run code. Save the weights with safetensors."
        ) from error
    network = build_network(spec)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected != found:
        differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise ValueError(
            f"{weights_path} does not fit the network {spec.name!r} with channels {tuple(spec.channels)}: "
            f"{len(differing)} tensors differ, the first is {differing[0]} (expected {expected.get(differing[0])}, "
            f"found {found.get(differing[0])}). Give the specification that the weights were fitted with."
        )
    network.load_state_dict(weights)
    return network.eval()


@torch.inference_mode()
def expected_ages_of(network: SFCN, spec: AgeBinSpec, volumes: Tensor) -> Tensor:
    """Predict the age of each volume by a network in evaluation mode, alike in the fit and in a registered model.

    Args:
        network: As `load_network` returns it, on any device.
        spec: Its specification.
        volumes: Unitless z-scored intensities, float32, shape (n, channels, i, j, k), on the network's device.

    Returns:
        Years, float64, shape (n,), on the CPU.

    Raises:
        ValueError: The network is in training mode, where a prediction depends on its batch.
    """
    if network.training:
        raise ValueError("the network is in training mode; call network.eval() before predicting.")
    return expected_ages_years(network(volumes).double(), spec).cpu()
