"""What a terminal says of a decision."""

from typing import Any

import pytest

from flows.decide import decision_lines

PROMOTED: dict[str, Any] = {
    "model": "brain-age",
    "kind": "promoted",
    "number": 2,
    "candidate": {"version": "2"},
    "champion_after": "2",
    "gates": [{"gate": "mae", "outcome": "passed", "sentence": "MAE 3 years"}],
    "reason": "all gates passed",
}


@pytest.mark.parametrize(
    ("champion_now", "said"),
    [
        (None, "the champion is version 2"),
        ("2", "the champion is version 2"),
        ("1", "the champion was version 2 after it, and is version 1 now"),
        ("none", "the champion was version 2 after it, and is none now"),
    ],
)
def test_a_champion_that_has_changed_since_a_decision_is_said(champion_now: str | None, said: str) -> None:
    first, *rest = decision_lines(PROMOTED, champion_now)
    assert first == f"brain-age version 2: promoted (decision 2); {said}"
    assert rest == ["  passed      mae       MAE 3 years", "  all gates passed"]
