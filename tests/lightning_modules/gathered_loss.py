"""One of two gloo processes that share a Rank-N-Contrast batch."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from lightning_modules.gather import gather_with_gradients
from lightning_modules.rank_n_contrast import rank_n_contrast

# How 14 rows are shared.
ROWS = {"equal": (slice(0, 7), slice(7, 14)), "unequal": (slice(0, 5), slice(5, 14))}


def features_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    """The batch as one process sees it, with ties."""
    features = torch.randn(14, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return features, torch.tensor([20.5, 33.0, 33.0, 71.2, 48.0, 20.5, 60.0] * 2, dtype=torch.float64)


def run_rank(rank: int, folder: str) -> None:
    """Write loss, gradient of this rank's features, and gradient of an encoder under DDP, for each sharing."""
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    features, labels = features_and_labels()
    results = {}
    for name, shares in ROWS.items():
        mine, my_labels = features[shares[rank]].clone().requires_grad_(), labels[shares[rank]]
        everyones_labels = gather_with_gradients(my_labels)
        loss = rank_n_contrast(gather_with_gradients(mine), everyones_labels, 2.0)
        loss.backward()
        encoder = torch.nn.Linear(3, 2, dtype=torch.float64)
        torch.nn.init.eye_(encoder.weight)
        shared = DistributedDataParallel(encoder)
        rank_n_contrast(gather_with_gradients(shared(features[shares[rank]])), everyones_labels, 2.0).backward()
        results[name] = {"loss": loss.detach(), "gradient": mine.grad, "encoder": encoder.weight.grad}
    torch.save(results, Path(folder) / f"rank-{rank}.pt")
    dist.destroy_process_group()
