"""Where in a scan a network reads age: sensitivity and activation maps in years, on the prepared grid.

MONAI's classes are not used, for what they would hide here: they take one class's logit where a brain age is the mean
over bins, SmoothGrad draws from the global random state and divides by n where a root mean square divides by √n, and
Grad-CAM drops what lowers the age and turns the map upside down unless it is told otherwise (Project-MONAI/tutorials
issue 1796). The tests compare with MONAI where the two mean the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from tasks.records import ExplanationMethod, NetworkSpec
from tasks.science.arrays import Volume

from .cell_positions import CellPositions, cell_positions
from .data import read_volume
from .networks.age_network import AgeNetwork
from .networks.build import ages_of_outputs, load_network
from .networks.inputs import network_input

# Smilkov et al. 2017 (arXiv:1706.03825) advise 10–20% noise; these are MONAI's defaults.
NOISE_SPREAD = 0.15
NOISY_COPIES = 25
# So many voxels go through the network at a time, whose activations for the backward pass take most of the memory.
VOXELS_AT_A_TIME = 2**22


@dataclass(frozen=True)
class ScanMap:
    """How a prediction depends on places in one scan.

    Attributes:
        signed: Above 0 where the scan raises the predicted age (activation maps), or where a brighter voxel would
            (gradients); float32, shape (i, j, k) of the prepared grid, RAS+ as the scan.
        magnitude: How strongly, whatever the sign; same shape.
        cell_voxels: Voxels from one independent value to the next, per axis: a map is no finer than that.
    """

    signed: Volume
    magnitude: Volume
    cell_voxels: tuple[float, float, float]


def explain_scans(
    spec: NetworkSpec,
    weights_paths: Sequence[Path],
    scan_paths: Sequence[tuple[str, Path]],
    channels: Sequence[str],
    method: ExplanationMethod,
    seed: int,
) -> Iterator[ScanMap]:
    """Make the map of each scan: the mean over the ensemble's members, as the predicted age is.

    Scans go through the network one by one, so that a map is the same in any company; noise is drawn from the seed
    and the scan's name.

    Args:
        spec: The specification that the weights were fitted with.
        weights_paths: One safetensors file per member.
        scan_paths: Name and prepared `.npy` file of each scan.
        channels: Names of the prepared scans' channels, in order.
        method: `smoothgrad`, `grad_cam` or `grad_ram`.
        seed: Of the noise.

    Yields:
        One map per scan, in order.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    members = [load_network(spec, path).requires_grad_(False).to(device) for path in weights_paths]
    positions = CellPositions()
    for number, (scan_id, path) in enumerate(scan_paths):
        prepared = torch.from_numpy(read_volume(path)).to(device)
        seen, grid = network_input(prepared, spec, channels), tuple(prepared.shape[1:])
        if method == "smoothgrad":
            pairs = [smoothgrad(member, spec, seen, noise_source(seed, scan_id)) for member in members]
            signed, magnitude = (_mean([pair[which] for pair in pairs]) for which in (0, 1))
            yield ScanMap(_on_whole_grid(signed, grid), _on_whole_grid(magnitude, grid), positions.step)
            continue
        if number == 0:
            positions = cell_positions(members[0], members[0].map_layer, tuple(seen.shape))
        cells = [activation_cells(member, spec, seen) for member in members]
        # Grad-CAM is what is left of each member; of Grad-RAM, what members disagree on cancels.
        kept = _mean([one.clamp_min(0) for one in cells] if method == "grad_cam" else cells)
        signed = _on_whole_grid(on_grid(kept, positions, tuple(seen.shape[1:])), grid)
        yield ScanMap(signed, np.abs(signed), positions.step)


