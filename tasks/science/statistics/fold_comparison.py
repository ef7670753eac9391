"""Several models over the same cross-validation folds: do they differ, which ones, and by how much?

Folds of one cohort share training scans, so that their figures are not independent and tests that take them for so
find differences too often (Nadeau & Bengio 2003). The tests that papers report (one-way ANOVA, t, Mann-Whitney U) are
given as they are defined, and the corrected resampled t-test stands beside them: read that one.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from .effect_size import RELATIVE_ROUNDING, cohens_d
from .multiplicity import holm

MIN_FOLDS = 3
NAN = float("nan")
ANOVA_COLUMNS = ["metric", "n_models", "n_folds", "f", "df_between", "df_within", "p_value", "eta2", "note"]
PAIR_COLUMNS = [
    "metric", "model", "other", "n_folds", "mean", "other_mean", "difference", "t", "df", "p_t", "p_t_holm",
    "t_corrected", "p_corrected", "p_corrected_holm", "u", "p_u", "p_u_holm", "d", "d_ci_low", "d_ci_high", "note",
]  # fmt: skip

Values = NDArray[np.float64]


def anova_over_folds(folds: pd.DataFrame, metric: str = "mae") -> dict[str, Any]:
    """Ask whether any of several models differs, by one-way analysis of variance over folds.

    Args:
        folds: `model, repeat, fold` and the metric; see `fold_metrics`.
        metric: Column to compare.

    Returns:
        `ANOVA_COLUMNS`; `n_folds` counts all models' folds that have the metric, `eta2` is the share of the variance
        that lies between models. `f` and `p_value` are NaN where `note` says why.
    """
    groups = {str(name): values for name, values in _values_by_model(folds, metric).items() if len(values)}
    n = sum(map(len, groups.values()))
    result = dict.fromkeys(ANOVA_COLUMNS, NAN) | {"metric": metric, "n_models": len(groups), "n_folds": n}
    small = [name for name, values in groups.items() if len(values) < MIN_FOLDS]
    if len(groups) < 2:
        return result | {"note": "fewer than two models have folds: nothing to compare"}
    if small:
        return result | {"note": f"fewer than {MIN_FOLDS} folds of {', '.join(small)}: no test"}
    everything = np.concatenate(list(groups.values()))
    within = sum(float(((values - values.mean()) ** 2).sum()) for values in groups.values())
    total = float(((everything - everything.mean()) ** 2).sum())
    result |= {"df_between": len(groups) - 1, "df_within": n - len(groups)}
    if np.sqrt(within) <= RELATIVE_ROUNDING * max(float(np.abs(everything).max()), np.finfo(float).tiny):
        same = np.sqrt(total) <= RELATIVE_ROUNDING * max(float(np.abs(everything).max()), np.finfo(float).tiny)
        what = "all folds of all models are equal" if same else "no scatter within the models' folds"
        return result | {"note": f"{what}: no test"}
    found = stats.f_oneway(*groups.values())
    return result | {
        "f": float(found.statistic),
        "p_value": float(found.pvalue),
        "eta2": 1 - within / total,
        "note": "",
    }


def compare_folds_pairwise(folds: pd.DataFrame, metric: str = "mae") -> pd.DataFrame:
    """Test every pair of models over folds, Holm over the pairs for each test.

    - `t`: the paired t-test over the folds that both models have, of the same scans.
    - `t_corrected`: the same with the variance of overlapping training sets,
      `t = mean(δ) / √((1/J + n_test/n_train) · var(δ))`, J − 1 degrees of freedom (see `corrected_resampled_t`).
    - `u`: Mann-Whitney U, which takes the folds as unpaired.
    - `d`: Cohen's d with a 95% interval, by the pooled SD over folds (see `cohens_d`).

    Args:
        folds: `model, repeat, fold, n`, the metric, and where they are known `n_train` (without it, a fold is taken
            to have been trained on all other folds of its repeat) and `scans`, which says whose fold it is.
        metric: Column to compare.

    Returns:
        One row per pair, in order of appearance (`PAIR_COLUMNS`); `difference` is `mean − other_mean` over each
        model's folds, `n_folds` counts those that are paired. What could not be tested is NaN and `note` says why.

    Raises:
        ValueError: A model has a fold twice.
    """
    repeated = folds[folds.duplicated(["model", "repeat", "fold"])]
    if len(repeated):
        first = repeated.iloc[0]
        raise ValueError(f"{first['model']} has fold {first['fold']} of repeat {first['repeat']} twice; keep one row.")
    names = list(dict.fromkeys(folds["model"]))
    by_model = {name: part.set_index(["repeat", "fold"]) for name, part in folds.groupby("model", sort=False)}
    rows = [_pair(a, b, by_model[a], by_model[b], metric) for a, b in combinations(names, 2)]
    table = pd.DataFrame(rows, columns=PAIR_COLUMNS)
    for name in ("t", "corrected", "u"):
        table[f"p_{name}_holm"] = holm(table[f"p_{name}"].astype(float))
    return table


def corrected_resampled_t(differences: Values, test_train_ratio: float) -> tuple[float, float]:
    """Test a mean difference over resampled splits whose training sets overlap.

    The plain variance of the mean, var/J, ignores that folds share most of their training data; Nadeau and Bengio add
    the ratio of test to training size, `t = mean(δ) / √((1/J + n_test/n_train) · var(δ))` with J − 1 degrees of
    freedom. Over r repeats of k folds J = r·k (Bouckaert & Frank 2004).

    Args:
        differences: Of a metric between two models, one per fold, shape (J,); not all equal.
        test_train_ratio: Mean n_test / n_train over the folds.

    Returns:
        t and the two-sided p value.

    Reference: Nadeau & Bengio 2003, doi:10.1023/A:1024068626366; Bouckaert & Frank 2004,
    doi:10.1007/978-3-540-24775-3_3.
    """
    n = len(differences)
    t = float(np.mean(differences) / np.sqrt((1 / n + test_train_ratio) * np.var(differences, ddof=1)))
    return t, float(2 * stats.t.sf(abs(t), n - 1))


def _values_by_model(folds: pd.DataFrame, metric: str) -> dict[Any, Values]:
    parts = folds.groupby("model", sort=False)[metric]
    return {name: values.to_numpy(float)[np.isfinite(values.to_numpy(float))] for name, values in parts}


def _pair(name: Any, other: Any, a: pd.DataFrame, b: pd.DataFrame, metric: str) -> dict[str, Any]:
    own, its = (table[metric].astype(float).replace([np.inf, -np.inf], np.nan).dropna() for table in (a, b))
    shared, notes = _shared_folds(own, its, a, b, metric)
    result: dict[str, Any] = dict.fromkeys(PAIR_COLUMNS, NAN)
    result |= {"metric": metric, "model": name, "other": other, "n_folds": len(shared)}
    if min(len(own), len(its)) < MIN_FOLDS:
        return result | {"note": "; ".join([*notes, f"fewer than {MIN_FOLDS} folds of a model: no test"])}
    first, second = np.asarray(own, dtype=float), np.asarray(its, dtype=float)
    result |= {"mean": first.mean(), "other_mean": second.mean(), "difference": first.mean() - second.mean()}
    if len(first) == len(second) and np.array_equal(first, second):
        return result | {"note": "; ".join([*notes, "the two models are equal in every fold: nothing to test"])}
    u = stats.mannwhitneyu(first, second, alternative="two-sided")
    size = cohens_d(first, second)
    result |= {"u": float(u.statistic), "p_u": float(u.pvalue)}
    result |= {"d": size.d, "d_ci_low": size.ci_low, "d_ci_high": size.ci_high}
    paired, note = _paired_tests(own.loc[shared], its.loc[shared], _test_train_ratio(a.loc[shared], a))
    return result | paired | {"note": "; ".join([*notes, *filter(None, (size.note, note))])}


def _shared_folds(
    own: pd.Series, its: pd.Series, a: pd.DataFrame, b: pd.DataFrame, metric: str
) -> tuple[pd.Index, list[str]]:
    """The folds that both models have, of the same scans where it is known which those are."""
    shared = own.index.intersection(its.index)
    undefined = len(a) + len(b) - len(own) - len(its)
    lost = len(own) + len(its) - 2 * len(shared)
    notes = [f"{undefined} folds have no {metric}"] if undefined else []
    notes += [f"{lost} folds are of one model only"] if lost else []
    if "scans" in a and "scans" in b:
        same = (a.loc[shared, "scans"] == b.loc[shared, "scans"]).to_numpy()
        notes += (
            [f"{(~same).sum()} folds hold other scans in the two models and are not paired"] if not same.all() else []
        )
        shared = shared[same]
    return shared, notes


def _paired_tests(own: pd.Series, its: pd.Series, ratio: float) -> tuple[dict[str, float], str]:
    if len(own) < MIN_FOLDS:
        return {}, f"fewer than {MIN_FOLDS} shared folds: no t-test"
    difference = own.to_numpy(dtype=float) - its.to_numpy(dtype=float)
    if difference.std() <= RELATIVE_ROUNDING * float(own.abs().max() + its.abs().max()):
        return {}, "the difference is the same in every fold: no t-test"
    t = stats.ttest_rel(own, its)
    found = {"t": float(t.statistic), "df": float(len(own) - 1), "p_t": float(t.pvalue)}
    if not np.isfinite(ratio):
        return found, "the size of the training sets is not known: no corrected test"
    found["t_corrected"], found["p_corrected"] = corrected_resampled_t(difference, ratio)
    return found, ""


def _test_train_ratio(used: pd.DataFrame, all_folds: pd.DataFrame) -> float:
    """Mean n_test / n_train; where n_train is not given, a fold was trained on the rest of its repeat."""
    n = used["n"].astype(float)
    if len(used) and "n_train" in used and used["n_train"].notna().all():
        return float((n / used["n_train"].astype(float)).mean())
    totals = all_folds["n"].astype(float).groupby(level="repeat").sum()
    rest = totals.loc[used.index.get_level_values("repeat")].to_numpy() - n.to_numpy()
    return float((n.to_numpy() / rest).mean()) if len(rest) and (rest > 0).all() else NAN
