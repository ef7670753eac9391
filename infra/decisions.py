"""Which version of a model is the champion, and how it came to be: an append-only chain of decisions in the store.

The registry's aliases cannot be compared and set in one step, so two promotions could overwrite each other there. The
chain can: a decision is created under its number, which of two writers only one can do, and names the decision before
it by the digest of its bytes. The aliases `champion` and `previous-champion` follow it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from infra import layout
from infra.settings import Settings
from infra.storage import Store, json_bytes
from tasks.records import digest

Kind = Literal["first", "adopted", "promoted", "refused", "rolled back"]
# Of these the version that was decided on became the champion.
RAISES: tuple[Kind, ...] = ("first", "adopted", "promoted")
NUMBERED = re.compile(r"(\d{6})\.json")
# Ports that an address means where it names none.
DEFAULT_PORTS = {"http": "80", "https": "443", "postgresql": "5432", "mysql": "3306", "mssql": "1433"}


class ChampionChanged(RuntimeError):
    """Somebody else decided on the model while this decision was made."""


@dataclass(frozen=True)
class Chain:
    """Every decision on one model in one registry, oldest first.

    Attributes:
        model: Name in the registry.
        folder: Where its decisions lie in the store.
        decisions: The records.
        head: Digest of the last one's bytes; "" before the first.
        untold: Numbers of decisions that the registry has not been told of, as far as the store knows.
    """

    model: str
    folder: str
    decisions: tuple[dict[str, Any], ...] = ()
    head: str = ""
    untold: tuple[int, ...] = ()

    @property
    def champions(self) -> tuple[str, ...]:
        """Versions that a rollback goes back through, the champion last."""
        held: list[str] = []
        for decision in self.decisions:
            if decision["kind"] in RAISES:
                held.append(decision["champion_after"])
            elif decision["kind"] == "rolled back":
                while held and held[-1] != decision["champion_after"]:
                    held.pop()
        return tuple(held)

    @property
    def champion(self) -> str | None:
        """The version in use."""
        return self.champions[-1] if self.champions else None

    @property
    def previous(self) -> str | None:
        """The version that a rollback would return to."""
        return self.champions[-2] if len(self.champions) > 1 else None

    @property
    def only_adopted(self) -> bool:
        """Whether the champion is still the one that the chain began with, named by somebody else."""
        kinds = [decision["kind"] for decision in self.decisions]
        return kinds[:1] == ["adopted"] and set(kinds[1:]) <= {"refused"}

    @property
    def withdrawn(self) -> frozenset[str]:
        """Versions that somebody rolled back from and that nobody promoted again since."""
        gone: set[str] = set()
        for decision in self.decisions:
            if decision["kind"] == "rolled back":
                gone.add(decision["champion_before"])
            elif decision["kind"] in RAISES:
                gone.discard(decision["champion_after"])
        return frozenset(gone)

    def facts_of(self, version: str) -> dict[str, Any] | None:
        """What the chain knows of a version that was decided on: its fit, recipe and target."""
        found = [d["candidate"] for d in self.decisions if (d.get("candidate") or {}).get("version") == version]
        return found[-1] if found else None

    def about(self, version: str, evidence_key: str = "") -> dict[str, Any] | None:
        """The last decision by gates on a version, and on this evidence where it is named."""
        for decision in reversed(self.decisions):
            is_of_it = (decision.get("candidate") or {}).get("version") == version
            on_it = evidence_key in ("", decision.get("evidence_key"))
            if is_of_it and on_it and decision["kind"] != "rolled back":
                return decision
        return None


@dataclass(frozen=True)
class Draft:
    """A decision before it has its number.

    Attributes:
        kind: What it does.
        champion_after: The version in use from now on.
        reason: In one or more sentences.
        candidate: Version, fit, recipe and target of the model that was decided on.
        evidence_key: Names the people, gates and model that it was made on.
        gates: The verdicts.
        facts: Whatever else belongs to the record.
    """

    kind: Kind
    champion_after: str | None
    reason: str
    candidate: Mapping[str, Any] | None = None
    evidence_key: str = ""
    gates: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def chain_folder(settings: Settings, model: str) -> str:
    """Where the decisions on a model of the settings' registry lie; another registry has numbers of its own."""
    registry = _one_spelling(settings.registry_uri)
    # An embedded database is another one on another machine, whatever its path.
    host = platform.node() if registry.startswith("sqlite:") else ""
    return layout.decisions(model, digest([registry, host]))


