"""Fit a multi-task network: age, white matter and the image itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from tasks.records import NetworkSpec, TrainingSpec

from .brain_age_module import BrainAgeModule
from .data import Batch
from .multitask_loss import TaskBalance, task_losses
from .networks.multitask_unet import MultitaskUNet


class MultitaskModule(BrainAgeModule):
    """A multi-task network in training; in validation and prediction its age alone counts.

    Where white matter is segmented, it is the last channel of each prepared training volume, and moves with it.
    """

    network: MultitaskUNet

    def __init__(
        self,
        network: NetworkSpec,
        training: TrainingSpec,
        seed: int,
        total_steps: int,
        n_val: int,
        calibration: Iterable[Batch],
    ) -> None:
        """Build the network; the other arguments are those of `FitModule`."""
        super().__init__(network, training, seed, total_steps, n_val, calibration)
        self.balance = TaskBalance(network, training)
        # DDP waits for a gradient of everything that takes one.
        for task, decoder in (("segmentation", "white_matter"), ("reconstruction", "reconstruction")):
            self.network.decoders[decoder].requires_grad_(task in self.balance.weights)

    @property
    def segments(self) -> bool:
        """Whether training scans bring their white matter along."""
        return "segmentation" in self.balance.weights

    def fitted_parameters(self) -> Iterator[nn.Parameter]:
        return chain(self.network.parameters(), self.balance.parameters())

    def pass_through(self, volumes: Tensor) -> None:
        self.evaluated.tasks_of(volumes)  # type: ignore[operator]

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """As in any fit; the white matter follows the scan."""
        indices, volumes, ages_years = batch
        if not (self.segments and self.trainer.training):
            return super().on_after_batch_transfer(batch, dataloader_idx)
        scans, white_matter = volumes[:, :-1], volumes[:, -1:]
        _, seen, _ = super().on_after_batch_transfer((indices, scans, ages_years), dataloader_idx)
        if self.inputs is not None:
            white_matter = self.inputs.training_target(white_matter, indices, self.current_epoch)
        return indices, torch.cat([seen, white_matter.to(seen)], dim=1), ages_years

    def training_loss(self, batch: Batch) -> Tensor:
        _, volumes, ages_years = batch
        inputs = self.spec.input_channels
        seen, white_matter = volumes[:, :inputs], volumes[:, inputs:] if self.segments else None
        found = self.network.tasks_of(seen)
        return self.balance(task_losses(found, ages_years, seen, white_matter, self.spec, self.training_spec))

    def forward_backward(self, volumes: Tensor) -> None:
        found = self.network.tasks_of(volumes)
        torch.stack([each.float().square().mean() for each in found]).sum().backward()
