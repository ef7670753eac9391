"""A linear readout of features in closed form, cheap enough for every epoch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Relative to the energy of the strongest direction. Less than a millionth would leave a fit through every scan, whose
# leave-one-out errors are a quotient of rounding errors.
RELATIVE_PENALTIES = tuple(10.0**power for power in range(-6, 1))


@dataclass(frozen=True)
class Ridge:
    """`features @ weights + intercept`; float64 on the CPU.

    Attributes:
        weights: Target units per feature unit, shape (d,).
        intercept: Target units.
        penalty: Of the squared weights, the intercept left out; in squared feature units.
    """

    weights: Tensor
    intercept: float
    penalty: float

    def predict(self, features: Tensor) -> Tensor:
        """Read the target from features, shape (n, d); float64 on the CPU, shape (n,)."""
        return features.double().cpu() @ self.weights + self.intercept


def fit_ridge(features: Tensor, targets: Tensor) -> Ridge:
    """Fit a ridge regression whose penalty has the least leave-one-out error, which is known without refitting.

    With X = U S Vᵀ of the centred features, the fitted values are H y with `H = 1/n + U diag(s²/(s² + λ)) Uᵀ`, and
    the residual of a scan that is left out is its residual over `1 − H_ii`. Nothing is drawn: equal features give
    equal weights on every rank.

    Args:
        features: Finite, shape (n, d), two rows or more; any device.
        targets: Shape (n,), in any unit.

    Returns:
        The regression; constant features give the targets' mean.

    Raises:
        ValueError: Fewer than two rows.

    Reference: Hastie, Tibshirani & Friedman 2009, The Elements of Statistical Learning, equation 7.64; Golub, Heath &
    Wahba 1979, doi:10.1080/00401706.1979.10489751.
    """
    if len(features) < 2:
        raise ValueError(f"a regression needs two scans or more, got {len(features)}.")
    rows, wanted = features.double().cpu(), targets.double().cpu()
    centre, mean = rows.mean(dim=0), wanted.mean()
    left, singular, right = torch.linalg.svd(rows - centre, full_matrices=False)
    projected, energy = left.T @ (wanted - mean), singular.square()
    floor = torch.finfo(torch.float64).tiny
    best_error, best = torch.inf, (torch.zeros_like(projected), 0.0)
    # From the strongest on, so that of equal errors the smoothest regression is taken.
    for relative in reversed(RELATIVE_PENALTIES):
        penalty = relative * float(energy.max())
        kept = energy / (energy + penalty + floor)
        residuals = wanted - mean - left @ (kept * projected)
        leverages = left.square() @ kept + 1 / len(rows)
        error = float((residuals / (1 - leverages).clamp_min(floor)).square().mean())
        if error < best_error:
            best_error, best = error, (kept * projected / singular.clamp_min(floor), penalty)
    weights = right.T @ best[0]
    return Ridge(weights, float(mean - centre @ weights), best[1])
