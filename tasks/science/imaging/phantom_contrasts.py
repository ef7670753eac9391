"""How bright each tissue is in T1w, T2w and FLAIR, and each site's protocol for each of them.

A contrast is a table over tissues; the anatomy below is the same. Numbers are signals relative to white matter of an
adult, as usual at 1.5 and 3 T; lesions and unmyelinated white matter are planted through the same tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from .phantom_people import PROTOCOL, stream
from .phantom_sites import ORIENTATIONS, Site, draw_site

CONTRASTS = ("T1w", "T2w", "FLAIR")
SIGNAL = {
    "T1w": {"white": 1.0, "bone": 0.08, "marrow": 0.55, "fat": 1.2, "muscle": 0.45, "lesion": 0.72},
    "T2w": {"white": 1.0, "bone": 0.08, "marrow": 0.9, "fat": 1.6, "muscle": 0.5, "lesion": 1.8},
    "FLAIR": {"white": 1.0, "bone": 0.06, "marrow": 0.45, "fat": 0.55, "muscle": 0.5, "lesion": 1.75},
}
# Lowest and highest of a site's grey matter and CSF, relative to white matter. T1w's are in `draw_site`.
GREY_RANGE = {"T2w": (1.3, 1.5), "FLAIR": (1.12, 1.25)}
CSF_RANGE = {"T2w": (2.4, 2.9), "FLAIR": (0.15, 0.25)}
# White matter before myelination relative to grey matter: darker in T1w, brighter in T2w (Barkovich et al. 1988,
# doi:10.1148/radiology.166.1.3336675), much as at birth in the BME-X templates.
UNMYELINATED_PER_GREY = {"T1w": 0.75, "T2w": 1.14, "FLAIR": 1.1}
LARGEST_OFFSET = 0.1
# Clinical two-dimensional scans: axial slices tilted to the skull base, with a gap.
THICK_ORIENTATIONS = ("LPS", "RAS", "LAS", "LPI")
THICKNESS_MM, GAP_MM = 5.0, (1.0, 2.0)
INFANT_THICKNESS_MM, INFANT_GAP_MM = 4.0, (0.4, 0.8)
# An infant's box is smaller than an adult's.
INFANT_FIELD_OF_VIEW = 0.82


@dataclass(frozen=True)
class Contrast:
    """What an image shows of the tissues, apart from the site's own grey matter and CSF.

    Attributes:
        name: `T1w`, `T2w` or `FLAIR`.
        signal: Per tissue, relative to white matter.
        unmyelinated_per_grey: White matter before myelination, relative to grey matter.
        offset: Constant that the scanner adds, relative to white matter.
        thickness_mm: Of two-dimensional slices (full width at half maximum of their profile); None for a 3D scan.
    """

    name: str
    signal: Mapping[str, float]
    unmyelinated_per_grey: float
    offset: float = 0.0
    thickness_mm: float | None = None

    def table(self, site: Site) -> dict[str, float]:
        """The signal of every tissue at a site."""
        own = {"grey": site.grey_signal, "unmyelinated": self.unmyelinated_per_grey * site.grey_signal}
        return dict(self.signal) | own | dict.fromkeys(("csf", "ventricle", "eye"), site.csf_signal)


def contrast_named(name: str) -> Contrast:
    """A contrast without offset, acquired in 3D.

    >>> contrast_named("FLAIR").signal["lesion"] > 1.5
    True
    """
    return Contrast(name, SIGNAL[name], UNMYELINATED_PER_GREY[name])


def draw_protocol(
    seed: int, number: int, name: str, thick: bool, spacing_mm: float, in_plane_mm: float, infants: bool
) -> tuple[Site, Contrast]:
    """Draw how a site acquires one contrast.

    The 3D T1w of adults is the site's own as `draw_site` gives it; T2w and FLAIR have a grid, gain, bias field and
    noise of their own on the same scanner, as two sequences of one session do.

    Args:
        seed: The cohort's seed.
        number: Which site, from 0.
        name: Which contrast.
        thick: Whether in thick axial slices.
        spacing_mm: Nominal voxel size of 3D scans.
        in_plane_mm: Nominal in-plane voxel size of thick slices.
        infants: Whether the protocol is made for small heads.

    Returns:
        The site as it is set for this contrast, and the contrast with the site's offset.
    """
    site, contrast = draw_site(seed, number, spacing_mm), contrast_named(name)
    # One draw per purpose in a fixed order, so that thick and 3D scans of a site share all but their grid.
    own = stream(seed, PROTOCOL, number, CONTRASTS.index(name))
    contrast = replace(contrast, offset=round(own.uniform(0, LARGEST_OFFSET), 3))
    if name != "T1w":
        site = _another_sequence(site, name, spacing_mm, own)
    if thick:
        site, thickness_mm = _in_thick_slices(site, in_plane_mm, infants, own)
        contrast = replace(contrast, thickness_mm=thickness_mm)
    if infants:
        small = tuple(round(INFANT_FIELD_OF_VIEW * v, 1) for v in site.field_of_view_mm)
        site = replace(site, field_of_view_mm=small)
    return site, contrast


def _another_sequence(site: Site, name: str, spacing_mm: float, rng: np.random.Generator) -> Site:
    """The same scanner set to another contrast: its own grid, gain, sensitivity and noise."""
    in_plane, through_plane = spacing_mm * rng.uniform(0.85, 1.05), spacing_mm * rng.uniform(1.0, 1.4)
    turned = ORIENTATIONS.index(site.orientation) + CONTRASTS.index(name)
    tilt = np.array(site.oblique_deg) + rng.uniform(-3, 3, 3) * any(site.oblique_deg)
    return replace(
        site,
        orientation=ORIENTATIONS[turned % len(ORIENTATIONS)],
        oblique_deg=tuple(round(float(t), 2) + 0.0 for t in tilt),
        voxel_mm=(round(in_plane, 3), round(in_plane, 3), round(through_plane, 3)),
        field_of_view_mm=tuple(round(float(v * rng.uniform(0.98, 1.04)), 1) for v in site.field_of_view_mm),
        gain=round(float(site.gain * np.exp(rng.uniform(-0.7, 0.7))), 3),
        grey_signal=round(rng.uniform(*GREY_RANGE[name]), 3),
        csf_signal=round(rng.uniform(*CSF_RANGE[name]), 3),
        bias_sd=round(rng.uniform(0.05, 0.16), 3),
        bias_terms=tuple(round(float(v), 3) for v in rng.standard_normal(9)),
        noise_sd=round(rng.uniform(0.015, 0.04), 4),
    )


def _in_thick_slices(site: Site, in_plane_mm: float, infants: bool, rng: np.random.Generator) -> tuple[Site, float]:
    """A two-dimensional protocol: axial, tilted by nodding most, fine in the plane and coarse across it."""
    thickness_mm, gaps_mm = (INFANT_THICKNESS_MM, INFANT_GAP_MM) if infants else (THICKNESS_MM, GAP_MM)
    fine = round(in_plane_mm * rng.uniform(0.9, 1.0), 3)
    pitch_mm = round(thickness_mm + rng.uniform(*gaps_mm), 1)
    tilt = (rng.uniform(5, 18), rng.uniform(-4, 4), rng.uniform(-4, 4))
    return replace(
        site,
        orientation=THICK_ORIENTATIONS[int(rng.integers(len(THICK_ORIENTATIONS)))],
        oblique_deg=tuple(round(float(t), 2) for t in tilt),
        voxel_mm=(fine, fine, pitch_mm),
    ), thickness_mm
