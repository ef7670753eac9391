"""Whether the model became the champion: each gate with its figures, and what followed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .tables import Cell, Table

WORDS = {
    "first": "It is the first of its name, and so the champion.",
    "promoted": "It passed the study's gates and is the champion since.",
    "refused": "The study's gates refused it; the champion stays as it is.",
}
GATE_NAMES = {
    "mae": "Error against the champion",
    "centring": "Centring in healthy controls",
    "levels": "Error by site, sex and age band",
    "coverage": "Coverage of intervals",
    "retest": "Test–retest",
    "baseline": "Gain over tissue volumes and the mean age",
}


def decision_sentence(decision: Mapping[str, Any]) -> str:
    """What was decided, of which version, beside which one."""
    before = decision["champion_before"]
    beside = f" It was set beside version {before}." if before else ""
    said = WORDS.get(decision["kind"], decision["kind"])
    return f"Version {decision['candidate']['version']} of {decision['model']}: {said}{beside}"


def decision_table(decision: Mapping[str, Any]) -> Table:
    """One row per gate; raw predictions alone were read."""
    rows = tuple(
        (
            Cell(GATE_NAMES.get(gate["gate"], gate["gate"])),
            Cell(gate["outcome"] + (" (mandatory)" if gate["mandatory"] else "")),
            Cell(gate["sentence"]),
        )
        for gate in decision["gates"]
    )
    number = decision["number"]
    notes = [f"Decision {number}, {decision['decided_at']}. {decision['reason']}."]
    notes += [f"{n} subjects left out: {why}." for why, n in (decision.get("left_out_subjects") or {}).items()]
    return Table("Gates of promotion", ("Gate", "Verdict", "Figures and bound"), rows, tuple(notes))
