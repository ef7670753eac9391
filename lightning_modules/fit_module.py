"""What every fit shares, whatever it minimises: optimiser, averaged weights, and a validation of each scan once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from tasks.records import TrainingSpec

from .data import Batch
from .inputs import NetworkInputs
from .networks.age_network import AgeNetwork
from .optimisation import follow, optimizer_of, schedule_of

LOSS_SUM = "train_loss_sum"


class FitModule(pl.LightningModule):
    """A network under an optimiser; a subclass says what it minimises and how a scan is judged in validation.

    Before every validation the batch-norm statistics are measured anew by the weights of that moment, and averaged over
    the ranks, so that all ranks evaluate, stop and save by the same network. The running averages that batch norm
    gathers while weights change are noisy over few batches and stale over many: with tens of steps per epoch a
    momentum of 0.02 made a validation MAE of 4 years read as 30.

    Where the study averages weights, the average is a second network beside the one that is fitted: it is what is
    measured, evaluated, chosen and written. (Lightning's callback would leave it out of weights-only checkpoints, and
    would average the batch-norm statistics of other weights.) It lives in the module's state, so that a resume
    restores it; every rank moves it by the same parameters, so that ranks agree.

    Attributes:
        validation_columns: Figures of each validation scan, whose means are logged under these names.
        monitor: The one that stops the fit and chooses the best epoch; lower is better.
        network: What is fitted.
        average: Its moving average, or None.
        inputs: Makes what the network takes of prepared volumes; None takes them as they are.
        views: Changes of each training scan that a batch holds side by side, shape (n, views, channels, i, j, k).
        batch_sizes: Scans of each of this rank's batches in an epoch.

    Reference: Wu & Johnson 2021, arXiv:2105.07576 ("precise batch norm").
    """

    _loss_sum: Tensor

    validation_columns: ClassVar[tuple[str, ...]] = ("val_mae_years", "val_loss")
    monitor: ClassVar[str] = "val_mae_years"
    views: ClassVar[int] = 1
    network: AgeNetwork
    average: AgeNetwork | None

    def __init__(
        self,
        network: AgeNetwork,
        training: TrainingSpec,
        seed: int,
        total_steps: int,
        n_val: int,
        calibration: Iterable[Batch],
    ) -> None:
        """Set up a fit.

        Args:
            network: What is fitted and saved.
            training: Loss and optimiser.
            seed: The fit's seed.
            total_steps: Optimiser steps of all epochs, over which the learning rate runs its course.
            n_val: Validation scans over all ranks.
            calibration: This rank's batches to measure batch-norm statistics on, of the size of a training batch.
        """
        super().__init__()
        self.calibration = calibration
        self.training_spec, self.seed = training, seed
        self.total_steps, self.n_val = total_steps, n_val
        self.network = network
        self.average = deepcopy(network).requires_grad_(False) if training.ema_decay else None
        # `fit` fills these in.
        self.inputs: NetworkInputs | None = None
        self.batch_sizes: Sequence[int] = ()
        self._val_rows = torch.empty(0)
        # Sum of loss × scans, and scans, of this rank in this epoch.
        self.register_buffer("_loss_sum", torch.zeros(2, dtype=torch.float64), persistent=False)

    @property
    def evaluated(self) -> AgeNetwork:
        """The network that is judged and written."""
        return self.network if self.average is None else self.average

    def training_loss(self, batch: Batch) -> Tensor:
        """What the fit minimises: a mean over one rank's batch."""
        raise NotImplementedError

    def validation_rows(self, batch: Batch) -> Tensor:
        """Judge each scan of a batch by the `evaluated` network, which is in evaluation mode: alike in any company.

        Returns:
            One row per scan, float64, shape (n, `row_width`).
        """
        raise NotImplementedError

    @property
    def row_width(self) -> int:
        """Numbers per scan of `validation_rows`: the validation columns, where a subclass needs no others."""
        return len(self.validation_columns)

    def validation_figures(self, rows: Tensor) -> dict[str, Tensor]:
        """Sum up all scans' rows, alike on every rank; by default each column is the mean of its figure.

        Args:
            rows: Of every validation scan, float64, shape (scans, `row_width`).

        Returns:
            A number for each of `validation_columns`.
        """
        return dict(zip(self.validation_columns, rows.mean(dim=0), strict=True))

    def fitted_parameters(self) -> Iterator[nn.Parameter]:
        """What the optimiser moves."""
        return self.network.parameters()

    def pass_through(self, volumes: Tensor) -> None:
        """Run the `evaluated` network through every layer that it has, for their statistics."""
        self.evaluated(volumes)

    def forward_backward(self, volumes: Tensor) -> None:
        """Take the memory of one training step, to find out what fits; the gradients are of no use."""
        self.network(volumes).float().square().mean().backward()

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Make the network's inputs on the device, where training scans are changed at random too."""
        indices, volumes, ages_years = batch
        if self.inputs is None:
            return batch
        if self.trainer.training:
            return indices, self.inputs.training(volumes, indices, self.current_epoch), ages_years
        return indices, self.inputs.evaluation(volumes), ages_years

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Dropout differs between ranks, and a resumed fit draws as the uninterrupted one would have.
        place = np.random.SeedSequence([self.seed, self.current_epoch, batch_idx, self.global_rank])
        torch.manual_seed(int(place.generate_state(1, np.uint64)[0] >> 1))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.training_loss(batch)
        n = len(batch[0])
        if batch_idx == 0:
            self._loss_sum.zero_()
        self._loss_sum += torch.stack([loss.detach().double() * n, torch.full_like(self._loss_sum[0], n)])
        return loss * self._share_of_step(batch_idx, n)

    def _share_of_step(self, batch_idx: int, n: int) -> float:
        """Weight a batch so that a step is the mean over its scans: an epoch's last step has fewer batches."""
        together = self.training_spec.accumulate_batches
        if together == 1:
            return 1.0
        # Lightning divides by `together`, whatever the number of batches.
        sizes = self.batch_sizes
        first = batch_idx - batch_idx % together
        return float(n * together / sum(sizes[first : first + together]))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        steps_before = self.global_step
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            follow(self.average, self.network, self.training_spec.ema_decay, steps_before)

    def train_loss(self) -> float:
        """Mean loss per scan of this epoch so far, over all ranks; every rank must ask."""
        total = self._loss_sum.clone()
        sum_over_ranks(total)
        return float(total[0] / total[1])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        total = self._loss_sum.clone()
        sum_over_ranks(total)
        checkpoint[LOSS_SUM] = total.tolist()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # The sum of all ranks goes on in one of them.
        if self.global_rank == 0:
            self._loss_sum.copy_(torch.tensor(checkpoint[LOSS_SUM], dtype=torch.float64))

    def on_validation_start(self) -> None:
        self._measure_batch_norm()
        self._val_rows = torch.zeros(self.n_val, self.row_width + 1, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        # In full precision, as the model will predict.
        with torch.autocast(self.device.type, enabled=False):
            rows = self.validation_rows(batch)
        self._val_rows[batch[0]] = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)

    def on_validation_epoch_end(self) -> None:
        """Gather the ranks' rows; no scan is repeated, so that the mean is that of one process."""
        sum_over_ranks(self._val_rows)
        if not bool((self._val_rows[:, -1] == 1).all()):
            raise RuntimeError("a validation scan was evaluated never or twice")
        figures = self.validation_figures(self._val_rows[:, :-1])
        if not torch.isfinite(figures[self.monitor]):
            raise ValueError(
                f"{self.monitor} of epoch {self.current_epoch} is not finite: the fit diverged. "
                f"Lower learning_rate (now {self.training_spec.learning_rate})."
            )
        self.log_dict(figures, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = optimizer_of(self.fitted_parameters(), self.training_spec)
        schedule = schedule_of(optimizer, self.training_spec, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _measure_batch_norm(self) -> None:
        norms = (nn.BatchNorm3d, nn.SyncBatchNorm)
        layers = [layer for layer in self.evaluated.modules() if isinstance(layer, norms)]
        for layer in layers:
            layer.reset_running_stats()
            # None: the plain mean over all batches.
            layer.momentum = None
        self.evaluated.train()
        for _, volumes, _ in self.calibration if layers else ():
            there = volumes.to(self.device, non_blocking=True)
            self.pass_through(there if self.inputs is None else self.inputs.evaluation(there))
        self.evaluated.eval()
        for layer in layers:
            for statistic in (layer.running_mean, layer.running_var):
                if statistic is not None:
                    ranks = sum_over_ranks(statistic)
                    statistic.div_(ranks)


def sum_over_ranks(values: Tensor) -> int:
    """Add up a tensor in place over all ranks; return their number."""
    if not torch.distributed.is_initialized():
        return 1
    torch.distributed.all_reduce(values)
    return torch.distributed.get_world_size()
