"""Show where the model reads age: maps averaged over subjects in template space, and what they say by region."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from infra import layout
from infra.atlases import read_atlas
from infra.storage import Store
from infra.study import ExplanationSpec, Study
from infra.templates import load_template
from tasks.records import ExplanationMethod, digest
from tasks.science.cohort.age_spread import spread_over_ages
from tasks.science.imaging.exchange import nifti_gz
from tasks.science.imaging.grid import study_grid, template_on_grid
from tasks.science.imaging.map_average import MapAverage, split_halves
from tasks.science.imaging.overlay import overlay_png
from tasks.science.imaging.regions import RegionSet, atlas_regions, known_places, sphere_regions, tissue_regions
from tasks.science.imaging.template import Template
from tasks.science.report.contents import Explanation
from tasks.steps.members import member_key, members_of
from tasks.steps.progress import CohortState, FittedModel

# Raised when a change of the code alters the maps that equal inputs give.
EXPLANATION_VERSION = 1
RECORD, REGIONS, OVERLAY = "record.json", "regions.parquet", "overlay.png"
SIGNED, MAGNITUDE = "signed.nii.gz", "magnitude.nii.gz"
# SmoothGrad is published as a magnitude; the other two are what their names say.
IS_SIGNED: dict[ExplanationMethod, bool] = {"smoothgrad": False, "grad_cam": False, "grad_ram": True}
PER_YEAR = {"years": 1.0, "months": 12.0}


def explained_cohort(spec: ExplanationSpec, states: list[CohortState]) -> CohortState:
    """Whose scans the maps are of."""
    if spec.cohort:
        return next(state for state in states if state.spec.name == spec.cohort)
    usable = [state for state in states if not state.spec.apart]
    by_role = [state for role in ("external", "clinical") for state in usable if state.spec.role == role]
    return [*by_role, *states][0]


def chosen_scans(spec: ExplanationSpec, states: list[CohortState]) -> pd.DataFrame:
    """One prepared scan of each of some subjects, spread over age; all in one template's space, the most frequent."""
    scans = explained_cohort(spec, states).prepared
    if scans.empty:
        return scans
    in_one_space = scans[scans["template"] == scans["template"].mode().iloc[0]]
    first = in_one_space.sort_values(["years_since_baseline", "session_id", "scan_id"])
    first = first.drop_duplicates("participant_id").sort_values("scan_id", ignore_index=True)
    return first.iloc[spread_over_ages(first["age_years"].to_numpy(dtype=float), spec.subjects)]


def explanation_key(study: Study, fit_key: str, states: list[CohortState], method: ExplanationMethod) -> str:
    """Names the maps by one method: the model, the scans and the settings; the other methods are no part of it."""
    spec = asdict(study.explanation)
    del spec["methods"]
    scans = chosen_scans(study.explanation, states)[["scan_id", "sha256"]].to_numpy().tolist()
    versions = layout.library_versions("torch", "numpy", "scipy", "nilearn")
    inputs = [fit_key, explained_cohort(study.explanation, states).recipe_key, scans, spec, method]
    return digest(["explanation", EXPLANATION_VERSION, versions, inputs])


def methods_left(study: Study, store: Store, fit_key: str, states: list[CohortState]) -> list[ExplanationMethod]:
    """The declared methods whose maps the store lacks."""
    keys = {method: explanation_key(study, fit_key, states, method) for method in study.explanation.methods}
    return [method for method, key in keys.items() if not store.exists(layout.explanation(key, RECORD))]


