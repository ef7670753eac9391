"""The story of a model's versions on made-up predictions: first, better, worse, rolled back; and what is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from infra import layout
from infra.decisions import ChampionChanged, read_chain
from infra.promotion import champion_by_alias
from infra.settings import Settings
from infra.storage import Store
from infra.study import CohortSpec, Study
from infra.study_file import parse_study
from tasks.science.statistics.baselines import VOLUME_COLUMNS
from tasks.steps.decide import (
    Scored,
    evidence_key,
    gather_evidence,
    opened_chain,
    record_decision,
    roll_back,
    version_number,
    version_of,
    weigh,
)
from tasks.steps.index import IndexedCohort
from tasks.steps.progress import CohortState, FittedModel, predictions_key

STUDY: dict[str, Any] = {
    "name": "story",
    "cohorts": [
        {"name": "healthy", "role": "train", "root": "a"},
        {"name": "external", "role": "external", "root": "b"},
    ],
    "validation": {"resamples": 500},
    "registered_model": "brain-age-story",
}


def cohort(store: Store, spec: CohortSpec, ages: np.ndarray) -> CohortState:
    """Prepared scans with volumes that know little of age."""
    n = len(ages)
    prepared = pd.DataFrame(
        {
            "scan_id": [f"{spec.name}/sub-{k:03d}_T1w" for k in range(n)],
            "cohort": spec.name,
            "participant_id": [f"sub-{k:03d}" for k in range(n)],
            "session_id": pd.Series([None] * n, dtype=object),
            "years_since_baseline": 0.0,
            "sha256": [f"{spec.name}{k}" for k in range(n)],
            "image_sha256": [f"{spec.name}{k}" for k in range(n)],
            "age_years": ages,
            "target_years": ages,
            "site": np.where(np.arange(n) % 2, "A", "B"),
            "sex": np.where(np.arange(n) % 3, "F", "M"),
            "diagnosis": np.where(np.arange(n) % 2, "HC", "MS"),
        }
    )
    rng = np.random.default_rng(7)
    figures = {name: rng.normal(100, 10, n) for name in VOLUME_COLUMNS}
    place = layout.quality_table("r" * 64, spec.name, spec.root)
    store.write_table(place, pd.DataFrame({"key": prepared["sha256"], **figures, "absent": "", "volume_sha256": ""}))
    indexed = IndexedCohort(spec.name, spec.root, "d", None)  # type: ignore[arg-type]
    return CohortState(spec, indexed, None, "r" * 64, (), prepared, ())  # type: ignore[arg-type]


class World:
    """A store with cohorts, and a registry in which versions appear."""

    def __init__(self, folder: Path, settings: Settings, client: MlflowClient, run_id: str) -> None:
        self.settings, self.client, self.run_id = settings, client, run_id
        self.store = Store(str(folder / "store"), folder / "cache")
        self.study: Study = parse_study({**STUDY, "registered_model": f"story-{folder.name[:40].replace('_', '-')}"})
        rng = np.random.default_rng(0)
        self.states = [cohort(self.store, spec, rng.uniform(20, 80, 60)) for spec in self.study.cohorts]
        client.create_registered_model(self.study.registered_model)

    def fit(self, name: str, predicted: np.ndarray, trained_on: tuple[str, ...] = ()) -> FittedModel:
        """A version that predicts so; trained on the healthy cohort, and on whatever is named beside."""
        rows = self.states[0].prepared[["scan_id", "participant_id", "sha256", "target_years"]].assign(split="train")
        more = rows.head(len(trained_on)).assign(sha256=list(trained_on), split="calibration")
        self.store.write_table(f"{layout.fit_folder(name)}/rows.parquet", pd.concat([rows, more], ignore_index=True))
        if len(self.states) > 1:
            self.predict(name, self.states[1], predicted)
        version = self.client.create_model_version(self.study.registered_model, f"runs:/{self.run_id}/m", self.run_id)
        raw = {"half_width_years": 9.0, "level": 0.95, "n_subjects": 40, "note": ""}
        registered = {"version": str(version.version), "uri": "models:/none", "run_id": self.run_id}
        return FittedModel(self.study, self.states, {"fit_key": name, "intervals": {"raw": raw}}, registered)

    def predict(self, fit_key: str, state: CohortState, predicted: np.ndarray) -> None:
        table = state.prepared[["scan_id"]].assign(
            predicted_age_years=predicted, corrected_age_years=state.prepared["age_years"], status="ok", reason=""
        )
        table.loc[predicted < 0, "status"] = "implausible-age"
        self.store.write_table(layout.predictions(predictions_key(fit_key, state)), table)

    def decide(self, model: FittedModel, champion: FittedModel | None, chain: Any = None) -> dict[str, Any]:
        chain = chain or opened_chain(self.client, self.store, self.settings, self.study.registered_model)[0]
        other = Scored(version_of(champion), self.states) if champion else None
        weighed = weigh(self.study, self.store, Scored(version_of(model), self.states), other)
        key = evidence_key(self.study, model.fit_key, model.scored)
        args = (self.study, self.settings, self.store, self.client, chain, weighed, key, False)
        return record_decision(*args)

    @property
    def ages(self) -> np.ndarray:
        return self.states[1].prepared["age_years"].to_numpy()

    @property
    def champion(self) -> str | None:
        return champion_by_alias(self.client, self.study.registered_model)


@pytest.fixture
def world(tmp_path: Path, registry: tuple[Settings, MlflowClient, str]) -> World:
    return World(tmp_path, *registry)


def noise(sd: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sd, 60)


def test_a_story_of_four_versions(world: World) -> None:
    first = world.fit("first", world.ages + noise(5, 1))
    decision = world.decide(first, None)
    assert (decision["kind"], world.champion) == ("first", "1")
    better = world.fit("better", world.ages + noise(3, 2))
    assert world.champion == "1"
    decision = world.decide(better, first)
    assert (decision["kind"], decision["champion_before"], world.champion) == ("promoted", "1", "2")
    shuffled = world.fit("shuffled", np.full(60, 50.0) + noise(2, 3))
    decision = world.decide(shuffled, better)
    assert (decision["kind"], world.champion) == ("refused", "2")
    assert "MAE" in decision["reason"]
    tags = world.client.get_model_version(world.study.registered_model, "3").tags
    assert tags["padflow.gate.mae"].startswith("failed: MAE")
    assert {f"padflow.figures.{gate}" for gate in world.study.promotion.gates} <= tags.keys()
    back, _ = roll_back(world.client, world.store, world.settings, world.study.registered_model, "site C drifts")
    assert (back["kind"], world.champion) == ("rolled back", "1")
    chain = read_chain(world.store, world.settings, world.study.registered_model)
    assert [item["kind"] for item in chain.decisions] == ["first", "promoted", "refused", "rolled back"]
    assert chain.withdrawn == {"2"}
    assert chain.about("2")["kind"] == "promoted"


def test_of_two_equal_runs_the_slower_takes_the_others_decision_and_another_challenger_is_told(world: World) -> None:
    first = world.fit("first", world.ages + noise(5, 1))
    world.decide(first, None)
    better, other = (world.fit(name, world.ages + noise(2, seed)) for name, seed in (("better", 2), ("other", 3)))
    chain, _ = opened_chain(world.client, world.store, world.settings, world.study.registered_model)
    made = world.decide(better, first, chain)
    assert world.decide(better, first, chain) == made
    with pytest.raises(ChampionChanged, match="from version 1 to 2"):
        world.decide(other, first, chain)
    assert world.champion == "2"


def test_whom_a_model_was_trained_on_takes_no_part(world: World) -> None:
    champion = world.fit("champion", world.ages.copy(), trained_on=tuple(f"external{k}" for k in range(20)))
    challenger = world.fit("challenger", world.ages + noise(3, 1))
    scored = [Scored(version_of(model), world.states) for model in (challenger, champion)]
    evidence, left_out = gather_evidence(world.study, world.store, *scored)
    assert left_out == {"trained on by the champion": 20}
    assert len(evidence.scans) == 40
    assert evidence.scans["baseline_age_years"].notna().all()


def test_a_scan_without_an_age_stays_a_row_and_another_target_gives_none(world: World) -> None:
    champion = world.fit("champion", world.ages + noise(3, 1))
    predicted = world.ages + noise(3, 2)
    predicted[:6] = -1.0
    challenger = world.fit("challenger", predicted)
    scored = [Scored(version_of(model), world.states) for model in (challenger, champion)]
    evidence, _ = gather_evidence(world.study, world.store, *scored)
    assert evidence.scans["predicted_age_years"].isna().sum() == 6
    months = replace(scored[1], version=replace(scored[1].version, target=replace(world.study.target, unit="months")))
    evidence, _ = gather_evidence(world.study, world.store, scored[0], months)
    assert evidence.scans["champion_age_years"].isna().all()


def test_a_version_has_one_spelling() -> None:
    assert [version_number("m", text) for text in ("2", "02", " 2 ")] == ["2"] * 3
    for text in ("", "0", "-1", "two", "2.0", "²"):
        with pytest.raises(ValueError, match="expected a whole number"):
            version_number("m", text)


def test_controls_of_a_clinical_cohort_are_those_that_the_study_names(world: World) -> None:
    clinic = CohortSpec("clinic", "clinical", "c")
    state = cohort(world.store, clinic, np.linspace(20, 80, 10))
    model = world.fit("fit", world.ages + noise(3, 1))
    world.predict("fit", state, state.prepared["age_years"].to_numpy() + 1.0)
    scored = Scored(version_of(model), [*world.states, state])
    for controls, n in (({}, 60), ({"diagnosis": ("HC",)}, 65), ({"group": ("HC",)}, 60)):
        study = replace(world.study, validation=replace(world.study.validation, controls=controls))
        evidence, _ = gather_evidence(study, world.store, scored, None)
        assert (len(evidence.scans), int(evidence.scans["is_control"].sum())) == (70, n)


def test_a_scan_of_two_cohorts_counts_once(world: World) -> None:
    state = cohort(world.store, CohortSpec("clinic", "clinical", "c"), world.ages[:10])
    state.prepared["sha256"] = world.states[1].prepared["sha256"].head(10).to_numpy()
    figures = world.store.read_table(layout.quality_table("r" * 64, "external", "b"))
    world.store.write_table(layout.quality_table("r" * 64, "clinic", "c"), figures)
    model = world.fit("fit", world.ages + noise(3, 1))
    world.predict("fit", state, state.prepared["age_years"].to_numpy() + 1.0)
    evidence, left_out = gather_evidence(
        world.study, world.store, Scored(version_of(model), [*world.states, state]), None
    )
    assert evidence.scans["cohort"].unique().tolist() == ["external"]
    assert int(evidence.scans["is_control"].sum()) == len(evidence.scans) == 60
    assert left_out == {"in another cohort, too": 10}


def test_without_external_people_the_first_is_champion_and_nobody_follows(world: World) -> None:
    world.states = world.states[:1]
    first = world.fit("first", np.zeros(0))
    assert world.decide(first, None)["kind"] == "first"
    decision = world.decide(world.fit("second", np.zeros(0)), first)
    assert (decision["kind"], world.champion) == ("refused", "1")
    assert "0 subjects are fewer than 10" in decision["reason"]
