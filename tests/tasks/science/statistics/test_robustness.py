from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.science.statistics.robustness import robustness_table


def worse(kind: str, strength: float, harm: float, n: int = 40, rejected: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    age = rng.uniform(20, 80, n)
    original = age + rng.normal(0, 4, n)
    table = pd.DataFrame({"cohort": "c", "participant_id": [f"s{i}" for i in range(n)], "age_years": age})
    table = table.assign(kind=kind, strength=strength, original_age_years=original, status="ok", turned_back=False)
    table["predicted_age_years"] = original + harm * np.sign(original - age)
    table.loc[: rejected - 1, ["status", "predicted_age_years"]] = ["rejected", np.nan]
    return table


def test_growth_is_the_paired_difference_on_the_same_scans() -> None:
    found = robustness_table(pd.concat([worse("noise", 0.1, 0.5), worse("noise", 0.3, 3.0)]), resamples=500)
    assert found["strength"].tolist() == [0.1, 0.3]
    assert found["growth_years"].tolist() == pytest.approx([0.5, 3.0])
    np.testing.assert_allclose(found["mae_years"] - found["mae_original_years"], found["growth_years"])
    # Everybody errs by as much more, so that the paired interval has no width, wide as the errors themselves are.
    assert (found["ci_high"] - found["ci_low"]).max() < 1e-9


def test_rejected_and_refused_scans_are_counted_and_in_no_error() -> None:
    table = worse("header_turn", 90.0, 0.0, n=10, rejected=6)
    table.loc[6, ["status", "predicted_age_years"]] = ["implausible-age", np.nan]
    table.loc[7:, "turned_back"] = True
    (row,) = robustness_table(table, resamples=100).to_dict("records")
    counted = {name: row[name] for name in ("n_subjects", "n_rejected", "n_turned_back", "n_unusable", "n_scored")}
    expected = {"n_subjects": 10, "n_rejected": 6, "n_turned_back": 3, "n_unusable": 1, "n_scored": 3}
    assert counted == expected
    (none,) = robustness_table(worse("noise", 9.0, 0.0, n=4, rejected=4), resamples=100).to_dict("records")
    assert none["note"] == "no scan has an age both times"
    assert np.isnan(none["growth_years"])
