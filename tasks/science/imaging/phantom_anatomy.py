"""One subject's head: how it differs from the average head, and what tissue lies at each point of a grid.

Tissue and contrast are kept apart, so that another contrast of the same head (FLAIR, T2w) is another table of
intensities and not another anatomy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from .phantom_template import CSF_GAP_MM, SKULL_MM, Field, smoothstep, template_head

# Millimetres by which the surfaces move over adult life (brain age 20 to 85), before and after which they level off.
SULCI_MM_AT_20, SULCI_MM_PER_YEAR = -0.35, 0.018
VENTRICLES_MM_AT_20, VENTRICLES_MM_PER_YEAR = -0.8, 0.058
BRAIN_AGE_LIMITS_YEARS = (8.0, 106.0)
# Between-subject spread at equal brain age, in mm; together they blur brain age by about two and a half years.
SULCI_SD_MM, VENTRICLES_SD_MM = 0.05, 0.25
WARP_MM = ((2.2, 14.0), (0.8, 6.0))
WARP_SPACING_MM = 5.0
WARP_ORIGIN_MM = (-115.0, -150.0, -155.0)
WARP_SHAPE = (47, 57, 56)
TORQUE_MM = 6.0
STRIPPED_CSF_MM = 4.0
# Where the temporal muscle lies, bone and fat are thin.
TEMPORAL_BONE_MM, RIND_MM, TEMPORAL_RIND_MM = 2.5, 4.5, 2.0
MALE_SCALE, FEMALE_SCALE, SCALE_SD = 0.965, 0.925, 0.025


@dataclass(frozen=True)
class Anatomy:
    """What makes one head differ from the average one; it does not change from session to session.

    Attributes:
        head_to_mni: Affine from the subject's head frame (RAS+ mm, origin at the anterior commissure) to MNI mm.
        warp: Displacement in mm over MNI space, shape (3, i, j, k), free of any affine part.
        regional: Multiplier of local ageing over MNI space, about 1.
        sulci_mm: Personal offset of the sulci's width, independent of age.
        ventricles_mm: Personal offset of the ventricles' size, independent of age.
        skull_mm: Thickness of the skull.
    """

    head_to_mni: np.ndarray
    warp: np.ndarray
    regional: np.ndarray
    sulci_mm: float
    ventricles_mm: float
    skull_mm: float

    def displacement_mm(self, points_mm: np.ndarray) -> np.ndarray:
        """How far the warp moves MNI positions of shape (3, …)."""
        return np.stack([Field(part, WARP_ORIGIN_MM, WARP_SPACING_MM).at(points_mm) for part in self.warp])

    def ageing_pace(self, points_mm: np.ndarray) -> np.ndarray:
        """The multiplier of local ageing at MNI positions of shape (3, …)."""
        return Field(self.regional, WARP_ORIGIN_MM, WARP_SPACING_MM).at(points_mm)


@dataclass(frozen=True)
class Detail:
    """What a head shows on one day beyond its age.

    Attributes:
        white_parts: Per name (`lesion`, `unmyelinated`), the share of white matter that it takes over MNI space.
        reference_tissues: Whether there is a temporal muscle and deep eyes: ratio images are calibrated on them.
    """

    white_parts: Mapping[str, Field] = field(default_factory=dict)
    reference_tissues: bool = False


PLAIN = Detail()


@dataclass(frozen=True)
class Tissues:
    """Fractions of tissue on an acquisition grid.

    Attributes:
        shape: Shape of the grid.
        index: Flat indices of the voxels that hold any tissue, shape (n,).
        fractions: Per tissue, the fraction of each of those voxels, float32, shape (n,); they sum to one with air.
        brain: True for the voxels of `index` that skull stripping keeps: tissue, ventricles and the CSF next to them.
    """

    shape: tuple[int, int, int]
    index: np.ndarray
    fractions: dict[str, np.ndarray]
    brain: np.ndarray


def ageing_years(brain_age_years: float) -> float:
    """Years of ageing since 20, levelling off smoothly outside adult life so that no surface ever folds.

    Args:
        brain_age_years: Any number.

    Returns:
        The years that the surfaces have moved by; equal to `brain_age_years - 20` from 15 to 95.

    >>> ageing_years(60.0)
    40.0
    >>> -12.0 <= ageing_years(-500.0) < ageing_years(5.0) < ageing_years(110.0) < ageing_years(500.0) <= 86.0
    True
    """
    low, high = BRAIN_AGE_LIMITS_YEARS
    soft_low, soft_high = low + 7.0, high - 11.0
    if brain_age_years < soft_low:
        return float(soft_low - 7.0 * np.tanh((soft_low - brain_age_years) / 7.0) - 20.0)
    if brain_age_years > soft_high:
        return float(soft_high + 11.0 * np.tanh((brain_age_years - soft_high) / 11.0) - 20.0)
    return brain_age_years - 20.0


def draw_anatomy(rng: np.random.Generator, sex: str) -> Anatomy:
    """Draw a head that nobody else has.

    Args:
        rng: The subject's own stream.
        sex: `F` or `M`; men's heads are four per cent larger per axis.

    Returns:
        The anatomy.
    """
    scale = (MALE_SCALE if sex == "M" else FEMALE_SCALE) * (1 + SCALE_SD * rng.standard_normal())
    shape = np.diag(1 + 0.02 * rng.standard_normal(3)) + np.triu(0.012 * rng.standard_normal((3, 3)), 1)
    to_mni = np.eye(4)
    to_mni[:3, :3] = np.linalg.inv(scale * shape)
    # Skulls are smoother than brains: the warp fades outside the envelope.
    fade = np.exp(-np.maximum(template_head().hull.at(_lattice_mm()), 0) / 12)
    warp = fade * sum(amplitude * _noise(rng, 3, scale_mm) for amplitude, scale_mm in WARP_MM)
    regional = 1 + 0.1 * _noise(rng, 1, 18.0)[0]
    return Anatomy(
        head_to_mni=to_mni,
        warp=_without_affine(warp + _torque()),
        regional=regional,
        sulci_mm=float(SULCI_SD_MM * rng.standard_normal()),
        ventricles_mm=float(VENTRICLES_SD_MM * rng.standard_normal()),
        skull_mm=float(SKULL_MM + 0.8 * rng.uniform(-1, 1)),
    )


def tissues(
    anatomy: Anatomy,
    brain_age_years: float,
    voxel_to_head: np.ndarray,
    shape: tuple[int, int, int],
    detail: Detail = PLAIN,
) -> Tissues:
    """Say what tissue fills each voxel of a grid.

    Args:
        anatomy: The head.
        brain_age_years: Age plus brain-PAD: what widens the sulci and ventricles.
        voxel_to_head: Affine from voxel indices to the head's frame, mm; oblique and anisotropic grids are fine.
        shape: Shape of the grid.
        detail: Lesions, myelination and reference tissues.

    Returns:
        Fractions of outer CSF, ventricles, grey and white matter, bone, marrow, fat, muscle and vitreous, and of the
        parts of white matter that `detail` names.
    """
    mni_mm, regional = _positions(anatomy, voxel_to_head, shape)
    head, blur_mm = template_head(), _voxel_mm(voxel_to_head)
    skin = head.skin.at(mni_mm)
    index = np.flatnonzero(skin > -blur_mm)
    points = mni_mm.reshape(3, -1)[:, index]
    hull = head.hull.at(points)
    inside = hull < blur_mm
    years = ageing_years(brain_age_years) * regional.ravel()[index[inside]]
    fractions = _brain(anatomy, points[:, inside], years, blur_mm)
    brain = np.zeros(len(index), dtype=bool)
    brain[inside] = (hull[inside] < 0) & (points[2, inside] > -72.0) & fractions.pop("near_tissue")
    envelope = np.zeros(len(index), dtype=np.float32)
    envelope[inside] = np.maximum(1 - smoothstep(hull[inside] / blur_mm), fractions["tissue"])
    full = {name: np.zeros(len(index), dtype=np.float32) for name in ("csf", "ventricle", "grey", "white")}
    for name, target in full.items():
        target[inside] = fractions[name] * envelope[inside]
    for name, share in detail.white_parts.items():
        full[name] = np.zeros(len(index), dtype=np.float32)
        full[name][inside] = full["white"][inside] * share.at(points[:, inside])
        full["white"] -= full[name]
    cover = _cover(anatomy, points, hull, skin.ravel()[index], blur_mm, detail.reference_tissues)
    full["csf"] += cover.pop("csf") * (1 - envelope)
    return Tissues(shape, index, full | {name: value * (1 - envelope) for name, value in cover.items()}, brain)


def _brain(anatomy: Anatomy, points_mm: np.ndarray, years: np.ndarray, blur_mm: float) -> dict[str, np.ndarray]:
    """CSF, ventricles, grey and white matter as fractions of the envelope's content."""
    head = template_head()
    sulci_mm = SULCI_MM_AT_20 + anatomy.sulci_mm + SULCI_MM_PER_YEAR * years
    # Left ventricles are on average the larger ones, which also tells left from right.
    left = 0.25 * np.tanh(-points_mm[0] / 10)
    ventricles_mm = VENTRICLES_MM_AT_20 + anatomy.ventricles_mm + VENTRICLES_MM_PER_YEAR * years + left
    width = np.float32(max(blur_mm, 1.2))
    pial = head.pial.at(points_mm) - sulci_mm
    ventricle = 1 - smoothstep((head.ventricle.at(points_mm) - ventricles_mm) / width + 0.5)
    outer = (1 - ventricle) * (1 - smoothstep(pial / width + 0.5))
    tissue, white = 1 - ventricle - outer, head.white.at(points_mm)
    parts = {"tissue": tissue, "csf": outer, "ventricle": ventricle}
    parts |= {"grey": tissue * (1 - white), "white": tissue * white}
    return parts | {"near_tissue": pial > -STRIPPED_CSF_MM}


