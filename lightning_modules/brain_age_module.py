"""Fit a network to read an age from a scan."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from tasks.records import NetworkSpec, TrainingSpec

from .data import Batch
from .fit_module import FitModule
from .losses import age_loss, regression_loss, soft_label_divergence
from .networks.age_bins import expected_ages_years, soft_labels
from .networks.build import build_network


class BrainAgeModule(FitModule):
    """A network that gives a distribution over age bins, or years, and its loss."""

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

    def loss(self, outputs: Tensor, ages_years: Tensor) -> Tensor:
        """The study's age loss of the network's outputs, the mean over a batch; see `age_loss`."""
        return age_loss(outputs, ages_years, self.spec, self.training_spec)

    def training_loss(self, batch: Batch) -> Tensor:
        _, volumes, ages_years = batch
        # Mixed precision ends here: a divergence of half floats would be noise.
        return self.loss(self.network(volumes).float(), ages_years)

    def validation_rows(self, batch: Batch) -> Tensor:
        _, volumes, ages_years = batch
        outputs = self.evaluated(volumes).double()
        if self.spec.head == "regression":
            predicted_years = outputs[:, 0]
            pairs = zip(predicted_years, ages_years, strict=True)
            losses = [regression_loss(years[None], age[None], self.training_spec.loss) for years, age in pairs]
        else:
            predicted_years = expected_ages_years(outputs, self.spec)
            rows = zip(outputs, soft_labels(ages_years, self.spec), strict=True)
            losses = [soft_label_divergence(row[None], label[None]) for row, label in rows]
        return torch.stack([(predicted_years - ages_years).abs(), torch.stack(losses)], dim=1)
