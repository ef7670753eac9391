"""Memory and time of one Rank-N-Contrast loss with its gradient, beside the loss as its authors published it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_modules.rank_n_contrast import rank_n_contrast
from tests.benchmarks.rows import Row

N, WIDTH, TEMPERATURE, REPEATS = 512, 512, 2.0, 3
BAR_MIB = 64
CUBE_MIB = N**3 * 4 / 2**20
KIB_PER_MIB = 1024


def rows() -> list[Row]:
    """One row: peak memory above that of the inputs, and seconds."""
    found = {name: _in_a_process(name) for name in LOSSES}
    ours, theirs = found["sorted"], found["published"]
    apart = abs(ours["loss"] - theirs["loss"])
    if apart > 1e-4:
        raise RuntimeError(f"the two losses are {apart} apart; one of them is wrong")
    return [
        Row(
            f"Rank-N-Contrast loss and gradient, n = {N}, {WIDTH} features, one thread",
            f"no n³ tensor (one would take {CUBE_MIB:.0f} MiB): ≤ {BAR_MIB} MiB",
            f"{ours['peak_mib']:.0f} MiB, {ours['duration_s']:.2f} s",
            ours["peak_mib"] <= BAR_MIB,
            f"As published (a loop over the pairs' second scan, autograd keeping each round): "
            f"{theirs['peak_mib']:.0f} MiB, {theirs['duration_s']:.2f} s; the two losses differ by {apart:.0e}.",
        )
    ]


def published(features: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The formulation of the authors' code: one n × n mask per pair, kept for the gradient.

    Distances are by differences in one piece, as there.

    Reference: Zha et al. 2023, https://github.com/kaiwenzha/Rank-N-Contrast, loss.py.
    """
    n = len(features)
    others = ~torch.eye(n, dtype=torch.bool)
    apart = (labels[:, None] - labels[None]).abs().masked_select(others).view(n, n - 1)
    logits = -(features[:, None] - features[None]).norm(2, dim=-1) / temperature
    logits = (logits - logits.max(dim=1, keepdim=True).values.detach()).masked_select(others).view(n, n - 1)
    weights = logits.exp()
    loss = torch.zeros(())
    for k in range(n - 1):
        as_far = (apart >= apart[:, k : k + 1]).float()
        loss = loss - (logits[:, k] - torch.log((as_far * weights).sum(dim=-1))).sum() / (n * (n - 1))
    return loss


LOSSES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"sorted": rank_n_contrast, "published": published}


def _in_a_process(name: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.rank_n_contrast", name]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(printed.splitlines()[-1]))


def _measured(name: str) -> dict[str, float]:
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    features = torch.randn(N, WIDTH, generator=random, requires_grad=True)
    labels = (20 + 60 * torch.rand(N // 2, generator=random, dtype=torch.float64)).repeat(2)
    # A small one first, so that what torch loads at its first use counts for neither.
    LOSSES[name](features[:8], labels[:8], TEMPERATURE).backward()
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    durations_s = []
    for _ in range(REPEATS):
        began_s = time.perf_counter()
        loss = LOSSES[name](features, labels, TEMPERATURE)
        loss.backward()
        durations_s.append(time.perf_counter() - began_s)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mib = (peak_kib - before_kib) / KIB_PER_MIB
    return {"loss": float(loss.detach()), "duration_s": min(durations_s), "peak_mib": peak_mib}


if __name__ == "__main__":
    print(json.dumps(_measured(sys.argv[1])))
