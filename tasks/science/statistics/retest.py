"""How far the model disagrees with itself when the same person is scanned again.

Brain-PAD is compared, not predicted age: between two sessions people age, and over a cohort of wide ages any predictor
orders people alike, so that the agreement of predicted ages mostly says how wide the ages spread. Both are given.
Sessions further apart than a study's limit are longitudinal: their differences may be the disease's.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from .bootstrap import MIN_SUBJECTS_FOR_INTERVAL
from .selection import ordered_sessions

DAYS_PER_YEAR = 365.25
# Of the difference of two measurements, in within-subject standard deviations (Bland & Altman 1996).
REPEATABILITY = 1.959963984540054 * 2**0.5
NAN = float("nan")
QUANTITIES = {"brain-PAD": "pad_years", "predicted age": "predicted_age_years"}
PAIR_COLUMNS = [
    "cohort", "participant_id", "scan_id", "session_id", "other_session_id", "interval_days", "age_years",
    "other_age_years", "predicted_age_years", "other_predicted_age_years", "pad_years", "other_pad_years",
]  # fmt: skip
COLUMNS = [
    "cohort", "quantity", "n_subjects", "interval_days", "interval_days_longest", "icc", "icc_ci_low", "icc_ci_high",
    "within_sd_years", "within_sd_ci_low", "within_sd_ci_high", "repeatability_years", "mean_change_years",
    "n_longitudinal", "n_unknown", "note",
]  # fmt: skip


def retest_pairs(predictions: pd.DataFrame, most_days: float) -> tuple[pd.DataFrame, dict[str, tuple[int, int]]]:
    """Pair each subject's first two sessions that lie close together.

    Ages that are whole years date a session to the year only, so that two sessions of one such age may lie a year
    apart: they are no pair, unless the limit is a year or more.

    Args:
        predictions: One row per session: `cohort, participant_id, session_id, age_years` (the target),
            `predicted_age_years`, and `years_since_baseline` where it is known.
        most_days: Sessions at most this far apart are a test and its retest.

    Returns:
        One row per subject with such a pair (`PAIR_COLUMNS`; `scan_id` is the first scan's), and by cohort how many
        subjects have repeated sessions of which none lie close enough, and of which none can be dated well enough.
    """
    if predictions.empty:
        return pd.DataFrame(columns=PAIR_COLUMNS), {}
    rows: list[dict[str, Any]] = []
    left: dict[str, tuple[int, int]] = {}
    repeated = predictions[predictions.duplicated(["cohort", "participant_id"], keep=False)]
    for cohort, table in ordered_sessions(repeated).groupby("cohort", sort=False):
        longitudinal = unknown = 0
        for _, sessions in table.groupby("participant_id", sort=False):
            intervals = [_interval_days(first, second) for first, second in _neighbours(sessions)]
            close = [place for place, days in enumerate(intervals) if days <= most_days]
            if close:
                rows.append(_pair(*_neighbours(sessions)[close[0]], intervals[close[0]]))
            elif np.isnan(intervals).all():
                unknown += 1
            else:
                longitudinal += 1
        left[str(cohort)] = (longitudinal, unknown)
    return pd.DataFrame(rows, columns=PAIR_COLUMNS), left


def _neighbours(sessions: pd.DataFrame) -> list[tuple[dict[Any, Any], dict[Any, Any]]]:
    rows = sessions.to_dict("records")
    return list(pairwise(rows))


def _interval_days(first: dict[Any, Any], second: dict[Any, Any]) -> float:
    """NaN where it is not known, or to the year only."""
    times = [row.get("years_since_baseline", NAN) for row in (first, second)]
    ages = [float(row["age_years"]) for row in (first, second)]
    by_age = bool(pd.isna(times).any())
    apart_years = float(np.subtract(*(ages if by_age else times)))
    to_the_year = by_age and apart_years == 0 and all(age.is_integer() for age in ages)
    return DAYS_PER_YEAR if to_the_year else abs(apart_years) * DAYS_PER_YEAR


def _pair(first: dict[Any, Any], second: dict[Any, Any], days: float) -> dict[str, Any]:
    pair = {name: first.get(name, "") for name in ("cohort", "participant_id", "scan_id")} | {"interval_days": days}
    for start, row in (("", first), ("other_", second)):
        age, predicted = float(row["age_years"]), float(row["predicted_age_years"])
        pair |= {
            f"{start}session_id": row.get("session_id", ""),
            f"{start}age_years": age,
            f"{start}predicted_age_years": predicted,
            f"{start}pad_years": predicted - age,
        }
    return pair


def retest_table(predictions: pd.DataFrame, most_days: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Say how well two sessions of one person agree, per cohort.

    Args:
        predictions: As for `retest_pairs`.
        most_days: Sessions at most this far apart count.

    Returns:
        One row per cohort with repeated sessions and quantity (`COLUMNS`): ICC(2,1) with its 95% interval; the
        within-subject standard deviation in years with its exact interval under normal errors; the repeatability
        coefficient, below which 95% of differences of two sessions lie; the mean change, which holds any drift between
        sessions. And the pairs.

    Reference: Shrout & Fleiss 1979, doi:10.1037/0033-2909.86.2.420; Bland & Altman 1996, doi:10.1136/bmj.313.7059.744.
    """
    pairs, left = retest_pairs(predictions, most_days)
    rows = []
    for cohort, (longitudinal, unknown) in left.items():
        own = pairs[pairs["cohort"] == cohort]
        if not len(own) and not longitudinal and not unknown:
            continue
        for quantity, column in QUANTITIES.items():
            facts = {"cohort": cohort, "quantity": quantity, "n_subjects": len(own)}
            facts |= {"n_longitudinal": longitudinal, "n_unknown": unknown}
            rows.append(facts | _agreement(own, column, most_days))
    return pd.DataFrame(rows, columns=COLUMNS), pairs


def _agreement(pairs: pd.DataFrame, column: str, most_days: float) -> dict[str, Any]:
    if len(pairs) < MIN_SUBJECTS_FOR_INTERVAL:
        return {"note": f"fewer than {MIN_SUBJECTS_FOR_INTERVAL} subjects with two sessions within {most_days:g} days"}
    scores = pairs[[column, f"other_{column}"]].to_numpy(dtype=float)
    days = pairs["interval_days"].to_numpy(dtype=float)
    icc, low, high = icc_2_1(scores)
    within, within_low, within_high = within_subject_sd(scores)
    return {
        "interval_days": float(np.median(days)),
        "interval_days_longest": float(days.max()),
        "icc": icc,
        "icc_ci_low": low,
        "icc_ci_high": high,
        "within_sd_years": within,
        "within_sd_ci_low": within_low,
        "within_sd_ci_high": within_high,
        "repeatability_years": REPEATABILITY * within,
        "mean_change_years": float((scores[:, 1] - scores[:, 0]).mean()),
        "note": "" if np.isfinite(icc) else "subjects do not differ: no ICC",
    }


def icc_2_1(scores: ArrayLike) -> tuple[float, float, float]:
    """Intraclass correlation of single measurements, absolute agreement, both ways random: ICC(2,1).

    `ICC = (BMS − EMS) / (BMS + (k−1)EMS + k(JMS − EMS)/n)` from the two-way analysis of variance of n subjects by k
    sessions: mean squares between subjects (BMS), between sessions (JMS) and of the residual (EMS). A drift between
    sessions lowers it, as it should; ICC(3,1) would forgive it. The interval is Shrout & Fleiss's (Satterthwaite).

    Args:
        scores: Shape (n, k), n and k at least 2, without gaps.

    Returns:
        The coefficient and its 95% interval, at most 1; NaN where all scores are equal.

    Raises:
        ValueError: The shape is too small or a value is not finite.

    Reference: Shrout & Fleiss 1979, doi:10.1037/0033-2909.86.2.420; McGraw & Wong 1996,
    doi:10.1037/1082-989X.1.1.30.

    >>> judges = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    >>> [round(value, 2) for value in icc_2_1(judges)]
    [0.29, 0.02, 0.76]
    """
    x = np.asarray(scores, dtype=np.float64)
    if x.ndim != 2 or min(x.shape) < 2 or not np.isfinite(x).all():
        raise ValueError(f"ICC(2,1) needs at least 2 subjects × 2 sessions of finite numbers; found shape {x.shape}.")
    n, k = x.shape
    between, sessions, residual = _mean_squares(x)
    below = between + (k - 1) * residual + k * (sessions - residual) / n
    if below <= 0 or between + sessions + residual <= 1e-18 * float(np.square(x).max() or 1.0):
        return NAN, NAN, NAN
    icc = (between - residual) / below
    if residual == 0:
        return icc, NAN, NAN
    ratio = sessions / residual
    a = k * ratio * icc + n * (1 + (k - 1) * icc) - k * icc
    df = (k - 1) * (n - 1) * a**2 / ((n - 1) * k**2 * icc**2 * ratio**2 + (n * (1 + (k - 1) * icc) - k * icc) ** 2)
    upper, lower = stats.f.ppf(0.975, n - 1, df), stats.f.ppf(0.975, df, n - 1)
    drift = k * sessions + (k * n - k - n) * residual
    low = n * (between - upper * residual) / (upper * drift + n * between)
    high = n * (lower * between - residual) / (drift + n * lower * between)
    return float(icc), float(low), float(high)


def _mean_squares(x: NDArray[np.float64]) -> tuple[float, float, float]:
    n, k = x.shape
    grand, rows, columns = x.mean(), x.mean(axis=1), x.mean(axis=0)
    between = k * np.square(rows - grand).sum() / (n - 1)
    sessions = n * np.square(columns - grand).sum() / (k - 1)
    residual = np.square(x - rows[:, None] - columns[None] + grand).sum() / ((n - 1) * (k - 1))
    return float(between), float(sessions), float(residual)


def within_subject_sd(scores: ArrayLike) -> tuple[float, float, float]:
    """Standard deviation of repeated measurements of one subject, `√(mean within-subject variance)`.

    Args:
        scores: Shape (n, k), k at least 2.

    Returns:
        It and its 95% interval, exact where errors are normal: `n(k−1)s²/σ²` is χ² with n(k−1) degrees of freedom.

    Reference: Bland & Altman 1996, doi:10.1136/bmj.313.7059.744.
    """
    x = np.asarray(scores, dtype=np.float64)
    freedom = x.shape[0] * (x.shape[1] - 1)
    squares = float(np.square(x - x.mean(axis=1, keepdims=True)).sum())
    low, high = (float(np.sqrt(squares / stats.chi2.ppf(level, freedom))) for level in (0.975, 0.025))
    return float(np.sqrt(squares / freedom)), low, high
