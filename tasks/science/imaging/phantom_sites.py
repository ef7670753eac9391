"""The scanners of a phantom cohort: where each lays its grid, its contrast, bias field, gain and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .phantom_people import SITE, stream

ORIENTATIONS = ("LAS", "PSR", "RSA", "LPI", "ASL", "RAS", "PIR", "LSP")


@dataclass(frozen=True)
class Site:
    """A scanner and its protocol. Nothing here depends on who is scanned.

    Attributes:
        name: Name in participants.tsv.
        orientation: Axis codes of the voxel array, as nibabel writes them.
        oblique_deg: Rotation of the grid about x, y and z.
        voxel_mm: Voxel size along the array's axes.
        field_of_view_mm: Extent left-right, front-back and up-down.
        headroom_mm: Air above the head's brain; the rest of the extent is face and neck.
        gain: White matter in scanner units.
        grey_signal: Grey matter relative to white matter.
        csf_signal: CSF relative to white matter.
        bias_sd: Spread of the logarithm of the bias field over the head.
        bias_terms: Coefficients of its polynomial.
        noise_sd: Standard deviation of each channel's noise, relative to white matter.
        integers: Whether files hold int16 rather than float32.
    """

    name: str
    orientation: str
    oblique_deg: tuple[float, ...]
    voxel_mm: tuple[float, ...]
    field_of_view_mm: tuple[float, ...]
    headroom_mm: float
    gain: float
    grey_signal: float
    csf_signal: float
    bias_sd: float
    bias_terms: tuple[float, ...]
    noise_sd: float
    integers: bool


def draw_site(seed: int, number: int, spacing_mm: float = 2.0) -> Site:
    """Draw a site from the cohort's seed alone.

    Array orientations take turns and every other site is oblique, so that two sites already differ in both.

    Args:
        seed: The cohort's seed; another seed gives other sites.
        number: Which site, from 0.
        spacing_mm: Nominal voxel size, about which the site's own varies.

    Returns:
        The site.
    """
    rng = stream(seed, SITE, number)
    in_plane, through_plane = spacing_mm * rng.uniform(0.85, 1.05), spacing_mm * rng.uniform(0.95, 1.35)
    tilt = rng.uniform(4, 14, 3) * rng.choice([-1, 1], 3) * ((seed + number) % 2)
    integers = bool((seed + number) % 3 != 2)
    start = int(stream(seed, SITE, 0, 1).integers(len(ORIENTATIONS)))
    return Site(
        name=f"site-{seed}-{number + 1}",
        orientation=ORIENTATIONS[(start + number) % len(ORIENTATIONS)],
        oblique_deg=tuple(round(float(t), 2) for t in tilt),
        voxel_mm=(round(in_plane, 3), round(in_plane, 3), round(through_plane, 3)),
        field_of_view_mm=tuple(round(float(v), 1) for v in rng.uniform((176, 214, 184), (198, 240, 226))),
        headroom_mm=round(rng.uniform(14, 30), 1),
        gain=round(float(np.exp(rng.uniform(np.log(200), np.log(2500)) if integers else rng.uniform(-1, 9))), 3),
        grey_signal=round(rng.uniform(0.58, 0.68), 3),
        csf_signal=round(rng.uniform(0.15, 0.26), 3),
        bias_sd=round(rng.uniform(0.05, 0.16), 3),
        bias_terms=tuple(round(float(v), 3) for v in rng.standard_normal(9)),
        noise_sd=round(rng.uniform(0.012, 0.035), 4),
        integers=integers,
    )
