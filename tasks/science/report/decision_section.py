"""Whether the model became the champion: each gate with its figures, and what followed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .tables import Cell, Table

# What a decision was; who is the champion since is told beside it, for it changes.
WORDS = {
    "first": "It was the first of its name, and so became the champion",
    "promoted": "It passed the study's gates and became the champion",
    "refused": "The study's gates refused it",
}
GATE_NAMES = {
    "mae": "Error against the champion",
    "centring": "Centring in healthy controls",
    "levels": "Error by site, sex and age band",
    "coverage": "Coverage of intervals",
    "retest": "Test–retest",
    "baseline": "Gain over tissue volumes and the mean age",
}


def decision_sentence(decision: Mapping[str, Any], champion: tuple[str, int]) -> str:
    """What was decided, of which version, beside which one; and which version is the champion now.

    Args:
        decision: The last one by gates on the version.
        champion: The version in use now, and the number of the decision by which it is.
    """
    before = decision["champion_before"]
    beside = f" It was set beside version {before}." if before else ""
    said = WORDS.get(decision["kind"], decision["kind"])
    version, number = decision["candidate"]["version"], decision["number"]
    return f"Version {version} of {decision['model']}: {said} in decision {number}{_now(decision, champion)}{beside}"


def _now(decision: Mapping[str, Any], champion: tuple[str, int]) -> str:
    version, since = champion
    if version != decision["candidate"]["version"]:
        return f"; since decision {since} the champion is version {version}."
    return " and is it still." if since == decision["number"] else f"; since decision {since} it is the champion."


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
