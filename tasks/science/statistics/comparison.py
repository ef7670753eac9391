"""Two predictors on the same people: is one better, beyond what another draw of people would change?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from .bootstrap import chunks_of_counts, levels_of, natural_order, subject_keys
from .multiplicity import holm

MIN_SUBJECTS = 3
# With fewer subjects the exact signed-rank test cannot fall below p = 0.05, whatever they show.
FEWEST_FOR_WILCOXON = 6
# A spread this small beside the errors themselves is rounding, not variance.
RELATIVE_ROUNDING = 1e-9
NAN = float("nan")
COLUMNS = [
    "model", "reference", "n_subjects", "n_scans", "n_unpaired", "mae", "reference_mae", "difference", "ci_low",
    "ci_high", "se", "t", "df", "p_t", "p_t_holm", "wilcoxon", "p_wilcoxon", "p_wilcoxon_holm", "note",
]  # fmt: skip

Draws = NDArray[np.float64]


def paired_mae_difference(
    predictions: pd.DataFrame, other_age_years: ArrayLike, resamples: int = 10_000, seed: int = 0
) -> dict[str, Any]:
    """Compare two predictors' absolute errors, pair by pair, so that what makes a scan hard for both cancels.

    Separate intervals of two errors overlap long before the difference is in doubt.

    Args:
        predictions: Columns `participant_id`, `age_years`, `predicted_age_years`; one row per scan.
        other_age_years: The other predictor's ages, in the order of the rows.
        resamples: Draws of subjects, with replacement; a subject's sessions travel together.
        seed: Of the draws.

    Returns:
        `estimate` (MAE of the predictions minus that of the other, years; negative: the predictions are better),
        `ci_low` and `ci_high` (percentile 95%; NaN below 3 subjects), `n_subjects`, `n_scans` and `note`.

    Raises:
        ValueError: A value is not finite.

    Reference: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    age = predictions["age_years"].to_numpy(dtype=float)
    first = np.abs(predictions["predicted_age_years"].to_numpy(dtype=float) - age)
    difference = first - np.abs(np.asarray(other_age_years, dtype=float) - age)
    if not np.isfinite(difference).all():
        raise ValueError("ages and predictions must be finite numbers; leave out scans without a prediction.")
    subject, names = pd.factorize(subject_keys(predictions))
    result = {"estimate": float(difference.mean()), "n_subjects": len(names), "n_scans": len(difference)}
    if len(names) < MIN_SUBJECTS:
        return {**result, "ci_low": NAN, "ci_high": NAN, "note": "fewer than 3 subjects: no interval"}
    low, high = np.percentile(bootstrap_means(difference, subject, resamples, seed), [2.5, 97.5])
    return {**result, "ci_low": float(low), "ci_high": float(high), "note": ""}


