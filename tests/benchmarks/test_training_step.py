"""The plain side of the benchmark of a training step is the same fit: its ratio and its curves mean something."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.benchmarks.training_step import UNCHANGED, Side, by_padflow, distance, plainly
from tests.lightning_modules.conftest import TRAINING, JobMaker, job_of

__all__ = ["job_of"]


def test_both_sides_learn_alike_in_single_precision(job_of: JobMaker) -> None:
    network = replace(job_of().network, dropout=0.0)
    job = job_of(training=replace(TRAINING, processes=1, augmentation=UNCHANGED), network=network)
    ours, plain = by_padflow(job), plainly(job)
    assert plain.losses == pytest.approx(ours.losses, rel=1e-4)
    assert ours.step_s > 0 < plain.step_s
    assert plainly(replace(job, seed=8)).losses != pytest.approx(ours.losses, rel=1e-4)


def test_a_distance_of_curves_leaves_out_the_first_epoch() -> None:
    assert distance(Side(1, (9.0, 1.0, 1.0)), Side(1, (1.0, 1.0, 3.0))) == pytest.approx(2 / 3)
