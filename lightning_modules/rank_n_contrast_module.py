"""Fit an encoder whose features stand in the order of ages, before any regressor sees them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor

from tasks.records import NetworkSpec, TrainingSpec

from .data import Batch
from .fit_module import FitModule, sum_over_ranks
from .frozen_regressor import check_head
from .gather import gather_with_gradients
from .networks.build import build_network
from .rank_n_contrast import rank_n_contrast
from .ridge import fit_ridge

# As many scans as a large feature vector has numbers; more would cost a pass over a large cohort per epoch.
MOST_READOUT_SCANS = 1024


class RankNContrastModule(FitModule):
    """An encoder under the Rank-N-Contrast loss, over two augmented views of each scan.

    The loss ranks within the batch of all ranks. The head is not fitted here and stays as it was built; `fit_head`
    trains it on the frozen encoder afterwards.

    Validation judges the encoder in two ways: by the loss over all held-out scans, one view each, without augmentation;
    and, so that early stopping and learning curves are in years beside plain regression, by the error of a ridge
    regression from features to ages that is fitted on training scans alone.

    Attributes:
        readout: This rank's part of the training scans that the ridge regression is fitted on, prepared, each scan on
            one rank; their indices run up to `n_readout`.
        n_readout: Their number over all ranks.

    Reference: Zha et al. 2023, arXiv:2210.01189.
    """

    views: ClassVar[int] = 2

    def __init__(
        self,
        network: NetworkSpec,
        training: TrainingSpec,
        seed: int,
        total_steps: int,
        n_val: int,
        calibration: Iterable[Batch],
    ) -> None:
        """Build the network; the other arguments are those of `FitModule`.

        Raises:
            ValueError: The network's head cannot be fitted on frozen features, or there is nothing to rank.
        """
        super().__init__(build_network(network), training, seed, total_steps, n_val, calibration)
        self.features_per_scan = check_head(self.network.head).linear.in_features
        if n_val < 2:
            raise ValueError(
                f"rank_n_contrast ranks held-out scans against each other; {n_val} validation scan is too few: give "
                "two or more."
            )
        # The optimiser and DDP's reducer leave out what takes no gradient.
        self.network.head.requires_grad_(False)
        # `fit` fills these in.
        self.readout: Iterable[Batch] = ()
        self.n_readout = 0

    @property
    def row_width(self) -> int:
        return 1 + self.features_per_scan

    def training_loss(self, batch: Batch) -> Tensor:
        """The loss of the global batch, the same on every rank; volumes have shape (n, views, channels, i, j, k)."""
        _, volumes, ages_years = batch
        features = self.network.features(volumes.flatten(0, 1)).float()
        ages_of_views = ages_years.repeat_interleave(volumes.shape[1])
        everyones = gather_with_gradients(features), gather_with_gradients(ages_of_views)
        return rank_n_contrast(*everyones, self.training_spec.temperature)

    def forward_backward(self, volumes: Tensor) -> None:
        self.network.features(volumes.flatten(0, 1)).float().square().mean().backward()

    def validation_rows(self, batch: Batch) -> Tensor:
        """One row per scan: its age and its features."""
        _, volumes, ages_years = batch
        features = self.evaluated.features(volumes)
        return torch.cat([ages_years.double()[:, None], features.double()], dim=1)

    def validation_figures(self, rows: Tensor) -> dict[str, Tensor]:
        """The loss over all held-out scans, and the error of ages that are read from their features."""
        ages_years, features = rows[:, 0], rows[:, 1:]
        loss = rank_n_contrast(features, ages_years, self.training_spec.temperature)
        error_years = self._readout_error_years(features, ages_years)
        return {"val_mae_years": error_years, "val_loss": loss}

    def _readout_error_years(self, features: Tensor, ages_years: Tensor) -> Tensor:
        known = self._training_rows()
        if not bool(torch.isfinite(known).all() and torch.isfinite(features).all()):
            return torch.full_like(ages_years[0], torch.nan)
        ridge = fit_ridge(known[:, 1:], known[:, 0])
        return (ridge.predict(features).to(ages_years) - ages_years).abs().mean()

    def _training_rows(self) -> Tensor:
        """Ages and features of the readout's scans, of all ranks."""
        rows = torch.zeros(self.n_readout, self.row_width, dtype=torch.float64, device=self.device)
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            for indices, volumes, ages_years in self.readout:
                there = volumes.to(self.device, non_blocking=True)
                seen = there if self.inputs is None else self.inputs.evaluation(there)
                rows[indices] = self.validation_rows((indices, seen, ages_years.to(self.device)))
        sum_over_ranks(rows)
        return rows
