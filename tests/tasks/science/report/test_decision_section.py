"""What the report says of a decision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tasks.science.report.decision_section import decision_sentence
from tasks.science.report.page import render_report

from .made_up_study import made_up_study

DECISION: dict[str, Any] = {
    "number": 3,
    "model": "brain-age",
    "kind": "refused",
    "candidate": {"version": "7"},
    "champion_before": "6",
    "reason": "MAE 9.10 against the champion's 4.20 years",
    "decided_at": "2026-01-01T00:00:00+00:00",
    "left_out_subjects": {"trained on by the champion": 4},
    "gates": [
        {"gate": "mae", "outcome": "failed", "mandatory": True, "sentence": "MAE <9.10>"},
        {"gate": "retest", "outcome": "not judged", "mandatory": False, "sentence": "no session repeats"},
    ],
}


def test_the_page_shows_each_gate_and_who_stayed_champion() -> None:
    page = render_report(replace(made_up_study(), decision=DECISION, champion=("6", 2)))
    assert "Version 7 of brain-age: The study&#39;s gates refused it in decision 3" in page
    assert "since decision 2 the champion is version 6. It was set beside version 6." in page
    assert "failed (mandatory)" in page
    assert "MAE &lt;9.10&gt;" in page
    assert "4 subjects left out: trained on by the champion." in page
    assert 'href="#promotion"' in page


def test_a_page_without_a_decision_has_no_such_section() -> None:
    assert 'id="promotion"' not in render_report(made_up_study())


@pytest.mark.parametrize(
    ("kind", "champion", "said"),
    [
        ("promoted", ("7", 3), "It passed the study's gates and became the champion in decision 3 and is it still."),
        ("promoted", ("6", 4), "became the champion in decision 3; since decision 4 the champion is version 6."),
        ("promoted", ("7", 6), "became the champion in decision 3; since decision 6 it is the champion."),
        ("first", ("8", 4), "so became the champion in decision 3; since decision 4 the champion is version 8."),
        (
            "refused",
            ("8", 5),
            "The study's gates refused it in decision 3; since decision 5 the champion is version 8.",
        ),
    ],
)
def test_the_sentence_tells_who_is_champion_now(kind: str, champion: tuple[str, int], said: str) -> None:
    assert said in decision_sentence(DECISION | {"kind": kind}, champion)
