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


@pytest.mark.parametrize(
    "options", [{"covariance": "HC2"}, {"sessions": "all"}, {"sessions": "all", "random_slope": "years_since_baseline"}]
)
def test_a_difference_from_the_reference_is_its_coefficient_in_every_figure(options: dict[str, str]) -> None:
    formula = FORMULA + (" + years_since_baseline" if "sessions" in options else "")
    table = cohort(60, sessions=3 if "sessions" in options else 1)
    # A covariate on which three people bear, which has few degrees of freedom of its own.
    table["edss"] = np.where(table.participant_id.isin(["sub-000", "sub-001", "sub-002"]), table.edss, 1.0)
    fit = fit_association(spec(formula, contrasts="holm", **options), table)
    own = fit.coefficients.set_index("term").loc["diagnosis[MS]"]
    told = fit.contrasts.set_index("contrast").loc["MS − HC"]
    for figure in ("estimate", "se", "df", "ci_low", "ci_high", "p_value"):
        assert told[figure] == pytest.approx(own[figure], rel=1e-6)


def test_ordinal_and_cox_models_have_differences_and_no_means() -> None:
    table = cohort(150)
    table["stage"] = pd.qcut(table.brain_pad_years, 4, labels=["1", "2", "3", "4"]).astype(str)
    table["came"], table["years"] = (table.edss > 3).astype(int), 1.0 + np.arange(150) % 7
    for formula, options in (
        ("stage ~ diagnosis + edss", {"outcome": "ordinal", "levels": ("1", "2", "3", "4")}),
        ("years ~ diagnosis + age_years", {"event": "came"}),
    ):
        fit = fit_association(spec(formula, contrasts="holm", **options), table)
        assert fit.adjusted_means.empty
        assert len(fit.contrasts) == 3
