"""Say what fits when a training step does not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch

from tasks.records import TrainingSpec

from .fit_module import FitModule

# What torch's CPU allocator says, in a plain RuntimeError.
CPU_ALLOCATOR = "DefaultCPUAllocator"
# Batch norm needs two scans.
LEAST_PER_PROCESS = 2


class OutOfMemory(RuntimeError):
    """A training step does not fit; the message says what does."""


@contextmanager
def explained(module: FitModule, shape: tuple[int, ...], world_size: int) -> Iterator[None]:
    """Turn a lack of memory into an error that names the batch, the grid, and what would fit.

    Args:
        module: The fit; where memory lacks, it is spoilt by the trial.
        shape: Of one scan as the network takes it: (views ×) channels, i, j, k.
        world_size: Processes that share a batch.

    Raises:
        OutOfMemory: Memory lacked within.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_lack_of_memory(error):
            raise
        # The traceback holds the step's activations, which the trial needs the room of.
        told = str(error).partition("\n")[0]
        error.__traceback__ = None
        _make_ready(module)
        per_process = module.training_spec.batch_size // world_size
        fits = largest_that_fits(per_process // 2, lambda n: _step(module, n, shape))
        raise OutOfMemory(_message(module.training_spec, per_process, world_size, shape, fits, told)) from None


def largest_that_fits(most: int, step: Callable[[int], None]) -> int:
    """Find, by halving, how many scans one process can take at a time.

    Args:
        most: Where to begin.
        step: Makes a training step of so many scans.

    Returns:
        The first that fits, or 0 where not even the least does.
    """
    n = most
    while n >= LEAST_PER_PROCESS:
        try:
            step(n)
        except RuntimeError as error:
            if not _is_lack_of_memory(error):
                raise
            error.__traceback__ = None
        else:
            return n
        n //= 2
    return 0


def _make_ready(module: FitModule) -> None:
    """Undo what Lightning and DDP did to the module: the trial is this process's own."""
    module.zero_grad(set_to_none=True)
    # DDP's hooks stay on the parameters that it knew, and would wait for the other ranks.
    module.network = deepcopy(module.network)
    module.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    module.train()
    for layer in module.modules():
        if isinstance(layer, torch.nn.SyncBatchNorm):
            layer.eval()


def _step(module: FitModule, n: int, shape: tuple[int, ...]) -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    # What the optimiser keeps per weight from its first step on.
    state = [torch.empty_like(p) for p in module.parameters() if p.requires_grad for _ in range(2)]
    try:
        with torch.autocast(module.device.type, torch.bfloat16, enabled=module.training_spec.precision == "bf16"):
            module.forward_backward(torch.zeros(n, *shape, device=module.device))
    finally:
        module.zero_grad(set_to_none=True)
        del state


def _is_lack_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or CPU_ALLOCATOR in str(error)


def _message(
    spec: TrainingSpec, per_process: int, world_size: int, shape: tuple[int, ...], fits: int, told: str
) -> str:
    grid = "×".join(str(side) for side in shape[-3:])
    found = (
        f"A training step of {per_process} scans per process (batch_size {spec.batch_size} over {world_size} "
        f"processes, {shape[0]} channels of {grid} voxels, precision {spec.precision}) does not fit into "
        f"memory ({told})."
    )
    smaller = 'set precision = "bf16"' if spec.precision == "32" else "take a smaller network"
    smaller += ", give a crop_voxels, or prepare at a coarser resolution_mm"
    if not fits:
        return f"{found} Not even {LEAST_PER_PROCESS} scans fit: {smaller}."
    together = spec.accumulate_batches * -(-per_process // fits)
    return (
        f"{found} {fits} scans per process fit: set batch_size = {fits * world_size} and accumulate_batches = "
        f"{together} for the same scans per optimiser step (batch norm then sees {fits}); or {smaller}."
    )
