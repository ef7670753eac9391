"""How much of a brain is grey matter, white matter and CSF: what published brain ages failed to beat as a predictor.

A mixture of Gaussians over one or several contrasts, in which the template says where each tissue is likely. Nothing
assumes that CSF is dark: the template's maps name the classes, so T1w, T2w, FLAIR and pairs of them go in alike.

Reference: Ashburner & Friston 2005, doi:10.1016/j.neuroimage.2005.02.018 (mixture with spatial priors); Shattuck et al.
2001, doi:10.1006/nimg.2000.0730 (mixed voxels); Van Leemput et al. 2001, doi:10.1109/42.938237 (outliers).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ...records import ScanRejected
from ..arrays import AnyVolume, Mask, Volume

# Tissues are numbered CSF, grey matter, white matter. Voxels of two of them: CSF with grey matter along the cortex,
# grey with white matter below it; and CSF with white matter around the ventricles, which would pass for a rind of grey
# matter that grows with age.
WHITE = 2
MIXED = ((0, 1), (1, 2), (0, 2))
# After an affine registration a person's gyri lie some millimetres beside the template's.
PRIOR_BLUR_MM = 2.5
PRIOR_FLOOR = 0.02
# Vessels, meninges and lesions look like no tissue. They are few, and the template alone says what they count as.
OUTLIER_SHARE = 0.01
# How often a mixed class is met where its two tissues are equally likely, relative to a pure one. Fixed, since the data
# tell it from a wide pure class so weakly that a fit of it wanders for hundreds of rounds.
MIXED_SHARES = (0.25, 0.25, 0.1)
FIT_VOXELS = 30_000
COUNTED_VOXELS = 250_000
MIN_VOXELS = 50
ITERATIONS = 60
CONVERGENCE = 1e-3  # Of the brain's standard deviation; 1e-6 moves no fraction by 0.1%.
CLIP_PERCENTILES = (0.1, 99.9)
VARIANCE_FLOOR = 1e-3


@dataclass(frozen=True)
class TissueFit:
    """A fitted mixture, in the order CSF, grey, white.

    Attributes:
        levels: Mean intensity of each tissue in the volume's units, shape (3, channels).
        spread: Standard deviation within a tissue, the same for all three, shape (channels,).
        voxels: How many voxels of the brain each tissue fills, parts of mixed voxels included, shape (3,).
        outlier_fraction: Part of the brain that looks like no tissue.
        iterations: Rounds until the fit stood still.
    """

    levels: NDArray[np.float64]
    spread: NDArray[np.float64]
    voxels: NDArray[np.float64]
    outlier_fraction: float
    iterations: int


@dataclass(frozen=True)
class _Mixture:
    means: NDArray[np.float64]
    covariance: NDArray[np.float64]
    outlier_density: float


def tissue_priors(grey: Volume, white: Volume, resolution_mm: float) -> Volume:
    """Say how likely CSF, grey and white matter are at each voxel, allowing for anatomy that an affine cannot match.

    Args:
        grey: Probability of grey matter in the template, on the study's grid, shape (i, j, k).
        white: Of white matter.
        resolution_mm: Of the grid.

    Returns:
        CSF, grey and white matter, float32, shape (3, i, j, k); at least `PRIOR_FLOOR` each, adding up to 1.
    """
    sigma = PRIOR_BLUR_MM / resolution_mm
    blurred = [
        ndimage.gaussian_filter(np.asarray(each, dtype=np.float32), sigma, truncate=3.0) for each in (grey, white)
    ]
    stacked = np.stack([1.0 - blurred[0] - blurred[1], *blurred])
    floored = PRIOR_FLOOR + (1.0 - 3 * PRIOR_FLOOR) * np.clip(stacked, 0.0, 1.0)
    return np.asarray(floored / floored.sum(axis=0), dtype=np.float32)


def fit_tissues(images: AnyVolume, brain: Mask, priors: Volume) -> TissueFit:
    """Fit the mixture by expectation-maximisation on a sample of the brain, then count every tissue.

    Several images share one full covariance per tissue, so that a lesion that only FLAIR shows still counts. Mixed
    voxels are divided by where they lie between their two tissues. The sample is a fixed lattice: equal input gives
    equal figures.

    Args:
        images: Bias-corrected intensities, shape (i, j, k) or (channels, i, j, k).
        brain: True inside the brain, CSF included.
        priors: From `tissue_priors`, on the same grid.

    Returns:
        The fit.

    Raises:
        ScanRejected: Too few voxels, or an image without contrast.
        ValueError: The grids differ: a caller's mistake.
    """
    stack, inside = _stacked(images, brain, priors)
    counted = inside[:: _step(inside.size, COUNTED_VOXELS)]
    values, likely = _columns(stack, counted), _columns(priors, counted)
    centre, scale, values = _standardised(values)
    every = _step(counted.size, FIT_VOXELS)
    mixture, iterations = _fitted(values[::every], likely[::every])
    parts, outliers = _parts(values, likely, mixture)
    return TissueFit(
        levels=centre + scale * mixture.means,
        spread=scale * np.sqrt(np.diagonal(mixture.covariance)),
        voxels=parts * (inside.size / counted.size),
        outlier_fraction=outliers,
        iterations=iterations,
    )


def white_matter(images: AnyVolume, brain: Mask, priors: Volume) -> Mask:
    """Mark the voxels that are white matter for the most part: a target to learn segmentation from.

    No person has drawn it. It is the mixture of `fit_tissues`, voxel by voxel: where two tissues look alike, as grey
    and white matter do in T1w at about six months of age, it is the template's prior more than the scan.

    Args:
        images: As in `fit_tissues`.
        brain: True inside the brain, CSF included.
        priors: From `tissue_priors`, on the same grid.

    Returns:
        True where white matter has more than half of the voxel; False outside the brain.

    Raises:
        ScanRejected: Too few voxels, or an image without contrast.
        ValueError: The grids differ: a caller's mistake.
    """
    stack, inside = _stacked(images, brain, priors)
    values, likely = _columns(stack, inside), _columns(priors, inside)
    _, _, values = _standardised(values)
    every = _step(inside.size, FIT_VOXELS)
    mixture, _ = _fitted(values[::every], likely[::every])
    white = np.zeros(brain.shape, dtype=bool)
    for start in range(0, inside.size, COUNTED_VOXELS):
        part = slice(start, start + COUNTED_VOXELS)
        white.flat[inside[part]] = _white_share(values[part], likely[part], mixture) > 0.5
    return white


def _stacked(images: AnyVolume, brain: Mask, priors: Volume) -> tuple[AnyVolume, NDArray[np.intp]]:
    """The images as channels, and where the brain is, once the grids are known to be one."""
    stack = np.asarray(images)[None] if np.ndim(images) == 3 else np.asarray(images)
    if stack.shape[1:] != brain.shape or priors.shape[1:] != brain.shape:
        shapes = f"{stack.shape[1:]}, {brain.shape} and {priors.shape[1:]}"
        raise ValueError(f"images, brain and priors have the grids {shapes}; resample them to one")
    inside = np.flatnonzero(brain)
    if inside.size < MIN_VOXELS:
        raise ScanRejected("tissue", f"only {inside.size} voxels are brain; look at the mask")
    return stack, inside


def _step(size: int, wanted: int) -> int:
    """An odd stride, since an even one would stay in step with the rows of the grid."""
    return max(1, size // wanted) | 1 if size > wanted else 1


def _columns(stack: AnyVolume, index: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.stack([np.ravel(image)[index] for image in stack], axis=1).astype(np.float64)


def _standardised(
    values: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    low, high = np.percentile(values, CLIP_PERCENTILES, axis=0)
    clipped = np.clip(values, low, high)
    centre, scale = clipped.mean(axis=0), clipped.std(axis=0)
    if not (scale > 1e-6 * np.maximum(np.abs(low), np.abs(high))).all():
        raise ScanRejected("tissue", "the brain has one value nearly everywhere; the scan shows no tissue")
    return centre, scale, (clipped - centre) / scale


def _sums(weights: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted sums over voxels, `weightsᵀ values`: a BLAS would round by how many threads a worker has."""
    return np.asarray(np.einsum("nk,nc->kc", weights, values))


