"""Fit a network to read an age from a scan."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from tasks.records import NetworkSpec, TrainingSpec

from .data import Batch
from .fit_module import FitModule
from .losses import expected_age_loss, soft_label_divergence
from .networks.age_bins import expected_ages_years, soft_labels
from .networks.build import build_network


class BrainAgeModule(FitModule):
    """A network with a distribution over age bins, and its loss."""

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
        super().__init__(build_network(network), training, seed, total_steps, n_val, calibration)
        self.spec = network

    def loss(self, logits: Tensor, ages_years: Tensor) -> Tensor:
        """Divergence from the soft label plus the weighted expected-age term, the mean over a batch."""
        labels = soft_labels(ages_years, self.spec).to(logits)
        divergence = soft_label_divergence(logits, labels)
        weight = self.training_spec.expected_age_weight
        return divergence + weight * expected_age_loss(logits, ages_years, self.spec) if weight else divergence

    def training_loss(self, batch: Batch) -> Tensor:
        _, volumes, ages_years = batch
        return self.loss(self.network(volumes), ages_years)

    def validation_rows(self, batch: Batch) -> Tensor:
        _, volumes, ages_years = batch
        logits = self.network(volumes).double()
        errors_years = (expected_ages_years(logits, self.spec) - ages_years).abs()
        pairs = zip(logits, soft_labels(ages_years, self.spec), strict=True)
        losses = torch.stack([soft_label_divergence(row[None], label[None]) for row, label in pairs])
        return torch.stack([errors_years, losses], dim=1)
