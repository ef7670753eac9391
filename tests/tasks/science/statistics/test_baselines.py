from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.science.statistics import baselines
from tasks.science.statistics.metrics import mae, r2


def training(n: int = 80) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    age = rng.uniform(20, 80, n)
    volume = 1500 - 4 * age + rng.normal(0, 60, n)
    fraction = 0.9 - 0.002 * age + rng.normal(0, 0.02, n)
    return pd.DataFrame({"age_years": age, "brain_volume_ml": volume, "brain_fraction": fraction})


def test_volume_baseline_is_least_squares() -> None:
    train = training()
    fit = baselines.fit_volume_baseline(train)
    design = np.column_stack([np.ones(len(train)), train.brain_volume_ml, train.brain_fraction])
    expected = np.linalg.lstsq(design, train.age_years, rcond=None)[0]
    assert [fit.intercept_years, fit.years_per_ml, fit.years_per_fraction] == pytest.approx(expected)
    assert baselines.predict_volume(fit, train) == pytest.approx(design @ expected)
    assert r2(train.age_years, baselines.predict_volume(fit, train)) > 0.3


def test_a_fraction_that_is_the_volume_or_does_not_vary_changes_nothing() -> None:
    train = training()
    alone = np.polyval(np.polyfit(train.brain_volume_ml, train.age_years, 1), train.brain_volume_ml)
    for fraction in (train.brain_volume_ml / 4915.2, 0.25):
        table = train.assign(brain_fraction=fraction)
        predicted = baselines.predict_volume(baselines.fit_volume_baseline(table), table)
        assert predicted == pytest.approx(alone)


def test_constant_baselines() -> None:
    ages = [20.0, 30.0, 70.0]
    assert baselines.predict_constant(baselines.fit_mean_age(ages), 2) == pytest.approx([40.0, 40.0])
    assert baselines.fit_median_age(ages).age_years == 30.0
    assert mae(ages, baselines.predict_constant(baselines.fit_median_age(ages), 3)) < mae(ages, [40.0] * 3)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="needs a column brain_fraction"):
        baselines.fit_volume_baseline(training().drop(columns="brain_fraction"))
    with pytest.raises(ValueError, match="brain_volume_ml holds 80 of 80"):
        baselines.fit_volume_baseline(training().assign(brain_volume_ml=np.nan))
    with pytest.raises(ValueError, match="at least 3"):
        baselines.fit_volume_baseline(training(2))
    with pytest.raises(ValueError, match="0 values"):
        baselines.fit_mean_age([])
