"""How a brain-age network is fitted: steps, optimiser and a validation that counts each scan once."""

from __future__ import annotations

from collections.abc import Iterable

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from tasks.records import NetworkSpec, TrainingSpec

from .data import Item
from .losses import expected_age_loss, soft_label_divergence
from .networks.age_bins import expected_ages_years, soft_labels
from .networks.build import build_network


class BrainAgeModule(pl.LightningModule):
    """A network with its loss and schedule.

    Before every validation the batch-norm statistics are measured anew by the weights of that moment, and averaged over
    the ranks, so that all ranks evaluate, stop and save by the same network. The running averages that batch norm
    gathers while weights change are noisy over few batches and stale over many: with tens of steps per epoch a
    momentum of 0.02 made a validation MAE of 4 years read as 30.

    Reference: Wu & Johnson 2021, arXiv:2105.07576 ("precise batch norm").
    """

    def __init__(
        self,
        network: NetworkSpec,
        training: TrainingSpec,
        seed: int,
        total_steps: int,
        n_val: int,
        calibration: Iterable[Item],
    ) -> None:
        """Set up a fit.

        Args:
            network: Which network.
            training: Loss and optimiser.
            seed: The fit's seed.
            total_steps: Optimiser steps of all epochs, over which the learning rate runs its cycle.
            n_val: Validation scans over all ranks.
            calibration: This rank's batches to measure batch-norm statistics on, of the size of a training batch.
        """
        super().__init__()
        self.calibration = calibration
        self.spec, self.training_spec, self.seed = network, training, seed
        self.total_steps, self.n_val = total_steps, n_val
        self.network = build_network(network)
        self._val_rows = torch.empty(0)

    def loss(self, logits: Tensor, ages_years: Tensor) -> Tensor:
        """What the fit minimises, per batch: divergence from the soft label plus the weighted expected-age term."""
        labels = soft_labels(ages_years, self.spec).to(logits)
        divergence = soft_label_divergence(logits, labels)
        weight = self.training_spec.expected_age_weight
        return divergence + weight * expected_age_loss(logits, ages_years, self.spec) if weight else divergence

    def on_train_batch_start(self, batch: Item, batch_idx: int) -> None:
        # Dropout differs between ranks, and a resumed fit draws as the uninterrupted one would have.
        draw = self.seed * 1_000_003 + self.global_step * 1_009 + self.global_rank
        torch.manual_seed(draw % 2**63)

    def training_step(self, batch: Item, batch_idx: int) -> Tensor:
        _, volumes, ages_years = batch
        loss = self.loss(self.network(volumes), ages_years)
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, sync_dist=True, batch_size=len(volumes))
        return loss

    def on_validation_start(self) -> None:
        self._measure_batch_norm()
        self._val_rows = torch.zeros(self.n_val, 3, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Item, batch_idx: int) -> None:
        indices, volumes, ages_years = batch
        logits = self.network(volumes).double()
        errors_years = (expected_ages_years(logits, self.spec) - ages_years).abs()
        pairs = zip(logits, soft_labels(ages_years, self.spec), strict=True)
        losses = torch.stack([soft_label_divergence(row[None], label[None]) for row, label in pairs])
        self._val_rows[indices] = torch.stack([errors_years, losses, torch.ones_like(losses)], dim=1)

    def on_validation_epoch_end(self) -> None:
        """Gather the ranks' rows; no scan is repeated, so that the mean is that of one process."""
        _sum_over_ranks(self._val_rows)
        if not bool((self._val_rows[:, 2] == 1).all()):
            raise RuntimeError("a validation scan was evaluated never or twice")
        mae_years, loss = self._val_rows[:, 0].mean(), self._val_rows[:, 1].mean()
        if not torch.isfinite(mae_years):
            raise ValueError(
                f"the validation MAE of epoch {self.current_epoch} is not finite: the fit diverged. "
                f"Lower learning_rate (now {self.training_spec.learning_rate})."
            )
        self.log_dict({"val_mae_years": mae_years, "val_loss": loss}, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW under one cosine cycle with a warm-up: few epochs suffice (Smith & Topin 2018, arXiv:1708.07120)."""
        spec = self.training_spec
        # A decay of batch-norm scales and biases only pulls them from where the statistics want them.
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        kept = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": kept, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=spec.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=spec.learning_rate, total_steps=self.total_steps, pct_start=0.25, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _measure_batch_norm(self) -> None:
        layers = [layer for layer in self.network.modules() if isinstance(layer, nn.BatchNorm3d)]
        for layer in layers:
            layer.reset_running_stats()
            # None: the plain mean over all batches.
            layer.momentum = None
        self.network.train()
        for _, volumes, _ in self.calibration:
            self.network(volumes.to(self.device))
        self.network.eval()
        for layer in layers:
            for statistic in (layer.running_mean, layer.running_var):
                if statistic is not None:
                    ranks = _sum_over_ranks(statistic)
                    statistic.div_(ranks)


def _sum_over_ranks(values: Tensor) -> int:
    """Add up a tensor in place over all ranks; return their number."""
    if not torch.distributed.is_initialized():
        return 1
    torch.distributed.all_reduce(values)
    return torch.distributed.get_world_size()
