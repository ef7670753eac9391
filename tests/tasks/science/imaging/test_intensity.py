"""The z-score forgets the scanner's units and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.records import ScanRejected
from tasks.science.imaging.intensity import zscore_within_mask

RNG = np.random.default_rng(2)
VOLUME = RNG.gamma(4.0, 100.0, (12, 13, 14)).astype(np.float32)
BRAIN = RNG.random((12, 13, 14)) < 0.5


@settings(max_examples=40, deadline=None)
@given(gain=st.floats(0.01, 1000), offset=st.floats(-500, 500))
def test_zscore_ignores_scanner_gain_and_offset(gain: float, offset: float) -> None:
    moved = VOLUME.astype(np.float64) * gain + offset
    np.testing.assert_allclose(zscore_within_mask(moved, BRAIN), zscore_within_mask(VOLUME, BRAIN), atol=1e-4)


def test_zscore_is_standard_within_and_zero_outside() -> None:
    scaled = zscore_within_mask(VOLUME, BRAIN)
    assert scaled.dtype == np.float32
    assert scaled[BRAIN].mean() == pytest.approx(0, abs=1e-5)
    assert scaled[BRAIN].std() == pytest.approx(1, abs=1e-5)
    assert not scaled[~BRAIN].any()


def test_one_bright_vessel_does_not_move_the_rest() -> None:
    plain = RNG.gamma(4.0, 100.0, (30, 30, 30))
    brain = np.ones(plain.shape, dtype=bool)
    bright = plain.copy()
    bright[0, 0, 0] = 1e7
    before, after = zscore_within_mask(plain, brain), zscore_within_mask(bright, brain)
    np.testing.assert_allclose(after.ravel()[1:], before.ravel()[1:], atol=0.05)


def test_callers_mistakes_and_bad_scans_are_told_apart() -> None:
    with pytest.raises(ValueError, match="shape"):
        zscore_within_mask(VOLUME, BRAIN[:-1])
    with pytest.raises(ValueError, match="clip_percentiles"):
        zscore_within_mask(VOLUME, BRAIN, (99.0, 1.0))
    with pytest.raises(ScanRejected, match="voxels are brain"):
        zscore_within_mask(VOLUME, np.zeros_like(BRAIN))
    with pytest.raises(ScanRejected, match="no tissue"):
        zscore_within_mask(np.full_like(VOLUME, 4.0), BRAIN)
