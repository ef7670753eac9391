"""Set a challenger beside the champion on the same people, ask the study's gates, and record what was decided."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from mlflow import MlflowClient

from infra import layout, registry
from infra.decisions import Chain, ChampionChanged, Draft, append, read_chain
from infra.promotion import adopt, follow
from infra.settings import Settings
from infra.storage import Store
from infra.study import Study
from tasks.records import Recipe, TargetSpec, digest, recipe_from
from tasks.science.statistics.baselines import fit_mean_age, fit_volume_baseline, predict_volume
from tasks.science.statistics.bootstrap import subject_keys
from tasks.science.statistics.conformal import ConformalInterval
from tasks.science.statistics.controls import are_controls
from tasks.science.statistics.gates import Evidence, Verdict, judge, refusals
from tasks.steps.progress import CohortState, FittedModel
from tasks.steps.validate import joined, predictions_of, volume_figures

SESSION = ["cohort", "participant_id", "session_id"]
EVIDENCE_COLUMNS = (
    *SESSION,
    "scan_id", "years_since_baseline", "age_years", "predicted_age_years", "champion_age_years", "baseline_age_years",
    "mean_age_years", "is_control", "site", "sex",
)  # fmt: skip
DECISION_VERSION = 3


@dataclass(frozen=True)
class Version:
    """A registered version as a decision needs it: how its scans are prepared, and how wide its intervals are."""

    version: str
    uri: str
    run_id: str
    fit_key: str
    recipe: Recipe
    recipe_key: str
    target: TargetSpec
    intervals: dict[str, Any]

    def facts(self) -> dict[str, Any]:
        """What a decision records of it, enough to compare with it later without loading it."""
        return asdict(self)


def version_of(model: FittedModel) -> Version:
    """The version that a study has just fitted."""
    study, registered = model.study, model.registered
    return Version(
        version=str(registered["version"]),
        uri=str(registered["uri"]),
        run_id=str(registered["run_id"]),
        fit_key=model.fit_key,
        recipe=study.recipe,
        recipe_key=model.states[0].recipe_key,
        target=study.target,
        intervals=model.record["intervals"],
    )


def version_number(name: str, version: str) -> str:
    """A version as the registry and the decisions write it: `02` would else be another one than `2`.

    Raises:
        ValueError: It is no whole number above 0.
    """
    text = version.strip()
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"{name}: found version {version!r}, expected a whole number; see `padflow decisions {name}`.")
    return str(int(text))


def version_in_registry(client: MlflowClient, name: str, version: str, facts: dict[str, Any] | None) -> Version:
    """Another version: from what an earlier decision recorded of it, else from the contract that it carries.

    Raises:
        ValueError: The registry has no such version.
    """
    if facts is not None:
        return Version(**{**facts, "recipe": recipe_from(facts["recipe"]), "target": TargetSpec(**facts["target"])})
    uri = f"models:/{name}/{version}"
    contract = registry.load(uri, ()).unwrap_python_model().contract
    return Version(
        version=version,
        uri=uri,
        run_id=str(client.get_model_version(name, version).run_id),
        fit_key=contract["fit_key"],
        recipe=recipe_from(contract["recipe"]),
        recipe_key=contract["recipe_digest"],
        target=TargetSpec(**contract["target"]),
        intervals=contract["intervals"],
    )


def evidence_key(study: Study, fit_key: str, states: list[CohortState]) -> str:
    """Names what a decision on a fit rests on: the gates, and the people that both models are asked about."""
    inputs = [[state.spec.name, state.rows_digest, state.clinical_digest] for state in states]
    validation = [study.validation.resamples, study.validation.seed, study.validation.controls]
    return digest(["decision", DECISION_VERSION, asdict(study.promotion), validation, fit_key, inputs])


@dataclass(frozen=True)
class Scored:
    """A version and its predictions' places: the cohorts as its recipe sees them."""

    version: Version
    states: list[CohortState]


