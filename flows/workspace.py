"""What every flow of a study starts from: the study, the settings, the store and the state of each cohort."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import Progress

from flows.progress_bars import counter
from infra import layout
from infra.atlases import with_atlas_digest
from infra.phantom_cohorts import with_phantom_roots, write_absent_phantoms
from infra.settings import Settings, load_settings
from infra.storage import Store
from infra.study import GROUPS, Study, resolve_root
from infra.study_file import load_study
from infra.templates import with_template_digests
from tasks.science.imaging.recipe import recipe_digest
from tasks.science.statistics.declaration import check_spec
from tasks.steps.index import IndexedCohort, index_cohort, latest_index
from tasks.steps.progress import CohortState, cohort_state, finished_scans, registration_key

PREDICTION_COLUMNS = (
    "predicted_age_years",
    "brain_pad_years",
    "corrected_age_years",
    "corrected_brain_pad_years",
    "ensemble_spread_years",
    "role",
)


class NotReady(ValueError):
    """A stage was asked for before what it builds on is done."""


@dataclass(frozen=True)
class Workspace:
    """A study and where it runs."""

    study: Study
    study_text: str
    settings: Settings
    store: Store

    @property
    def recipe_key(self) -> str:
        """The digest of the study's recipe."""
        return recipe_digest(self.study.recipe)

    def index(self, progress: Progress, rehash: bool = False) -> list[CohortState]:
        """Read every cohort's BIDS root anew and compare with the store; phantoms that are not there are written."""
        write_absent_phantoms(self.study.cohorts, self.settings.data, self.settings.workers, partial(counter, progress))
        indexed = []
        for spec in self.study.cohorts:
            root = resolve_root(spec.root, self.settings.data)
            indexed.append(index_cohort(self.store, spec.name, root, rehash, counter(progress, f"index {spec.name}")))
        states = self.states_of(indexed)
        self._check_columns(states)
        return states

    def by_model(self, states: list[CohortState]) -> Iterator[tuple[Workspace, list[CohortState]]]:
        """Each model that the study compares as a workspace of its own, with the cohorts as its recipe sees them."""
        known = {(self.recipe_key, self.study.target): states}
        for arm in self.study.arms:
            own = replace(self, study=arm)
            view = (own.recipe_key, arm.target)
            if view not in known:
                known[view] = own.states_of([state.indexed for state in states])
            yield own, known[view]

    def by_recipe(self, states: list[CohortState]) -> list[tuple[Workspace, list[CohortState]]]:
        """Likewise, but once for each way to prepare scans."""
        return list({own.recipe_key: (own, view) for own, view in self.by_model(states)}.values())

    def states_of(self, indexed: list[IndexedCohort]) -> list[CohortState]:
        """Where given cohorts stand, as the study's recipe sees them."""
        finished = finished_scans(self.store, self.recipe_key)
        return [
            cohort_state(self.store, spec, cohort, self.study, finished)
            for spec, cohort in zip(self.study.cohorts, indexed, strict=True)
        ]

    def _check_columns(self, states: list[CohortState]) -> None:
        """Refuse an association or group of a column that does not exist before hours of work, not after."""
        associations = [spec for arm in self.study.arms for spec in arm.associations]
        for association in associations:
            tables = [state.selection.scans for state in states if state.spec.name in association.cohorts]
            check_spec(association, [*PREDICTION_COLUMNS, *(str(name) for table in tables for name in table.columns)])
        known = {*GROUPS, *(str(name) for state in states for name in state.selection.scans.columns)}
        for group in self.study.validation.groups:
            if group not in known:
                raise ValueError(f"validation.groups names {group!r}, which no cohort has; there are: {sorted(known)}")

    def forget_exclusions(self, states: list[CohortState]) -> None:
        """Take exclusions of preprocessing away, so that those scans are tried again."""
        for own, view in self.by_recipe(states):
            keys = {layout.excluded_scan(own.recipe_key, item.sha256) for state in view for item in state.excluded}
            held = self.store.names(layout.prepared_folder(own.recipe_key))
            for key in sorted(keys):
                if key.rsplit("/", 1)[-1] in held:
                    self.store.delete(key)

    def stored_states(self) -> list[CohortState]:
        """Where each cohort stands by its newest index, from the store alone.

        Raises:
            NotReady: A cohort was never indexed.
        """
        indexed = []
        for spec in self.study.cohorts:
            root = resolve_root(spec.root, self.settings.data)
            cohort = latest_index(self.store, spec.name, root)
            if cohort is None:
                raise NotReady(
                    f"cohort {spec.name!r} ({root}) is not indexed in {self.store.url}; "
                    f"run `padflow preprocess` or `padflow run` on the study first, with the same --store and --data"
                )
            indexed.append(cohort)
        return self.states_of(indexed)

    def fit_record(self, fit_key: str) -> dict[str, Any] | None:
        """What was fitted under a key, or None."""
        key = layout.fit_record(fit_key)
        return dict(self.store.read_json(key)) if self.store.exists(key) else None

    def registration(self, fit_key: str) -> dict[str, Any] | None:
        """Under which version a fit stands in the settings' registry, or None."""
        if not self.settings.has_registry:
            return None
        key = registration_key(self.study, self.settings, fit_key)
        return dict(self.store.read_json(key)) if self.store.exists(key) else None


def open_workspace(study_path: str) -> Workspace:
    """Load a study and connect to its store, as the environment says."""
    settings = load_settings()
    study = with_phantom_roots(load_study(study_path))
    arms = tuple(_with_digests(arm, settings) for arm in study.models)
    study = replace(_with_digests(study, settings), models=arms)
    text = Path(study_path.partition("#")[0]).read_text()
    return Workspace(study, text, settings, Store(settings.store, settings.cache, settings.cache_bytes))


def _with_digests(study: Study, settings: Settings) -> Study:
    return replace(
        study,
        recipe=with_template_digests(study.recipe, settings.data),
        explanation=with_atlas_digest(study.explanation, settings.data),
    )