def _cover(
    anatomy: Anatomy, points_mm: np.ndarray, hull: np.ndarray, skin: np.ndarray, blur_mm: float, references: bool
) -> dict[str, np.ndarray]:
    """What lies between the brain's envelope and the air: CSF, bone with marrow, muscle, fat, eyes."""
    head = template_head()
    temporal = smoothstep(head.temporalis.at(points_mm) / blur_mm + 0.5) if references else 0.0
    skull_mm = anatomy.skull_mm * (1 - temporal) + TEMPORAL_BONE_MM * temporal
    rind_mm = RIND_MM * (1 - temporal) + TEMPORAL_RIND_MM * temporal
    within = smoothstep(skin / blur_mm + 0.5) * (1 - smoothstep(head.air.at(points_mm) / blur_mm + 0.5))
    inner = smoothstep((hull - CSF_GAP_MM) / blur_mm + 0.5)
    outer = smoothstep((hull - CSF_GAP_MM - skull_mm) / blur_mm + 0.5)
    middle = CSF_GAP_MM + skull_mm / 2
    marrow = 0.6 * (1 - temporal) * np.exp(-(((hull - middle) / 1.3) ** 2)) * (points_mm[2] > -20)
    eye = smoothstep((head.globe if references else head.eye).at(points_mm) / blur_mm + 0.5)
    rind = 1 - smoothstep((skin - rind_mm) / blur_mm + 0.5)
    fat = outer * (rind + (1 - rind) * 0.7 * (1 - temporal) * head.marbling.at(points_mm)) * (1 - eye)
    bone = (inner - outer) * (1 - eye)
    muscle = np.clip(outer - fat - eye, 0, 1)
    parts = {"csf": 1 - inner, "bone": bone * (1 - marrow), "marrow": bone * marrow}
    parts |= {"fat": fat, "muscle": muscle, "eye": eye * inner}
    return {name: (value * within).astype(np.float32) for name, value in parts.items()}


