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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from infra import layout
from infra.settings import Settings
from infra.storage import Store, json_bytes
from tasks.records import digest

Kind = Literal["first", "adopted", "promoted", "refused", "rolled back"]
# Of these the version that was decided on became the champion.
RAISES: tuple[Kind, ...] = ("first", "adopted", "promoted")
NUMBERED = re.compile(r"(\d{6})\.(json|told)")
# What of a record others rely on.
FIELDS: dict[str, Any] = {
    "parent": str, "kind": str, "champion_before": str | None, "champion_after": str | None, "reason": str,
    "candidate": dict | None, "evidence_key": str, "gates": list, "decided_at": str,
}  # fmt: skip
RESTORE = (
    "Restore the bytes that were there: from a copy of the store, or from the MLflow run of the version, which holds "
    "each decision on it as decisions/NUMBER.json; the version's tags padflow.* say the last one."
)
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
    def digests(self) -> tuple[str, ...]:
        """Of each decision's bytes."""
        return (*(decision["parent"] for decision in self.decisions[1:]), *([self.head] if self.decisions else []))

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
    counted = [(folder, sum(name.endswith(".json") for name in store.names(folder))) for folder in others]
    return "; ".join(f"{store.uri(folder)} (decisions: {count})" for folder, count in counted if count)


def read_chain(store: Store, settings: Settings, model: str) -> Chain:
    """Read every decision on a model and check that each follows from the one before, and is what was told.

    Raises:
        ValueError: A decision is absent, is none, or was changed after it was made.
    """
    folder = chain_folder(settings, model)
    found = [match for name in store.names(folder) if (match := NUMBERED.fullmatch(name))]
    told = {int(match[1]) for match in found if match[2] == "told"}
    # Records are made in order and marked later, but a listing beside it may miss one and show what came after it.
    numbers = range(1, max((int(match[1]) for match in found), default=0) + 1)
    try:
        contents = store.read_many([layout.decision(folder, number) for number in numbers])
    except FileNotFoundError as error:
        absent = [number for number in numbers if not store.exists(layout.decision(folder, number))]
        if not absent:
            raise
        raise ValueError(
            f"{store.uri(folder)}: decision {absent[0]} is absent, and what came after it is there (expected records "
            f"1 to {numbers[-1]}; absent: {', '.join(map(str, absent))}). {RESTORE}"
        ) from error
    chain = Chain(model, folder)
    for number, content in zip(numbers, contents, strict=True):
        chain = _followed_by(chain, content, store.uri(layout.decision(folder, number)))
    _check_told(store, chain, sorted(told))
    return replace(chain, untold=tuple(number for number in numbers if number not in told))


def _followed_by(chain: Chain, content: bytes, uri: str) -> Chain:
    decision = _record(content, uri)
    if decision["parent"] != chain.head:
        raise ValueError(
            f"{uri}: it follows a decision of digest {decision['parent'][:8] or 'none'}, and the one before it has "
            f"{chain.head[:8] or 'none'}: one of the two was changed after it was made. {RESTORE}"
        )
    # The newest decision has no follower that names its digest: what it says must be possible after those before.
    after: tuple[str | None, ...] = (chain.champion,)
    if decision["kind"] in RAISES:
        after = ((decision["candidate"] or {}).get("version", decision["champion_after"]),)
    elif decision["kind"] == "rolled back":
        after = chain.champions[:-1]
    for name, versions in (("champion_before", (chain.champion,)), ("champion_after", after)):
        if decision[name] not in versions:
            expected = " or ".join(version or "none" for version in versions) or "no rollback, as there was no champion"
            raise ValueError(
                f"{uri}: its {name} is {decision[name] or 'none'}, expected {expected} ({decision['kind']}, after "
                f"{len(chain.decisions)} decisions): it was changed after it was made. {RESTORE}"
            )
    return replace(chain, decisions=(*chain.decisions, decision), head=hashlib.sha256(content).hexdigest())


def _record(content: bytes, uri: str) -> dict[str, Any]:
    try:
        decision = json.loads(content)
    except ValueError:
        decision = None
    if not isinstance(decision, dict):
        begins = content[:40].decode(errors="replace")
        raise ValueError(f"{uri}: found {begins!r}, expected the record of a decision, a JSON object. {RESTORE}")
    wrong = [name for name, kind in FIELDS.items() if name not in decision or not isinstance(decision[name], kind)]
    if not wrong and decision["kind"] not in get_args(Kind):
        wrong = ["kind"]
    if wrong:
        raise ValueError(f"{uri}: a decision's {', '.join(wrong)} is absent or not as padflow writes it. {RESTORE}")
    return decision


def _check_told(store: Store, chain: Chain, told: list[int]) -> None:
    """Compare each record with the digest under which the registry was told of it: the last one has no follower."""
    marks = store.read_many([layout.decision_told(chain.folder, number) for number in told])
    for number, content in zip(told, marks, strict=True):
        # Marks of earlier versions are empty.
        mark = content.decode(errors="replace")
        if mark not in ("", chain.digests[number - 1]):
            raise ValueError(
                f"{store.uri(layout.decision(chain.folder, number))}: found digest {chain.digests[number - 1][:8]}, "
                f"expected {mark[:8]}, which the registry was told of: it was changed after it was made. {RESTORE}"
            )


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
        other = _record(found, store.uri(key))
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
    """Keep that the registry shows every decision of the chain, and what it was told of by its digest."""
    for number in chain.untold:
        store.write(layout.decision_told(chain.folder, number), chain.digests[number - 1].encode())
