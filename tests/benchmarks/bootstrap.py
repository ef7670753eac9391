"""Every metric's interval by resampling subjects, beside a loop that computes each metric of each draw's rows.

Times are of the processor, of one thread, so that a busy machine does not count.
"""

from __future__ import annotations

import time

import numpy as np

from tasks.science.statistics.bootstrap import bootstrap_metrics
from tasks.science.statistics.metrics import METRICS
from tests.benchmarks.rows import Row

SUBJECTS, RESAMPLES = 5_000, 10_000
REPEATS, LOOPED = 5, 20
BAR_S = 2.0


def rows() -> list[Row]:
    """One row: seconds, the best of some runs."""
    rng = np.random.default_rng(0)
    age = rng.uniform(20, 90, SUBJECTS)
    predicted = age + rng.normal(0, 5, SUBJECTS)
    subject = np.arange(SUBJECTS)
    took_s = []
    for _ in range(REPEATS):
        began = time.process_time()
        bootstrap_metrics(age, predicted, subject, RESAMPLES, np.random.default_rng(1))
        took_s.append(time.process_time() - began)
    began = time.process_time()
    for drawn in np.random.default_rng(1).integers(0, SUBJECTS, size=(LOOPED, SUBJECTS)):
        for metric in METRICS.values():
            metric(age[drawn], predicted[drawn])
    loop_s = (time.process_time() - began) * RESAMPLES / LOOPED
    return [
        Row(
            f"bootstrap of all {len(METRICS)} metrics, {RESAMPLES:,} resamples of {SUBJECTS:,} subjects, one thread",
            f"≤ {BAR_S:g} s",
            f"{min(took_s):.1f} s",
            min(took_s) <= BAR_S,
            "Ranks are taken anew in every draw. A loop that computes each metric of each draw's rows takes "
            f"{loop_s:.0f} s.",
        )
    ]
