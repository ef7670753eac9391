"""Ages as soft labels over bins, and back.

Peng et al. 2021 (doi:10.1016/j.media.2020.101871) predict a distribution over age bins rather than a number: its mean
is the predicted age. Their 40 bins span 42–82 years and give an age outside them an empty label; here the range is
part of the network's specification and an age outside it is refused.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor


class AgeBinSpec(Protocol):
    """What of a network's specification shapes its bins."""

    @property
    def age_range_years(self) -> tuple[float, float]: ...

    @property
    def bin_width_years(self) -> float: ...

    @property
    def label_sigma_years(self) -> float: ...


def bin_edges_years(spec: AgeBinSpec) -> Tensor:
    """Cut the age range into bins of one width.

    Returns:
        Ascending edges in years, float64, shape (bins + 1,).

    Raises:
        ValueError: The range is not a whole number of bins.
    """
    first, last = spec.age_range_years
    if not (math.isfinite(first) and math.isfinite(last) and first < last and spec.bin_width_years > 0):
        raise ValueError(
            f"age_range_years {(first, last)} with bin_width_years {spec.bin_width_years} holds no bins; "
            "give an ascending range and a positive width."
        )
    bins = round((last - first) / spec.bin_width_years)
    if bins < 2 or not math.isclose(bins * spec.bin_width_years, last - first, rel_tol=1e-9):
        raise ValueError(
            f"age_range_years {(first, last)} is not a whole number (two or more) of bins of "
            f"{spec.bin_width_years} years; change age_range_years or bin_width_years."
        )
    return torch.linspace(first, last, bins + 1, dtype=torch.float64)


def bin_centres_years(spec: AgeBinSpec) -> Tensor:
    """Name each bin by its middle, the age that it stands for in an expected age.

    Returns:
        Years, float64, shape (bins,).
    """
    edges = bin_edges_years(spec)
    return (edges[:-1] + edges[1:]) / 2


def soft_labels(ages_years: Tensor, spec: AgeBinSpec) -> Tensor:
    """Spread each age over the bins as a Gaussian, so that a near miss costs less than a far one.

    A bin's share is the Gaussian's integral over it, divided by the integral over the range: a label near an edge
    still sums to one.

    Args:
        ages_years: Ages in years, shape (n,).
        spec: Range, width and sigma of the label, in years.

    Returns:
        Probabilities, float64, shape (n, bins), on the device of the ages.

    Raises:
        ValueError: An age lies outside the range, or sigma is not positive.
    """
    first, last = spec.age_range_years
    ages = ages_years.double()
    refused = ages[~((ages >= first) & (ages <= last))]
    if len(refused):
        raise ValueError(
            f"{len(refused)} of {len(ages)} ages lie outside age_range_years {(first, last)}, the first is "
            f"{refused[0].item():g}; widen age_range_years or leave those scans out."
        )
    if not spec.label_sigma_years > 0:
        raise ValueError(f"label_sigma_years is {spec.label_sigma_years}; it must be positive.")
    edges = bin_edges_years(spec).to(ages.device)
    below = torch.special.ndtr((edges[None, :] - ages[:, None]) / spec.label_sigma_years)
    shares = (below[:, 1:] - below[:, :-1]).clamp_min(0)
    return shares / shares.sum(dim=1, keepdim=True)


def expected_ages_years(logits: Tensor, spec: AgeBinSpec) -> Tensor:
    """Read one age from a distribution over bins: its mean.

    Args:
        logits: Unnormalised log probabilities, shape (n, bins).
        spec: The bins' range and width, in years.

    Returns:
        Years, shape (n,), float32 or float64 as the logits.
    """
    probabilities = torch.softmax(logits.float() if logits.dtype != torch.float64 else logits, dim=1)
    return probabilities @ bin_centres_years(spec).to(probabilities)
