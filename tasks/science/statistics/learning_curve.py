"""Error against the number of training subjects, for several ways of training on the same budget."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .comparison import MIN_SUBJECTS, bootstrap_means, check_errors, compare_with_reference
from .multiplicity import holm

NAN = float("nan")
COLUMNS = [
    "family", "budget", "n_train", "model", "n_subjects", "n_scans", "mae", "ci_low", "ci_high", "reference",
    "n_paired", "difference", "difference_ci_low", "difference_ci_high", "p_t", "p_t_holm", "note",
]  # fmt: skip


def learning_curve(
    errors: pd.DataFrame, models: pd.DataFrame, reference_family: str, resamples: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """Set the error of each model family by training size, and pair it with the reference family at equal size.

    What a smaller training set costs, and whether one way of training needs fewer scans than another, shows only
    where the test subjects are the same and the differences are paired.

    Args:
        errors: One row per model and scan: `model, subject, scan, target_years, predicted_years`.
        models: `model, family, n_train`; families name what differs other than the training size. `budget` is the
            size that was asked for, by which models are paired; without it, `n_train` is. One model per family and
            budget.
        reference_family: The family that the others are paired with.
        resamples: Draws of subjects.
        seed: Of the draws.

    Returns:
        One row per model, by family in order of appearance and by size (`COLUMNS`): MAE in years with a percentile
        interval over subjects, and the paired difference from the reference family at the same size (NaN, with a
        note, where there is none), its bootstrap-SE t-test (see `compare_with_reference`), Holm over the curve.

    Raises:
        ValueError: A value is not finite, a scan is repeated, or a family has two models of one size.
    """
    check_errors(errors)
    models = models if "budget" in models else models.assign(budget=models["n_train"])
    twice = models[models.duplicated(["family", "budget"])]
    if len(twice):
        first = twice.iloc[0]
        raise ValueError(f"Family {first['family']!r} has two models of the size {first['budget']}; give one.")
    references = models[models["family"] == reference_family].set_index("budget")["model"].to_dict()
    order = {name: place for place, name in enumerate(dict.fromkeys(models["family"]))}
    ordered = models.assign(place=models["family"].map(order)).sort_values(["place", "n_train"], kind="stable")
    rows = []
    for spec in ordered.to_dict("records"):
        mine = errors[errors["model"] == spec["model"]]
        row = dict.fromkeys(COLUMNS, NAN) | {name: spec[name] for name in ("family", "budget", "n_train", "model")}
        row |= _mae(mine, resamples, seed)
        reference = references.get(spec["budget"])
        if spec["family"] != reference_family:
            row |= _difference(errors, spec["model"], reference, resamples, seed, row["note"])
        rows.append(row)
    table = pd.DataFrame(rows, columns=COLUMNS)
    table["p_t_holm"] = holm(table["p_t"].astype(float))
    return table


def _mae(rows: pd.DataFrame, resamples: int, seed: int) -> dict[str, object]:
    subject, names = pd.factorize(rows["subject"].astype(str))
    found: dict[str, object] = {"n_subjects": len(names), "n_scans": len(rows), "note": ""}
    if rows.empty:
        return found | {"note": "no predictions"}
    size = (rows["predicted_years"] - rows["target_years"]).abs().to_numpy(float)
    found["mae"] = float(size.mean())
    if len(names) < MIN_SUBJECTS:
        return found | {"note": f"fewer than {MIN_SUBJECTS} subjects: no interval"}
    low, high = np.percentile(bootstrap_means(size, subject, resamples, seed), [2.5, 97.5])
    return found | {"ci_low": float(low), "ci_high": float(high)}


def _difference(
    errors: pd.DataFrame, model: str, reference: str | None, resamples: int, seed: int, note: object
) -> dict[str, object]:
    both = errors[errors["model"].isin([model, reference])]
    if reference is None or both["model"].nunique() < 2:
        said = [str(note)] if note else []
        return {"note": "; ".join([*said, "the reference family has no model of this size"])}
    found = compare_with_reference(both, reference, resamples, seed).iloc[0]
    return {
        "reference": reference,
        "n_paired": int(found["n_subjects"]),
        "difference": found["difference"],
        "difference_ci_low": found["ci_low"],
        "difference_ci_high": found["ci_high"],
        "p_t": found["p_t"],
        "note": "; ".join(dict.fromkeys(text for text in (str(note), str(found["note"])) if text)),
    }
