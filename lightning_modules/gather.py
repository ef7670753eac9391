"""Tensors of all ranks on every rank, gradients included."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather_with_gradients(part: Tensor) -> Tensor:
    """Put the ranks' rows one below the other, so that a loss over a batch sees the whole of it on every rank.

    Each rank then computes the same loss of the same rows. The gradient that a rank gets back is the sum of all ranks'
    gradients with respect to its rows: `world_size` times that of one process, which DDP's average over the ranks
    divides out again. So under DDP the gradient of a parameter is that of one process with all the rows.

    Args:
        part: This rank's rows, shape (n of this rank, …); ranks may differ in n, and in nothing else.

    Returns:
        The rows of rank 0, then of rank 1 and so on; `part` itself where there is one process.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return part
    gathered: Tensor = _Gather.apply(part)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, part: Tensor) -> Tensor:
        ranks, rank = dist.get_world_size(), dist.get_rank()
        counts = torch.zeros(ranks, dtype=torch.int64, device=part.device)
        counts[rank] = len(part)
        dist.all_reduce(counts)
        rows = counts.tolist()
        # Collectives move equal shapes, so that shorter parts travel with rows that nobody reads.
        padded = part.new_zeros(max(rows), *part.shape[1:])
        padded[: len(part)] = part
        received = [torch.empty_like(padded) for _ in rows]
        dist.all_gather(received, padded)
        context.rows = slice(sum(rows[:rank]), sum(rows[: rank + 1]))
        return torch.cat([each[:count] for each, count in zip(received, rows, strict=True)])

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        # A copy: autograd may use the gradient elsewhere too.
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[context.rows]