def _one_spelling(uri: str) -> str:
    """One address for every way to write it, or two machines that share a registry would keep a chain each.

    A password may be renewed, a driver changed; neither makes another registry.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    scheme = scheme.lower().partition("+")[0]
    rest = re.sub(r"^[^/]*@", "", rest).partition("?")[0]
    if scheme == "sqlite":
        # Without a path it lies in memory.
        return f"sqlite:///{Path(rest[1:]).resolve()}" if rest else "sqlite://"
    host, slash, path = rest.partition("#")[0].partition("/")
    host = host.lower().removesuffix(f":{DEFAULT_PORTS.get(scheme, '')}")
    return f"{scheme}://{host}{slash}{path}".rstrip("/")


def other_chains(store: Store, chain: Chain) -> str:
    """Which chains the store holds of a model of this name in other registries, in words; "" where there are none.

    A registry that moved, or that is spelled by another name of its host, leaves its decisions there.
    """
    same_model = re.compile(re.escape(chain.model) + "-[0-9a-f]{8}")
    folders = (f"{layout.all_decisions()}/{name}" for name in sorted(store.names(layout.all_decisions())))
    others = [folder for folder in folders if same_model.fullmatch(folder.partition("/")[2]) and folder != chain.folder]
    counted = [(folder, sum(map(bool, map(NUMBERED.fullmatch, store.names(folder))))) for folder in others]
    return "; ".join(f"{store.uri(folder)} (decisions: {count})" for folder, count in counted if count)


def read_chain(store: Store, settings: Settings, model: str) -> Chain:
    """Read every decision on a model and check that each follows from the one before.

    Raises:
        ValueError: A decision is absent, or was changed after the next one named it.
    """
    folder = chain_folder(settings, model)
    names = store.names(folder)
    numbers = sorted(int(found[1]) for name in names if (found := NUMBERED.fullmatch(name)))
    if numbers != list(range(1, len(numbers) + 1)):
        absent = next(number for number in range(1, len(numbers) + 2) if number not in numbers)
        raise ValueError(f"{store.uri(folder)}: decision {absent} is absent, and later ones are there; restore it.")
    contents = store.read_many([layout.decision(folder, number) for number in numbers])
    decisions, head = [], ""
    for number, content in zip(numbers, contents, strict=True):
        decision = json.loads(content)
        if decision["parent"] != head:
            raise ValueError(
                f"{store.uri(layout.decision(folder, number))}: it follows a decision of digest "
                f"{decision['parent'][:8] or 'none'}, and the one before it has {head[:8] or 'none'}: one of the two "
                "was changed after it was made. Restore the bytes that were there."
            )
        decisions.append(decision)
        head = hashlib.sha256(content).hexdigest()
    untold = tuple(number for number in numbers if f"{number:06d}.told" not in names)
    return Chain(model, folder, tuple(decisions), head, untold)


def append(store: Store, chain: Chain, draft: Draft, decided_at: str) -> Chain:
    """Add a decision, unless somebody else has added one since the chain was read: of two writers at a time, one does.

    A refusal beside it changes no champion, so that this decision still holds and takes the next number.

    Args:
        store: Where the chain lies.
        chain: As it was read before the evidence was weighed.
        draft: The decision.
        decided_at: When, UTC in ISO 8601.

    Raises:
        ChampionChanged: The champion is another one by now. Nothing was changed.
    """
    while True:
        number = len(chain.decisions) + 1
        record = {
            "number": number,
            "parent": chain.head,
            "model": chain.model,
            "kind": draft.kind,
            "champion_before": chain.champion,
            "champion_after": draft.champion_after,
            "reason": draft.reason,
            "candidate": None if draft.candidate is None else dict(draft.candidate),
            "evidence_key": draft.evidence_key,
            "gates": [dict(gate) for gate in draft.gates],
            "decided_at": decided_at,
            **draft.facts,
            # So that two equal decisions are told apart, and an answer that was lost on the way is found again.
            "mark": secrets.token_hex(8),
        }
        content = json_bytes(record)
        key = layout.decision(chain.folder, number)
        store.publish(key, content)
        found = store.read(key)
        if found == content:
            head, untold = hashlib.sha256(content).hexdigest(), (*chain.untold, number)
            return Chain(chain.model, chain.folder, (*chain.decisions, record), head, untold)
        other = json.loads(found)
        if other["champion_after"] != chain.champion:
            raise ChampionChanged(
                f"the champion of {chain.model} changed from version {chain.champion or 'none'} to "
                f"{other['champion_after']} while this was decided (decision {number}, {other['kind']}, "
                f"{other['decided_at']}). Nothing was changed by this command: run it again, and the new champion is "
                "the one to compare with."
            )
        head = hashlib.sha256(found).hexdigest()
        chain = Chain(chain.model, chain.folder, (*chain.decisions, other), head, (*chain.untold, number))


def mark_told(store: Store, chain: Chain) -> None:
    """Keep that the registry shows every decision of the chain."""
    for number in chain.untold:
        store.write(layout.decision_told(chain.folder, number), b"")
