"""The scans on which registration is compared: real ones, real ones moved by a known affine, and phantoms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tasks.science.imaging.orientation import apply_affine
from tasks.science.imaging.phantom import PhantomSpec, write_phantom

Group = Literal["stripped", "raw head", "on the MNI grid", "infant", "moved", "phantom head", "phantom stripped"]

STRIPPED_EVERY = 4  # Of the 24 stripped scans in order of their names: six, spread over the list.
MOVES: tuple[tuple[tuple[float, float, float], float, tuple[float, float, float]], ...] = (
    ((15.0, -10.0, 12.0), 0.94, (20.0, -30.0, 40.0)),
    ((-15.0, 12.0, -15.0), 1.06, (-15.0, 35.0, -25.0)),
    ((8.0, 15.0, -10.0), 1.0, (5.0, 10.0, 60.0)),
)
MOVED_SHAPE = (240, 256, 240)
PHANTOM_SPACINGS_MM = (1.0, 2.0)


@dataclass(frozen=True)
class Case:
    """One scan and what is known of it.

    Attributes:
        name: In tables, and of its files.
        group: What kind of scan it is.
        path: Of the NIfTI.
        truth: Its RAS+ mm to MNI, where it was planted.
        moved_from: The case that was moved, and by which affine of RAS+ mm.
    """

    name: str
    group: Group
    path: Path
    truth: np.ndarray | None = None
    moved_from: tuple[str, np.ndarray] | None = None


def all_cases(shared_data: Path, folder: Path) -> list[Case]:
    """List every case; phantoms and moved scans are made in the folder unless they are there.

    Args:
        shared_data: Folder of the real scans.
        folder: Where made scans are kept.

    Returns:
        Cases, real ones first.
    """
    real = _real_cases(shared_data)
    stripped = [case for case in real if case.group == "stripped"]
    moved = [_moved(case, move, folder) for case, move in zip(stripped[1::2], MOVES, strict=False)]
    return [*real, *moved, *_phantoms(folder)]


def _real_cases(shared_data: Path) -> list[Case]:
    found: list[Case] = []
    patterns: tuple[tuple[Group, str, int], ...] = (
        ("stripped", "ds002748/sub-*/anat/*_T1w.nii.gz", STRIPPED_EVERY),
        ("raw head", "open_ms/longitudinal/sub-*/ses-*/anat/*_T1w.nii.gz", 1),
        ("on the MNI grid", "open_ms/cross_sectional/sub-*/anat/*_T1w.nii.gz", 1),
        ("infant", "infant/sub-*/anat/*_T1w.nii.gz", 1),
    )
    for group, pattern, every in patterns:
        found += [
            Case(path.name[: -len("_T1w.nii.gz")], group, path) for path in sorted(shared_data.glob(pattern))[::every]
        ]
    return found


def _moved(
    case: Case, move: tuple[tuple[float, float, float], float, tuple[float, float, float]], folder: Path
) -> Case:
    """Turn, scale and shift a real scan, resampled onto another grid: the answer is known, the contrast is real."""
    angles, scale, shift = move
    known = np.eye(4)
    known[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * scale
    known[:3, 3] = shift
    path = folder / f"{case.name}_moved.nii.gz"
    if not path.exists():
        image = nib.load(case.path)
        volume, affine = np.asarray(image.dataobj, dtype=np.float32), image.affine
        middle = apply_affine(known @ affine, (np.array([volume.shape]) - 1) / 2)[0]
        target = np.eye(4)
        target[:3, 3] = middle - (np.array(MOVED_SHAPE) - 1) / 2
        to_source = np.linalg.inv(known @ affine) @ target
        resampled = ndimage.affine_transform(
            volume, to_source[:3, :3], to_source[:3, 3], MOVED_SHAPE, np.float32, order=1, mode="constant"
        )
        _save(resampled, target, path)
    return Case(f"{case.name} moved", "moved", path, moved_from=(case.name, known))


def _phantoms(folder: Path) -> list[Case]:
    cases: list[Case] = []
    for variant in ("head", "stripped"):
        for spacing_mm in PHANTOM_SPACINGS_MM:
            spec = PhantomSpec(subjects=2, sites=2, seed=11, variant=variant, spacing_mm=spacing_mm)  # type: ignore[arg-type]
            root = folder / f"phantom-{variant}-{spacing_mm:g}mm"
            cases += _made_or_found(spec, root)
    return cases


def _made_or_found(spec: PhantomSpec, root: Path) -> list[Case]:
    if not root.exists():
        write_phantom(spec, root)
    group: Group = "phantom head" if spec.variant == "head" else "phantom stripped"
    found = []
    for path in sorted(root.glob("sub-*/anat/*_T1w.nii.gz")):
        subject = path.name.split("_")[0]
        truth = root / "derivatives" / "phantom-truth" / "transforms"
        matrix = np.loadtxt(truth / f"{subject}_from-scanner_to-MNI152NLin2009aSym.txt")
        found.append(Case(f"{root.name} {subject}", group, path, truth=matrix))
    return found


def _save(volume: np.ndarray, affine: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(volume, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nib.save(image, path)
