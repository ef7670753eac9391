"""Which scans stand out from their cohort or break the study's limits, by which figure and by how much.

Scanners and sequences differ more than scans of one scanner do, so a scan is compared with its site's where there are
enough of them. Median and MAD carry a cohort with several bad scans, where mean and standard deviation would follow
them (Iglewicz & Hoaglin 1993, How to Detect and Handle Outliers).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

Bad = Literal["low", "high", "either"]
About = Literal["image", "registration", "anatomy"]

# With fewer scans the median absolute deviation itself strays by a third and more.
FEWEST_TO_COMPARE = 10
MAD_PER_SIGMA = 0.6745
MEAN_DEVIATION_PER_SIGMA = 0.7979
FLAG_COLUMNS = ("scan_id", "figure", "rule", "found", "bound", "robust_z", "reason")


@dataclass(frozen=True)
class QualityFigure:
    """One figure of a scan's quality.

    Attributes:
        label: What it is, for a reader.
        bad: Which side is worse.
        about: The image, its registration, or the person's anatomy. Small brains and wide ventricles are what a study
            looks for: anatomy is flagged, but an outlier's anatomy alone never excludes it.
        least: Smallest spread that matters; differences below it are no outliers however alike the other scans are.
    """

    label: str
    bad: Bad
    about: About
    least: float


FIGURES: dict[str, QualityFigure] = {
    "snr": QualityFigure("signal to noise in white matter", "low", "image", 0.3),
    "cnr": QualityFigure("contrast to noise of grey and white matter", "low", "image", 0.05),
    "gradient_entropy": QualityFigure("gradient entropy (motion, ghosts, noise)", "high", "image", 0.0005),
    "smoothness_mm": QualityFigure("smoothness (high: blur, motion; low: noise), mm", "either", "image", 0.1),
    "entropy_focus_criterion": QualityFigure("entropy focus criterion (motion, ghosts)", "high", "image", 0.005),
    "foreground_background_energy_db": QualityFigure("head over air, dB", "low", "image", 0.5),
    "ghost_to_signal": QualityFigure("ghost to signal", "high", "image", 0.003),
    "nonfinite_fraction": QualityFigure("voxels that are not finite", "high", "image", 0.001),
    "skull_stripped": QualityFigure("came skull-stripped (1) or as a head (0)", "either", "image", 0.2),
    "registration_ncc": QualityFigure("correlation with the template", "low", "registration", 0.01),
    "registration_correlation_ratio": QualityFigure("template explains of the scan", "low", "registration", 0.01),
    "registration_determinant": QualityFigure("volume scaling to the template", "either", "registration", 0.03),
    "scale_x": QualityFigure("scaling left to right", "either", "registration", 0.01),
    "scale_y": QualityFigure("scaling back to front", "either", "registration", 0.01),
    "scale_z": QualityFigure("scaling foot to head", "either", "registration", 0.01),
    "fov_cut_fraction": QualityFigure("brain outside the field of view", "high", "registration", 0.005),
    "header_turn_degrees": QualityFigure("turn against what the header says, degrees", "high", "registration", 5.0),
    "brain_volume_ml": QualityFigure("grey and white matter, ml", "either", "anatomy", 10.0),
    "mask_volume_ml": QualityFigure("brain mask, ml", "either", "anatomy", 10.0),
    "brain_fraction": QualityFigure("tissue in the brain mask", "either", "anatomy", 0.005),
    "grey_ml": QualityFigure("grey matter, ml", "either", "anatomy", 5.0),
    "white_ml": QualityFigure("white matter, ml", "either", "anatomy", 5.0),
    "csf_ml": QualityFigure("cerebrospinal fluid, ml", "either", "anatomy", 5.0),
    "grey_fraction": QualityFigure("grey matter in the brain mask", "either", "anatomy", 0.005),
    "white_fraction": QualityFigure("white matter in the brain mask", "either", "anatomy", 0.005),
    "csf_fraction": QualityFigure("cerebrospinal fluid in the brain mask", "either", "anatomy", 0.005),
    "no_tissue_fraction": QualityFigure("brain mask that looks like no tissue", "high", "image", 0.002),
    "ratio_median": QualityFigure("median T1w/T2w ratio", "either", "anatomy", 0.02),
    "ratio_defined": QualityFigure("brain where the ratio is defined", "low", "image", 0.01),
    # One or the other for all of a study; a mixture is told by the limit, not by how far it lies from the median.
    "ratio_calibrated": QualityFigure("ratio is calibrated", "low", "image", 1.0),
    **{
        f"{contrast}_{name}": figure
        for contrast in ("T1w", "T2w", "FLAIR")
        for name, figure in {
            "alignment": QualityFigure(f"{contrast} explained by the reference image", "low", "registration", 0.01),
            "moved_mm": QualityFigure(f"{contrast} moved to the reference image, mm", "high", "registration", 0.5),
            "mirror_margin": QualityFigure(f"{contrast} fits better than its mirror image", "low", "registration", 0.1),
            "nonfinite_fraction": QualityFigure(f"{contrast} voxels that are not finite", "high", "image", 0.001),
        }.items()
    },
}


@dataclass(frozen=True)
class Limit:
    """Lowest and highest value that a study accepts of a figure; None: no limit on that side."""

    min: float | None = None
    max: float | None = None


def unknown_figures(names: Iterable[str]) -> list[str]:
    """Say what is wrong with names of figures, the nearest valid one beside each unknown one.

    >>> unknown_figures(["snr", "srn"])
    ["no quality figure is called 'srn'; did you mean 'snr'?"]
    """
    problems = []
    for name in names:
        if name in FIGURES:
            continue
        near = difflib.get_close_matches(name, list(FIGURES), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(FIGURES)}"
        problems.append(f"no quality figure is called {name!r}; {hint}")
    return problems


def robust_z(figures: pd.DataFrame, groups: pd.Series | None = None) -> pd.DataFrame:
    """Say how many robust standard deviations each figure lies on its bad side.

    Args:
        figures: One row per scan, a column per figure; NaN where a figure could not be measured.
        groups: Site of each scan, on the same index. Groups of fewer than `FEWEST_TO_COMPARE` scans, and scans
            without one, are compared with the whole cohort.

    Returns:
        `0.6745 (x - median) / MAD`, positive where worse and, where only one side is bad, negative where better; NaN
        where there are too few scans to compare with. Where over half of the scans agree exactly, the mean absolute
        deviation stands in for the MAD. Same shape and index.

    Reference: Iglewicz & Hoaglin 1993.
    """
    known = [name for name in figures.columns if name in FIGURES]
    result = _signed(figures[known].astype(float), figures[known].astype(float))
    if groups is not None:
        for _, members in groups.dropna().groupby(groups.dropna()):
            own = figures.loc[members.index, known].astype(float)
            enough = own.notna().sum() >= FEWEST_TO_COMPARE
            names = [name for name in known if enough[name]]
            result.loc[members.index, names] = _signed(own[names], own[names])
    return result


def _signed(values: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    out = pd.DataFrame(np.nan, index=values.index, columns=values.columns)
    for name in values.columns:
        known = reference[name].dropna()
        if len(known) < FEWEST_TO_COMPARE:
            continue
        figure = FIGURES[name]
        median, sigma = _centre_and_spread(known, figure)
        z = (values[name] - median) / sigma
        out[name] = z.abs() if figure.bad == "either" else z if figure.bad == "high" else -z
    return out


def _centre_and_spread(known: pd.Series, figure: QualityFigure) -> tuple[float, float]:
    median = float(known.median())
    away = (known - median).abs()
    sigma = float(away.median()) / MAD_PER_SIGMA or float(away.mean()) / MEAN_DEVIATION_PER_SIGMA
    return median, max(sigma, figure.least)


def usual_bounds(
    figures: pd.DataFrame, max_robust_z: float, limits: Mapping[str, Limit]
) -> dict[str, dict[str, float | str | None]]:
    """Say beyond which values a new scan would stand out from these, for a reader who has not got them.

    Anatomy has no bounds but the study's own limits: it is what the model is asked about.

    Args:
        figures: One row per scan, as `robust_z` takes them.
        max_robust_z: An outlier lies further than this on its bad side.
        limits: Figure → what the study accepts; the narrower of the two counts.

    Returns:
        Figure → `low`, `high` (either may be None) and `label`. Figures of fewer than `FEWEST_TO_COMPARE` scans have
        bounds only where there is a limit.
    """
    found: dict[str, dict[str, float | str | None]] = {}
    for name, figure in FIGURES.items():
        limit = limits.get(name, Limit())
        lows, highs = ([] if bound is None else [bound] for bound in (limit.min, limit.max))
        known = figures[name].astype(float).dropna() if name in figures else pd.Series(dtype=float)
        if len(known) >= FEWEST_TO_COMPARE and figure.about != "anatomy":
            median, sigma = _centre_and_spread(known, figure)
            lows += [median - max_robust_z * sigma] if figure.bad != "high" else []
            highs += [median + max_robust_z * sigma] if figure.bad != "low" else []
        if lows or highs:
            found[name] = {
                "low": max(lows, default=None),
                "high": min(highs, default=None),
                "label": figure.label,
            }
    return found


def find_flags(
    scan_ids: pd.Series,
    figures: pd.DataFrame,
    groups: pd.Series | None,
    max_robust_z: float,
    limits: Mapping[str, Limit],
) -> pd.DataFrame:
    """List what is wrong with each scan.

    Args:
        scan_ids: One per row of `figures`, on the same index.
        figures: As `robust_z` takes them.
        groups: As `robust_z` takes them.
        max_robust_z: An outlier lies further than this on its bad side.
        limits: Figure → what the study accepts. A figure that could not be measured breaks no limit.

    Returns:
        One row per scan and finding, limits first: `rule` is `limit` or `outlier`, `found` the value, `bound` the limit
        or None, `reason` a sentence.
    """
    z = robust_z(figures, groups)
    rows = [*_beyond_limits(scan_ids, figures, z, limits), *_outliers(scan_ids, figures, z, max_robust_z)]
    return pd.DataFrame(rows, columns=list(FLAG_COLUMNS))


def _beyond_limits(
    scan_ids: pd.Series, figures: pd.DataFrame, z: pd.DataFrame, limits: Mapping[str, Limit]
) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for name, limit in limits.items():
        if name not in figures:
            continue
        for scan_id, found, far in zip(scan_ids, figures[name].astype(float).tolist(), z[name].tolist(), strict=True):
            for bound, broken, word in ((limit.min, "below", "least"), (limit.max, "above", "most")):
                if bound is None or not (found < bound if word == "least" else found > bound):
                    continue
                reason = (
                    f"{name} ({FIGURES[name].label}) is {found:.4g}, {broken} the study's limit: at {word} {bound:.4g}"
                )
                rows.append((scan_id, name, "limit", found, bound, far, reason))
    return rows


def _outliers(
    scan_ids: pd.Series, figures: pd.DataFrame, z: pd.DataFrame, max_robust_z: float
) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for name in z.columns:
        values = figures[name].astype(float)
        for scan_id, found, far in zip(scan_ids, values.tolist(), z[name].tolist(), strict=True):
            if not far > max_robust_z:
                continue
            reason = (
                f"{name} ({FIGURES[name].label}) is {found:.4g}, {far:.1f} robust standard deviations from what is "
                f"usual here (cohort's median {values.median():.4g})"
            )
            rows.append((scan_id, name, "outlier", found, None, far, reason))
    return rows


def excludable(flags: pd.DataFrame, on_limit: str, on_outlier: str) -> pd.DataFrame:
    """Keep the findings that the study excludes by, one per scan, the gravest first.

    Args:
        flags: From `find_flags`.
        on_limit: `exclude` or `flag`: what a broken limit means.
        on_outlier: `exclude` or `flag`: what an outlier means; anatomy only ever flags.
    """
    anatomy = flags["figure"].map(lambda name: FIGURES[name].about == "anatomy").astype(bool)
    outlier = (flags["rule"] == "outlier") & ~anatomy
    chosen = flags[((flags["rule"] == "limit") & (on_limit == "exclude")) | (outlier & (on_outlier == "exclude"))]
    gravest = chosen.sort_values(["rule", "robust_z"], ascending=[True, False], kind="stable")
    return gravest.drop_duplicates("scan_id").reset_index(drop=True)


def rank_worst(figures: pd.DataFrame, groups: pd.Series | None = None) -> pd.DataFrame:
    """Order scans by their worst figure of image or registration, for a person to look at.

    Args:
        figures: As `robust_z` takes them.
        groups: As `robust_z` takes them.

    Returns:
        Index of `figures`, worst first, with `robust_z` of the worst figure and `figures`, up to three names of the
        worst ones with their values. Where there are too few scans to compare, the order is by the registration.
    """
    judged = [name for name in figures.columns if name in FIGURES and FIGURES[name].about != "anatomy"]
    z = robust_z(figures[judged], groups)
    if z.isna().all(axis=None):
        order = figures["registration_correlation_ratio"].astype(float).sort_values(kind="stable").index
        names = [["registration_correlation_ratio"] for _ in order]
        worst = pd.Series(np.nan, index=order)
    else:
        worst = z.max(axis=1).sort_values(ascending=False, kind="stable")
        order = worst.index
        names = [list(z.loc[index].dropna().sort_values(ascending=False, kind="stable").index[:3]) for index in order]
    values = figures[judged].astype(float)
    texts = [
        ", ".join(f"{name} {values.loc[index][name]:.3g}" for name in those)
        for index, those in zip(order, names, strict=True)
    ]
    return pd.DataFrame({"robust_z": worst.to_numpy(), "figures": texts}, index=order)