def _fitted(values: NDArray[np.float64], likely: NDArray[np.float64]) -> tuple[_Mixture, int]:
    # Where the template is surest, the classes are purest: a good start, whatever the contrast.
    sure = likely**4
    n_channels = values.shape[1]
    box = float(np.prod(values.max(axis=0) - values.min(axis=0)))
    means = _sums(sure, values) / sure.sum(axis=0)[:, None]
    mixture = _Mixture(means, 0.25 * np.eye(n_channels), 1.0 / box)
    prior = _class_priors(likely)
    for iteration in range(1, ITERATIONS + 1):  # noqa: B007 (returned)
        found = _maximised(values, _responsibilities(values, prior, mixture), mixture)
        moved = float(np.abs(found.means - mixture.means).max())
        mixture = found
        if moved < CONVERGENCE:
            break
    return mixture, iteration


def _components(mixture: _Mixture) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and covariances of pure and mixed classes; a mixed one spreads evenly between its two tissues."""
    means, covariances = list(mixture.means), [mixture.covariance] * 3
    for first, second in MIXED:
        apart = mixture.means[second] - mixture.means[first]
        means.append((mixture.means[first] + mixture.means[second]) / 2)
        covariances.append(mixture.covariance + np.outer(apart, apart) / 12.0)
    return np.array(means), np.array(covariances)


def _class_priors(likely: NDArray[np.float64]) -> NDArray[np.float64]:
    """How likely each pure and mixed class is, shape (n, 6), adding up to what is left beside outliers."""
    mixed = [
        share * np.sqrt(likely[:, first] * likely[:, second])
        for (first, second), share in zip(MIXED, MIXED_SHARES, strict=True)
    ]
    prior = np.column_stack([likely, *mixed])
    return np.asarray(prior * ((1.0 - OUTLIER_SHARE) / prior.sum(axis=1, keepdims=True)))


def _responsibilities(
    values: NDArray[np.float64], prior: NDArray[np.float64], mixture: _Mixture
) -> NDArray[np.float64]:
    """Posterior of pure and mixed classes and, last, of being none of them, shape (n, 7)."""
    joint = np.empty((len(values), prior.shape[1] + 1))
    for number, (mean, covariance) in enumerate(zip(*_components(mixture), strict=True)):
        joint[:, number] = prior[:, number] * _density(values - mean, covariance)
    joint[:, -1] = OUTLIER_SHARE * mixture.outlier_density
    return joint / joint.sum(axis=1, keepdims=True)


def _density(away: NDArray[np.float64], covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    whitened = np.einsum("ni,ji->nj", away, np.linalg.inv(np.linalg.cholesky(covariance)))
    norm = np.sqrt((2 * np.pi) ** len(covariance) * np.linalg.det(covariance))
    return np.asarray(np.exp(-0.5 * np.einsum("ij,ij->i", whitened, whitened)) / norm)


def _maximised(values: NDArray[np.float64], posterior: NDArray[np.float64], mixture: _Mixture) -> _Mixture:
    """Means and the common covariance from the pure classes.

    One covariance for all: noise is the scanner's, and a tissue with a wide one of its own would swallow mixed voxels.
    """
    pure = posterior[:, :3]
    weight = np.maximum(pure.sum(axis=0), 1e-9)
    means = _sums(pure, values) / weight[:, None]
    covariance = VARIANCE_FLOOR * np.eye(values.shape[1])
    for tissue in range(3):
        away = values - means[tissue]
        covariance += _sums(away * pure[:, tissue, None], away) / weight.sum()
    return _Mixture(means, covariance, mixture.outlier_density)


def _parts(
    values: NDArray[np.float64], likely: NDArray[np.float64], mixture: _Mixture
) -> tuple[NDArray[np.float64], float]:
    """Voxels of each tissue, and the part that is none."""
    posterior = _responsibilities(values, _class_priors(likely), mixture)
    parts = posterior[:, :3].sum(axis=0)
    for number, (first, second) in enumerate(MIXED):
        mixed = posterior[:, 3 + number]
        share = _share_of_second(values, mixture, first, second)
        parts[first] += (mixed * (1.0 - share)).sum()
        parts[second] += (mixed * share).sum()
    outlier = posterior[:, -1]
    return parts + _sums(outlier[:, None], likely)[0], float(outlier.mean())


def _white_share(values: NDArray[np.float64], likely: NDArray[np.float64], mixture: _Mixture) -> NDArray[np.float64]:
    """Expected part of each voxel that is white matter; of an outlier, what the template says."""
    posterior = _responsibilities(values, _class_priors(likely), mixture)
    share = posterior[:, WHITE] + posterior[:, -1] * likely[:, WHITE]
    for number, (first, second) in enumerate(MIXED):
        if second == WHITE:
            share += posterior[:, 3 + number] * _share_of_second(values, mixture, first, second)
    return np.asarray(share)


def _share_of_second(values: NDArray[np.float64], mixture: _Mixture, first: int, second: int) -> NDArray[np.float64]:
    """How far a voxel lies from one tissue to another, from 0 to 1."""
    apart = mixture.means[second] - mixture.means[first]
    direction = np.linalg.solve(mixture.covariance, apart)
    return np.clip(np.einsum("ni,i->n", values - mixture.means[first], direction) / (apart @ direction), 0.0, 1.0)
