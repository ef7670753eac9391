"""What makes a report be written anew: whatever it shows, who is champion included."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from infra.decisions import Chain
from infra.study_file import parse_study
from tasks.steps.progress import FittedModel
from tasks.steps.report import champion_since, report_key

from .test_decide import STUDY


def decided(number: int, kind: str, version: str, before: str | None, after: str) -> dict[str, Any]:
    of = {"number": number, "kind": kind, "candidate": {"version": version}, "mark": f"mark {number}"}
    return of | {"champion_before": before, "champion_after": after}


CHAIN = (
    decided(1, "first", "1", None, "1"),
    decided(2, "promoted", "2", "1", "2"),
    decided(3, "refused", "3", "2", "2"),
    decided(4, "rolled back", "2", "2", "1"),
    decided(5, "refused", "4", "1", "1"),
)


def after(count: int) -> Chain:
    return Chain("brain-age-story", "d", CHAIN[:count])


def key_after(count: int) -> str:
    study = parse_study(STUDY)
    registered = {"version": "2", "uri": "models:/brain-age-story/2", "run_id": "r"}
    model = FittedModel(study, [], {"fit_key": "f" * 16}, registered)
    return report_key(study, [replace(model, chain=after(count))])


def test_a_report_is_written_anew_when_the_champion_is_another_and_not_for_a_refusal() -> None:
    assert [champion_since(after(count)) for count in range(6)] == [
        None, ("1", 1), ("2", 2), ("2", 2), ("1", 4), ("1", 4),
    ]  # fmt: skip
    assert key_after(2) == key_after(3)
    assert key_after(3) != key_after(4)
    assert key_after(4) == key_after(5)
