"""From pooled features to an age: the last layers of every network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .age_bins import bin_centres_years
from .specification import NetworkShape


def outputs_of(spec: NetworkShape) -> int:
    """Numbers per scan that a head gives: one per age bin, or one number of years.

    Raises:
        ValueError: No head has that name.
    """
    if spec.head not in ("soft_label", "regression"):
        raise ValueError(f"no head is called {spec.head!r}; known: 'soft_label', 'regression'.")
    return len(bin_centres_years(spec)) if spec.head == "soft_label" else 1


class Years(nn.Module):
    """Shift and scale a number around 0 to years, so that a fit starts where the ages are.

    A last layer whose bias had to travel from 0 to 50 years would spend its first epochs on that alone. The middle of
    `age_range_years` becomes 0 and a quarter of its width 1: about one standard deviation of the ages.
    """

    def __init__(self, age_range_years: tuple[float, float]) -> None:
        super().__init__()
        first, last = age_range_years
        if not first < last:
            raise ValueError(f"age_range_years is {(first, last)}; give an ascending range.")
        self.middle_years, self.spread_years = (first + last) / 2, (last - first) / 4

    def forward(self, unitless: Tensor) -> Tensor:
        """Return years, same shape."""
        return self.middle_years + self.spread_years * unitless


class AgeHead(nn.Module):
    """Dropout and a linear layer, in full precision: bf16 would round an age of 70 to half years.

    A soft-label head gives logits over the age bins. A regression head gives years; with `extra_linear` a second
    linear layer 1→1 follows, as in the study of FLAIR brain age, which starts as the identity.
    """

    def __init__(self, spec: NetworkShape, features: int, extra_linear: bool = False) -> None:
        """Lay out the head.

        Args:
            spec: The network's specification.
            features: Pooled features per scan.
            extra_linear: Whether a regression has the second linear layer.

        Raises:
            ValueError: An unknown head, or a dropout outside [0, 1).
        """
        super().__init__()
        if not 0 <= spec.dropout < 1:
            raise ValueError(f"dropout is {spec.dropout}; give a probability from 0 up to, not including, 1.")
        self.outputs = outputs_of(spec)
        self.dropout = nn.Dropout(spec.dropout)
        self.linear = nn.Linear(features, self.outputs)
        self.to_years: nn.Module = nn.Identity()
        if spec.head == "regression":
            nn.init.zeros_(self.linear.bias)
            years = Years(spec.age_range_years)
            self.to_years = nn.Sequential(_identity_linear(), years) if extra_linear else years

    def forward(self, features: Tensor) -> Tensor:
        """Map pooled features, shape (n, d), to outputs, shape (n, bins) or (n, 1)."""
        with torch.autocast(features.device.type, enabled=False):
            outputs: Tensor = self.to_years(self.linear(self.dropout(features.to(self.linear.weight.dtype))))
        return outputs


def _identity_linear() -> nn.Linear:
    layer = nn.Linear(1, 1)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
