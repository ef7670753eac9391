"""The best rigid motion between two images of one head, from a start that is close.

The reference itself is the template: its intensities, in bins of equal count, are the classes that must explain the
moving image. The measure is taken both ways, points of either image looked up in the other, since one way alone favours
whichever image is smoother: on real T1w, T2w and FLAIR it halved to quartered the error of going there and back.

References: Roche et al. 1998, doi:10.1007/BFb0056301; Jenkinson & Smith 2001, doi:10.1016/S1361-8415(01)00036-6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation

from ...records import ScanRejected
from ..arrays import Affine, Mask, Points, Volume
from .correlation_ratio import ClassifiedPoints, Scene, unexplained
from .orientation import apply_affine, nearest_axes, spacing_mm
from .resampling import block_mean, low_pass, resample

ANGLE_MM = 80.0  # Radius of a brain: turns radians into millimetres at its surface.
REGION_MM = 4.0
WIDEST_RIM_MM = 8.0
CLASSES = 24
MIN_OVERLAP = 0.5


@dataclass(frozen=True)
class Level:
    """One level of detail.

    Attributes:
        resolution_mm: To which both images are blurred; thicker slices stay, and the other image is blurred like them.
        points_mm: Between points.
        rim_mm: How far points reach beyond the brain: from afar, skull and scalp help to find the head.
        iterations: At most so many steps.
    """

    resolution_mm: float
    points_mm: float
    rim_mm: float
    iterations: int


@dataclass(frozen=True)
class RigidFit:
    """A motion and how well it fits.

    Attributes:
        to_moving: The reference's RAS+ mm to the moving image's; rigid, mirrored too if its start was.
        unexplained: Part of either image's variance that the other does not explain, mean of both ways, 0 to 1.
        overlap: Part of the reference's points inside the moving image's field of view.
    """

    to_moving: Affine
    unexplained: float
    overlap: float


@dataclass(frozen=True)
class Region:
    """The reference's brain and what lies around it.

    Attributes:
        distance_mm: From the brain, on a coarse grid that reaches beyond it, shape (i, j, k).
        affine: That grid's voxel indices to the reference's RAS+ mm.
    """

    distance_mm: Volume
    affine: Affine

    @property
    def centre_mm(self) -> np.ndarray:
        """Centre of mass of the brain."""
        return apply_affine(self.affine, np.argwhere(self.distance_mm == 0)).mean(axis=0)

    def within(self, points_mm: Points, rim_mm: float) -> np.ndarray:
        """Tell which of (n, 3) points lie in the brain or within `rim_mm` of it."""
        voxels = np.rint(apply_affine(np.linalg.inv(self.affine), points_mm)).astype(int)
        inside = ((voxels >= 0) & (voxels < self.distance_mm.shape)).all(axis=1)
        near = np.zeros(len(points_mm), dtype=bool)
        near[inside] = self.distance_mm[tuple(voxels[inside].T)] <= rim_mm
        return near

    def mask_in(self, volume: Volume, affine: Affine, to_moving: Affine) -> Mask:
        """Bring the brain to another image's grid through a motion."""
        inside = (self.distance_mm == 0).astype(np.float32)
        shape = (volume.shape[0], volume.shape[1], volume.shape[2])
        return resample(inside, to_moving @ self.affine, shape, affine, 0.0) > 0.5


def region_around(brain: Mask, affine: Affine) -> Region:
    """Lay a coarse map of distances around a brain.

    Args:
        brain: True inside the brain, shape (i, j, k).
        affine: Voxel indices to RAS+ mm.

    Returns:
        The region.

    Raises:
        ScanRejected: There is no brain.
    """
    small, small_affine = block_mean(brain.astype(np.float32), affine, REGION_MM)
    if small.max(initial=0) <= 0.5:
        raise ScanRejected("session", "the reference's brain lies outside its field of view; look at the scan")
    steps = spacing_mm(small_affine)
    margin = np.ceil(2 * WIDEST_RIM_MM / steps).astype(int)
    padded = np.pad(small > 0.5, [(int(width), int(width)) for width in margin])
    placed = small_affine.copy()
    placed[:3, 3] = apply_affine(small_affine, -margin[None])[0]
    return Region(ndimage.distance_transform_edt(~padded, sampling=steps).astype(np.float32), placed)


