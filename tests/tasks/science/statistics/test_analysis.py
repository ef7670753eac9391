from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tasks.science.statistics.analysis import EFFECT_COLUMNS, analyse
from tasks.science.statistics.multiplicity import benjamini_hochberg

from .made_up_clinic import FORMULA, cohort, spec


def test_models_of_one_family_are_corrected_together_and_apart_from_others() -> None:
    specs = [
        replace(spec(f"brain_pad_years ~ {name} + age_years"), name=name, family=family)
        for name, family in (("edss", "severity"), ("site", "severity"), ("sex", "who"))
    ]
    specs[2] = replace(specs[2], effects=("sex",))
    effects = analyse(specs, cohort()).effects.query("of_interest")
    assert list(effects.columns) == EFFECT_COLUMNS
    assert effects.q_value[:2].to_numpy() == pytest.approx(benjamini_hochberg(effects.p_value[:2]))
    assert effects.q_value.iloc[2] == effects.p_value.iloc[2]


def test_a_model_that_was_not_fitted_is_a_row_that_says_why() -> None:
    effects = analyse([spec(FORMULA, where={"diagnosis": ("nobody",)})], cohort()).effects
    assert len(effects) == 1
    assert effects.term.isna().all()
    assert effects.problems[0][0].startswith("Not fitted")
    assert effects.n_dropped[0] == 90


def test_no_models_are_an_empty_table() -> None:
    assert list(analyse([], cohort()).effects.columns) == EFFECT_COLUMNS


def test_tukey_and_holm_contrasts() -> None:
    table = cohort()
    tukey = analyse([spec("edss ~ diagnosis", covariance="nonrobust")], table).fits[0].contrasts
    samples = [table.edss[table.diagnosis == level] for level in ("HC", "MS", "NMO")]
    expected = stats.tukey_hsd(*samples)
    pairs = [(1, 0), (2, 0), (2, 1)]
    assert list(tukey.contrast) == ["MS − HC", "NMO − HC", "NMO − MS"]
    assert tukey.p_adjusted.to_numpy() == pytest.approx([expected.pvalue[pair] for pair in pairs], abs=1e-6)
    interval = expected.confidence_interval()
    assert tukey.ci_high.to_numpy() == pytest.approx([interval.high[pair] for pair in pairs], abs=1e-6)
    stepped = analyse([spec("edss ~ diagnosis", contrasts="holm")], table).fits[0].contrasts
    assert (stepped.p_adjusted >= stepped.p_value).all()
    assert np.isclose(stepped.p_adjusted, 3 * stepped.p_value).any() or stepped.p_adjusted.max() == 1
    assert analyse([spec("edss ~ diagnosis", contrasts="none")], table).fits[0].contrasts.empty
