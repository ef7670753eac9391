"""Parts of the brain over which a map is added up: tissues and known places of the template, or a user's atlas."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from ...records import ScanRejected
from ..arrays import Affine, Mask, Volume
from ..cohort.problems import Problem
from ..cohort.tsv import read_tsv
from .grid import Shape
from .nifti import read_volume
from .orientation import apply_affine

Labels = Int[np.ndarray, "i j k"]
COORDINATES_FILE = "seitzman_2018_ROIs_300inVol_MNI_allInfo.txt"
ANATOMY_FILE = "seitzman_2018_ROIs_anatomicalLabels.txt"
OUTSIDE = "outside the brain"
# float32 holds whole numbers up to here.
LARGEST_LABEL = 2**24
MOST_REGIONS = 5000
# An atlas of another space, or of another orientation, has much of itself outside the template's brain.
LEAST_SHARE_IN_BRAIN = 0.5
NETWORK_NAMES = {
    "CinguloOpercular": "cingulo-opercular",
    "DefaultMode": "default mode",
    "DorsalAttention": "dorsal attention",
    "FrontoParietal": "fronto-parietal",
    "MedialTemporalLobe": "medial temporal lobe",
    "ParietoMedial": "parieto-medial",
    "SomatomotorDorsal": "somatomotor, dorsal",
    "SomatomotorLateral": "somatomotor, lateral",
    "VentralAttention": "ventral attention",
    "unassigned": "no network",
}
ANATOMY_NAMES = {"basalGanglia": "basal ganglia", "cortexL": "cortex", "cortexR": "cortex", "cortexMid": "cortex"}


@dataclass(frozen=True, eq=False)
class RegionSet:
    """Regions that share no voxel.

    Attributes:
        name: Names the set in tables.
        labels: Which region each voxel of the study's grid is in, from 1 in the order of the names; 0 in none; shape
            (i, j, k).
        names: A region may have no voxel on a coarse grid.
    """

    name: str
    labels: Labels = field(repr=False)
    names: tuple[str, ...]


@dataclass(frozen=True)
class Sphere:
    """A known place, in RAS+ mm of MNI space."""

    region: str
    centre_mm: tuple[float, float, float]
    radius_mm: float


def tissue_regions(grey: Volume, white: Volume, brain: Mask) -> RegionSet:
    """Split the grid by the template's most probable tissue.

    Args:
        grey: Probability of grey matter on the study's grid, shape (i, j, k).
        white: Probability of white matter.
        brain: The template's brain.

    Returns:
        Grey matter, white matter, cerebrospinal fluid (what of the brain is neither), and all that is outside.
    """
    fluid = 1.0 - grey - white
    labels = np.where(brain, 1 + np.argmax(np.stack([grey, white, fluid]), axis=0), 4).astype(np.int32)
    return RegionSet("tissue", labels, ("grey matter", "white matter", "cerebrospinal fluid", OUTSIDE))


@cache
def known_places() -> tuple[Sphere, ...]:
    """The 300 cortical, subcortical and cerebellar spheres of Seitzman et al. that ship inside nilearn.

    They are read from nilearn's folder, without importing nilearn and without any download. Spheres of one structure
    and side are one region; cortex is divided by functional network too.

    Reference: Seitzman et al. 2020, doi:10.1016/j.neuroimage.2019.116290.
    """
    lines = _nilearn_text(COORDINATES_FILE).splitlines()[1:]
    header, *codes = _nilearn_text(ANATOMY_FILE).split()
    anatomy = dict(item.split("=") for item in header.split(","))
    spheres = []
    for line, code in zip(lines, codes, strict=True):
        x, y, z, radius, _, network = line.split()
        region = _place_name(anatomy[code], network, float(x))
        spheres.append(Sphere(region, (float(x), float(y), float(z)), float(radius)))
    return tuple(spheres)


def _place_name(structure: str, network: str, x_mm: float) -> str:
    side = "" if structure == "cortexMid" else "left " if x_mm < 0 else "right "
    named = side + ANATOMY_NAMES.get(structure, structure)
    return f"{named}: {NETWORK_NAMES.get(network, network.lower())}" if "cortex" in structure else named


def _nilearn_text(name: str) -> str:
    package = importlib.util.find_spec("nilearn")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("nilearn carries the coordinates of brain regions; install it (nilearn>=0.14)")
    return (Path(package.submodule_search_locations[0]) / "datasets" / "data" / name).read_text(encoding="utf-8")


def sphere_regions(spheres: Sequence[Sphere], shape: Shape, affine: Affine) -> RegionSet:
    """Draw spheres on the study's grid.

    Args:
        spheres: In the space of the grid.
        shape: Of the study's grid.
        affine: Voxel indices to RAS+ mm.

    Returns:
        A region per name. A voxel belongs to the nearest centre within reach, and every centre to its own voxel,
        since on a coarse grid no voxel's middle may lie within a small sphere.
    """
    names = sorted({sphere.region for sphere in spheres})
    labels = np.zeros(shape, dtype=np.int32)
    nearest_mm = np.full(shape, np.inf)
    for sphere in spheres:
        centre = np.array(sphere.centre_mm)
        middle = np.rint(apply_affine(np.linalg.inv(affine), centre[None])[0]).astype(int)
        reach = np.ceil(sphere.radius_mm / np.abs(np.diag(affine)[:3])).astype(int)
        low, high = np.maximum(middle - reach, 0), np.minimum(middle + reach + 1, shape)
        if (middle < 0).any() or (middle >= shape).any():
            continue
        box = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
        indices = np.stack(np.meshgrid(*(np.arange(part.start, part.stop) for part in box), indexing="ij"), axis=-1)
        distance = np.linalg.norm(apply_affine(affine, indices.reshape(-1, 3)) - centre, axis=1)
        distance = distance.reshape(indices.shape[:-1])
        distance[tuple(middle - low)] = min(distance[tuple(middle - low)], sphere.radius_mm)
        taken = (distance <= sphere.radius_mm) & (distance < nearest_mm[box])
        labels[box][taken] = 1 + names.index(sphere.region)
        nearest_mm[box][taken] = distance[taken]
    return RegionSet("known places", labels, tuple(names))


def atlas_regions(image: bytes, names: bytes, shape: Shape, affine: Affine, brain: Mask) -> RegionSet:
    """Bring a user's atlas to the study's grid.

    Args:
        image: A NIfTI of whole numbers in the template's space, 0 in no region.
        names: A TSV with the columns `index` and `name`.
        shape: Of the study's grid.
        affine: Voxel indices to the template's RAS+ mm.
        brain: The template's brain on that grid.

    Returns:
        A region per row of the table, each voxel that of the atlas' nearest voxel.

    Raises:
        ValueError: The image or table cannot be used, they contradict one another, or the atlas does not lie on the
            template's brain.
    """
    try:
        volume, own_affine = read_volume(image)
    except ScanRejected as rejection:
        raise ValueError(f"the atlas cannot be read: {rejection}") from rejection
    if volume.min() < 0 or volume.max() > LARGEST_LABEL or (volume != np.rint(volume)).any():
        raise ValueError(
            f"the atlas must hold whole numbers from 0 to {LARGEST_LABEL}, one per region; found {volume.min():g} to "
            f"{volume.max():g}: is it a map of probabilities?"
        )
    named = read_names(names)
    unnamed = sorted({int(label) for label in np.unique(volume)} - named.keys() - {0})
    if unnamed:
        raise ValueError(f"the atlas' table gives no name to {len(unnamed)} of its labels, the first is {unnamed[0]}")
    to_own = np.linalg.inv(own_affine) @ affine
    labels = ndimage.affine_transform(volume, to_own[:3, :3], to_own[:3, 3], shape, order=0, mode="grid-constant")
    inside = float((labels[brain] > 0).sum() / max((labels > 0).sum(), 1))
    if inside < LEAST_SHARE_IN_BRAIN:
        raise ValueError(
            f"{inside:.0%} of the atlas lies in the template's brain, expected at least {LEAST_SHARE_IN_BRAIN:.0%}; "
            "give an atlas in the template's space (MNI152NLin2009aSym unless the study gives templates)"
        )
    order = sorted(named)
    positions = np.where(labels > 0, 1 + np.searchsorted(order, labels), 0)
    return RegionSet("atlas", positions.astype(np.int32), tuple(named[label] for label in order))


def read_names(table: bytes) -> dict[int, str]:
    """Read which label means what.

    Raises:
        ValueError: Columns are missing, an index is no whole number above 0, or it or its name stands twice.
    """
    said: list[Problem] = []
    text = read_tsv(table, "the atlas' table", frozenset({"index", "name"}), said)
    if not {"index", "name"} <= set(text.columns):
        raise ValueError(f"the atlas' table needs the columns index and name, tab-separated; found {text.columns}")
    if len(text.rows) > MOST_REGIONS:
        raise ValueError(f"the atlas' table has {len(text.rows)} rows; {MOST_REGIONS} are accepted")
    named: dict[int, str] = {}
    for row in text.rows:
        index, name = str(row["index"] or ""), str(row["name"] or "").strip()
        if not index.isascii() or not index.isdigit() or not name:
            raise ValueError(
                f"the atlas' table: a row has index {index!r} and name {name!r}; expected 1, 2, … and a name"
            )
        # Many tables name the background.
        if int(index) == 0:
            continue
        if int(index) in named or name in named.values():
            raise ValueError(f"the atlas' table: index {index} or name {name!r} stands twice")
        named[int(index)] = name
    return named


def region_sums(values: Volume, regions: RegionSet) -> Float[np.ndarray, " regions"]:
    """Add a map up over each region.

    Args:
        values: A map on the study's grid, shape (i, j, k).
        regions: The regions.

    Returns:
        Sums in the order of the regions' names, float64.
    """
    weights = np.ravel(values).astype(np.float64)
    return np.bincount(np.ravel(regions.labels), weights=weights, minlength=len(regions.names) + 1)[1:]


def region_voxels(regions: RegionSet) -> Int[np.ndarray, " regions"]:
    """Count the voxels of each region, in the order of their names."""
    return np.bincount(np.ravel(regions.labels), minlength=len(regions.names) + 1)[1:]