def gather_evidence(
    study: Study, store: Store, challenger: Scored, champion: Scored | None
) -> tuple[Evidence, dict[str, int]]:
    """Bring both models' predictions of the same sessions together, beside a line on tissue volumes.

    Args:
        study: Gates and target.
        store: Where predictions and figures lie.
        challenger: The new version, with every cohort.
        champion: The version in use, likewise, if there is one.

    Returns:
        The evidence, and subjects that were left out by why: somebody that a model was trained on says nothing of it.
    """
    rows = _predictions(store, challenger, study)
    rows = rows.assign(
        baseline_age_years=_baseline_ages(store, challenger, rows), mean_age_years=_mean_age(store, challenger)
    )
    rows["is_control"] = are_controls(rows, study.validation.controls)
    trained = {"challenger": challenger} | ({"champion": champion} if champion else {})
    if champion is not None:
        other = _predictions(store, champion, study)[[*SESSION, "predicted_age_years", "own_sha256"]]
        other = other.rename(columns={"predicted_age_years": "champion_age_years", "own_sha256": "other_sha256"})
        rows = rows.merge(other, on=SESSION, how="left", validate="one_to_one")
    else:
        rows = rows.assign(champion_age_years=np.nan, other_sha256="")
    left_out = {}
    for name, scored in trained.items():
        seen = _trained_on(store, scored.version.fit_key)
        known = rows["own_sha256"].isin(seen) | rows["image_sha256"].isin(seen) | rows["other_sha256"].isin(seen)
        subjects = subject_keys(rows)
        known = subjects.isin(set(subjects[known]))
        left_out[f"trained on by the {name}"] = int(subjects[known].nunique())
        rows = rows[~known].reset_index(drop=True)
    # One scan may stand in two cohorts, as controls of a clinic that are also a cohort of their own: it is one person.
    again = rows.sort_values("is_control", ascending=False, kind="stable").duplicated("own_sha256").sort_index()
    left_out["in another cohort, too"] = int(subject_keys(rows)[again].nunique())
    rows = rows[~again].reset_index(drop=True)
    raw = challenger.version.intervals.get("raw")
    interval = None if raw is None else _interval(raw)
    scans = rows.reindex(columns=list(EVIDENCE_COLUMNS))
    return Evidence(scans, champion is not None, interval, study.target.unit), {k: n for k, n in left_out.items() if n}


def _interval(raw: dict[str, Any]) -> ConformalInterval:
    half_width_years = math.inf if raw["half_width_years"] is None else raw["half_width_years"]
    return ConformalInterval(half_width_years, 1 - raw["level"], 0, raw["n_subjects"], note=raw["note"])


def _predictions(store: Store, scored: Scored, study: Study) -> pd.DataFrame:
    """One row per session with a known target; no age where the model gives none, or predicts something else."""
    tables = [
        predictions_of(store, scored.version.fit_key, state).assign(cohort=state.spec.name)
        for state in scored.states
        if state.spec.role != "train" and not state.spec.apart and len(state.prepared)
    ]
    if not tables:
        needed = [*EVIDENCE_COLUMNS, "role", "sha256", "own_sha256", "image_sha256"]
        return pd.DataFrame({name: pd.Series(dtype=object) for name in needed})
    rows = joined(tables)
    rows = rows[rows["target_years"].notna()].reset_index(drop=True)
    is_age = (rows["status"] == "ok") & (scored.version.target == study.target)
    predicted = rows["predicted_age_years"].where(is_age).astype(float)
    return rows.assign(
        age_years=rows["target_years"],
        predicted_age_years=predicted,
        own_sha256=rows["sha256"],
        session_id=rows["session_id"].astype(object).where(rows["session_id"].notna(), "").astype(str),
    )


def _baseline_ages(store: Store, scored: Scored, rows: pd.DataFrame) -> pd.Series:
    """Ages by a line on tissue volumes of the version's own training scans; none where these are not known here."""
    nothing = pd.Series(np.nan, index=rows.index)
    trained = _training_rows(store, scored.version.fit_key)
    trained = trained[trained["split"] == "train"].reset_index(drop=True)
    if rows.empty or len(trained) < 4:
        return nothing
    training = [state for state in scored.states if state.spec.role == "train"]
    try:
        volumes = volume_figures(store, training, trained)
    except KeyError:
        # An older version's scans are in no cohort of this study any more.
        return nothing
    line = fit_volume_baseline(volumes.assign(age_years=trained["target_years"]))
    others = [state for state in scored.states if state.spec.role != "train"]
    return pd.Series(predict_volume(line, volume_figures(store, others, rows)), index=rows.index)


def _mean_age(store: Store, scored: Scored) -> float:
    """The mean age of those that the version was trained on; NaN where they are not known here."""
    rows = _training_rows(store, scored.version.fit_key)
    trained = rows[rows["split"] == "train"]
    return fit_mean_age(trained["target_years"].to_numpy()).age_years if len(trained) else math.nan


def _training_rows(store: Store, fit_key: str) -> pd.DataFrame:
    key = f"{layout.fit_folder(fit_key)}/rows.parquet"
    return store.read_table(key) if store.exists(key) else pd.DataFrame({"split": [], "sha256": []})


