"""Every sign of an artefact moves its way, step by step, as more of the artefact is put in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from tasks.science.imaging.artefacts import NEEDS_AIR, Artefacts, artefact_figures
from tasks.science.imaging.brain_mask import mask_in_scan
from tasks.science.imaging.nifti import read_scan
from tasks.science.imaging.orientation import spacing_mm, to_ras
from tasks.science.imaging.phantom_acquisition import acquire, draw_site
from tasks.science.imaging.phantom_anatomy import draw_anatomy
from tasks.science.imaging.phantom_people import ANATOMY, SCAN, stream
from tasks.science.imaging.resampling import block_mean
from tasks.science.imaging.template import mni

Head = tuple[np.ndarray, np.ndarray, np.ndarray]


def inner_brain(volume: np.ndarray, affine: np.ndarray, to_mni: np.ndarray) -> np.ndarray:
    small, small_affine = block_mean(volume, affine, 4.0)
    return ndimage.binary_erosion(mask_in_scan(small.shape, small_affine, mni(), to_mni))


@pytest.fixture(scope="module")
def head() -> Head:
    """A raw phantom head at 2 mm in a quiet scanner: volume, spacing, brain."""
    site = replace(draw_site(11, 0, 2.0), noise_sd=0.006)
    scan = acquire(draw_anatomy(stream(11, ANATOMY, 1), "F"), 40.0, site, stream(11, SCAN, 1), stripped=False)
    volume, affine = to_ras(np.asarray(scan.data, np.float32), scan.affine)
    return volume, spacing_mm(affine), inner_brain(volume, affine, scan.scanner_to_mni)


def noisy(volume: np.ndarray, amount: float) -> np.ndarray:
    channels = np.random.default_rng(0).standard_normal((2, *volume.shape), dtype=np.float32)
    level = np.float32(amount * np.percentile(volume, 95))
    return np.hypot(volume + level * channels[0], level * channels[1])


def blurred(volume: np.ndarray, amount: float) -> np.ndarray:
    return ndimage.gaussian_filter(volume, amount)


def ghosted(volume: np.ndarray, amount: float) -> np.ndarray:
    return volume + np.float32(amount) * np.roll(volume, volume.shape[1] // 2, 1)


def moved(volume: np.ndarray, amount: float) -> np.ndarray:
    """Lines of k-space along the second axis from a head that changes its pose six times."""
    rng = np.random.default_rng(0)
    lines = np.fft.fft(volume, axis=1)
    starts = np.sort(rng.choice(volume.shape[1], 6, replace=False))
    for first, last in zip(starts, [*starts[1:], volume.shape[1]], strict=True):
        angle, shift = amount * rng.standard_normal(), amount * rng.standard_normal(3)
        pose = ndimage.rotate(volume, angle, axes=(0, 1), reshape=False, order=1)
        other = np.fft.fft(ndimage.shift(pose, shift, order=1), axis=1)
        # Low frequencies lie in the middle of an acquisition.
        there = np.fft.fftshift(np.arange(volume.shape[1]))[first:last]
        lines[:, there] = other[:, there]
    return np.abs(np.fft.ifft(lines, axis=1)).astype(np.float32)


RISES, FALLS = 1, -1
STEPS = {
    "noise": (noisy, (0.0, 0.02, 0.05, 0.1)),
    "blur": (blurred, (0.0, 0.7, 1.2, 2.0)),
    "ghost": (ghosted, (0.0, 0.02, 0.05, 0.1)),
    "motion": (moved, (0.0, 0.4, 0.8, 1.6)),
}
EXPECTED = {
    ("noise", "gradient_entropy"): RISES,
    ("noise", "smoothness_mm"): FALLS,
    ("noise", "entropy_focus_criterion"): RISES,
    ("noise", "foreground_background_energy_db"): FALLS,
    ("blur", "gradient_entropy"): RISES,
    ("blur", "smoothness_mm"): RISES,
    ("blur", "entropy_focus_criterion"): RISES,
    ("ghost", "gradient_entropy"): RISES,
    ("ghost", "entropy_focus_criterion"): RISES,
    ("ghost", "foreground_background_energy_db"): FALLS,
    ("ghost", "ghost_to_signal"): RISES,
    ("motion", "gradient_entropy"): RISES,
    ("motion", "smoothness_mm"): RISES,
    ("motion", "entropy_focus_criterion"): RISES,
    ("motion", "ghost_to_signal"): RISES,
}


@pytest.fixture(scope="module")
def measured(head: Head) -> dict[str, list[Artefacts]]:
    volume, spacing, brain = head
    return {
        name: [artefact_figures(make(volume, amount), spacing, brain) for amount in amounts]
        for name, (make, amounts) in STEPS.items()
    }


@pytest.mark.parametrize(("artefact", "figure"), EXPECTED, ids=map(" ".join, EXPECTED))
def test_a_worse_scan_has_a_worse_figure(measured: dict[str, list[Artefacts]], artefact: str, figure: str) -> None:
    values = [step.figures[figure] for step in measured[artefact]]
    assert (EXPECTED[artefact, figure] * np.diff(values) > 0).all(), values


def test_a_ghost_is_measured_by_its_strength(measured: dict[str, list[Artefacts]]) -> None:
    for amount, step in zip(STEPS["ghost"][1], measured["ghost"], strict=True):
        assert step.figures["ghost_to_signal"] == pytest.approx(amount, abs=0.01)


def test_smoothness_is_the_width_of_the_blur() -> None:
    noise = np.random.default_rng(0).standard_normal((64, 64, 64)).astype(np.float32)
    for sigma in (1.0, 1.5):
        volume = 100 + ndimage.gaussian_filter(noise, sigma, mode="wrap")
        figures = artefact_figures(volume, np.ones(3), np.ones((2, 2, 2), bool)).figures
        assert figures["smoothness_mm"] == pytest.approx(2.3548 * np.sqrt(2) * sigma / np.sqrt(2), rel=0.05)


def test_gain_changes_nothing(head: Head) -> None:
    volume, spacing, brain = head
    scaled = artefact_figures(volume * np.float32(37), spacing, brain)
    assert scaled.figures == pytest.approx(artefact_figures(volume, spacing, brain).figures, rel=1e-4)


def test_without_air_its_figures_are_left_out_with_the_reason(head: Head) -> None:
    volume, spacing, brain = head
    cropped = volume.copy()
    cropped[volume < 0.1 * np.percentile(volume, 98)] = 0
    found = artefact_figures(cropped, spacing, brain)
    assert set(found.absent) == set(NEEDS_AIR)
    assert all("no air" in reason for reason in found.absent.values())
    assert set(found.figures) == {"gradient_entropy", "smoothness_mm"}


def test_nothing_but_zeros_or_one_value_gives_reasons_and_no_number() -> None:
    for volume in (np.zeros((20, 20, 20), np.float32), np.full((20, 20, 20), 5.0, np.float32)):
        found = artefact_figures(volume, np.ones(3), np.ones((5, 5, 5), bool))
        assert found.figures == {}
        assert {"gradient_entropy", "smoothness_mm", *NEEDS_AIR} <= set(found.absent)


@pytest.mark.parametrize("artefact", ["noise", "motion"])
def test_real_stripped_brains_show_it_too(shared_data: Path, artefact: str) -> None:
    scan = read_scan((shared_data / "ds002748/sub-04/anat/sub-04_T1w.nii.gz").read_bytes())
    volume, affine = to_ras(scan.volume, scan.affine)
    volume = np.asarray(volume[::3, ::3, ::3], dtype=np.float32)
    brain = ndimage.binary_erosion(ndimage.binary_fill_holes(volume > 0), iterations=2)
    make, amounts = STEPS[artefact]
    steps = [np.where(volume > 0, make(volume, amount), 0) for amount in amounts]
    values = [artefact_figures(s, 3 * spacing_mm(affine), brain).figures["gradient_entropy"] for s in steps]
    assert (np.diff(values) > 0).all(), values