def _voxel_mm(affine: np.ndarray) -> float:
    return float(np.mean(np.linalg.norm(affine[:3, :3], axis=0)))


def _noise(rng: np.random.Generator, channels: int, scale_mm: float) -> np.ndarray:
    """Smooth fields of unit spread, shape (channels, i, j, k)."""
    sigma = scale_mm / WARP_SPACING_MM
    raw = rng.standard_normal((channels, *WARP_SHAPE), dtype=np.float32)
    smooth = np.stack([ndimage.gaussian_filter(field, sigma, mode="reflect", truncate=3.0) for field in raw])
    return smooth / smooth.std(axis=(1, 2, 3), keepdims=True)


def _lattice_mm() -> np.ndarray:
    axes = [o + WARP_SPACING_MM * np.arange(n) for o, n in zip(WARP_ORIGIN_MM, WARP_SHAPE, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def _torque() -> np.ndarray:
    """The asymmetry that people share: right frontal and left occipital lobes are the wider ones.

    Without it a left-right flip would go unseen, because the template is symmetric.

    Reference: Kong et al. 2018, doi:10.1073/pnas.1718418115 (cortical asymmetry in 17,141 people).
    """
    x, y, _ = _lattice_mm()
    shift = np.zeros((3, *WARP_SHAPE), dtype=np.float32)
    shift[0] = -TORQUE_MM * np.tanh(np.sqrt(x**2 + 100) / 50) * np.tanh(y / 60)
    return shift


def _without_affine(warp: np.ndarray) -> np.ndarray:
    """Take the best-fitting affine out of a warp over the brain, so that the true affine is the best one."""
    points = _lattice_mm()
    brain = template_head().hull.at(points) < 0
    design = np.concatenate([points[:, brain], np.ones((1, brain.sum()))]).astype(np.float64)
    # Normal equations summed by einsum: a BLAS could round differently in a worker with another thread count.
    gram = np.einsum("in,jn->ij", design, design)
    moment = np.einsum("in,cn->ic", design, warp[:, brain].astype(np.float64))
    coefficients = np.linalg.solve(gram, moment)
    everywhere = np.einsum("ic,iabd->cabd", coefficients[:3], points.astype(np.float64))
    return (warp - everywhere - coefficients[3][:, None, None, None]).astype(np.float32)


def _positions(
    anatomy: Anatomy, voxel_to_head: np.ndarray, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """MNI positions (3, i, j, k) of a grid's voxels and the local pace of ageing there (i, j, k).

    The warp is smooth, so it is evaluated every six millimetres and carried to the voxels by cubic interpolation, which
    costs a tenth of the time.
    """
    step = max(1, int(6 / _voxel_mm(voxel_to_head)))
    axes = [step * (np.arange((n - 1) // step + 4) - 1.0) for n in shape]
    voxels = np.stack(np.meshgrid(*axes, indexing="ij", sparse=False))
    to_mni = anatomy.head_to_mni @ voxel_to_head
    linear = np.einsum("ij,jabc->iabc", to_mni[:3, :3], voxels) + to_mni[:3, 3][:, None, None, None]
    linear = linear.astype(np.float32)
    coarse = np.stack([*(linear + anatomy.displacement_mm(linear)), anatomy.ageing_pace(linear)])
    for axis, n in enumerate(shape):
        coarse = _refine(coarse, axis + 1, n, step)
    return coarse[:3], coarse[3]


def _refine(values: np.ndarray, axis: int, n: int, step: int) -> np.ndarray:
    """Interpolate to every voxel along an axis whose samples lie at -step, 0, step, … (Catmull-Rom)."""
    at = np.arange(n)
    first, t = at // step, (at % step / step).astype(np.float32)
    weights = (
        (-(t**3) + 2 * t**2 - t) / 2,
        (3 * t**3 - 5 * t**2 + 2) / 2,
        (-3 * t**3 + 4 * t**2 + t) / 2,
        (t**3 - t**2) / 2,
    )
    shape = [1] * values.ndim
    shape[axis] = n
    fine = np.take(values, first, axis) * weights[0].reshape(shape)
    for tap in (1, 2, 3):
        fine += np.take(values, first + tap, axis) * weights[tap].reshape(shape)
    return fine