@task(task_run_name="explain-{method}-{model.study.arm}", cache_policy=NO_CACHE)
def explain(
    store: Store, model: FittedModel, method: ExplanationMethod, on_start: Callable[[int], Callable[[], None]]
) -> None:
    """Make one method's mean maps, regions and picture; the record comes last."""
    # Whether there is anything to do is asked without torch.
    from lightning_modules.explanation import explain_scans

    study, states = model.study, model.states
    state, scans = explained_cohort(study.explanation, states), chosen_scans(study.explanation, states)
    if scans.empty:
        raise ValueError(
            f"cohort {state.spec.name!r} has no prepared scan to make maps of; "
            "name another in the study's explanation.cohort"
        )
    template = load_template(study.recipe, str(scans["template"].iloc[0]))
    shape, affine = study_grid(study.recipe, template)
    average = MapAverage(template_on_grid(template, shape, affine)[3], region_sets(study, template))
    volumes = [layout.prepared_volume(state.recipe_key, str(sha)) for sha in scans["sha256"]]
    advance = on_start(len(scans))
    unit = study.target.unit
    per_year = np.float32(PER_YEAR[unit])
    cell_mm: list[float] = []
    seed = study.explanation.seed
    with store.holding(volumes) as paths:
        named = list(zip(scans["scan_id"].astype(str), paths, strict=True))
        weights = member_weights(store, model)
        maps = explain_scans(study.network, weights, named, study.recipe.channel_names, method, seed)
        for one, half in zip(maps, split_halves(len(scans), seed), strict=True):
            average.add(per_year * one.signed, per_year * one.magnitude, int(half))
            cell_mm = [size * study.recipe.resolution_mm for size in one.cell_voxels]
            advance()
    facts = {
        "method": method,
        "cohort": state.spec.name,
        "n_subjects": average.subjects,
        "scan_ids": scans["scan_id"].tolist(),
        "age_range": [PER_YEAR[unit] * float(scans["age_years"].agg(end)) for end in ("min", "max")],
        "age_unit": unit,
        "members": len(members_of(study)),
        "template": template.name,
        "cell_mm": cell_mm,
        "unit": f"{unit} per {_per(study, method)}",
    }
    keep_maps(store, explanation_key(study, model.fit_key, states, method), average, affine, template, facts)


def _per(study: Study, method: ExplanationMethod) -> str:
    """What a map's values are per: a cell of the feature map, or a unit of intensity as the network sees it."""
    if method != "smoothgrad":
        return "cell"
    return "z" if study.network.scaling == "zscore" else "range"


def explanations_of(store: Store, model: FittedModel) -> tuple[Explanation, ...]:
    """Every map that a model declares, as the report shows it."""
    study = model.study
    keys = [explanation_key(study, model.fit_key, model.states, method) for method in study.explanation.methods]
    return tuple(
        Explanation(
            facts=store.read_json(layout.explanation(key, RECORD)),
            regions=store.read_table(layout.explanation(key, REGIONS)),
            picture=store.read(layout.explanation(key, OVERLAY)),
            model=study.arm,
        )
        for key in keys
    )


def member_weights(store: Store, model: FittedModel) -> list[Path]:
    """Files of the ensemble's weights on this machine."""
    keys = [member_key(model.fit_key, member, "weights.safetensors") for member in members_of(model.study)]
    return [store.local_path(key) for key in keys]


def region_sets(study: Study, template: Template) -> list[RegionSet]:
    """What maps are added up over: the study's atlas where it gives one; tissues; in MNI space, known places."""
    shape, affine = study_grid(study.recipe, template)
    _, grey, white, brain = template_on_grid(template, shape, affine)
    tissue = tissue_regions(grey, white, brain)
    if study.explanation.atlas:
        return [atlas_regions(*read_atlas(study.explanation), shape, affine, brain), tissue]
    if not template.name.startswith("MNI"):
        return [tissue]
    return [sphere_regions(known_places(), shape, affine), tissue]


def keep_maps(
    store: Store, key: str, average: MapAverage, affine: Any, template: Template, facts: dict[str, Any]
) -> None:
    """Write everything that was made of one method."""
    signed = IS_SIGNED[facts["method"]]
    shown = average.signed if signed else average.magnitude
    title = f"{facts['method']}, mean of {facts['n_subjects']} subjects of {facts['cohort']}"
    picture = overlay_png(shown, affine, template, title=title, unit=facts["unit"], signed=signed)
    repeatability = average.repeatability(of_magnitude=not signed)
    regions = io.BytesIO()
    average.regions().to_parquet(regions, index=False)
    store.write(layout.explanation(key, SIGNED), nifti_gz(average.signed, affine, template.name))
    store.write(layout.explanation(key, MAGNITUDE), nifti_gz(average.magnitude, affine, template.name))
    store.write(layout.explanation(key, REGIONS), regions.getvalue())
    store.write(layout.explanation(key, OVERLAY), picture)
    defined = None if repeatability != repeatability else repeatability
    store.write_json(layout.explanation(key, RECORD), {**facts, "signed": signed, "repeatability": defined})
