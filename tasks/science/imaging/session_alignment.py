"""Where a session's other images lie beside its reference, and whether their headers tell the truth about it.

Images of one session show one person within minutes, so that a small rigid motion is all there can be. A header that
lies about its axes (a lost flip, a conversion that swapped two of them) is found by trying the other ways to lay the
image: no later step could notice, and a registration to the template may land on a brain upside down or left for right.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from scipy.spatial.transform import Rotation

from ...records import ScanRejected
from ..arrays import Affine, Mask, Volume
from .orientation import apply_affine
from .resampling import block_mean
from .rigid_fit import ANGLE_MM, WIDEST_RIM_MM, Level, RigidFit, RigidPair, region_around

TURNS = Level(12.0, 12.0, WIDEST_RIM_MM, 8)
COARSE = Level(8.0, 8.0, WIDEST_RIM_MM, 20)
MIDDLE = Level(4.0, 5.0, 4.0, 20)
FINE = Level(2.0, 4.0, 4.0, 15)

CLIP_PERCENTILE = 99.0
FOREGROUND_CLIP_PERCENTILE = 90.0
# Right headers left 3% to 70% unexplained (15 real pairs, T2w and FLAIR, stripped and thick-sliced raw heads). Of 90
# wrong ones 76 were told by their turn or mirror image; those that fitted nowhere left 78% and more.
SURELY_RIGHT = 0.25
MAX_UNEXPLAINED = 0.77
# The wrong way round left 1.02 (thick slices of a raw head) to 3.5 times as much unexplained as the right one.
SURE_MARGIN = 1.10
MAX_HEAD_TURN_DEGREES = 35.0
TURNED_STARTS = 5
CELL_MM = 8.0


@dataclass(frozen=True)
class SessionAlignment:
    """Where an image lies beside the reference of its session.

    Attributes:
        to_reference: The image's RAS+ mm to the reference's RAS+ mm, rigid, shape (4, 4).
        correlation_ratio: Mean of how much of either image's variance the other explains, 0 to 1.
        overlap: Part of the reference's points inside the image's field of view.
        moved_mm: Mean distance, at the brain's surface, from where the headers put the image.
        mirror_margin: Unexplained variance of the image mirrored over its own unexplained variance. Above 1.1 left and
            right agree with the reference's; nearer to 1, as in thick slices of a raw head, nobody can tell.
    """

    to_reference: Affine
    correlation_ratio: float
    overlap: float
    moved_mm: float
    mirror_margin: float


def align_to(
    reference: Volume,
    reference_affine: Affine,
    brain: Mask,
    moving: Volume,
    moving_affine: Affine,
    seed: int,
    right: tuple[float, float, float] = (1.0, 0.0, 0.0),
) -> SessionAlignment:
    """Find the rigid motion from an image to the reference of its session.

    The headers' world coordinates are the first start. Where the image turned or mirrored fits much better, its header
    is wrong, and it is refused.

    Args:
        reference: A working copy of about 2 mm, bias-corrected where possible, shape (i, j, k).
        reference_affine: Voxel indices to the reference's RAS+ mm.
        brain: True inside the brain, on the reference's grid.
        moving: A working copy of the other image, shape (l, m, n); a bias field is tolerated.
        moving_affine: Its voxel indices to its RAS+ mm.
        seed: Of the jitter of the points.
        right: Where the head's right is in the reference's world; a turned head's is not the header's.

    Returns:
        The motion, and how well the two explain each other.

    Raises:
        ScanRejected: The reference's brain is empty, nothing fits, or the header's orientation is wrong.
    """
    region = region_around(brain, reference_affine)
    bounded = np.minimum(reference, np.percentile(reference[brain], CLIP_PERCENTILE)).astype(np.float32)
    pair = RigidPair(bounded, reference_affine, _bounded(moving), moving_affine, region, seed)
    found = pair.fit(pair.fit(_header_start(pair), COARSE).to_moving, MIDDLE)
    if found.unexplained > SURELY_RIGHT:
        found = _best_turn(pair, found)
    _check_turn(found)
    margin = _mirror_margin(pair, found, np.array(right))
    in_brain = region.mask_in(moving, moving_affine, found.to_moving)
    bright = np.percentile(moving[in_brain], CLIP_PERCENTILE)
    clipped = np.minimum(moving, bright).astype(np.float32)
    found = RigidPair(bounded, reference_affine, clipped, moving_affine, region, seed).fit(found.to_moving, FINE)
    if found.unexplained > MAX_UNEXPLAINED:
        raise ScanRejected(
            "session",
            f"the reference and this image explain {1 - found.unexplained:.0%} of each other (floor "
            f"{1 - MAX_UNEXPLAINED:.0%}): one may show no head, or another part of the body, "
            "or have a wrong orientation in its header; look at both",
        )
    moved_mm = _distance_mm(found.to_moving, region.centre_mm)
    return SessionAlignment(np.linalg.inv(found.to_moving), 1.0 - found.unexplained, found.overlap, moved_mm, margin)


def _bounded(volume: Volume) -> Volume:
    """Fat and eyes are several times as bright as brain and would own the variance; where they are is not known yet."""
    lit = volume[volume > volume.mean()]
    bright = np.percentile(lit, FOREGROUND_CLIP_PERCENTILE) if lit.size else 0.0
    return np.minimum(volume, bright).astype(np.float32)


def _header_start(pair: RigidPair) -> Affine:
    """The headers' word, unless it leaves the brain outside the image: then the centres of mass."""
    mask = pair.region.mask_in(pair.moving, pair.moving_affine, np.eye(4))
    voxel_mm3 = abs(np.linalg.det(pair.moving_affine[:3, :3]))
    brain_mm3 = (pair.region.distance_mm == 0).sum() * abs(np.linalg.det(pair.region.affine[:3, :3]))
    if mask.sum() * voxel_mm3 > 0.5 * brain_mm3:
        return np.eye(4)
    start = np.eye(4)
    start[:3, 3] = _centre_of_mass(pair.moving, pair.moving_affine) - _centre_of_mass(
        pair.reference, pair.reference_affine
    )
    return start


