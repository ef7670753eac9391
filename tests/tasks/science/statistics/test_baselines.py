from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from tasks.science.statistics import baselines
from tasks.science.statistics.metrics import mae, r2


def training(n: int = 80, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age = rng.uniform(20, 80, n)
    head = rng.normal(1, 0.1, n)
    grey, white = (750 - 3 * age + rng.normal(0, 25, n)) * head, (500 - 0.3 * age + rng.normal(0, 25, n)) * head
    csf = (180 + 2.5 * age + rng.normal(0, 25, n)) * head
    total = grey + white + csf
    parts = {"grey": grey, "white": white, "csf": csf}
    columns = {f"{name}_ml": part for name, part in parts.items()}
    return pd.DataFrame(
        {"age_years": age} | columns | {f"{name}_fraction": part / total for name, part in parts.items()}
    )


def test_volume_baseline_is_the_ridge_that_leaving_one_out_chooses() -> None:
    """Against scikit-learn, by brute force."""
    train = training(20)
    fit = baselines.fit_volume_baseline(train)
    columns = train[list(baselines.VOLUME_COLUMNS)].to_numpy()
    scaled = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    errors = {}
    for penalty in baselines.PENALTIES:
        model = Ridge(alpha=penalty * len(train), solver="svd")
        left_out = cross_val_predict(model, scaled, train.age_years, cv=LeaveOneOut())
        errors[penalty] = ((left_out - train.age_years) ** 2).mean()
    # Leaving a scan out also moves the mean by which columns are centred, hence the tolerance of one step.
    chosen = baselines.PENALTIES.index(fit.penalty)
    assert abs(chosen - baselines.PENALTIES.index(min(errors, key=errors.__getitem__))) <= 1
    expected = Ridge(alpha=fit.penalty * len(train), solver="svd").fit(scaled, train.age_years).predict(scaled)
    assert baselines.predict_volume(fit, train) == pytest.approx(expected)


def test_volumes_predict_new_people_and_noise_does_not_pretend_to() -> None:
    few, new = training(24), training(500, seed=1)
    predicted = baselines.predict_volume(baselines.fit_volume_baseline(few), new)
    assert r2(new.age_years, predicted) > 0.5
    shuffled = few.assign(age_years=np.random.default_rng(2).permutation(few.age_years))
    nothing = baselines.predict_volume(baselines.fit_volume_baseline(shuffled), new)
    assert mae(new.age_years, nothing) < 1.15 * mae(new.age_years, [few.age_years.mean()] * len(new))


def test_a_column_that_does_not_vary_changes_nothing() -> None:
    train = training().assign(white_fraction=0.35)
    fit = baselines.fit_volume_baseline(train)
    assert fit.years_per_unit[baselines.VOLUME_COLUMNS.index("white_fraction")] == 0
    assert np.isfinite(baselines.predict_volume(fit, train)).all()


def test_constant_baselines() -> None:
    ages = [20.0, 30.0, 70.0]
    assert baselines.predict_constant(baselines.fit_mean_age(ages), 2) == pytest.approx([40.0, 40.0])


def test_refusals() -> None:
    with pytest.raises(ValueError, match="needs a column grey_fraction"):
        baselines.fit_volume_baseline(training().drop(columns="grey_fraction"))
    with pytest.raises(ValueError, match="grey_ml holds 80 of 80"):
        baselines.fit_volume_baseline(training().assign(grey_ml=np.nan))
    with pytest.raises(ValueError, match="at least 3"):
        baselines.fit_volume_baseline(training(2))
    with pytest.raises(ValueError, match="0 values"):
        baselines.fit_mean_age([])
