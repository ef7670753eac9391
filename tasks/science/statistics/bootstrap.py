"""Metrics with confidence intervals that resample subjects, for a cohort and for each of its groups.

Sessions of one subject are alike, so resampling scans would give intervals that are too narrow: a subject is drawn
with all of its sessions (cluster bootstrap; Davison & Hinkley 1997, section 3.8). Intervals are percentile, 95%.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .metrics import METRICS, Ages, checked_ages

MIN_SUBJECTS_FOR_INTERVAL = 3
# So many that a chunk of them stays in a core's cache, where passes over it cost a third of what they cost in memory.
COUNTS_PER_CHUNK = 80_000
# Whole and half numbers up to this are exact in float32, and so are ranks.
MOST_SCANS_IN_FLOAT32 = 2**22
AGE_BAND_YEARS = 10
AGE_BAND_MONTHS = 6
COLUMNS = ["group", "level", "metric", "n_subjects", "n_scans", "estimate", "ci_low", "ci_high", "note"]

Counts = NDArray[Any]
Draws = NDArray[np.float64]


def metric_table(
    predictions: pd.DataFrame, groups: Sequence[str] = ("site",), resamples: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """Say how well ages are predicted, overall and per group, and how sure that is.

    Args:
        predictions: One row per scan: `participant_id`, `age_years`, `predicted_age_years`, and the grouping columns.
            Equal participants of two cohorts are different people where a `cohort` column says so.
        groups: Grouping columns. `age_band` is made from `age_years` (decades) where it is no column. A missing
            value forms the level `(missing)`, so that no scan leaves the table unseen.
        resamples: Bootstrap samples of subjects.
        seed: Seed. A level's interval does not depend on which other groups are asked for.

    Returns:
        One row per level and metric, `overall` first: `group, level, metric, n_subjects, n_scans, estimate, ci_low,
        ci_high, note`. `ci_low` and `ci_high` are NaN below three subjects, and estimates are NaN where a metric is
        undefined (all ages equal); `note` says so.

    Raises:
        ValueError: A column is absent, a scan occurs twice, or a value is not finite.
    """
    frame = _checked(predictions, groups)
    subjects = subject_keys(frame)
    parts = [("overall", "all", frame, subjects)]
    for group in groups:
        levels = levels_of(frame, group)
        found = ((level, levels == level) for level in sorted(levels.unique(), key=natural_order))
        parts += [(group, level, frame[inside], subjects[inside]) for level, inside in found]
    # Each level has a stream of its own, so that they may be drawn at the same time; numpy lets other threads run.
    with ThreadPoolExecutor(min(len(parts), os.cpu_count() or 1)) as threads:
        blocks = list(threads.map(lambda part: _level_rows(part, resamples, seed), parts))
    return pd.DataFrame([row for block in blocks for row in block], columns=COLUMNS)


def subject_keys(frame: pd.DataFrame) -> pd.Series:
    """Name subjects across cohorts: `sub-01` of one cohort is not `sub-01` of another.

    Returns:
        Text of shape (n,), on the index of `frame`.
    """
    participants = frame["participant_id"].astype(str)
    return frame["cohort"].astype(str) + "/" + participants if "cohort" in frame else participants


def age_band(age_years: pd.Series, width_years: int = AGE_BAND_YEARS) -> pd.Series:
    """Label ages by band, since errors grow towards the ends of a training range.

    Returns:
        Text such as `40-49`, on the index of `age_years`.
    """
    first = (age_years // width_years * width_years).astype(int)
    return first.astype(str) + "-" + (first + width_years - 1).astype(str)


def age_band_months(age_years: pd.Series, width_months: int = AGE_BAND_MONTHS) -> pd.Series:
    """Label ages of infants by band: all of them are in one decade.

    Returns:
        Text such as `6-11 months`, on the index of `age_years`.

    >>> age_band_months(pd.Series([0.0, 0.5, 1.99])).tolist()
    ['0-5 months', '6-11 months', '18-23 months']
    """
    # An age that was given in whole months is one in twelfths of a year, up to rounding.
    first = ((age_years * 12 + 1e-6) // width_months * width_months).astype(int)
    return first.astype(str) + "-" + (first + width_months - 1).astype(str) + " months"


def _checked(predictions: pd.DataFrame, groups: Sequence[str]) -> pd.DataFrame:
    needed = ["participant_id", "age_years", "predicted_age_years", *(g for g in groups if g != "age_band")]
    absent = [name for name in needed if name not in predictions]
    if absent:
        raise ValueError(f"Predictions lack {absent}; the columns are {list(predictions.columns)}.")
    if "scan_id" in predictions:
        repeated = predictions["scan_id"][predictions["scan_id"].duplicated()]
        if len(repeated):
            raise ValueError(
                f"{len(repeated)} rows repeat a scan, the first is {repeated.iloc[0]}. A distributed sampler pads with "
                "repeated scans; keep one row per scan_id before any metric."
            )
    checked_ages(predictions["age_years"], predictions["predicted_age_years"])
    return predictions


def levels_of(frame: pd.DataFrame, group: str) -> pd.Series:
    """Name each scan's level of a group; what is not known is the level `(missing)`.

    Returns:
        Text of shape (n,), on the index of `frame`.
    """
    values = age_band(frame["age_years"]) if group == "age_band" and group not in frame else frame[group]
    text = values.astype(object).where(values.notna(), "(missing)").astype(str)
    # The clinical table writes "" where a site is not known.
    return text.where(text.str.strip() != "", "(missing)")


def natural_order(level: str) -> tuple[float, str]:
    """Sort levels that begin with a number by it, the others after them.

    >>> sorted(["100-109", "20-29", "(missing)"], key=natural_order)
    ['20-29', '100-109', '(missing)']
    """
    digits = level.split("-")[0]
    return (float(digits), level) if digits.isdigit() else (float("inf"), level)


def _level_rows(part: tuple[str, str, pd.DataFrame, pd.Series], resamples: int, seed: int) -> list[tuple[object, ...]]:
    group, level, frame, subjects = part
    age, predicted = checked_ages(frame["age_years"], frame["predicted_age_years"])
    codes, names = pd.factorize(subjects)
    estimates = {name: metric(age, predicted) for name, metric in METRICS.items()}
    draws: dict[str, NDArray[np.float64]] = {}
    if len(names) >= MIN_SUBJECTS_FOR_INTERVAL:
        rng = np.random.default_rng([seed, zlib.crc32(f"{group}={level}".encode())])
        draws = bootstrap_metrics(age, predicted, codes, resamples, rng)
    rows: list[tuple[object, ...]] = []
    for name, estimate in estimates.items():
        low, high, note = _interval(estimate, draws.get(name))
        rows.append((group, level, name, len(names), len(age), estimate, low, high, note))
    return rows


def _interval(estimate: float, draws: NDArray[np.float64] | None) -> tuple[float, float, str]:
    nan = float("nan")
    if np.isnan(estimate):
        return nan, nan, "undefined: ages or predictions are all equal"
    if draws is None:
        return nan, nan, f"fewer than {MIN_SUBJECTS_FOR_INTERVAL} subjects: no interval"
    defined = draws[np.isfinite(draws)]
    if not len(defined):
        return nan, nan, "undefined in every resample: no interval"
    low, high = np.quantile(defined, [0.025, 0.975])
    lost = len(draws) - len(defined)
    return float(low), float(high), f"undefined in {lost} of {len(draws)} resamples, left out" if lost else ""


def bootstrap_metrics(
    age: Ages, predicted: Ages, subject: NDArray[np.intp], resamples: int, rng: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """Draw subjects with replacement and compute every metric of every draw.

    A draw is a vector of counts per subject. All metrics but the rank correlation are functions of sums over scans,
    so that a chunk of draws costs one product of counts with per-subject sums; ranks are taken anew in every draw,
    since correlating the original ranks would give an interval of the wrong width.

    Args:
        age: Chronological ages in years, shape (n,).
        predicted: Predicted ages in years, shape (n,).
        subject: Each scan's subject as 0 … k−1, shape (n,).
        resamples: Number of draws.
        rng: Source of randomness.

    Returns:
        Metric → its value in each draw, shape (resamples,), NaN where a draw leaves it undefined.
    """
    sums = _sums_per_subject(age, predicted, subject)
    ranks = _RankCorrelation.of(age, predicted, subject)
    parts = []
    for counts in chunks_of_counts(len(sums), len(age), resamples, rng):
        values = _metrics_of_sums(counts @ sums, age.mean(), predicted.mean())
        parts.append({**values, "spearman_rho": ranks.of_draws(counts)})
    return {name: np.concatenate([part[name] for part in parts]) for name in METRICS}


def chunks_of_counts(n_subjects: int, n_scans: int, resamples: int, rng: np.random.Generator) -> Iterator[Counts]:
    """Draw subjects with replacement, so many draws at a time as stay in a core's cache.

    Args:
        n_subjects: To draw from; each draw takes as many.
        n_scans: That a pass over a draw touches.
        resamples: Number of draws.
        rng: Source of randomness; how draws are cut into chunks does not alter them.

    Yields:
        How often each subject was drawn, shape (draws, n_subjects).
    """
    chunk = max(1, COUNTS_PER_CHUNK // n_scans)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = rng.integers(0, n_subjects, size=(size, n_subjects)) + n_subjects * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n_subjects).reshape(size, n_subjects)


def _sums_per_subject(age: Ages, predicted: Ages, subject: NDArray[np.intp]) -> NDArray[np.float64]:
    a, p, error = age - age.mean(), predicted - predicted.mean(), predicted - age
    columns = (np.ones_like(a), a, p, a * a, p * p, a * p, np.abs(error), error**2)
    return np.column_stack([np.bincount(subject, weights=column) for column in columns])


def _metrics_of_sums(sums: NDArray[np.float64], age_mean: float, predicted_mean: float) -> dict[str, Ages]:
    n, a, p, aa, pp, ap, absolute, squared = sums.T
    # Sums of equal values cancel only up to rounding, so a relative floor tells "constant" from "hardly varying".
    ss_age = np.where(aa - a * a / n > 1e-12 * aa, aa - a * a / n, np.nan)
    ss_predicted = np.where(pp - p * p / n > 1e-12 * pp, pp - p * p / n, np.nan)
    covariation = ap - a * p / n
    slope = covariation / ss_age
    return {
        "mae": absolute / n,
        "rmse": np.sqrt(squared / n),
        "r2": 1 - squared / ss_age,
        "pearson_r": np.clip(covariation / np.sqrt(ss_age * ss_predicted), -1.0, 1.0),
        "calibration_slope": slope,
        "calibration_intercept": predicted_mean + p / n - slope * (age_mean + a / n),
    }


@dataclass(frozen=True)
class _MidRanks:
    """One variable's order, from which mid-ranks of any multiset of its scans follow by a cumulative sum."""

    order: NDArray[np.intp]
    first_of_tie: NDArray[np.intp]
    tie_of_sorted: NDArray[np.intp]

    @classmethod
    def of(cls, values: Ages) -> _MidRanks:
        order = np.argsort(values, kind="stable")
        is_first = np.append(True, np.diff(values[order]) > 0)
        return cls(order, np.flatnonzero(is_first), np.cumsum(is_first) - 1)

    @property
    def is_tied(self) -> bool:
        return len(self.first_of_tie) < len(self.order)

    def tie_counts(self, weights: Counts) -> Counts:
        """How often each different value was drawn, in order of value, shape (ties, draws)."""
        in_order = weights.take(self.order, axis=0)
        return np.add.reduceat(in_order, self.first_of_tie, axis=0) if self.is_tied else in_order

    def of_scans(self, tie_counts: Counts, scans: Counts) -> Counts:
        """Mid-ranks less their mean, in order of value, shape (n, draws)."""
        ranks = np.cumsum(tie_counts, axis=0)
        tie_counts *= tie_counts.dtype.type(0.5)
        ranks -= tie_counts
        ranks -= (scans / 2).astype(ranks.dtype)
        return ranks.take(self.tie_of_sorted, axis=0) if self.is_tied else ranks


