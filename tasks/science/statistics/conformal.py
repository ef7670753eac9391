"""Intervals around predicted ages that hold for people whom neither the model nor any correction has seen.

Split conformal prediction (Papadopoulos 2002; Lei et al. 2018): calibration subjects' absolute errors are ranked, and
the ⌈(n+1)(1−α)⌉-th smallest is the half-width. If a new subject is exchangeable with them, the interval holds its age
with probability at least 1 − α (below 1 − α + 1/(n+1) without ties), whatever the model; on average over people, not
for each age or site, which is why coverage is reported by group. It promises nothing for another scanner or for
patients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from .age_bias import MIN_SUBJECTS, fit_age_bias
from .bootstrap import levels_of, natural_order, subject_keys
from .metrics import checked_ages
from .selection import ordered_sessions

COVERAGE_COLUMNS = [
    "group", "level", "n_subjects", "n_covered", "nominal", "coverage", "ci_low", "ci_high", "half_width_years", "note",
]  # fmt: skip


@dataclass(frozen=True)
class ConformalInterval:
    """The half-width of an age's interval, and what it rests on.

    Attributes:
        half_width_years: An age lies within the prediction ± this; infinite where there are too few subjects.
        alpha: Chance of missing that is accepted.
        rank: Which of the sorted calibration errors it is.
        n_subjects: Calibration subjects.
        cross_fitted: Whether a bias line was fitted on one half of them at a time.
        note: Why it is infinite; else empty.
    """

    half_width_years: float
    alpha: float
    rank: int
    n_subjects: int
    cross_fitted: bool = False
    note: str = ""


def split_conformal(errors_years: ArrayLike, alpha: float = 0.05) -> ConformalInterval:
    """Take the half-width from calibration errors.

    Args:
        errors_years: Predicted minus true age of calibration subjects, one scan each, shape (n,); signs don't matter.
        alpha: Accepted chance that an interval misses, above 0 and below 1.

    Returns:
        The interval: the ⌈(n+1)(1−α)⌉-th smallest absolute error, infinite where that rank exceeds n (as at n = 10
        and α = 0.05), and then it says how many subjects would do.

    Raises:
        ValueError: No error, one that is not finite, or alpha out of range.

    Reference: Lei et al. 2018, doi:10.1080/01621459.2017.1307116.

    >>> split_conformal([1, -2, 3, 4, -5, 6, 7, 8, -9], alpha=0.2).half_width_years
    8.0
    >>> split_conformal(range(10)).note
    '10 calibration subjects are too few for 95% intervals, which need 19; they are infinite'
    """
    sizes = np.abs(np.asarray(errors_years, dtype=np.float64))
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha:g}; it must lie between 0 and 1.")
    if sizes.ndim != 1 or not len(sizes) or not np.isfinite(sizes).all():
        raise ValueError(
            f"Conformal intervals need finite errors of calibration subjects; found {sizes.size} values, "
            f"{int((~np.isfinite(sizes)).sum())} of them not finite. Leave out what has no prediction."
        )
    rank = conformal_rank(len(sizes), alpha)
    if rank > len(sizes):
        needed = math.ceil(round(1 / alpha, 9)) - 1
        note = (
            f"{len(sizes)} calibration subjects are too few for {1 - alpha:.0%} intervals, which need {needed}; "
            "they are infinite"
        )
        return ConformalInterval(math.inf, alpha, rank, len(sizes), note=note)
    return ConformalInterval(float(np.sort(sizes)[rank - 1]), alpha, rank, len(sizes))


def conformal_rank(n_subjects: int, alpha: float) -> int:
    """Say which of n sorted errors bounds the interval: ⌈(n+1)(1−α)⌉.

    >>> conformal_rank(19, 0.05), conformal_rank(99, 0.1), conformal_rank(10, 0.05)
    (19, 90, 11)
    """
    # (19 + 1) × 0.95 is 19.000000000000004 for some α in floating point; the ceiling must not see that.
    return math.ceil(round((n_subjects + 1) * (1 - alpha), 9))


def one_scan_per_subject(table: pd.DataFrame) -> pd.DataFrame:
    """Keep each subject's first session, since sessions of one person are not exchangeable draws.

    Args:
        table: `participant_id`, and what orders sessions: `years_since_baseline`, `session_id`, `scan_id`.

    Returns:
        Rows of `table`, one per subject, in the table's order.
    """
    ordered = ordered_sessions(table)
    first = ordered.groupby(subject_keys(ordered), sort=False).head(1).index
    return table[table.index.isin(first)]


def cross_fitted_residuals(
    age_years: ArrayLike, predicted_age_years: ArrayLike, seed: int = 0
) -> NDArray[np.float64] | None:
    """Residuals about a bias line that the subject itself had no part in.

    A line fitted on the very subjects whose errors are then ranked makes these too small. So the subjects are dealt
    into two halves, the line of one half gives the residuals of the other, and both halves are pooled.

    Validity: each half alone is a split conformal calibration of the line of the other, with its guarantee. The
    pooled errors belong to two lines, and predictions are corrected by a third, fitted on all: this is
    cross-conformal prediction, whose proven bound is weaker (about 1 − 2α; Vovk 2015, Barber et al. 2021) and whose
    coverage is close to 1 − α where the fit is stable, as a line of two parameters is from some tens of subjects on.
    Half lines vary more than the final one, so that intervals err on the wide side.

    Args:
        age_years: Ages of calibration subjects, one scan each, shape (n,).
        predicted_age_years: Their raw predictions, by members that never saw them, shape (n,).
        seed: Of the dealing.

    Returns:
        `predicted − (alpha × age + beta)`, the error of the corrected age (de Lange & Cole 2020), shape (n,), in the
        order given; None where a half has fewer than three subjects or one age only, so that it has no line.

    Raises:
        ValueError: A value is not finite.

    Reference: Vovk 2015, doi:10.1007/s10472-013-9368-4; Barber et al. 2021, doi:10.1214/20-AOS1965.
    """
    age, predicted = checked_ages(age_years, predicted_age_years)
    if len(age) < 2 * MIN_SUBJECTS:
        return None
    order = np.random.default_rng(seed).permutation(len(age))
    halves = (order[::2], order[1::2])
    residuals = np.empty(len(age))
    for half, other in (halves, halves[::-1]):
        try:
            bias = fit_age_bias(age[other], predicted[other])
        except ValueError:
            return None
        residuals[half] = predicted[half] - (bias.alpha * age[half] + bias.beta_years)
    return residuals


def corrected_conformal(
    age_years: ArrayLike, predicted_age_years: ArrayLike, alpha: float = 0.05, seed: int = 0
) -> ConformalInterval:
    """Take the half-width for bias-corrected ages from cross-fitted residuals (see `cross_fitted_residuals`).

    Returns:
        The interval; infinite, with a note, where the subjects cannot be halved.
    """
    residuals = cross_fitted_residuals(age_years, predicted_age_years, seed)
    n = len(np.asarray(age_years))
    if residuals is None:
        note = f"{n} calibration subjects cannot be halved for a cross-fitted bias line; intervals are infinite"
        return ConformalInterval(math.inf, alpha, conformal_rank(n, alpha), n, cross_fitted=True, note=note)
    found = split_conformal(residuals, alpha)
    return ConformalInterval(found.half_width_years, alpha, found.rank, n, cross_fitted=True, note=found.note)


def coverage_table(
    table: pd.DataFrame, interval: ConformalInterval, groups: tuple[str, ...] = ("site", "age_band")
) -> pd.DataFrame:
    """Count how often the intervals hold new people's ages, overall and by group.

    Args:
        table: `participant_id, age_years, predicted_age_years` and the grouping columns of scans that had no part in
            the calibration; the first scan of each subject is counted. `age_band` is made where it is no column.
        interval: What to test.
        groups: Grouping columns; those that are absent are left out.

    Returns:
        One row per level, `overall` first (`COVERAGE_COLUMNS`), with the exact binomial 95% interval.

    Raises:
        ValueError: A value is not finite.

    Reference: Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404.
    """
    rows = one_scan_per_subject(table).reset_index(drop=True)
    age, predicted = checked_ages(rows["age_years"], rows["predicted_age_years"])
    held = np.abs(predicted - age) <= interval.half_width_years
    found = [_coverage("overall", "all", held, interval)]
    for group in groups:
        if group != "age_band" and group not in rows:
            continue
        levels = levels_of(rows, group)
        found += [
            _coverage(group, level, held[(levels == level).to_numpy()], interval)
            for level in sorted(levels.unique(), key=natural_order)
        ]
    return pd.DataFrame(found, columns=COVERAGE_COLUMNS)


def _coverage(
    group: str, level: str, held: NDArray[np.bool_], interval: ConformalInterval
) -> tuple[str, str, int, int, float, float, float, float, float, str]:
    n, k = len(held), int(held.sum())
    exact = stats.binomtest(k, n).proportion_ci(0.95, method="exact")
    low, high = float(exact.low), float(exact.high)
    return group, level, n, k, 1 - interval.alpha, k / n, low, high, interval.half_width_years, interval.note