def _best_turn(pair: RigidPair, found: RigidFit) -> RigidFit:
    """Lay the image all 24 ways about the centres of mass; keep the header's way unless another is surely better.

    A better place without a turn is taken as it comes.
    """
    here = _centre_of_mass(pair.reference, pair.reference_affine)
    there = _centre_of_mass(pair.moving, pair.moving_affine)
    starts = [_about(turn, here, there) for turn in axis_turns()]
    starts.sort(key=lambda start: pair.unexplained_at(start, TURNS))
    rough = [pair.fit(start, TURNS) for start in starts[:TURNED_STARTS]]
    rival = min(rough, key=lambda fit: fit.unexplained)
    if rival.unexplained >= pair.fit(found.to_moving, TURNS).unexplained:
        return found
    rival = pair.fit(rival.to_moving, MIDDLE)
    turned = _turn_degrees(rival.to_moving) > MAX_HEAD_TURN_DEGREES
    return rival if rival.unexplained < found.unexplained / (SURE_MARGIN if turned else 1.0) else found


def axis_turns() -> list[np.ndarray]:
    """The 24 ways to turn a box onto itself, as rotation matrices (3, 3); the first is no turn."""
    signed = [
        np.eye(3)[list(order)] * np.array(signs)[:, None]
        for order in permutations(range(3))
        for signs in product((1.0, -1.0), repeat=3)
    ]
    return [matrix for matrix in signed if np.linalg.det(matrix) > 0]


def _check_turn(found: RigidFit) -> None:
    degrees = _turn_degrees(found.to_moving)
    if degrees <= MAX_HEAD_TURN_DEGREES:
        return
    nearest = max(axis_turns(), key=lambda turn: float(np.trace(turn.T @ found.to_moving[:3, :3])))
    axis = Rotation.from_matrix(nearest).as_rotvec(degrees=True)
    about = " and ".join("xyz"[which] for which in np.flatnonzero(np.abs(axis) > 1.0))
    turned = round(float(np.linalg.norm(axis)))
    raise ScanRejected(
        "session",
        f"its header's orientation disagrees with its session's reference: it fits after a turn of {turned}° about "
        f"{about}; convert it again from the scanner's files, or leave it out",
    )


def _mirror_margin(pair: RigidPair, found: RigidFit, right: np.ndarray) -> float:
    """Compare the image with itself mirrored about the brain's middle: right and left of a head differ, a little."""
    mirror = np.eye(4)
    normal = right / np.linalg.norm(right)
    mirror[:3, :3] -= 2 * np.outer(normal, normal)
    mirror[:3, 3] = 2 * normal * float(normal @ pair.region.centre_mm)
    mirrored = pair.fit(found.to_moving @ mirror, MIDDLE)
    margin = mirrored.unexplained / max(found.unexplained, 1e-9)
    if margin < 1 / SURE_MARGIN:
        raise ScanRejected(
            "session",
            "its header's orientation disagrees with its session's reference: it fits with left and right exchanged "
            f"({found.unexplained:.0%} unexplained, {mirrored.unexplained:.0%} when mirrored); find out "
            "which of the two is wrong, and convert that one again from the scanner's files",
        )
    return float(margin)


def _about(turn: np.ndarray, here: np.ndarray, there: np.ndarray) -> Affine:
    start = np.eye(4)
    start[:3, :3] = turn
    start[:3, 3] = there - turn @ here
    return start


def _centre_of_mass(volume: Volume, affine: Affine) -> np.ndarray:
    small, small_affine = block_mean(volume, affine, CELL_MM)
    weights = np.maximum(small, 0).ravel().astype(np.float64)
    voxels = np.indices(small.shape).reshape(3, -1).T
    return apply_affine(small_affine, voxels * weights[:, None] / max(weights.sum(), 1e-9) * len(voxels)).mean(axis=0)


def _turn_degrees(motion: Affine) -> float:
    return float(np.degrees(Rotation.from_matrix(motion[:3, :3]).magnitude()))


def _distance_mm(motion: Affine, centre: np.ndarray) -> float:
    """Mean over six points of the brain's surface."""
    around = centre + ANGLE_MM * np.concatenate([np.eye(3), -np.eye(3)])
    return float(np.linalg.norm(apply_affine(motion, around) - around, axis=1).mean())