class RigidPair:
    """Two images of one head at every level of detail.

    Args:
        reference: Bright outliers bounded, shape (i, j, k).
        reference_affine: Voxel indices to its RAS+ mm.
        moving: Likewise, shape (l, m, n).
        moving_affine: Voxel indices to its RAS+ mm.
        region: Where the brain is in the reference.
        seed: Of the jitter of points.
    """

    def __init__(
        self,
        reference: Volume,
        reference_affine: Affine,
        moving: Volume,
        moving_affine: Affine,
        region: Region,
        seed: int,
    ) -> None:
        self.reference, self.reference_affine = reference, reference_affine
        self.moving, self.moving_affine = moving, moving_affine
        self.region, self.seed = region, seed
        self._levels: dict[float, tuple[_Image, _Image]] = {}

    def unexplained_at(self, to_moving: Affine, level: Level) -> float:
        """Judge a motion without improving it; one way, for ranking starts."""
        reference, moving = self._at(level)
        ahead = _classified(reference, self.region, np.eye(4), level, self.seed)
        ratio, _, overlap = unexplained(moving.scene, ahead, to_moving)
        return ratio + max(0.0, MIN_OVERLAP - overlap)

    def fit(self, start: Affine, level: Level) -> RigidFit:
        """Improve a motion at one level of detail.

        Args:
            start: Reference RAS+ mm to moving RAS+ mm; may be turned or mirrored, and then stays so.
            level: The detail.

        Returns:
            The best motion near the start.

        Raises:
            ScanRejected: The start leaves nothing of one image within the other.
        """
        reference, moving = self._at(level)
        ahead = _classified(reference, self.region, np.eye(4), level, self.seed)
        back = _classified(moving, self.region, np.linalg.inv(start), level, self.seed)
        centre = self.region.centre_mm

        def cost(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            transform = start @ _motion(parameters, centre)
            changes = start @ _changes(parameters, centre)
            inverse = np.linalg.inv(transform)
            there, by_there = _one_way(moving.scene, ahead, transform, changes)
            home, by_home = _one_way(reference.scene, back, inverse, -inverse @ changes @ inverse)
            return (there + home) / 2, (by_there + by_home) / 2

        options = {"maxiter": level.iterations, "ftol": 1e-5, "gtol": 1e-5}
        best = optimize.minimize(cost, np.zeros(6), jac=True, method="L-BFGS-B", options=options)
        transform = start @ _motion(best.x, centre)
        return RigidFit(transform, float(best.fun), unexplained(moving.scene, ahead, transform)[2])

    def _at(self, level: Level) -> tuple[_Image, _Image]:
        """Bring both to one resolution: along thick slices the thicker's, else sharp would fit blurred ones ill."""
        thickest = np.maximum(_world_spacing_mm(self.reference_affine), _world_spacing_mm(self.moving_affine))
        resolution_mm = np.maximum(level.resolution_mm, thickest)
        if level.resolution_mm in self._levels:
            return self._levels[level.resolution_mm]
        images = []
        for volume, affine in ((self.reference, self.reference_affine), (self.moving, self.moving_affine)):
            small, small_affine = block_mean(volume, affine, level.resolution_mm)
            along = np.empty(3)
            along[list(nearest_axes(affine))] = resolution_mm
            small = low_pass(small, spacing_mm(small_affine), along)
            images.append(_Image(small, small_affine, Scene(small, small_affine)))
        self._levels[level.resolution_mm] = images[0], images[1]
        return images[0], images[1]


@dataclass(frozen=True)
class _Image:
    volume: Volume
    affine: Affine
    scene: Scene


def _world_spacing_mm(affine: Affine) -> np.ndarray:
    return spacing_mm(affine)[list(nearest_axes(affine))]


def _classified(image: _Image, region: Region, to_reference: Affine, level: Level, seed: int) -> ClassifiedPoints:
    """Jittered points of an image in and around the reference's brain, in bins of intensity."""
    reach = np.argwhere(region.distance_mm <= level.rim_mm)
    low, high = reach.min(axis=0), reach.max(axis=0)
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * (high - low) + low
    world = apply_affine(np.linalg.inv(to_reference) @ region.affine, corners)
    axes = [np.arange(*ends, level.points_mm) for ends in zip(world.min(axis=0), world.max(axis=0), strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    points += np.random.default_rng(seed).uniform(0, level.points_mm, points.shape)
    voxels = apply_affine(np.linalg.inv(image.affine), points)
    kept = ((voxels >= 0) & (voxels <= np.array(image.volume.shape) - 1)).all(axis=1)
    kept &= region.within(apply_affine(to_reference, points), level.rim_mm)
    if kept.sum() < CLASSES:
        raise ScanRejected("session", "the headers put the session's images beside each other; look at both")
    values = ndimage.map_coordinates(image.volume, voxels[kept].T, np.float64, order=1, mode="nearest")
    edges = np.unique(np.quantile(values, np.linspace(0, 1, CLASSES + 1)[1:-1]))
    return ClassifiedPoints(points[kept], np.searchsorted(edges, values), len(edges) + 1)


def _one_way(
    scene: Scene, points: ClassifiedPoints, transform: Affine, changes: np.ndarray
) -> tuple[float, np.ndarray]:
    ratio, by_matrix, overlap = unexplained(scene, points, transform)
    return ratio + max(0.0, MIN_OVERLAP - overlap), np.einsum("pab,ab->p", changes[:, :3], by_matrix)


def _motion(parameters: np.ndarray, centre: np.ndarray) -> Affine:
    """Translation (3) and rotation vector (3), both in millimetres at the brain's surface, about its centre."""
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_rotvec(parameters[3:] / ANGLE_MM).as_matrix()
    motion[:3, 3] = parameters[:3] + centre - motion[:3, :3] @ centre
    return motion


def _changes(parameters: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Derivatives by the six parameters, shape (6, 4, 4): central differences, exact to 1e-9."""
    step = 1e-3
    steps = np.eye(6) * step
    return np.stack([_motion(parameters + move, centre) - _motion(parameters - move, centre) for move in steps]) / (
        2 * step
    )
