"""Where a study stands, from the store alone: what is prepared, excluded, missing, fitted, predicted."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from infra import layout
from infra.decisions import Chain
from infra.settings import Settings
from infra.storage import Store
from infra.study import CohortSpec, Study
from tasks.records import Excluded, ScanRef, digest
from tasks.science.cohort.selection import CONSENT_STAGE, SUPERSEDED, Selection
from tasks.science.cohort.targets import target_years, without_target
from tasks.steps.exclusions import read_exclusions
from tasks.steps.index import IndexedCohort, selection_exclusions
from tasks.steps.quality import quality_exclusions


@dataclass(frozen=True)
class CohortState:
    """One cohort of a study: every indexed scan is in exactly one of unused, excluded, prepared, missing."""

    spec: CohortSpec
    indexed: IndexedCohort
    selection: Selection
    recipe_key: str
    excluded: tuple[Excluded, ...]
    prepared: pd.DataFrame = field(repr=False)
    missing: tuple[ScanRef, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Scans by what became of them; the parts add up to `indexed`."""
        return {
            "indexed": len(self.indexed.tables.manifest),
            "unused": len(self.selection.unused),
            "prepared": len(self.prepared),
            "excluded": len(self.excluded),
            "missing": len(self.missing),
        }

    @cached_property
    def rows_digest(self) -> str:
        """Names the scans that later stages see: their bytes, how they were prepared, whose they are and the age."""
        columns = ["scan_id", "participant_id", "session_id", "sha256", "age_years", "target_years"]
        return digest([self.recipe_key, self.prepared[columns].sort_values("scan_id").values.tolist()])

    @cached_property
    def clinical_digest(self) -> str:
        """Names the values beside the scans, which associations use."""
        # A file that was copied anew, or moved, still shows the same person.
        of_files = ["path", "size_bytes", "version", "entities", "run", "image_sha256", "companions"]
        table = self.prepared.drop(columns=of_files, errors="ignore").sort_values("scan_id")
        return digest(table.to_csv(index=False))


@dataclass(frozen=True)
class FittedModel:
    """One of the models that a study compares, with the cohorts as its recipe sees them.

    Attributes:
        study: The study with what this model has of its own.
        states: Every cohort.
        record: What was fitted.
        registered: Name, version, address and run in the registry.
        chain: Every decision on the models of this name.
    """

    study: Study
    states: list[CohortState] = field(repr=False)
    record: dict[str, Any] = field(repr=False)
    registered: dict[str, Any] = field(repr=False)
    chain: Chain = field(default=Chain("", ""), repr=False)

    @property
    def fit_key(self) -> str:
        """Names the fit."""
        return str(self.record["fit_key"])

    @property
    def scored(self) -> list[CohortState]:
        """The cohorts that the model has never seen."""
        return [state for state in self.states if state.spec.role != "train"]

    @property
    def decision(self) -> dict[str, Any] | None:
        """The last decision by gates on this version, if there is one."""
        return self.chain.about(str(self.registered["version"]))

    @property
    def aliases(self) -> tuple[str, ...]:
        """What the version is by decision."""
        return ("challenger", "champion") if self.chain.champion == str(self.registered["version"]) else ("challenger",)


@dataclass(frozen=True)
class Finished:
    """What the store holds of one recipe, by one listing for all cohorts.

    Attributes:
        recipe_key: The recipe's digest.
        marks: Name of each object → a remote store's mark of its bytes.
    """

    recipe_key: str
    marks: dict[str, str] = field(repr=False)


def finished_scans(store: Store, recipe_key: str) -> Finished:
    """Ask the store which scans are done, prepared or excluded."""
    return Finished(recipe_key, store.marks(layout.prepared_folder(recipe_key)))


def cohort_state(
    store: Store,
    spec: CohortSpec,
    indexed: IndexedCohort,
    study: Study,
    finished: Finished,
) -> CohortState:
    """Compare a cohort's index with what the store holds of it, and with the study's thresholds and target."""
    selection = indexed.select(study.recipe, spec.select)
    recipe_key, names = finished.recipe_key, finished.marks
    shas = selection.scans["sha256"]
    is_prepared = shas.map(lambda sha: f"{sha}.json" in names and f"{sha}.npy" in names).astype(bool)
    is_excluded = shas.map(lambda sha: f"{sha}.excluded.json" in names).astype(bool) & ~is_prepared
    refused = selection.scans[is_excluded]
    said = read_exclusions(store, recipe_key, {sha: names[f"{sha}.excluded.json"] for sha in refused["sha256"]})
    exclusions = [
        Excluded(scan_id, sha, said[sha]["stage"], said[sha]["reason"])
        for scan_id, sha in zip(refused["scan_id"], refused["sha256"], strict=True)
    ]
    prepared = selection.scans[is_prepared].reset_index(drop=True)
    poor = quality_exclusions(store, spec, indexed.root, recipe_key, prepared, study.quality)
    prepared = prepared.assign(target_years=target_years(prepared, study.target))
    if spec.role == "train":
        poor += without_target(prepared, study.target, {item.scan_id for item in poor})
    is_poor = prepared["scan_id"].isin([item.scan_id for item in poor])
    return CohortState(
        spec=spec,
        indexed=indexed,
        selection=selection,
        recipe_key=recipe_key,
        excluded=(*selection_exclusions(selection), *exclusions, *poor),
        prepared=prepared[~is_poor].reset_index(drop=True),
        missing=tuple(indexed.scan_refs(selection.scans[~is_prepared & ~is_excluded])),
    )


def excluded_share(states: list[CohortState]) -> float:
    """Excluded scans as a share of those that the study meant to use."""
    counts = [state.counts for state in states]
    used = sum(c["indexed"] - c["unused"] for c in counts)
    lost = [item for state in states for item in state.excluded if item.stage not in (SUPERSEDED, CONSENT_STAGE)]
    return len(lost) / used if used else 0.0


def predictions_key(fit_key: str, state: CohortState) -> str:
    """Names one cohort's predictions by one model."""
    return digest(["predictions", 2, fit_key, state.rows_digest])


def validation_key(study: Study, fit_key: str, states: list[CohortState]) -> str:
    """Names the metrics of the external and clinical cohorts."""
    inputs = [[state.spec.name, predictions_key(fit_key, state), state.clinical_digest] for state in states]
    # Scans that are made worse have a key of their own.
    spec = {name: value for name, value in asdict(study.validation).items() if name != "robustness"}
    return digest(["validation", 3, spec, inputs])


def association_key(fit_key: str, spec: object, states: list[CohortState]) -> str:
    """Names one association; other associations, cohorts and the validation are no part of it."""
    inputs = [[state.spec.name, predictions_key(fit_key, state), state.clinical_digest] for state in states]
    versions = layout.library_versions("statsmodels", "pandas")
    return digest(["association", 3, versions, asdict(spec), inputs])  # type: ignore[call-overload]


def registration_key(study: Study, settings: Settings, fit_key: str) -> str:
    """Where it is kept under which version a fit stands, for one name in one registry."""
    # An embedded database is another one on another machine, whatever its path.
    host = platform.node() if settings.registry_uri.startswith("sqlite:") else ""
    return layout.registration(fit_key, study.registered_model, settings.tracking_uri, settings.registry_uri, host)
