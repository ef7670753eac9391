"""The ratio and its calibration, against the formulas written out again and on heads made of known intensities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.records import RatioCalibration, ScanRejected
from tasks.science.imaging.ratio import (
    calibrated,
    noise_sigma,
    ratio_image,
    reference_modes,
    tissue_mode,
    within_spheres,
)

SHAPE, AFFINE = (40, 40, 40), np.diag([4.0, 4.0, 4.0, 1.0])
AFFINE[:3, 3] = -80
CALIBRATION = RatioCalibration(
    t1w_modes=(20.0, 60.0), t2w_modes=(150.0, 40.0), eyes_mm=((40, 60, -20, 12),), muscles_mm=((-60, 0, -20, 12),)
)
BRAIN = within_spheres(SHAPE, AFFINE, ((0, 0, 0, 50),))


def head(eye: float, muscle: float, brain: float, noise: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    clean = np.zeros(SHAPE)
    clean[BRAIN] = brain
    for spheres, level in ((CALIBRATION.eyes_mm, eye), (CALIBRATION.muscles_mm, muscle)):
        clean[within_spheres(SHAPE, AFFINE, spheres)] = level
    real, imaginary = rng.normal(0, noise, (2, *SHAPE))
    return np.hypot(clean + real, imaginary).astype(np.float32)


def test_the_ratio_is_finite_and_only_where_t2w_is_above_its_noise():
    t1, t2 = head(20, 60, 80, 2.0, 0), head(150, 40, 100, 2.0, 1)
    t2[20, 20, 20], t2[21, 21, 21], t2[22, 22, 22] = 0.0, 9.0, -5.0
    ratio, defined = ratio_image(t1, t2, BRAIN)
    assert np.isfinite(ratio).all()
    assert not defined[20, 20, 20]
    assert not defined[21, 21, 21]
    assert not defined[22, 22, 22]
    assert not defined[~BRAIN].any()
    assert (ratio[~defined] == 0).all()
    np.testing.assert_allclose(ratio[defined], t1[defined] / t2[defined], rtol=1e-6)
    assert np.median(ratio[defined]) == pytest.approx(0.8, rel=0.02)


def test_noise_is_read_off_the_air_and_absent_where_the_air_is_zeroed():
    t2 = head(150, 40, 100, 2.0, 1)
    assert noise_sigma(t2, BRAIN) == pytest.approx(2.0, rel=0.05)
    assert noise_sigma(np.where(BRAIN, t2, 0), BRAIN) == 0.0


@given(a=st.floats(0.1, 50), b=st.floats(-500, 500))
def test_calibration_forgets_gain_and_offset_of_each_contrast(a: float, b: float):
    volume = np.linspace(0, 300, 27, dtype=np.float64).reshape(3, 3, 3)
    found, reference = (30.0, 200.0), (20.0, 60.0)
    first = calibrated(volume, found, reference)
    again = calibrated(a * volume + b, (a * found[0] + b, a * found[1] + b), reference)
    np.testing.assert_allclose(again, first, atol=1e-3 * np.abs(first).max() * max(1.0, 50 / a))
    # Independently: the line through two points of the plane (subject, reference).
    line = np.polyfit(found, reference, 1)
    np.testing.assert_allclose(first, np.polyval(line, volume), rtol=1e-4, atol=1e-3)


def test_two_scanners_give_one_calibrated_ratio():
    ratios = []
    for seed, (gain1, gain2, offset) in enumerate(((1.0, 1.0, 0.0), (3.7, 0.4, 0.0), (0.8, 5.0, 30.0))):
        t1 = gain1 * head(20, 60, 80, 1.0, seed) + offset
        t2 = gain2 * head(150, 40, 100, 1.0, seed + 10)
        modes1 = reference_modes(t1, AFFINE, BRAIN, "T1w", CALIBRATION)
        modes2 = reference_modes(t2, AFFINE, BRAIN, "T2w", CALIBRATION)
        t1c, t2c = calibrated(t1, modes1, CALIBRATION.t1w_modes), calibrated(t2, modes2, CALIBRATION.t2w_modes)
        ratio, defined = ratio_image(t1c, t2c, BRAIN)
        ratios.append(float(np.median(ratio[defined])))
    assert ratios == pytest.approx([0.8, 0.8, 0.8], rel=0.03)


def test_defaced_and_stripped_heads_cannot_be_calibrated():
    t1 = head(20, 60, 80, 1.0, 0)
    for spheres, tissue in ((CALIBRATION.eyes_mm, "eyes"), (CALIBRATION.muscles_mm, "temporal muscles")):
        cut = np.where(within_spheres(SHAPE, AFFINE, spheres), 0, t1)
        with pytest.raises(ScanRejected, match=f"nothing where the {tissue} are"):
            reference_modes(cut, AFFINE, BRAIN, "T1w", CALIBRATION)
    with pytest.raises(ScanRejected, match="alike"):
        reference_modes(head(60, 61, 80, 1.0, 0), AFFINE, BRAIN, "T1w", CALIBRATION)
    # A face that was blurred or cut through the orbits leaves something there: less than half of brain in T2w.
    with pytest.raises(ScanRejected, match="no eye in T2w"):
        reference_modes(head(60, 30, 100, 1.0, 0), AFFINE, BRAIN, "T2w", CALIBRATION)
    with pytest.raises(ScanRejected, match="T2w shows nothing"):
        ratio_image(t1, np.zeros_like(t1), BRAIN)


def test_the_mode_is_the_tissue_not_its_border():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(100, 3, 900), rng.uniform(0, 90, 400)])
    assert tissue_mode(values) == pytest.approx(100, abs=2)
    assert tissue_mode(np.full(10, 7.0)) == 7.0
