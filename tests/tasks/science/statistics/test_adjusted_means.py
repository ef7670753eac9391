from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.records import AssociationSpec
from tasks.science.statistics.adjusted_means import adjusted_means
from tasks.science.statistics.association import fit_association

from .made_up_clinic import FORMULA, cohort, spec


def test_differences_are_the_coefficients_and_intervals_come_from_hc3() -> None:
    fit = fit_association(spec(FORMULA), cohort())
    means = adjusted_means(fit, "diagnosis").set_index("level")["mean"]
    estimate = fit.coefficients.set_index("term")["estimate"]
    assert means["MS"] - means["HC"] == pytest.approx(estimate["diagnosis[MS]"])
    assert means["NMO"] - means["HC"] == pytest.approx(estimate["diagnosis[NMO]"])


def test_against_predictions_on_a_grid() -> None:
    table = cohort()
    fit = fit_association(spec("brain_pad_years ~ diagnosis * edss + age_years + sex"), table)
    b = fit.coefficients.set_index("term")["estimate"]
    base = b["Intercept"] + b["age_years"] * table.age_years.mean() + b["sex[M]"] / 2
    at_mean = table.edss.mean()
    expected = {
        "HC": base + b["edss"] * at_mean,
        "MS": base + b["diagnosis[MS]"] + (b["edss"] + b["diagnosis[MS]:edss"]) * at_mean,
    }
    means = adjusted_means(fit, "diagnosis").set_index("level")
    for level, value in expected.items():
        assert means.loc[level, "mean"] == pytest.approx(value)


def test_without_covariates_they_are_the_groups_means() -> None:
    table = cohort()
    fit = fit_association(spec("edss ~ diagnosis"), table)
    means = adjusted_means(fit)
    assert means["mean"].to_numpy() == pytest.approx(table.groupby("diagnosis").edss.mean().to_numpy())
    assert ((means.ci_low < means["mean"]) & (means["mean"] < means.ci_high)).all()
    sizes, sds = table.groupby("diagnosis").size(), table.groupby("diagnosis").edss.std()
    half = ((means.ci_high - means.ci_low) / 2).to_numpy()
    # HC3 of a group mean is s/√(n−1) × … : with one-hot groups, exactly √(Σe²)/(n−1).
    expected = np.sqrt(sds**2 * (sizes - 1)) / (sizes - 1) * 1.98761
    assert half == pytest.approx(expected.to_numpy(), rel=1e-4)


def test_mixed_models_have_them_too() -> None:
    fit = fit_association(spec("brain_pad_years ~ diagnosis + age_years", sessions="all"), cohort(40, sessions=2))
    assert np.isfinite(adjusted_means(fit)["mean"]).all()


def test_no_fit_no_means_and_an_unknown_term_is_a_mistake() -> None:
    unfitted = fit_association(AssociationSpec("m", FORMULA, ("nowhere",)), cohort())
    assert adjusted_means(unfitted).empty
    with pytest.raises(ValueError, match="'edss' is no categorical predictor of m; these are: diagnosis, sex"):
        adjusted_means(fit_association(spec(FORMULA), cohort()), "edss")
    assert adjusted_means(fit_association(spec("edss ~ age_years"), pd.DataFrame(cohort()))).empty
