"""From a specification to a network, and from a weights file to a network that predicts.

This folder imports torch, numpy, safetensors, MONAI and itself alone, so that it can travel inside a registered model.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .age_bins import expected_ages_years
from .age_head import AgeHead
from .age_network import AgeNetwork
from .inception_resnet_v2 import inception_resnet_v2_encoder
from .monai_encoders import DENSENET_BLOCKS, RESNET_BLOCKS, densenet_encoder, resnet_encoder
from .multitask_unet import MultitaskUNet
from .sfcn import sfcn_encoder
from .specification import NetworkShape

ENCODERS = {
    "sfcn": sfcn_encoder,
    "inception_resnet_v2": inception_resnet_v2_encoder,
    **dict.fromkeys(RESNET_BLOCKS, resnet_encoder),
    **dict.fromkeys(DENSENET_BLOCKS, densenet_encoder),
}


def build_network(spec: NetworkShape) -> AgeNetwork:
    """Build the network that a specification names, with random weights.

    Raises:
        ValueError: No network, head or normalisation has that name, or the channels do not make that network.
    """
    if spec.name == "multitask_unet":
        return MultitaskUNet(spec)
    if spec.name not in ENCODERS:
        raise ValueError(f"no network is called {spec.name!r}; known: {', '.join((*ENCODERS, 'multitask_unet'))}.")
    encoder = ENCODERS[spec.name](spec)
    head = AgeHead(spec, encoder.feature_maps, extra_linear=spec.name == "inception_resnet_v2")
    return AgeNetwork(spec, encoder, head)


def load_network(spec: NetworkShape, weights_path: Path) -> AgeNetwork:
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


def ages_of_outputs(outputs: Tensor, spec: NetworkShape) -> Tensor:
    """Read one age per scan from what a network gives.

    Args:
        outputs: Logits over age bins, shape (n, bins), or years, shape (n, 1), as the specification's head says.
        spec: The network's specification.

    Returns:
        Years, shape (n,), in the precision of the outputs, with their gradient.
    """
    return expected_ages_years(outputs, spec) if spec.head == "soft_label" else outputs[:, 0]


@torch.inference_mode()
def expected_ages_of(network: AgeNetwork, spec: NetworkShape, volumes: Tensor) -> Tensor:
    """Predict the age of each volume by a network in evaluation mode, alike in the fit and in a registered model.

    Args:
        network: As `load_network` returns it, on any device.
        spec: Its specification.
        volumes: What `network_input` made of prepared volumes, float32, shape (n, input channels, i, j, k), on the
            network's device.

    Returns:
        Years, float64, shape (n,), on the CPU.

    Raises:
        ValueError: The network is in training mode, where a prediction depends on its batch.
    """
    if network.training:
        raise ValueError("the network is in training mode; call network.eval() before predicting.")
    return ages_of_outputs(network(volumes).double(), spec).cpu()