def _trained_on(store: Store, fit_key: str) -> set[str]:
    """Scans of every part: a model is chosen and calibrated by others than it learns from."""
    return set(_training_rows(store, fit_key)["sha256"].astype(str)) - {""}


@dataclass(frozen=True)
class Weighed:
    """What the gates say of a challenger, before anything is recorded."""

    version: Version
    verdicts: tuple[Verdict, ...]
    kind: str
    reason: str
    left_out: dict[str, int]


def weigh(study: Study, store: Store, challenger: Scored, champion: Scored | None) -> Weighed:
    """Ask the gates."""
    evidence, left_out = gather_evidence(study, store, challenger, champion)
    verdicts = judge(evidence, study.promotion, study.validation.resamples, study.validation.seed)
    against = refusals(verdicts)
    if champion is None:
        failed = [verdict.sentence for verdict in verdicts if verdict.outcome == "failed"]
        reason = "there was no champion, so that the first version is it"
        reason += f"; of its own gates it fails: {'; '.join(failed)}" if failed else ""
        return Weighed(challenger.version, verdicts, "first", reason, left_out)
    if against:
        return Weighed(challenger.version, verdicts, "refused", "; ".join(against), left_out)
    unjudged = [verdict.gate for verdict in verdicts if verdict.outcome == "not judged"]
    reason = f"every gate that could be judged is passed against version {champion.version.version}"
    reason += f"; not judged, and not mandatory: {', '.join(unjudged)}" if unjudged else ""
    return Weighed(challenger.version, verdicts, "promoted", reason, left_out)


def record_decision(
    study: Study,
    settings: Settings,
    store: Store,
    client: MlflowClient,
    chain: Chain,
    weighed: Weighed,
    key: str,
    asked: bool,
) -> dict[str, Any]:
    """Append the decision to the model's chain and have the registry follow it.

    Args:
        study: Whose gates were asked.
        settings: Where the registry is.
        store: Where the chain lies.
        client: Of the registry.
        chain: As it stood when the champion was chosen to compare with.
        weighed: What the gates say.
        key: The evidence.
        asked: A person asked for it by `padflow promote`.

    Raises:
        ChampionChanged: Somebody else was faster, and the champion is another one now.
    """
    version = weighed.version.version
    raised = weighed.kind in ("first", "promoted")
    facts = {
        "study": study.name, "arm": study.arm, "study_digest": study.digest(), "promotion": asdict(study.promotion),
        "left_out_subjects": weighed.left_out, "asked": asked,
    }  # fmt: skip
    draft = Draft(
        kind=weighed.kind,  # type: ignore[arg-type]
        champion_after=version if raised else chain.champion,
        reason=weighed.reason,
        candidate=weighed.version.facts(),
        evidence_key=key,
        gates=tuple(plain(asdict(verdict)) for verdict in weighed.verdicts),
        facts=facts,
    )
    try:
        append(store, chain, draft, now())
    except ChampionChanged:
        # Two runs of one study at the same time decide the same: the slower one has nothing left to do.
        other = read_chain(store, settings, study.registered_model).about(version, key)
        if other is None or asked:
            raise
    chain, _ = follow(client, store, settings, study.registered_model)
    return dict(chain.about(version, key) or {})


def opened_chain(client: MlflowClient, store: Store, settings: Settings, model: str) -> tuple[Chain, list[str]]:
    """The chain of a model, with whatever the registry lacks of it set right first."""
    chain, problems = follow(client, store, settings, model)
    return adopt(client, store, chain, now()), problems


def roll_back(
    client: MlflowClient, store: Store, settings: Settings, model: str, reason: str
) -> tuple[dict[str, Any], list[str]]:
    """Return to the champion before this one, and again further back; versions that are gone are passed over.

    Raises:
        ValueError: There is no earlier champion.
        ChampionChanged: Somebody else was faster.
    """
    chain, _ = opened_chain(client, store, settings, model)
    there = {str(found.version) for found in client.search_model_versions(f"name = '{model}'")}
    earlier = [version for version in chain.champions[:-1] if version in there]
    if not earlier:
        known = f"version {chain.champion} is the only champion so far" if chain.champion else "it has no champion"
        raise ValueError(f"{model}: there is nothing to roll back to, since {known}; see `padflow decisions {model}`.")
    candidate = chain.facts_of(str(chain.champion))
    reason = reason or "asked by a person, who gave no reason"
    chain = append(store, chain, Draft("rolled back", earlier[-1], reason, candidate), now())
    _, problems = follow(client, store, settings, model)
    return dict(chain.decisions[-1]), problems


def plain(value: Any) -> Any:
    """A record as JSON can hold it: what is not a finite number is null."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0).isoformat()
