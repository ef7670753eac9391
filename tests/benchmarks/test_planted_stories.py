"""What the benchmark of planted associations takes for found, missed and wrong."""

from typing import Any

import pytest

from infra.study_file import load_study, study_reference
from tests.benchmarks.planted_stories import ARMS, EXTERNAL, STORIES, Line, as_table, value


def line(planted: float | None, estimate: float, q_value: float, sign: int = 1, detectable: float = 2.0) -> Line:
    found = {"estimate": estimate, "q_value": q_value, "detectable": detectable, "n_used": 50}
    found |= {"ci_low": estimate - 1, "ci_high": estimate + 1}
    return Line("study", "arm", "model", "term", planted, sign, 0.5, found)


@pytest.mark.parametrize(
    ("case", "verdict", "fails"),
    [
        (line(6.0, 2.9, 0.001), "found", False),
        (line(6.0, -2.9, 0.001), "**found with the wrong sign**", True),
        (line(6.0, 0.3, 0.6), "not found", True),
        (line(3.0, 0.3, 0.6), "not found", False),
        (line(3.0, -0.3, 0.6), "not found, sign differs", False),
        (line(0.0, 0.3, 0.6), "not found, and is none", False),
        (line(0.0, -0.3, 0.01), "**found, and is none**", True),
        (line(None, -0.3, 0.01, sign=-1), "found", False),
        (line(None, 0.3, 0.01, sign=-1), "**found with the wrong sign**", True),
    ],
)
def test_an_effect_that_can_be_seen_must_be_and_none_other(case: Line, verdict: str, fails: bool) -> None:
    assert case.verdict == verdict
    assert bool(case.failure) == fails
    assert verdict in as_table([case])


@pytest.mark.parametrize("study", STORIES)
def test_every_story_names_models_and_associations_of_its_study(study: str) -> None:
    whole = load_study(study_reference(study, "phantom"))
    arms: dict[str, Any] = {arm.arm: arm for arm in whole.models}
    assert EXTERNAL[study] in [cohort.name for cohort in whole.cohorts]
    for name in ARMS[study]:
        specs = {spec.name: spec for spec in arms[name].associations}
        for model, term, _, _ in STORIES[study]:
            # A term of a level is its factor's: diagnosis[AD] of diagnosis.
            assert term.replace("[MS]", "").replace("[AD]", "").replace("[PD]", "") in specs[model].effects


def test_a_planted_number_is_looked_up_through_tables() -> None:
    assert value({"growth": {"AD": 1.3}}, "growth/AD") == 1.3
