"""Degradations have the size that they say, are drawn anew for each scan, and alter nothing else."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from tasks.records import ScanRejected
from tasks.science.imaging.degradations import Degradation, degrade, foreground
from tasks.science.imaging.nifti import read_volume
from tasks.science.imaging.orientation import spacing_mm

KEY, OTHER_KEY = "ab" * 32, "cd" * 32
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.1, -0.05, 0.08) @ np.diag([-2.0, 2.0, 2.5]), [90.0, -70.0, -60.0]
)


def scan(volume: np.ndarray, affine: np.ndarray = OBLIQUE) -> bytes:
    image = nib.Nifti1Image(volume.astype(np.float32), affine)
    image.set_sform(affine, code=1)
    return bytes(image.to_bytes())


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    """A ball of signal 200 in air, with a gradient that nothing may mistake for a field."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (60, 70, 50)], indexing="ij"))
    inside = (grid**2).sum(axis=0) < 0.6
    return np.where(inside, 200 + 20 * grid[0], 4.0)


@pytest.mark.parametrize(
    "degradation",
    [
        Degradation("thicker_slices", 6.0),
        Degradation("noise", 0.1),
        Degradation("bias_field", 0.3),
        Degradation("header_turn", 90.0),
    ],
)
def test_the_same_scan_gives_the_same_bytes_and_is_altered(head: np.ndarray, degradation: Degradation) -> None:
    once = degrade(scan(head), degradation, KEY)
    assert once == degrade(scan(head), degradation, KEY)
    assert once != scan(head)
    if degradation.kind in ("noise", "bias_field"):
        assert once != degrade(scan(head), degradation, OTHER_KEY)


def test_slices_get_as_thick_as_asked_and_lie_where_they_were(head: np.ndarray) -> None:
    volume, affine = read_volume(degrade(scan(head), Degradation("thicker_slices", 6.0), KEY))
    assert spacing_mm(affine) == pytest.approx([2.0, 2.0, 6.0])
    assert volume.shape[:2] == head.shape[:2]
    middle = [np.array(np.nonzero(image > 100)).mean(axis=1) for image in (head, volume)]
    before, after = (nib.affines.apply_affine(a, m) for a, m in zip((OBLIQUE, affine), middle, strict=True))
    assert np.linalg.norm(before - after) < 1.5
    # Thinner slices than the scan's own cannot be made from it.
    thin, _ = read_volume(degrade(scan(head), Degradation("thicker_slices", 1.0), KEY))
    assert thin.shape == head.shape


def test_noise_is_rician_and_of_the_size_asked(head: np.ndarray) -> None:
    flat = np.where(head > 100, 200.0, 0.001)
    noisy, _ = read_volume(degrade(scan(flat), Degradation("noise", 0.1), KEY))
    # Far above noise it is nearly Gaussian; in air it follows Rayleigh's distribution, of mean σ√(π/2).
    assert noisy[head > 100].std() == pytest.approx(20, rel=0.03)
    assert noisy[head < 100].mean() == pytest.approx(20 * np.sqrt(np.pi / 2), rel=0.03)
    assert noisy[head < 100].std() == pytest.approx(20 * np.sqrt(2 - np.pi / 2), rel=0.03)
    stripped, _ = read_volume(degrade(scan(np.where(head > 100, head, 0.0)), Degradation("noise", 0.1), KEY))
    assert (stripped[head < 100] == 0).all()


def test_the_field_is_smooth_and_of_the_size_asked(head: np.ndarray) -> None:
    seen, affine = read_volume(degrade(scan(head), Degradation("bias_field", 0.3), KEY))
    field = np.log(seen / head)
    assert field[foreground(head)].std() == pytest.approx(0.3, rel=1e-3)
    assert field[foreground(head)].mean() == pytest.approx(0, abs=1e-4)
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in range(3)) < 0.15
    np.testing.assert_allclose(affine, OBLIQUE, atol=1e-4)


def test_a_turn_alters_the_header_alone_and_keeps_the_middle(head: np.ndarray) -> None:
    seen, affine = read_volume(degrade(scan(head), Degradation("header_turn", 90.0), KEY))
    np.testing.assert_allclose(seen, head, rtol=1e-6)
    turn = affine[:3, :3] @ np.linalg.inv(OBLIQUE[:3, :3])
    assert np.trace(turn) == pytest.approx(1.0, abs=1e-4)
    assert np.linalg.det(turn) == pytest.approx(1.0, abs=1e-4)
    middle = (np.array(head.shape) - 1) / 2
    np.testing.assert_allclose(
        nib.affines.apply_affine(affine, middle), nib.affines.apply_affine(OBLIQUE, middle), atol=1e-3
    )


def test_what_cannot_be_degraded_is_refused_with_a_reason(head: np.ndarray) -> None:
    with pytest.raises(ScanRejected, match="at least 8 are needed"):
        degrade(scan(head[..., :33]), Degradation("thicker_slices", 12.0), KEY)
    with pytest.raises(ScanRejected, match="empty"):
        degrade(b"", Degradation("noise", 0.1), KEY)
