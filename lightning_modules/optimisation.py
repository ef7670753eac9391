"""How weights move: the optimiser, its learning rate over the fit, and their running average."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from tasks.records import TrainingSpec

SGD_MOMENTUM = 0.9
# Share of the one-cycle schedule that warms up.
WARM_UP_SHARE = 0.25


def optimizer_of(parameters: Iterable[nn.Parameter], spec: TrainingSpec) -> Optimizer:
    """Build the optimiser that a study names.

    Args:
        parameters: Those that are fitted; frozen ones are left out.
        spec: Its `optimizer`, `learning_rate` and `weight_decay`. AdamW's decay is apart from the gradient (Loshchilov
            & Hutter 2019, arXiv:1711.05101), that of Adam and SGD is an L2 term in it, as published recipes have it.

    Raises:
        ValueError: No optimiser has that name.
    """
    fitted = [p for p in parameters if p.requires_grad]
    # A decay of batch-norm scales and biases only pulls them from where the statistics want them.
    groups = [
        {"params": [p for p in fitted if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in fitted if p.ndim <= 1], "weight_decay": 0.0},
    ]
    # One kernel for all weights. Lightning refuses to clip gradients of a fused optimiser in mixed precision.
    fused = True if fitted and not spec.clip_norm and all(p.is_cuda for p in fitted) else None
    if spec.optimizer == "adamw":
        return AdamW(groups, lr=spec.learning_rate, fused=fused)
    if spec.optimizer == "adam":
        return Adam(groups, lr=spec.learning_rate, fused=fused)
    if spec.optimizer == "sgd":
        return SGD(groups, lr=spec.learning_rate, momentum=SGD_MOMENTUM, nesterov=True, fused=fused)
    raise ValueError(f"no optimizer is called {spec.optimizer!r}; known: 'adamw', 'adam', 'sgd'.")


def schedule_of(optimizer: Optimizer, spec: TrainingSpec, total_steps: int) -> LRScheduler:
    """Build the learning rate's course over all steps of a fit; it is stepped after every optimiser step.

    - `one_cycle`: a cosine up to the peak in the first quarter and down to almost 0, where few epochs suffice (Smith &
      Topin 2018, arXiv:1708.07120).
    - `polynomial`: (1 − epoch/epochs)^power, one value per epoch, as the study of FLAIR brain age has it.
    - `cosine`: half a cosine from the peak to 0 (Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts).
    - `constant`: the peak throughout.

    Args:
        optimizer: Whose rate follows the course.
        spec: Its `schedule`, `schedule_power`, `epochs` and `learning_rate`.
        total_steps: Optimiser steps of all epochs.

    Raises:
        ValueError: No schedule has that name.
    """
    if spec.schedule == "one_cycle":
        # torch divides by the last step of the warm-up, which in a fit of four steps would be step 0.
        share = WARM_UP_SHARE if total_steps * WARM_UP_SHARE != 1 else 2 * WARM_UP_SHARE
        return OneCycleLR(optimizer, spec.learning_rate, total_steps=total_steps, pct_start=share, cycle_momentum=False)
    return LambdaLR(optimizer, lambda step: rate_share(step, spec, total_steps))


def rate_share(step: int, spec: TrainingSpec, total_steps: int) -> float:
    """The learning rate of a step, as a share of the peak; 0 past the last step.

    Args:
        step: Optimiser steps done, from 0.
        spec: As in `schedule_of`.
        total_steps: Of the whole fit.
    """
    done = min(step / total_steps, 1.0)
    if spec.schedule == "constant":
        return 1.0
    if spec.schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    if spec.schedule == "polynomial":
        # In whole numbers: a quotient of floats may fall short of an epoch that is reached.
        epoch = min(step * spec.epochs // total_steps, spec.epochs)
        return float((1 - epoch / spec.epochs) ** spec.schedule_power)
    known = "'one_cycle', 'polynomial', 'cosine', 'constant'"
    raise ValueError(f"no schedule is called {spec.schedule!r}; known: {known}.")


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float, steps_before: int) -> None:
    """Move an exponential moving average of a network's parameters one step on.

    The average is of noisy weights, and generalises as a later, colder network would. Its decay warms up as (1 + n) /
    (10 + n), so that a fit of few steps does not keep the weights that it began with.

    Args:
        average: Same layers as the network; changed in place. Its batch-norm statistics stay: they are measured.
        network: After its optimiser step.
        decay: Per step, at most.
        steps_before: Optimiser steps before this one, n.

    Reference: Polyak & Juditsky 1992, doi:10.1137/0330046; the warm-up is that of TensorFlow's
    `ExponentialMovingAverage`.
    """
    weight = 1 - min(decay, (1 + steps_before) / (10 + steps_before))
    averaged: list[Tensor] = [p.data for p in average.parameters()]
    torch._foreach_lerp_(averaged, [p.data for p in network.parameters()], weight)