def _on_whole_grid(seen: Volume, grid: tuple[int, ...]) -> Volume:
    """Put a map of what the network sees, the middle of the grid, back where it was; 0 where it does not look."""
    whole = np.zeros(grid, dtype=np.float32)
    # As the crop: of what cannot be split evenly, one voxel more stands at the end.
    spare = [size - side for size, side in zip(grid, seen.shape, strict=True)]
    target = tuple(
        slice(max(extra, 0) // 2, max(extra, 0) // 2 + min(size, side))
        for extra, size, side in zip(spare, grid, seen.shape, strict=True)
    )
    source = tuple(
        slice(max(-extra, 0) // 2, max(-extra, 0) // 2 + min(size, side))
        for extra, size, side in zip(spare, grid, seen.shape, strict=True)
    )
    whole[target] = seen[source]
    return whole


def _mean(maps: Sequence[Tensor]) -> Volume:
    return torch.stack([one.double() for one in maps]).mean(dim=0).float().cpu().numpy()


def noise_source(seed: int, scan_id: str) -> torch.Generator:
    """Random numbers of one scan, alike on every device and whatever other scans are explained."""
    name = hashlib.sha256(f"{seed}/{scan_id}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(name[:7], "big"))


def predicted_ages(network: AgeNetwork, spec: NetworkSpec, volumes: Tensor) -> Tensor:
    """Predict ages so that their gradients can be asked for.

    Args:
        network: On the device of the volumes.
        spec: Its specification.
        volumes: What the network sees, shape (n, input channels, i, j, k).

    Returns:
        Years, shape (n,).

    Raises:
        ValueError: The network is in training mode, where a scan's map would depend on its batch.
    """
    if network.training:
        raise ValueError("the network is in training mode; call network.eval() before asking for its maps.")
    return ages_of_outputs(network(volumes), spec)


def smoothgrad(
    network: AgeNetwork, spec: NetworkSpec, volume: Tensor, random: torch.Generator, copies: int = NOISY_COPIES
) -> tuple[Tensor, Tensor]:
    """Average the gradient of the predicted age over noisy copies of a scan, which smooths a jagged single gradient.

    Args:
        network: In evaluation mode.
        spec: Its specification.
        volume: What the network sees of a scan, shape (input channels, i, j, k).
        random: Where the noise comes from, on the CPU.
        copies: How many noisy ones.

    Returns:
        The mean gradient, and the root of its mean square (MONAI's default, × √copies), in years per unit of intensity
        and voxel, each of shape (i, j, k): summed, and as length, over the channels.

    Reference: Smilkov et al. 2017, arXiv:1706.03825.
    """
    spread = NOISE_SPREAD * (volume.max() - volume.min())
    total, squares = torch.zeros_like(volume), torch.zeros_like(volume)
    at_a_time = max(1, VOXELS_AT_A_TIME // volume.numel())
    for start in range(0, copies, at_a_time):
        shape = (min(at_a_time, copies - start), *volume.shape)
        noise = torch.randn(shape, generator=random).to(volume.device)
        noisy = (volume[None] + spread * noise).requires_grad_()
        (gradients,) = torch.autograd.grad(predicted_ages(network, spec, noisy).sum(), noisy)
        total += gradients.sum(dim=0)
        squares += gradients.square().sum(dim=0)
    return (total / copies).sum(dim=0), (squares / copies).sum(dim=0).sqrt()


def activation_cells(network: AgeNetwork, spec: NetworkSpec, volume: Tensor) -> Tensor:
    """Weigh the last feature maps by the mean gradient of the predicted age on each: Grad-RAM, with its sign.

    With average pooling and one linear layer to years the cells add up to the predicted age, but for the constant.

    Args:
        network: In evaluation mode.
        spec: Its specification.
        volume: What the network sees of a scan, shape (input channels, i, j, k).

    Returns:
        Years per cell, shape of the feature map (u, v, w). Grad-CAM keeps what is above 0 of it.

    Reference: Selvaraju et al. 2017, doi:10.1109/ICCV.2017.74; for regression Wang & Yang 2017, arXiv:1703.10757.
    """
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        # A later layer may work in place.
        return kept[-1].clone()

    handle = network.map_layer.register_forward_hook(keep)
    try:
        ages = predicted_ages(network, spec, volume[None])
    finally:
        handle.remove()
    (features,) = kept
    (gradients,) = torch.autograd.grad(ages.sum(), features)
    weights = gradients.mean(dim=(2, 3, 4), keepdim=True)
    return (weights * features).sum(dim=1)[0].detach()


def on_grid(cells: np.ndarray, positions: CellPositions, shape: tuple[int, ...]) -> Volume:
    """Spread a feature map over the voxels that its cells look at; linear between their middles, constant outside.

    Args:
        cells: Shape (u, v, w).
        positions: Where the cells' middles lie.
        shape: Of the prepared grid (i, j, k).

    Returns:
        Float32, shape (i, j, k).
    """
    step, first = np.array(positions.step), np.array(positions.first)
    # SciPy maps voxels of the output to the input's.
    return ndimage.affine_transform(
        cells.astype(np.float32), 1 / step, -first / step, shape, np.float32, order=1, mode="nearest"
    )
