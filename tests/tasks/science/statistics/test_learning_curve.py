"""Error over training size, paired at equal size."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.science.statistics.comparison import compare_with_reference
from tasks.science.statistics.learning_curve import learning_curve


def study(sizes: tuple[int, ...] = (50, 100, 200)) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(2)
    target = rng.uniform(20, 80, 40)
    errors, models = [], []
    for family, gain in (("regression", 0.0), ("rank-n-contrast", 1.5)):
        for size in sizes:
            name = f"{family}-{size}"
            models.append({"model": name, "family": family, "n_train": size})
            spread = 4 + 200 / size - gain
            errors.append(
                pd.DataFrame(
                    {
                        "model": name,
                        "subject": [f"sub-{n}" for n in range(40)],
                        "scan": range(40),
                        "target_years": target,
                        "predicted_years": target + rng.normal(0, spread, 40),
                    }
                )
            )
    return pd.concat(errors, ignore_index=True), pd.DataFrame(models)


def test_each_size_is_paired_with_the_reference_of_that_size() -> None:
    errors, models = study()
    curve = learning_curve(errors, models.iloc[::-1], "regression", resamples=500).set_index("model")
    pair = errors[errors["model"].isin(["regression-50", "rank-n-contrast-50"])]
    (direct,) = compare_with_reference(pair, "regression-50", resamples=500).to_dict("records")
    row = curve.loc["rank-n-contrast-50"]
    assert (row["difference"], row["difference_ci_low"], row["p_t"]) == pytest.approx(
        (direct["difference"], direct["ci_low"], direct["p_t"])
    )
    assert row["mae"] == pytest.approx(direct["mae"])
    assert curve.loc["regression-50", ["difference", "p_t"]].isna().all()
    assert curve.groupby("family", sort=False)["n_train"].apply(list).tolist() == [[50, 100, 200]] * 2
    assert (curve["ci_low"] < curve["mae"]).all()
    assert (curve["mae"] < curve["ci_high"]).all()


def test_a_size_without_a_reference_says_so() -> None:
    errors, models = study()
    curve = learning_curve(errors, models[models["model"] != "regression-100"], "regression", resamples=50)
    (row,) = curve[curve["model"] == "rank-n-contrast-100"].to_dict("records")
    assert "no model of this size" in row["note"]
    assert np.isnan(row["difference"])


def test_two_models_of_one_size_and_models_without_predictions() -> None:
    errors, models = study()
    with pytest.raises(ValueError, match="two models"):
        learning_curve(errors, pd.concat([models, models.iloc[:1].assign(model="x")]), "regression")
    curve = learning_curve(errors[errors["model"] != "rank-n-contrast-200"], models, "regression", resamples=50)
    (row,) = curve[curve["model"] == "rank-n-contrast-200"].to_dict("records")
    assert (row["n_subjects"], np.isnan(row["mae"])) == (0, True)
    assert row["note"].startswith("no predictions")
