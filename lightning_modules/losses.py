"""What a fit minimises."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss, smooth_l1_loss

from tasks.records import NetworkSpec, TrainingSpec

from .networks.age_bins import AgeBinSpec, expected_ages_years, soft_labels


def age_loss(outputs: Tensor, ages_years: Tensor, network: NetworkSpec, training: TrainingSpec) -> Tensor:
    """What a study minimises of the ages that a head gives.

    Args:
        outputs: Of the head, in full precision, shape (n, bins) or (n, 1).
        ages_years: Labels, shape (n,).
        network: Its head and bins.
        training: Its `loss`, or the weight of the expected-age term.

    Returns:
        The mean over the n scans: a soft label's divergence and weighted expected-age term, or a regression's loss.
    """
    if network.head == "regression":
        return regression_loss(outputs[:, 0], ages_years, training.loss)
    divergence = soft_label_divergence(outputs, soft_labels(ages_years, network).to(outputs))
    weight = training.expected_age_weight
    return divergence + weight * expected_age_loss(outputs, ages_years, network) if weight else divergence


def soft_label_divergence(logits: Tensor, labels: Tensor) -> Tensor:
    """Kullback–Leibler divergence of the predicted distributions from the soft labels.

    Args:
        logits: Unnormalised log probabilities, shape (n, bins).
        labels: Probabilities that sum to one per row, shape (n, bins).

    Returns:
        Mean over the n scans, in nats.

    Reference: Peng et al. 2021, doi:10.1016/j.media.2020.101871.
    """
    log_predicted = torch.log_softmax(logits, dim=1)
    # xlogy takes 0·log 0 as 0: bins far from the age hold an exact zero.
    return (torch.special.xlogy(labels, labels) - labels * log_predicted).sum(dim=1).mean()


def expected_age_loss(logits: Tensor, ages_years: Tensor, spec: AgeBinSpec) -> Tensor:
    """Smooth L1 distance between expected and true age, in units of the label's sigma.

    A divergence over narrow bins is almost flat far from the right bin; this term keeps its slope there, so that a
    small cohort learns in fewer epochs.

    Args:
        logits: Unnormalised log probabilities, shape (n, bins).
        ages_years: True ages, shape (n,).
        spec: The bins.

    Returns:
        Mean over the n scans, unitless: quadratic within one sigma, linear beyond.
    """
    sigma_years = spec.label_sigma_years
    return smooth_l1_loss(expected_ages_years(logits, spec) / sigma_years, ages_years.to(logits) / sigma_years)


def regression_loss(predicted_years: Tensor, ages_years: Tensor, name: str) -> Tensor:
    """Distance between a regression's ages and the true ones.

    Args:
        predicted_years: Predicted ages, shape (n,).
        ages_years: True ages, shape (n,).
        name: `mse` (years squared), `l1` (years), or `smooth_l1`, quadratic within one year and linear beyond.

    Returns:
        Mean over the n scans.

    Raises:
        ValueError: No loss has that name.
    """
    losses = {"mse": mse_loss, "l1": l1_loss, "smooth_l1": smooth_l1_loss}
    if name not in losses:
        raise ValueError(f"no regression loss is called {name!r}; known: {', '.join(losses)}.")
    return losses[name](predicted_years, ages_years.to(predicted_years))