@dataclass(frozen=True)
class _RankCorrelation:
    """Spearman's rho of draws that are given as counts; scans are kept in the order of age."""

    subject: NDArray[np.intp]
    age: _MidRanks
    predicted: _MidRanks

    @classmethod
    def of(cls, age: Ages, predicted: Ages, subject: NDArray[np.intp]) -> _RankCorrelation:
        by_age = np.argsort(age, kind="stable")
        return cls(subject[by_age], _MidRanks.of(age[by_age]), _MidRanks.of(predicted[by_age]))

    def of_draws(self, counts: Counts) -> Draws:
        scans = counts @ np.bincount(self.subject)
        kind = np.float32 if scans.max() < MOST_SCANS_IN_FLOAT32 else np.float64
        weights = np.ascontiguousarray(counts.T, dtype=kind).take(self.subject, axis=0)
        tied = [which.tie_counts(weights) for which in (self.age, self.predicted)]
        cubes = [_sum_of_cubes(t) for t in (tied if self.age.is_tied or self.predicted.is_tied else tied[:1])]
        age_ranks = self.age.of_scans(tied[0], scans)
        age_ranks *= weights
        predicted_ranks = self.predicted.of_scans(tied[1], scans)
        products = (age_ranks.take(self.predicted.order, axis=0), predicted_ranks)
        covariation = np.einsum("ij,ij->j", *products, dtype=np.float64)
        # Mid-ranks have a sum of squares of (n³ − Σt³)/12 about their mean (Kendall 1945).
        n = scans.astype(np.float64)
        spread = (n**3 - cubes[0]) * (n**3 - cubes[-1]) / 144
        return np.clip(covariation / np.sqrt(np.where(spread > 0, spread, np.nan)), -1.0, 1.0)


def _sum_of_cubes(counts: Counts) -> Draws:
    return np.asarray(np.einsum("ij,ij,ij->j", counts, counts, counts, dtype=np.float64))
