"""The judge of registrations knows what it judges: a planted transform wins, and distances are in mm."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from tasks.science.imaging.template import mni
from tests.benchmarks.registration_judge import Reference, distance_mm, mutual_information, similarity


@pytest.fixture(scope="module")
def reference() -> Reference:
    template = mni()
    return Reference(template.t1, template.affine, template.brain)


def test_the_true_transform_is_the_most_similar(reference: Reference) -> None:
    off, far = np.eye(4), np.eye(4)
    off[0, 3], far[0, 3] = 1.0, 4.0
    # A scan in another contrast: mutual information must not care, correlation must turn its sign.
    scan = 500.0 - reference.volume
    found = similarity(scan, reference.affine, {"true": np.eye(4), "off": off, "far": far}, reference)
    assert found["true"][0] == pytest.approx(-1.0)
    assert found["true"][0] < found["off"][0] < found["far"][0]
    assert found["true"][1] > found["off"][1] > found["far"][1]


def test_mutual_information_of_correlated_normals_is_the_textbook_value() -> None:
    r = 0.8
    first, second = multivariate_normal([0, 0], [[1, r], [r, 1]], seed=0).rvs(400_000).T
    found = mutual_information(first, second, np.percentile(first, (0.5, 99.5)))
    assert found == pytest.approx(-0.5 * np.log(1 - r**2), rel=0.03)


def test_distance_of_a_shift_is_the_shift(reference: Reference) -> None:
    shift = np.eye(4)
    shift[:3, 3] = (3.0, 0.0, 4.0)
    assert distance_mm(shift, np.eye(4), reference) == pytest.approx((5.0, 5.0))
