"""One linear chain of decisions, whoever races, dies or meddles; the registry's aliases follow it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from infra import layout
from infra.decisions import ChampionChanged, Draft, append, chain_folder, read_chain
from infra.promotion import adopt, champion_by_alias, check_version, decision_tags, follow
from infra.settings import Settings, load_settings
from infra.storage import Store
from tasks.records import digest
from tasks.steps.decide import opened_chain, roll_back

from .test_s3 import CREDENTIALS

MODEL = "brain-age-race"
TIME = "2026-01-01T00:00:00+00:00"
RACES = 20


def with_versions(client: MlflowClient, model: str, run_id: str, count: int) -> str:
    client.create_registered_model(model)
    for _ in range(count):
        client.create_model_version(model, f"runs:/{run_id}/model", run_id)
    return model


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "cache")


def decide(store: Store, settings: Settings, model: str, kind: str, version: str, run_id: str = "none") -> None:
    candidate = {"version": version, "run_id": run_id}
    chain = read_chain(store, settings, model)
    after = chain.champion if kind == "refused" else version
    append(store, chain, Draft(kind, after, "since it is", candidate), TIME)  # type: ignore[arg-type]


def race(environment: dict[str, str], mode: str, versions: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Let two processes decide at the same moment, again and again; gives what each said."""
    command = [sys.executable, "-m", "tests.infra.race_for_champion", MODEL, mode]
    environment = {**os.environ, **environment}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    racers = [subprocess.Popen(command, env=environment, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    said = []
    try:
        for pair in versions:
            for racer, version in zip(racers, pair, strict=True):
                print(version, file=racer.stdin)
            assert [racer.stdout.readline().strip() for racer in racers] == ["ready", "ready"]
            for racer in racers:
                print("go", file=racer.stdin)
            said.append(tuple(racer.stdout.readline().strip() for racer in racers))
    finally:
        for racer in racers:
            racer.communicate(timeout=60)
    return said


def check_races(said: list[tuple[str, str]], chain_versions: list[str], versions: list[tuple[str, str]]) -> None:
    assert len(said) == len(chain_versions) == len(versions)
    for pair, answers, winner in zip(versions, said, chain_versions, strict=True):
        assert sorted(answer[:4] for answer in answers) == ["lost", "won"]
        assert pair[answers.index("won")] == winner
        loser = next(answer for answer in answers if answer != "won")
        assert f"the champion of {MODEL} changed from version" in loser
        assert "run it again" in loser


def test_two_processes_that_race_leave_one_line_and_aliases_that_follow_it(
    registry: tuple[Settings, MlflowClient, str], tmp_path: Path
) -> None:
    settings, client, run_id = registry
    with_versions(client, MODEL, run_id, 2 * RACES)
    versions = [(str(2 * n + 1), str(2 * n + 2)) for n in range(RACES)]
    environment = {"PADFLOW_HOME": str(settings.home), "PADFLOW_STORE": str(tmp_path / "store")}
    said = race(environment, "registry", versions)
    store = Store(str(tmp_path / "store"), tmp_path / "cache")
    chain = read_chain(store, settings, MODEL)
    check_races(said, [decision["champion_after"] for decision in chain.decisions], versions)
    assert [decision["number"] for decision in chain.decisions] == list(range(1, RACES + 1))
    assert chain.untold == ()
    aliases = {name: str(held) for name, held in client.get_registered_model(MODEL).aliases.items()}
    assert (aliases["champion"], aliases["previous-champion"]) == (chain.champion, chain.previous)


def test_they_race_alike_on_s3(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**CREDENTIALS, "AWS_ENDPOINT_URL": s3_server, "PADFLOW_STORE": "s3://decisions/store"}
    environment |= {"PADFLOW_HOME": str(tmp_path)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    store = Store(settings.store, settings.cache)
    import s3fs

    s3fs.S3FileSystem(client_kwargs={"endpoint_url": s3_server}).mkdir("decisions")
    versions = [(str(2 * n + 1), str(2 * n + 2)) for n in range(10)]
    said = race(environment, "chain", versions)
    chain = read_chain(store, settings, MODEL)
    check_races(said, [decision["champion_after"] for decision in chain.decisions], versions)


def test_a_command_killed_between_record_and_alias_is_made_good_by_the_next(
    registry: tuple[Settings, MlflowClient, str], tmp_path: Path
) -> None:
    settings, client, run_id = registry
    model = with_versions(client, "killed", run_id, 2)
    store = Store(str(tmp_path / "store"), tmp_path / "cache")
    decide(store, settings, model, "first", "1", run_id)
    follow(client, store, settings, model)
    code = (
        "import os, signal\n"
        "from infra.settings import load_settings\n"
        "from infra.storage import Store\n"
        "from infra.decisions import Draft, append, read_chain\n"
        "settings = load_settings()\n"
        "store = Store(settings.store, settings.cache)\n"
        f"draft = Draft('promoted', '2', 'better', {{'version': '2', 'run_id': {run_id!r}}})\n"
        f"append(store, read_chain(store, settings, {model!r}), draft, {TIME!r})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PADFLOW_HOME": str(settings.home), "PADFLOW_STORE": str(tmp_path / "store")}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == -9
    assert champion_by_alias(client, model) == "1"
    assert read_chain(store, settings, model).untold == (2,)
    opened_chain(client, store, settings, model)
    assert champion_by_alias(client, model) == "2"
    assert read_chain(store, settings, model).untold == ()
    assert client.get_model_version(model, "2").tags["padflow.decision"].startswith("promoted (decision 2")
    paths = [item.path for item in client.list_artifacts(run_id, "decisions")]
    assert "decisions/000002.json" in paths


def test_rolling_back_goes_further_each_time_and_passes_over_what_is_gone(
    registry: tuple[Settings, MlflowClient, str], store: Store
) -> None:
    settings, client, run_id = registry
    model = with_versions(client, "back", run_id, 4)
    decide(store, settings, model, "first", "1")
    for version in ("2", "3", "4"):
        decide(store, settings, model, "promoted", version)
    decision, _ = roll_back(client, store, settings, model, "it drifts")
    assert (decision["champion_before"], decision["champion_after"], decision["reason"]) == ("4", "3", "it drifts")
    assert champion_by_alias(client, model) == "3"
    client.delete_model_version(model, "2")
    decision, _ = roll_back(client, store, settings, model, "")
    assert decision["champion_after"] == champion_by_alias(client, model) == "1"
    assert "previous-champion" not in client.get_registered_model(model).aliases
    with pytest.raises(ValueError, match="nothing to roll back to"):
        roll_back(client, store, settings, model, "")
    chain = read_chain(store, settings, model)
    assert chain.withdrawn == {"3", "4"}
    decide(store, settings, model, "promoted", "4")
    assert read_chain(store, settings, model).withdrawn == {"3"}


def test_an_alias_that_a_hand_moved_is_set_back_and_said(
    registry: tuple[Settings, MlflowClient, str], store: Store
) -> None:
    settings, client, run_id = registry
    model = with_versions(client, "hand", run_id, 2)
    decide(store, settings, model, "first", "1")
    follow(client, store, settings, model)
    client.set_registered_model_alias(model, "champion", "2")
    _, said = follow(client, store, settings, model)
    assert champion_by_alias(client, model) == "1"
    assert said == ["hand: alias champion was version 2, by decision it is 1: set back"]


def test_a_champion_that_was_deleted_in_the_registry_is_said(
    registry: tuple[Settings, MlflowClient, str], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, client, run_id = registry
    model = with_versions(client, "deleted", run_id, 3)
    for version in ("1", "2", "3"):
        decide(store, settings, model, "promoted", version)
    client.delete_model_version(model, "2")
    client.set_registered_model_alias(model, "champion", "1")
    _, said = follow(client, store, settings, model)
    gone = "deleted: version {} is the {} by decision, and the registry has no such version (the alias shows {})"
    assert said == [f"{gone.format(2, 'previous-champion', 'none')}; a rollback passes over it"]
    client.delete_model_version(model, "3")
    client.set_registered_model_alias(model, "champion", "1")
    _, said = follow(client, store, settings, model)
    back = "; `padflow rollback deleted` returns to the last one that is there"
    assert said[1:] == [gone.format(3, "champion", "version 1") + back]
    # As a registry would show it that keeps the aliases of what is deleted.
    monkeypatch.setattr("infra.promotion._aliases", lambda *_: {"champion": "3", "previous-champion": "2"})
    _, said = follow(client, store, settings, model)
    assert said[1:] == [gone.format(3, "champion", "version 3") + back]
    client.delete_model_version(model, "1")
    _, said = follow(client, store, settings, model)
    assert said[1].endswith("nor one to roll back to; `padflow promote STUDY --version N` names another champion")


def test_a_version_that_the_registry_lacks_is_refused_in_words(registry: tuple[Settings, MlflowClient, str]) -> None:
    _, client, run_id = registry
    model = with_versions(client, "lacking", run_id, 3)
    client.delete_model_version(model, "2")
    check_version(client, model, "3")
    for version in ("2", "4", "new"):
        said = f"lacking: the registry has no version {version}, expected one of 1, 3: .*Name a version that is there"
        with pytest.raises(ValueError, match=said):
            check_version(client, model, version)
    with pytest.raises(ValueError, match="no version 1, nor any other of this model"):
        check_version(client, "never-registered", "1")


def test_a_champion_from_before_there_were_decisions_is_adopted(
    registry: tuple[Settings, MlflowClient, str], store: Store
) -> None:
    settings, client, run_id = registry
    model = with_versions(client, "older", run_id, 1)
    client.set_registered_model_alias(model, "champion", "1")
    chain = adopt(client, store, read_chain(store, settings, model), TIME)
    assert [decision["kind"] for decision in chain.decisions] == ["adopted"]
    assert chain.champion == "1"
    assert adopt(client, store, chain, TIME) is chain


def test_a_registry_that_moved_is_not_begun_anew_without_a_word(
    registry: tuple[Settings, MlflowClient, str], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, client, run_id = registry
    model = with_versions(client, "moved", run_id, 2)
    with_versions(client, "moved-12345678", run_id, 1)
    decide(store, settings, "moved-12345678", "first", "1")
    decide(store, settings, model, "first", "1")
    decide(store, settings, model, "promoted", "2")
    follow(client, store, settings, model)
    before = chain_folder(settings, model)
    monkeypatch.setattr("platform.node", lambda: "another-machine")
    chain, said = opened_chain(client, store, settings, model)
    assert len(said) == 1
    assert f"{store.uri(before)} (decisions: 2)" in said[0]
    assert "12345678" not in said[0].replace(before, "")
    assert f"in place of those in {store.uri(chain.folder)}" in said[0]
    assert [decision["kind"] for decision in chain.decisions] == ["adopted"]
    assert f"{store.uri(before)} (decisions: 2)" in chain.decisions[0]["reason"]
    for _ in range(2):
        opened_chain(client, store, settings, model)
        aliases = {name: str(held) for name, held in client.get_registered_model(model).aliases.items()}
        assert aliases == {"champion": "2", "previous-champion": "1"}
    # As the sentence says: the files of the old folder in place of those in the new one.
    for name in store.names(chain.folder):
        store.delete(f"{chain.folder}/{name}")
    for name in store.names(before):
        store.write(f"{chain.folder}/{name}", store.read(f"{before}/{name}"))
    restored, said = opened_chain(client, store, settings, model)
    assert (restored.champions, said) == (("1", "2"), [])


def test_a_decision_that_was_altered_or_taken_away_is_found(store: Store, tmp_path: Path) -> None:
    settings = load_settings(tmp_path)
    for version in ("1", "2", "3"):
        decide(store, settings, MODEL, "promoted", version)
    folder = chain_folder(settings, MODEL)
    key = layout.decision(folder, 2)
    content = store.read(key)
    store.write_json(key, {**json.loads(content), "champion_after": "7"})
    with pytest.raises(ValueError, match="changed after it was made"):
        read_chain(store, settings, MODEL)
    store.delete(key)
    with pytest.raises(ValueError, match="decision 2 is absent"):
        read_chain(store, settings, MODEL)


def told_chain(registry: tuple[Settings, MlflowClient, str], store: Store, model: str) -> str:
    """Where two promotions and a rollback lie that the registry was told of."""
    settings, client, run_id = registry
    with_versions(client, model, run_id, 3)
    decide(store, settings, model, "first", "1", run_id)
    decide(store, settings, model, "promoted", "2", run_id)
    decide(store, settings, model, "promoted", "3", run_id)
    roll_back(client, store, settings, model, "it drifts")
    return chain_folder(settings, model)


@pytest.mark.parametrize("change", [{"champion_after": "1"}, {"reason": "it does not"}, {"gates": [{}]}])
def test_the_newest_decision_cannot_be_altered_once_the_registry_shows_it(
    registry: tuple[Settings, MlflowClient, str], store: Store, change: dict[str, object]
) -> None:
    settings, client, _ = registry
    model = f"newest-{next(iter(change))}"
    key = layout.decision(told_chain(registry, store, model), 4)
    store.write_json(key, {**store.read_json(key), **change})
    with pytest.raises(ValueError, match=r"000004\.json: found digest .* expected .* MLflow run"):
        opened_chain(client, store, settings, model)
    assert champion_by_alias(client, model) == "2"


def test_decisions_that_were_taken_away_at_the_end_leave_their_marks(
    registry: tuple[Settings, MlflowClient, str], store: Store
) -> None:
    settings, client, _ = registry
    folder = told_chain(registry, store, "shortened")
    for number in (3, 4):
        store.delete(layout.decision(folder, number))
    with pytest.raises(ValueError, match=r"decision 3 is absent.* records 1 to 4; absent: 3, 4.* MLflow run"):
        opened_chain(client, store, settings, "shortened")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"champion_after": "9"}, "champion_after is 9, expected 1 or 2"),
        ({"champion_after": None}, "champion_after is none, expected 1 or 2"),
        ({"champion_after": "3"}, "champion_after is 3, expected 1 or 2"),
        ({"champion_before": "2"}, "champion_before is 2, expected 3"),
        ({"kind": "promoted"}, "champion_after is 2, expected 3"),
        ({"kind": "refused"}, "champion_after is 2, expected 3"),
        ({"kind": "praised"}, "kind is absent or not as padflow writes it"),
        ({"candidate": "3"}, "candidate is absent or not as padflow writes it"),
    ],
)
def test_a_newest_decision_that_cannot_be_is_found_before_it_is_told(
    store: Store, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    settings = load_settings(tmp_path)
    for version in ("1", "2", "3"):
        decide(store, settings, MODEL, "promoted", version)
    candidate = {"version": "3", "run_id": "none"}
    append(store, read_chain(store, settings, MODEL), Draft("rolled back", "2", "it drifts", candidate), TIME)
    # Marks of earlier versions were empty.
    folder = chain_folder(settings, MODEL)
    for number in (1, 2, 3, 4):
        store.write(layout.decision_told(folder, number), b"")
    assert read_chain(store, settings, MODEL).champions == ("1", "2")
    key = layout.decision(folder, 4)
    store.write_json(key, {**store.read_json(key), **change})
    with pytest.raises(ValueError, match=rf"000004\.json: .*{said}"):
        read_chain(store, settings, MODEL)


@pytest.mark.parametrize("content", [b"{", b"[]", b"", b"\xff", b"{}", b"null"])
def test_a_record_that_is_none_is_named(store: Store, tmp_path: Path, content: bytes) -> None:
    settings = load_settings(tmp_path)
    decide(store, settings, MODEL, "first", "1")
    chain = read_chain(store, settings, MODEL)
    store.write(layout.decision(chain.folder, 2), content)
    with pytest.raises(ValueError, match=r"000002\.json: .*Restore"):
        read_chain(store, settings, MODEL)
    with pytest.raises(ValueError, match=r"000002\.json: .*Restore"):
        append(store, chain, Draft("promoted", "2", "better"), TIME)


def test_no_champion_by_decision_takes_no_alias_away(
    registry: tuple[Settings, MlflowClient, str], store: Store
) -> None:
    settings, client, run_id = registry
    model = with_versions(client, "none", run_id, 1)
    append(store, read_chain(store, settings, model), Draft("refused", None, "too bad"), TIME)
    client.set_registered_model_alias(model, "champion", "1")
    _, said = follow(client, store, settings, model)
    assert said == ["none: alias champion is version 1, by decision there is none: left as it is"]
    assert champion_by_alias(client, model) == "1"


def test_a_refusal_in_between_takes_no_turn_from_anybody(store: Store, tmp_path: Path) -> None:
    settings = load_settings(tmp_path)
    decide(store, settings, MODEL, "first", "1")
    chain = read_chain(store, settings, MODEL)
    decide(store, settings, MODEL, "refused", "2")
    after = append(store, chain, Draft("promoted", "3", "better"), TIME)
    assert [decision["kind"] for decision in after.decisions] == ["first", "refused", "promoted"]
    assert read_chain(store, settings, MODEL).head == after.head
    with pytest.raises(ChampionChanged, match="from version 1 to 3"):
        append(store, chain, Draft("promoted", "2", "late"), TIME)


@pytest.mark.parametrize(
    "spellings",
    [
        ("http://mlflow:5000", "http://mlflow:5000/", "HTTP://MLFLOW:5000", "http://me:secret@mlflow:5000/?a=b#c"),
        ("https://mlflow/a", "https://mlflow:443/a/"),
        (
            "postgresql://db/mlflow", "postgresql://user:old@db/mlflow", "postgresql://user:n@w@db/mlflow",
            "postgresql+psycopg2://db:5432/mlflow?sslmode=require",
        ),
        ("sqlite:////x/mlflow.db", "sqlite:////x/../x/mlflow.db", "sqlite+pysqlite:////x/./mlflow.db?timeout=9"),
    ],
)  # fmt: skip
def test_one_registry_has_one_chain_however_it_is_spelled(tmp_path: Path, spellings: tuple[str, ...]) -> None:
    base = load_settings(tmp_path)
    folders = {chain_folder(replace(base, registry_uri=uri), MODEL) for uri in spellings}
    # Chains that are there keep their place: the first is the usual spelling.
    host = platform.node() if spellings[0].startswith("sqlite") else ""
    assert folders == {layout.decisions(MODEL, digest([spellings[0], host]))}


def test_other_registries_have_other_chains(tmp_path: Path) -> None:
    base = load_settings(tmp_path)
    others = (
        "http://a:5000", "http://b:5000", "http://a:5001", "http://a:5000/b", "http://a:5000/B", "https://a:5000",
        "sqlite:////a#1/m.db", "sqlite:////a#2/m.db", "sqlite:////A/m.db", "sqlite:////a@b/m.db", "databricks",
    )  # fmt: skip
    assert len({chain_folder(replace(base, registry_uri=uri), MODEL) for uri in others}) == len(others)


def test_tags_say_each_gate_with_its_figures() -> None:
    gate = {"gate": "mae", "outcome": "failed", "sentence": "too much", "estimate": 1.5, "ci_low": 1.0, "ci_high": 2.0}
    gate |= {"bound_low": None, "bound_high": 0.5, "n_subjects": 30}
    tags = decision_tags(
        {"number": 2, "kind": "refused", "decided_at": TIME, "reason": "r", "champion_before": "1", "gates": [gate]}
    )
    assert tags["padflow.gate.mae"] == "failed: too much"
    assert json.loads(tags["padflow.figures.mae"])["bound_high"] == 0.5
    assert tags["padflow.champion_before"] == "1"
