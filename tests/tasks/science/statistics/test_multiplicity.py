from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from tasks.records import AssociationSpec
from tasks.science.statistics.association import fit_association
from tasks.science.statistics.multiplicity import add_fdr, benjamini_hochberg, holm

from .made_up_clinic import cohort


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_q_values_agree_with_statsmodels(p_values: list[float]) -> None:
    expected = multipletests(p_values, method="fdr_bh")[1]
    assert benjamini_hochberg(p_values) == pytest.approx(expected, abs=1e-12)


def test_q_values_by_hand() -> None:
    assert benjamini_hochberg([0.04, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])
    assert len(benjamini_hochberg([])) == 0


def test_bad_p_values_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        benjamini_hochberg([0.1, np.nan])


def test_the_family_is_every_term_of_interest_of_every_model() -> None:
    formulas = [
        "brain_pad_years ~ edss + age_years + sex",
        'brain_pad_years ~ C(diagnosis, ref="HC") + age_years',
        "edss ~ site + age_years",
        "brain_pad_years ~ age_years + sex",
    ]
    fits = [fit_association(AssociationSpec(f"m{i}", text, ("ms",)), cohort()) for i, text in enumerate(formulas)]
    unfitted = fit_association(AssociationSpec("none", formulas[0], ("nowhere",)), cohort())
    done = add_fdr([*fits, unfitted])
    p = np.concatenate([fit.coefficients.p_value[fit.coefficients.of_interest] for fit in fits])
    q = np.concatenate([fit.coefficients.q_value.dropna() for fit in done])
    assert len(p) == 4
    assert q == pytest.approx(multipletests(p, method="fdr_bh")[1])
    for fit in done:
        assert (fit.coefficients.q_value.notna() == fit.coefficients.of_interest).all()
    assert fits[0].coefficients.q_value.isna().all()
    assert done[-1].coefficients.empty


def test_no_models_at_all() -> None:
    assert add_fdr([]) == []


def test_holm_steps_down_from_the_smallest_and_leaves_out_what_was_not_tested() -> None:
    # By hand: sorted .005 ×4, .01 ×3, .03 ×2, .04 ×1, made monotone.
    assert holm([0.01, np.nan, 0.04, 0.03, 0.005]) == pytest.approx([0.03, np.nan, 0.06, 0.06, 0.02], nan_ok=True)
    p_values = np.random.default_rng(0).uniform(0, 0.2, 30).round(2)
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert np.isnan(holm([np.nan])).all()
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([1.2])
