"""Whether the images and predictions of another cohort still look like those of the training reference.

A model errs where its input has moved away from what it was trained on, and its error needs labels that a new site may
not have; the input needs none. A shift is said by its size, not by its p value alone: among thousands of scans every
scanner differs significantly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from .conformal import one_scan_per_subject
from .effect_size import cohens_d
from .multiplicity import holm

FEWEST = 3
SIGNIFICANCE = 0.05
# Cohen 1988 calls this a medium difference; two normal distributions so far apart overlap by 80%.
LARGE_DIFFERENCE = 0.5
# Two normal distributions of equal spread that lie 0.64 of it apart; or of equal mean, one three times as wide.
LARGE_DISTANCE = 0.25
NORMAL_95 = 1.959963984540054
NAN = float("nan")
COLUMNS = [
    "cohort", "figure", "n_reference", "n", "n_missing", "mean_reference", "mean", "smd", "ci_low", "ci_high", "ks",
    "p_ks", "p_ks_holm", "shifted", "note",
]  # fmt: skip


def shift_table(
    reference: pd.DataFrame, cohorts: Mapping[str, pd.DataFrame], figures: Iterable[str] | None = None
) -> pd.DataFrame:
    """Set each figure of each cohort against the training reference.

    One scan per subject counts, the first, since sessions of one person are alike. A figure is called shifted where
    the Kolmogorov-Smirnov test says so after Holm over the cohort's figures *and* the difference is large: the means
    lie half a standard deviation apart, or the distribution functions a quarter.

    Args:
        reference: One row per scan: `participant_id`, and a column per figure; NaN where it was not measured. For
            brain-PAD these are scans of the calibration part: training predictions fit too well to compare with.
        cohorts: Name → likewise.
        figures: Columns to compare; left out, every numeric column that the reference and a cohort share.

    Returns:
        One row per cohort and figure (`COLUMNS`): `smd` is the mean minus the reference's in pooled standard
        deviations (Cohen's d) with its 95% interval, `ks` the largest distance of the two distribution functions.
        What could not be compared is NaN, not shifted, and `note` says why.

    Raises:
        ValueError: A named figure is no column of the reference.

    Reference: Massey 1951, doi:10.1080/01621459.1951.10500769; Cohen 1988, Statistical Power Analysis, chapter 2.
    """
    named = list(figures) if figures is not None else _numeric(reference)
    absent = [name for name in named if name not in reference]
    if absent:
        raise ValueError(f"The reference lacks {', '.join(absent)}; it has {', '.join(map(str, reference.columns))}.")
    base = _first_scans(reference)
    rows: list[dict[str, Any]] = []
    for cohort, table in cohorts.items():
        own = _first_scans(table)
        found = [{"cohort": cohort, **_compared(name, base[name], own[name])} for name in named if name in own]
        adjusted = holm(pd.Series([row["p_ks"] for row in found], dtype=float))
        for row, p in zip(found, adjusted, strict=True):
            large = abs(row["smd"]) >= LARGE_DIFFERENCE or row["ks"] >= LARGE_DISTANCE
            rows.append(row | {"p_ks_holm": float(p), "shifted": bool(p < SIGNIFICANCE and large)})
    return pd.DataFrame(rows, columns=COLUMNS)


def _numeric(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table.columns if pd.api.types.is_numeric_dtype(table[name])]


def _first_scans(table: pd.DataFrame) -> pd.DataFrame:
    return one_scan_per_subject(table) if "participant_id" in table and len(table) else table


def _compared(figure: str, reference: ArrayLike, other: ArrayLike) -> dict[str, Any]:
    base, own = _measured(reference), _measured(other)
    result: dict[str, Any] = dict.fromkeys(COLUMNS[1:], NAN) | {
        "figure": figure,
        "n_reference": len(base),
        "n": len(own),
        "n_missing": len(np.asarray(other)) - len(own),
        "mean_reference": float(base.mean()) if len(base) else NAN,
        "mean": float(own.mean()) if len(own) else NAN,
        "note": "",
    }
    if min(len(base), len(own)) < FEWEST:
        return result | {"note": f"fewer than {FEWEST} subjects: not compared"}
    test = stats.ks_2samp(base, own)
    found = {"ks": float(test.statistic), "p_ks": float(test.pvalue)}
    return result | found | _standardised(own, base)


def _standardised(own: NDArray[np.float64], base: NDArray[np.float64]) -> dict[str, Any]:
    effect = cohens_d(own, base)
    low, high, note = effect.ci_low, effect.ci_high, effect.note
    if np.isfinite(effect.d) and not np.isfinite([low, high]).all():
        # The noncentral t distribution is not computed so far out; many subjects make the estimate normal.
        n, m = len(own), len(base)
        reach = NORMAL_95 * float(np.sqrt((n + m) / (n * m) + effect.d**2 / (2 * (n + m))))
        low, high, note = effect.d - reach, effect.d + reach, "large-sample interval (Hedges & Olkin 1985)"
    if np.isnan(effect.d) and own[0] == base[0]:
        note = "the same value everywhere"
    return {"smd": effect.d, "ci_low": low, "ci_high": high, "note": note}


def _measured(values: ArrayLike) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    return numbers[np.isfinite(numbers)]
