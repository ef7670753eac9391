from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_modules.ridge import RELATIVE_PENALTIES, fit_ridge


def refitted(features: np.ndarray, targets: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """Normal equations with an intercept that is not penalised."""
    design = np.column_stack([np.ones(len(features)), features])
    ridge = penalty * np.eye(design.shape[1])
    ridge[0, 0] = 0
    solved = np.linalg.solve(design.T @ design + ridge, design.T @ targets)
    return solved[1:], solved[0]


def left_out_error(features: np.ndarray, targets: np.ndarray, penalty: float) -> float:
    squares = []
    for row in range(len(targets)):
        others = np.arange(len(targets)) != row
        weights, intercept = refitted(features[others], targets[others], penalty)
        squares.append((features[row] @ weights + intercept - targets[row]) ** 2)
    return float(np.mean(squares))


@pytest.mark.parametrize(("n", "d"), [(30, 4), (12, 30)])
def test_it_is_the_penalty_with_the_least_error_when_each_scan_is_left_out_and_refitted(n: int, d: int) -> None:
    random = np.random.default_rng(n)
    features = random.normal(3, 1, (n, d))
    targets = 50 + 5 * features[:, 0] + random.normal(0, 4, n)
    found = fit_ridge(torch.from_numpy(features), torch.from_numpy(targets))
    most = np.linalg.svd(features - features.mean(axis=0), compute_uv=False).max() ** 2
    candidates = [relative * most for relative in RELATIVE_PENALTIES]
    errors = [left_out_error(features, targets, penalty) for penalty in candidates]
    assert found.penalty == pytest.approx(candidates[int(np.argmin(errors))])
    weights, intercept = refitted(features, targets, found.penalty)
    np.testing.assert_allclose(found.weights.numpy(), weights, rtol=1e-6, atol=1e-8)
    assert found.intercept == pytest.approx(intercept, rel=1e-8)


def test_a_line_is_found_and_constant_features_give_the_mean() -> None:
    features = torch.linspace(-1, 1, 20)[:, None] * torch.tensor([1.0, 2.0, -1.0])
    ages = 40 + 10 * features[:, 0]
    torch.testing.assert_close(fit_ridge(features, ages).predict(features), ages.double(), rtol=1e-4, atol=1e-4)
    constant = fit_ridge(torch.ones(20, 3), ages)
    assert torch.isfinite(constant.weights).all()
    torch.testing.assert_close(constant.predict(torch.ones(2, 3)), ages.double().mean().expand(2))


def test_one_scan_is_refused() -> None:
    with pytest.raises(ValueError, match="two scans or more"):
        fit_ridge(torch.ones(1, 3), torch.ones(1))
