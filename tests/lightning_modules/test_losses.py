from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.losses import expected_age_loss, soft_label_divergence
from lightning_modules.networks.age_bins import bin_centres_years, bin_edges_years, expected_ages_years, soft_labels
from tasks.records import NetworkSpec

SPEC = NetworkSpec(age_range_years=(10.0, 100.0), bin_width_years=3.0, label_sigma_years=2.0)


def brute_label(age_years: float, spec: NetworkSpec) -> list[float]:
    edges = bin_edges_years(spec).tolist()
    below = [0.5 * (1 + math.erf((edge - age_years) / spec.label_sigma_years / math.sqrt(2))) for edge in edges]
    shares = [upper - lower for lower, upper in pairwise(below)]
    return [share / sum(shares) for share in shares]


@settings(max_examples=30, deadline=None)
@given(
    ages=st.lists(st.floats(10, 100), min_size=1, max_size=6),
    width=st.sampled_from([1.0, 2.0, 3.0, 7.5]),
    sigma=st.floats(0.3, 6),
)
def test_soft_labels_sum_to_one_and_match_the_error_function(ages: list[float], width: float, sigma: float) -> None:
    spec = NetworkSpec(age_range_years=(10.0, 100.0), bin_width_years=width, label_sigma_years=sigma)
    labels = soft_labels(torch.tensor(ages, dtype=torch.float64), spec)
    assert torch.allclose(labels.sum(dim=1), torch.ones(len(ages), dtype=torch.float64), atol=1e-12)
    expected = np.array([brute_label(age, spec) for age in ages])
    np.testing.assert_allclose(labels.numpy(), expected, atol=1e-11)


@settings(max_examples=20, deadline=None)
@given(age=st.floats(25, 85))
def test_a_label_away_from_the_edges_reads_back_as_its_age(age: float) -> None:
    label = soft_labels(torch.tensor([age]), SPEC)
    assert float(label @ bin_centres_years(SPEC)) == pytest.approx(age, abs=0.1)
    assert float(expected_ages_years(torch.log(label + 1e-300), SPEC)) == pytest.approx(age, abs=0.1)


@pytest.mark.parametrize("age", [9.99, 100.01, float("nan"), float("inf")])
def test_an_age_outside_the_bins_is_refused(age: float) -> None:
    with pytest.raises(ValueError, match="1 of 2 ages lie outside age_range_years"):
        soft_labels(torch.tensor([50.0, age], dtype=torch.float64), SPEC)


@pytest.mark.parametrize(
    ("age_range", "width"), [((10.0, 100.0), 7.0), ((50.0, 50.0), 1.0), ((10.0, 100.0), 0.0), ((10.0, 100.0), 90.0)]
)
def test_a_range_that_is_no_whole_number_of_bins_is_refused(age_range: tuple[float, float], width: float) -> None:
    with pytest.raises(ValueError, match="bins"):
        bin_edges_years(NetworkSpec(age_range_years=age_range, bin_width_years=width))


def test_divergence_matches_a_double_loop() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (5, 30))
    labels = np.array([brute_label(age, SPEC) for age in random.uniform(12, 98, 5)])
    labels[0] = np.eye(30)[4]
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        log_normaliser = math.log(sum(math.exp(value) for value in row))
        total += sum(p * (math.log(p) - value + log_normaliser) for p, value in zip(label, row, strict=True) if p > 0)
    found = soft_label_divergence(torch.from_numpy(logits), torch.from_numpy(labels))
    assert float(found) == pytest.approx(total / 5, rel=1e-12)


def test_divergence_is_zero_at_the_label_and_finite_for_certain_labels_in_float32() -> None:
    labels = soft_labels(torch.tensor([11.0, 55.0]), SPEC)
    assert float(soft_label_divergence(torch.log(labels + 1e-300), labels)) == pytest.approx(0, abs=1e-9)
    logits = torch.full((2, labels.shape[1]), -200.0).requires_grad_()
    soft_label_divergence(logits, labels.float()).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_expected_age_loss_matches_numpy() -> None:
    random = np.random.default_rng(1)
    logits, ages = random.normal(0, 1, (4, 30)), np.array([20.0, 52.0, 55.5, 90.0])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    distance = np.abs(probabilities @ (10 + 3 * (np.arange(30) + 0.5)) - ages) / 2.0
    expected = np.where(distance < 1, distance**2 / 2, distance - 0.5).mean()
    found = expected_age_loss(torch.from_numpy(logits), torch.from_numpy(ages), SPEC)
    assert float(found) == pytest.approx(expected, rel=1e-12)