def paired_mae_table(
    predictions: pd.DataFrame,
    other_age_years: ArrayLike,
    groups: Sequence[str] = (),
    resamples: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Do what `paired_mae_difference` does for the whole and for every level of groups.

    Args:
        predictions: As there, and the grouping columns; `age_band` is made where it is no column.
        other_age_years: The other predictor's ages, in the order of the rows.
        groups: Grouping columns.
        resamples: Draws of subjects.
        seed: Of the draws.

    Returns:
        One row per level, `overall` first: `group, level, n_subjects, n_scans, estimate, ci_low, ci_high, note`.
    """
    frame = predictions.reset_index(drop=True)
    other = np.asarray(other_age_years, dtype=float)
    rows = [{"group": "overall", "level": "all", **paired_mae_difference(frame, other, resamples, seed)}]
    for group in groups:
        levels = levels_of(frame, group)
        for level in sorted(levels.unique(), key=natural_order):
            inside = (levels == level).to_numpy()
            found = paired_mae_difference(frame[inside], other[inside], resamples, seed)
            rows.append({"group": group, "level": level, **found})
    return pd.DataFrame(rows)


def bootstrap_means(values: ArrayLike, subject: NDArray[np.intp], resamples: int, seed: int) -> Draws:
    """Draw subjects with replacement, each with all of its scans, and take the mean over the scans of each draw.

    Args:
        values: One per scan, shape (n,).
        subject: Each scan's subject as 0 … k−1, shape (n,).
        resamples: Number of draws.
        seed: Of the draws.

    Returns:
        Means, shape (resamples,).
    """
    sums = np.bincount(subject, weights=np.asarray(values, dtype=float))
    scans = np.bincount(subject).astype(float)
    chunks = chunks_of_counts(len(sums), len(sums), resamples, np.random.default_rng(seed))
    return np.concatenate([counts @ sums / (counts @ scans) for counts in chunks])


def compare_with_reference(
    errors: pd.DataFrame, reference: str, resamples: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """Test every model against one of them on the scans that both predicted, Holm over the models.

    The t-test takes its standard error from the bootstrap of subjects, `t = ΔMAE / SE_boot(ΔMAE)` with
    (subjects − 1) degrees of freedom, as in doi:10.1002/hbm.70425, so that sessions of one subject do not count as
    independent. The signed-rank test looks at each subject's mean absolute error; subjects without a difference say
    nothing and are left out (Wilcoxon 1945).

    Args:
        errors: One row per model and scan: `model, subject, scan, target_years, predicted_years`.
        reference: The model that the others are set against.
        resamples: Draws of subjects.
        seed: Of the draws; the same subjects are drawn for every model with the same scans.

    Returns:
        One row per other model, in order of appearance (see `COLUMNS`). `difference` is its MAE minus the
        reference's, in years, with a percentile interval; `n_unpaired` counts scans that only one of the two
        predicted. What could not be tested is NaN, and `note` says why.

    Raises:
        ValueError: A value is not finite, a scan is repeated within a model, or the reference is no model.
    """
    check_errors(errors)
    names = list(dict.fromkeys(errors["model"]))
    if reference not in names:
        raise ValueError(f"{reference!r} is none of the models; these are {', '.join(map(str, names)) or 'none'}.")
    base = errors[errors["model"] == reference]
    rows = [_compare(errors[errors["model"] == name], base, resamples, seed) for name in names if name != reference]
    table = pd.DataFrame(rows, columns=COLUMNS)
    for name in ("t", "wilcoxon"):
        table[f"p_{name}_holm"] = holm(table[f"p_{name}"].astype(float))
    return table


def check_errors(errors: pd.DataFrame) -> None:
    """Refuse tables of which a comparison would be a plausible but wrong figure.

    Raises:
        ValueError: A column is absent, a value is not finite, or a scan is repeated within a model.
    """
    needed = ("model", "subject", "scan", "target_years", "predicted_years")
    absent = [name for name in needed if name not in errors]
    if absent:
        raise ValueError(f"The table of errors lacks {', '.join(absent)}; it has {', '.join(map(str, errors))}.")
    numbers = errors[["target_years", "predicted_years"]].to_numpy(dtype=float)
    bad = int((~np.isfinite(numbers)).any(axis=1).sum())
    if bad:
        raise ValueError(
            f"{bad} of {len(errors)} rows have a target or a prediction that is not finite. Leave such scans out and "
            "count them, so that a figure and its n agree."
        )
    repeated = errors[errors.duplicated(["model", "scan"])]
    if len(repeated):
        first = repeated.iloc[0]
        raise ValueError(f"{first['model']}: scan {first['scan']} occurs twice; keep one row per model and scan.")


def _compare(model: pd.DataFrame, base: pd.DataFrame, resamples: int, seed: int) -> dict[str, Any]:
    pairs = model.merge(base[["scan", "target_years", "predicted_years"]], on="scan", suffixes=("", "_base"))
    pairs = pairs.sort_values("scan", kind="stable", ignore_index=True)
    result: dict[str, Any] = dict.fromkeys(COLUMNS, NAN) | {
        "model": model["model"].iloc[0],
        "reference": base["model"].iloc[0],
        "n_subjects": int(pairs["subject"].nunique()),
        "n_scans": len(pairs),
        "n_unpaired": len(model) + len(base) - 2 * len(pairs),
    }
    if pairs.empty:
        return result | {"note": "no scan was predicted by both: no comparison"}
    if not np.allclose(pairs["target_years"], pairs["target_years_base"], rtol=0, atol=1e-9):
        return result | {"note": "the two models predict different targets: no comparison"}
    own = (pairs["predicted_years"] - pairs["target_years"]).abs().to_numpy()
    other = (pairs["predicted_years_base"] - pairs["target_years"]).abs().to_numpy()
    subject, _ = pd.factorize(pairs["subject"].astype(str))
    result |= {"mae": own.mean(), "reference_mae": other.mean(), "difference": (own - other).mean()}
    if result["n_subjects"] < MIN_SUBJECTS:
        return result | {"note": f"fewer than {MIN_SUBJECTS} subjects: no interval and no test"}
    draws = bootstrap_means(own - other, subject, resamples, seed)
    low, high = np.percentile(draws, [2.5, 97.5])
    tests = (_bootstrap_t(own, other, draws, result["n_subjects"] - 1), _signed_rank(own, other, subject))
    notes = [note for _, note in tests if note]
    return result | {"ci_low": low, "ci_high": high} | tests[0][0] | tests[1][0] | {"note": "; ".join(notes)}


def _bootstrap_t(own: Draws, other: Draws, draws: Draws, df: int) -> tuple[dict[str, float], str]:
    difference, se = float((own - other).mean()), float(draws.std(ddof=1))
    if not np.any(own != other):
        return {"se": 0.0}, "the two models' errors are equal on every scan: nothing to test"
    if se <= RELATIVE_ROUNDING * float(np.mean(own + other)):
        return {"se": se}, "the difference is the same for every subject, so it has no standard error: no t-test"
    t = difference / se
    return {"se": se, "t": t, "df": float(df), "p_t": float(2 * stats.t.sf(abs(t), df))}, ""


def _signed_rank(own: Draws, other: Draws, subject: NDArray[np.intp]) -> tuple[dict[str, float], str]:
    """Test each subject's mean absolute error; equal ones carry no sign."""
    scans = np.bincount(subject)
    gain = np.bincount(subject, weights=own - other) / scans
    size = np.bincount(subject, weights=own + other) / scans
    signed = gain[np.abs(gain) > RELATIVE_ROUNDING * size]
    if not len(signed):
        return {}, ""
    if len(signed) < MIN_SUBJECTS:
        return {}, f"only {len(signed)} subjects differ: no signed-rank test"
    found = stats.wilcoxon(signed)
    few = len(signed) < FEWEST_FOR_WILCOXON
    note = f"{len(signed)} subjects differ: the signed-rank test cannot fall below p = 0.05" if few else ""
    return {"wilcoxon": float(found.statistic), "p_wilcoxon": float(found.pvalue)}, note


def error_table(predictions: pd.DataFrame, model: str) -> pd.DataFrame:
    """Take a model's usable predictions as rows of the table that comparisons read.

    Models that look at different contrasts share no scan, so that what is paired is the session.

    Args:
        predictions: One row per session: `cohort, participant_id, session_id, target_years, predicted_age_years,
            status`.
        model: The model's name.

    Returns:
        `model, cohort, subject, scan, target_years, predicted_years` of rows with status `ok` and a known target. A
        subject is named with its cohort, since `sub-01` of one is not `sub-01` of another.
    """
    rows = predictions[(predictions["status"] == "ok") & predictions["target_years"].notna()]
    subjects = subject_keys(rows)
    return pd.DataFrame(
        {
            "model": model,
            "cohort": rows["cohort"].astype(str),
            "subject": subjects,
            "scan": subjects
            + "/"
            + rows["session_id"].astype(object).where(rows["session_id"].notna(), "").astype(str),
            "target_years": rows["target_years"].astype(float),
            "predicted_years": rows["predicted_age_years"].astype(float),
        }
    ).reset_index(drop=True)
