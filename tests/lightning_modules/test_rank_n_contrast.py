"""The loss against its definition, with a loop per symbol, in float64."""

from __future__ import annotations

import math
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules import rank_n_contrast as loss_module
from lightning_modules.rank_n_contrast import euclidean_distances, rank_n_contrast
from tests.lightning_modules.gathered_loss import ROWS, features_and_labels, run_rank


def by_definition(features: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    n, total = len(features), 0.0
    weights = [
        [math.exp(-math.dist(features[i], features[j]) / temperature) if i != j else 0.0 for j in range(n)]
        for i in range(n)
    ]
    for i in range(n):
        for j in range(n):
            if i == j:
                continue
            distance = abs(labels[i] - labels[j])
            below = [weights[i][k] for k in range(n) if k != i and abs(labels[i] - labels[k]) >= distance]
            total -= math.log(weights[i][j] / math.fsum(below))
    return total / (n * (n - 1))


def differentiable_definition(features: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """The definition as an n³ mask, for its gradient; needs features that differ."""
    n = len(features)
    others = ~torch.eye(n, dtype=torch.bool)
    gaps = (features[:, None] - features[None]).pow(2).sum(2)
    similarity = -gaps.where(others, torch.ones(())).sqrt() / temperature
    apart = (labels[:, None] - labels[None]).abs()
    counted = (apart[:, None, :] >= apart[:, :, None]) & others[:, None, :]
    below = torch.where(counted, similarity.exp()[:, None, :], torch.zeros(())).sum(2).log()
    return (below - similarity)[others].mean()


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 40),
    width=st.integers(1, 5),
    distinct=st.sampled_from([1, 3, 12, 10_000]),
    temperature=st.sampled_from([0.3, 2.0, 7.0]),
    seed=st.integers(0, 10_000),
)
def test_the_loss_is_its_definition_ties_and_two_views_included(
    n: int, width: int, distinct: int, temperature: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    features, labels = random.normal(0, 3, (n, width)), random.integers(0, distinct, n) / 4
    found = rank_n_contrast(torch.from_numpy(features), torch.from_numpy(labels), temperature)
    assert float(found) == pytest.approx(by_definition(features, labels, temperature), rel=1e-12, abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(4, 40), seed=st.integers(0, 10_000))
def test_the_gradient_is_that_of_the_definition(n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    features = torch.from_numpy(random.normal(0, 2, (n, 3))).requires_grad_()
    labels = torch.from_numpy(random.integers(0, 6, n).astype(float))
    (found,) = torch.autograd.grad(rank_n_contrast(features, labels, 2.0), features)
    (expected,) = torch.autograd.grad(differentiable_definition(features, labels, 2.0), features)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


def test_numerical_differences_agree_with_the_gradient() -> None:
    features = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    labels = torch.tensor([1.0, 2, 2, 5, 9, 9, 1], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda given: rank_n_contrast(given, labels, 2.0), (features,))


@settings(max_examples=15, deadline=None)
@given(n=st.integers(3, 30), seed=st.integers(0, 10_000))
def test_the_order_of_scans_does_not_matter(n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    features, labels = torch.from_numpy(random.normal(size=(n, 4))), torch.from_numpy(random.integers(0, 5, n) / 1.0)
    order = torch.from_numpy(random.permutation(n))
    again = rank_n_contrast(features[order], labels[order], 2.0)
    torch.testing.assert_close(again, rank_n_contrast(features, labels, 2.0), rtol=1e-12, atol=0)


def test_features_that_coincide_have_a_finite_gradient_and_the_right_loss() -> None:
    labels = torch.tensor([20.0, 20.0, 40.0, 40.0, 60.0, 60.0], dtype=torch.float64)
    for features in (torch.ones(6, 3, dtype=torch.float64), torch.arange(3.0).repeat_interleave(2)[:, None].double()):
        given = features.clone().requires_grad_()
        found = rank_n_contrast(given, labels, 2.0)
        found.backward()
        assert given.grad is not None
        assert torch.isfinite(given.grad).all()
        expected = by_definition(features.numpy(), labels.numpy(), 2.0)
        assert float(found.detach()) == pytest.approx(expected, rel=1e-12)


def test_features_in_the_order_of_their_labels_cost_less_than_shuffled_ones() -> None:
    labels = torch.arange(0.0, 60, 3)
    ordered = rank_n_contrast(labels[:, None] * 2, labels, 2.0)
    shuffled = labels[torch.from_numpy(np.random.default_rng(3).permutation(len(labels)))]
    assert ordered < 0.5 * rank_n_contrast(shuffled[:, None] * 2, labels, 2.0)


def test_far_and_close_features_keep_their_distances_in_float32() -> None:
    """Matrix products lose small distances between features of large norm."""
    random = np.random.default_rng(4)
    features = random.normal(0, 30, (1, 512)) + random.normal(0, 0.015, (512, 512))
    exact = np.sqrt(((features.astype(np.float32)[:40, None].astype(float) - features.astype(np.float32)) ** 2).sum(2))
    found = euclidean_distances(torch.from_numpy(features.astype(np.float32)))
    assert found.shape == (512, 512)
    np.testing.assert_allclose(found[:40].numpy(), exact, rtol=1e-5, atol=1e-7)


def test_blocks_of_anchors_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.randn(11, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5), requires_grad=True)
    labels = torch.arange(11.0, dtype=torch.float64) % 4
    whole = rank_n_contrast(features, labels, 2.0)
    (expected,) = torch.autograd.grad(whole, features)
    monkeypatch.setattr(loss_module, "BLOCK_ELEMENTS", 3 * features.numel())
    parts = rank_n_contrast(features, labels, 2.0)
    (found,) = torch.autograd.grad(parts, features)
    assert torch.equal(parts, whole)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


def test_half_precision_features_are_compared_in_float32() -> None:
    features = torch.randn(6, 4, generator=torch.Generator().manual_seed(6)).bfloat16()
    labels = torch.arange(6.0)
    found = rank_n_contrast(features, labels, 2.0)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(rank_n_contrast(features.double(), labels, 2.0)), rel=1e-5)


@pytest.mark.parametrize(
    ("features", "labels", "temperature", "message"),
    [((1, 3), 1, 2.0, "n at least 2"), ((4, 3), 3, 2.0, "of shape"), ((4, 3), 4, 0.0, "temperature is 0")],
)
def test_what_has_no_pairs_is_refused(features: tuple[int, int], labels: int, temperature: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_n_contrast(torch.zeros(features), torch.zeros(labels), temperature)


def test_two_processes_give_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    """From given features, equally shared and not; and for the weights of an encoder, averaged by DDP."""
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=run_rank, args=(rank, str(tmp_path))) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(timeout=60)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    results = [torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in range(2)]
    for sharing in ROWS:
        features, labels = features_and_labels()
        expected = rank_n_contrast(features.requires_grad_(), labels, 2.0)
        expected.backward()
        found = [result[sharing] for result in results]
        assert features.grad is not None
        for each in found:
            torch.testing.assert_close(each["loss"], expected.detach(), rtol=1e-13, atol=0)
        # DDP divides by the two ranks what they add up here.
        gradient = torch.cat([each["gradient"] for each in found]) / 2
        torch.testing.assert_close(gradient, features.grad, rtol=1e-12, atol=1e-15)
        encoder = torch.nn.Linear(3, 2, dtype=torch.float64)
        torch.nn.init.eye_(encoder.weight)
        rank_n_contrast(encoder(features.detach()), labels, 2.0).backward()
        for each in found:
            torch.testing.assert_close(each["encoder"], encoder.weight.grad, rtol=1e-12, atol=1e-15)
