"""Age, white matter and the image itself under one number: what a multi-task network minimises.

Of the study (doi:10.1002/jmri.70376) the abstract is known: age regression at several scales, white-matter
segmentation, image reconstruction. How the terms are measured and weighed is chosen here, and said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import torch
from monai.losses.dice import DiceLoss
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss

from tasks.records import NetworkSpec, TrainingSpec

from .losses import age_loss
from .networks.multitask_unet import Tasks

# Factors of exp(−s)·loss and of s in a negative log likelihood, by the kind of loss.
LIKELIHOODS = {"squared": (0.5, 0.5), "absolute": (1.0, 1.0), "categorical": (1.0, 0.5)}


def task_losses(
    found: Tasks,
    ages_years: Tensor,
    volumes: Tensor,
    white_matter: Tensor | None,
    network: NetworkSpec,
    training: TrainingSpec,
) -> dict[str, Tensor]:
    """Measure each task, the mean over a batch.

    - `age`: the study's age loss of the combined age, averaged with its mean over the scales, so that each scale
      learns to read age by itself.
    - `segmentation`: Dice loss plus binary cross-entropy: one counts overlap whatever the share of white matter, the
      other gives each voxel a slope (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z).
    - `reconstruction`: mean absolute difference from what the network was given, in its units.

    Args:
        found: What the network gives.
        ages_years: Labels, shape (n,).
        volumes: What the network was given, shape (n, input channels, i, j, k).
        white_matter: 1 in white matter, else 0, shape (n, 1, i, j, k); None where it is no task.
        network: The network's specification.
        training: Its losses.

    Returns:
        `age`, `reconstruction` and, where there is a target, `segmentation`.
    """
    scales = found.ages_by_scale.float().unbind(dim=1)
    by_scale = torch.stack([age_loss(ages, ages_years, network, training) for ages in scales]).mean()
    combined = age_loss(found.ages.float(), ages_years, network, training)
    reconstruction = l1_loss(found.reconstruction.float(), volumes.float())
    losses = {"age": (combined + by_scale) / 2, "reconstruction": reconstruction}
    if white_matter is None:
        return losses
    logits, target = found.white_matter_logits.float(), white_matter.float()
    overlap = DiceLoss(sigmoid=True)(logits, target)
    return losses | {"segmentation": overlap + binary_cross_entropy_with_logits(logits, target)}


class TaskBalance(nn.Module):
    """Adds up tasks by declared weights, or by weights that are learned from how uncertain each task is.

    Learned: each loss is a negative log likelihood but for its noise, of which one number `s` per task is fitted along:
    `exp(−s)·loss/2 + s/2` of a squared error (s = log σ²), `exp(−s)·loss + s` of an absolute one (s = log b, Laplace),
    `exp(−s)·loss + s/2` of a cross-entropy. A task that cannot be done well is weighed less, and `s` keeps the weights
    from vanishing. All start at s = 0. A declared weight of 0 still leaves a task out.

    Reference: Kendall, Gal & Cipolla 2018, arXiv:1705.07115, section 3.2.
    """

    def __init__(self, network: NetworkSpec, training: TrainingSpec) -> None:
        """Set up.

        Args:
            network: Its head says what kind of loss that of age is.
            training: Its `task_weights`, `learned_task_weights` and `loss`.

        Raises:
            ValueError: A weight is negative, or age has none.
        """
        super().__init__()
        declared: Mapping[str, float] = asdict(training.task_weights)
        if min(declared.values()) < 0 or not declared["age"] > 0:
            raise ValueError(
                f"task_weights is {dict(declared)}; give age a positive weight and no task a negative one."
            )
        self.weights = {name: weight for name, weight in declared.items() if weight > 0}
        age = "categorical" if network.head == "soft_label" else "squared" if training.loss == "mse" else "absolute"
        self.likelihoods = {"age": age, "segmentation": "categorical", "reconstruction": "absolute"}
        learned = self.weights if training.learned_task_weights else ()
        self.log_variances = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in learned})

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The number to minimise, of the tasks that have a weight."""
        if not self.log_variances:
            return torch.stack([weight * losses[name] for name, weight in self.weights.items()]).sum()
        return torch.stack([self._negative_log_likelihood(name, losses[name]) for name in self.weights]).sum()

    def _negative_log_likelihood(self, name: str, loss: Tensor) -> Tensor:
        per_loss, per_log = LIKELIHOODS[self.likelihoods[name]]
        log_variance = self.log_variances[name]
        return per_loss * torch.exp(-log_variance) * loss + per_log * log_variance
