"""Where the cells of a feature map lie in the scan that a network looks at.

Stretching a coarse map over the grid is not enough: max pooling drops voxels that fill no cell, and a strided
convolution centres its cells elsewhere than pooling does. Half a cell of SFCN or ResNet is 15 voxels, more than the
thalamus is wide.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Triple = tuple[float, float, float]
# Which place means what, where it is not as in max pooling.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "conv3d": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "avg_pool3d": ("input", "kernel_size", "stride", "padding"),
}


@dataclass(frozen=True)
class CellPositions:
    """The middle of cell (u, v, w) is at voxel `first + (u, v, w) × step`, per axis.

    Attributes:
        step: Voxels from one cell to the next.
        first: Voxel index of the middle of the first cell; voxel 0's own middle is 0.
    """

    step: Triple = (1.0, 1.0, 1.0)
    first: Triple = (0.0, 0.0, 0.0)

    def below(self, stride: Triple, shift: Triple) -> CellPositions:
        """Positions after a layer whose output u is centred on its input `shift + u × stride`."""
        pairs = zip(self.step, self.first, stride, shift, strict=True)
        moved = [(step * by, first + step * centre) for step, first, by, centre in pairs]
        return CellPositions(_triple([step for step, _ in moved]), _triple([first for _, first in moved]))


class _Reached(Exception):
    """The layer was reached; what lies above it does not matter."""


class _Followed(torch.Tensor):
    """A tensor that knows where its cells lie; every operation hands this on."""

    positions: CellPositions

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs or {})
        sources = [part for part in _flat(args) if isinstance(part, _Followed) and hasattr(part, "positions")]
        if isinstance(result, _Followed) and sources:
            result.positions = _after(func.__name__, sources[0], result, args, kwargs or {})
        return result


def cell_positions(network: nn.Module, layer: nn.Module, shape: tuple[int, ...]) -> CellPositions:
    """Follow the strides and paddings of a network from its input to one of its layers, without computing anything.

    Args:
        network: Any network of convolutions and poolings.
        layer: One of its modules.
        shape: Of one input, (channels, i, j, k).

    Returns:
        Where the middles of the layer's cells lie, in voxels of the input.

    Raises:
        ValueError: The layer is not reached, or an operation before it moves cells in a way that is not known.
    """
    name = next(name for name, module in network.named_modules() if module is layer)
    twin = copy.deepcopy(network).to("meta")
    found: list[Any] = []

    def stop(_module: nn.Module, _inputs: Any, output: Any) -> None:
        found.append(output)
        raise _Reached

    twin.get_submodule(name).register_forward_hook(stop)
    volume = torch.empty((1, *shape), device="meta").as_subclass(_Followed)
    volume.positions = CellPositions()
    try:
        twin.eval()(volume)
    except _Reached:
        return found[0].positions
    raise ValueError(f"the network's forward pass does not reach its layer {name!r}")


def _after(name: str, source: _Followed, result: Tensor, args: Any, kwargs: Any) -> CellPositions:
    before = source.positions
    if name in ("conv3d", "max_pool3d", "max_pool3d_with_indices", "avg_pool3d"):
        stride, shift = _window(name, args, kwargs)
        return before.below(stride, shift)
    if name == "pad":
        widths = args[1] if len(args) > 1 else kwargs["pad"]
        # The last axis comes first; axes that are not named are not padded.
        lower = [*widths[::2], 0, 0, 0][:3][::-1]
        return before.below((1.0, 1.0, 1.0), _triple([-float(width) for width in lower]))
    if result.ndim == 5 and source.ndim == 5 and result.shape[2:] != source.shape[2:]:
        raise ValueError(f"{name} changes the grid from {tuple(source.shape[2:])} to {tuple(result.shape[2:])}")
    return before


def _window(name: str, args: Any, kwargs: Any) -> tuple[Triple, Triple]:
    """Stride of a convolution or pooling, and where its first output is centred."""
    order = ARGUMENTS.get(name, ("input", "kernel_size", "stride", "padding", "dilation"))
    given = dict(zip(order, args, strict=False)) | kwargs
    kernel = _three(given["weight"].shape[2:] if name == "conv3d" else given["kernel_size"])
    dilation = _three(given.get("dilation", 1))
    stride = given.get("stride") or (1 if name == "conv3d" else given["kernel_size"])
    reach = [(size - 1) * apart / 2 for size, apart in zip(kernel, dilation, strict=True)]
    padding = given.get("padding", 0)
    padded = {"same": reach, "valid": [0.0] * 3}[padding] if isinstance(padding, str) else _three(padding)
    return _three(stride), _triple([half - pad for half, pad in zip(reach, padded, strict=True)])


def _three(value: Any) -> Triple:
    values = [float(value)] * 3 if isinstance(value, int) else [float(item) for item in value]
    return _triple(values * 3 if len(values) == 1 else values)


def _triple(values: list[float]) -> Triple:
    return values[0], values[1], values[2]


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value
