"""Fit a network's head on the features of its frozen encoder."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tasks.records import NetworkSpec, TrainingJob, TrainingSpec

from .data import PreparedScans, epoch_batches, unpadded_batches
from .losses import age_loss
from .networks.age_bins import soft_labels
from .networks.age_head import AgeHead
from .networks.age_network import AgeNetwork
from .networks.build import ages_of_outputs, load_network
from .networks.inputs import network_input
from .outputs import write_whole
from .ridge import fit_ridge

# Adam moves every weight by about its rate; as features go up and down together, an output of d features of unit scale
# moves by d times that. So a first step moves an output by a tenth of the ages' spread, or of a log odds.
FIRST_STEP = 0.1


@dataclass(frozen=True)
class Features:
    """What the frozen encoder makes of some scans: features, shape (n, d), and their ages in years, shape (n,)."""

    values: Tensor
    ages_years: Tensor


@dataclass(frozen=True)
class HeadFit:
    """Validation error in years after each epoch of the head, the start first; the least was kept."""

    val_mae_years: tuple[float, ...]

    @property
    def best_epoch(self) -> int:
        """Epochs of the head that was kept; 0 is the start."""
        return min(range(len(self.val_mae_years)), key=self.val_mae_years.__getitem__)


def check_head(head: nn.Module) -> AgeHead:
    """Make sure that a network's head is one linear layer on all its features.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(head, AgeHead):
        raise ValueError(
            "rank_n_contrast fits an encoder under one age head; multitask_unet has one per scale. Take another "
            "network, or objective = 'age'."
        )
    return head


def fit_frozen_regressor(job: TrainingJob, weights_path: Path) -> HeadFit:
    """Fit the head of saved weights on their encoder's features, and save both as one network, on one device.

    Args:
        job: Its training and validation scans are used, as in evaluation.
        weights_path: A safetensors file, written anew whole.

    Returns:
        How the fit went.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = load_network(job.network, weights_path).to(device)
    known, held_out = (features_of(network, job, split) for split in ("train", "validation"))
    fitted = fit_head(check_head(network.head), known, held_out, job.network, job.training, job.seed)
    write_whole(weights_path, save({name: tensor.contiguous() for name, tensor in network.cpu().state_dict().items()}))
    return fitted


@torch.no_grad()
def features_of(network: AgeNetwork, job: TrainingJob, split: str) -> Features:
    """Run one part's scans through the encoder, in evaluation mode and once each, without augmentation.

    Args:
        network: In evaluation mode, on any device.
        job: The scans.
        split: Which of them.

    Returns:
        float32 features and float64 ages, on the CPU.
    """
    device = next(network.parameters()).device
    rows = [row for row in job.rows if row.split == split]
    once = unpadded_batches(len(rows), job.training.batch_size, rank=0, ranks=1)
    found, labels_years = [], []
    for _, volumes, ages_years in DataLoader(PreparedScans(rows), batch_sampler=once):
        seen = network_input(volumes.to(device).float(), job.network, job.channels)
        found.append(network.features(seen).float().cpu())
        labels_years.append(ages_years)
    return Features(torch.cat(found), torch.cat(labels_years))


def fit_head(
    head: AgeHead, known: Features, held_out: Features, network: NetworkSpec, training: TrainingSpec, seed: int
) -> HeadFit:
    """Fit the head to the study's loss on fixed features, and keep the epoch with the least validation error.

    Zha et al. train a linear layer by the L1 loss on the frozen encoder; a study does so by `loss = "l1"`. Here:

    - Features are centred and scaled by one number, which the layer then absorbs; their geometry is what was learned.
    - A regression starts at the ridge regression whose leave-one-out error is least, a soft-label head at the training
      scans' mean label: nothing is drawn, so that members differ by their encoders alone.
    - Adam follows, its rate falling by a cosine over `regressor_epochs`, over the same batches as a fit's. More
      features than scans can be fitted exactly, so that the epoch is chosen on validation scans, the start included.
    - Dropout is off: the encoder is done.

    Args:
        head: Changed in place.
        known: Training scans.
        held_out: Validation scans.
        network: The network's specification.
        training: Its `loss`, `regressor_epochs` and `batch_size`.
        seed: Of the batches' order.

    Returns:
        How the fit went.

    Reference: Zha et al. 2023, arXiv:2210.01189, section 4 (a predictor on the frozen encoder).
    """
    centre = known.values.mean(dim=0)
    scale = (known.values - centre).square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    inputs, judged = (known.values - centre) / scale, (held_out.values - centre) / scale
    fitted = deepcopy(head).cpu().requires_grad_(True).eval()
    _start(fitted, inputs, known.ages_years, network)
    optimizer = torch.optim.Adam(fitted.parameters(), lr=FIRST_STEP / inputs.shape[1])
    batches = _batches(len(inputs), training, seed)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, sum(map(len, batches))))
    errors, best = [], deepcopy(fitted.state_dict())
    for epoch in range(training.regressor_epochs + 1):
        for batch in batches[epoch - 1] if epoch else ():
            optimizer.zero_grad()
            age_loss(fitted(inputs[batch]), known.ages_years[batch], network, training).backward()
            optimizer.step()
            schedule.step()
        errors.append(_error_years(fitted, judged, held_out.ages_years, network))
        if errors[-1] < min(errors[:-1], default=torch.inf):
            best = deepcopy(fitted.state_dict())
    _absorb(best, centre, scale)
    head.load_state_dict(best)
    return HeadFit(tuple(errors))


def _batches(n: int, training: TrainingSpec, seed: int) -> list[list[list[int]]]:
    return [epoch_batches(n, training.batch_size, 1, seed, epoch) for epoch in range(training.regressor_epochs)]


@torch.no_grad()
def _error_years(head: AgeHead, features: Tensor, ages_years: Tensor, network: NetworkSpec) -> float:
    return float((ages_of_outputs(head(features).double(), network) - ages_years).abs().mean())


@torch.no_grad()
def _start(head: AgeHead, features: Tensor, ages_years: Tensor, network: NetworkSpec) -> None:
    linear = head.linear
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    if network.head == "soft_label":
        linear.bias.copy_(_log_mean_label(ages_years, network))
        return
    # What follows the linear layer is a line, which two points show.
    at_zero = head(features[:1])
    linear.bias.fill_(1)
    per_unit = head(features[:1]) - at_zero
    ridge = fit_ridge(features, (ages_years.to(at_zero) - at_zero[0]) / per_unit[0])
    linear.weight.copy_(ridge.weights[None])
    linear.bias.fill_(ridge.intercept)


def _log_mean_label(ages_years: Tensor, network: NetworkSpec) -> Tensor:
    labels = soft_labels(ages_years, network).mean(dim=0)
    # No bin starts as impossible.
    return (labels + 1 / len(ages_years)).log()


def _absorb(state: dict[str, Tensor], centre: Tensor, scale: Tensor) -> None:
    """Let the linear layer take features as they come."""
    weight = state["linear.weight"].double() / scale
    state["linear.bias"] -= (weight @ centre.double()).float()
    state["linear.weight"].copy_(weight)
