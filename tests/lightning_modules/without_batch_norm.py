"""Fit a job by a network without batch norm, the one layer whose result depends on how a batch is shared.

The first step's gradient, as every rank has it before the optimiser, is kept beside the job's outputs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytorch_lightning as pl
from safetensors.torch import save_file
from torch import nn
from torch.optim import Optimizer


class NoNorm(nn.Identity):
    """Takes batch norm's place; it has no statistics to measure."""

    running_mean = running_var = None

    def reset_running_stats(self) -> None:
        """Nothing to reset."""


def gradient_path(folder: Path, rank: int) -> Path:
    """Where a rank's first gradient lies."""
    return folder / f"gradient-{rank}.safetensors"


def keep_first_gradient(module: pl.LightningModule, optimizer: Optimizer) -> None:
    """A hook of Lightning's; in DDP the ranks' gradients are averaged by then."""
    if module.global_step == 0:
        folder = Path(module.trainer.checkpoint_callback.dirpath or "").parent  # type: ignore[union-attr, attr-defined]
        gradients = {name: p.grad.contiguous() for name, p in module.named_parameters() if p.grad is not None}
        save_file(gradients, gradient_path(folder, module.global_rank))


if __name__ == "__main__":
    # Here and not above: pytest imports every file of the tests for its doctests.
    nn.BatchNorm3d = NoNorm  # type: ignore[assignment,misc]
    from lightning_modules.__main__ import main
    from lightning_modules.fit_module import FitModule

    FitModule.on_before_optimizer_step = keep_first_gradient  # type: ignore[method-assign]
    main(sys.argv[1:])
