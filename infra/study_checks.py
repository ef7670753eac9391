"""What a study's parts must hold together, checked before any scan is touched."""

from __future__ import annotations

import re
from dataclasses import asdict

from infra.phantom_cohorts import phantom_problems
from infra.study import ExplanationSpec, Study, ValidationSpec
from tasks.records import CHANNELS_OF, RatioCalibration, Recipe
from tasks.science.cohort.outliers import unknown_figures
from tasks.science.imaging.grid import RESOLUTION_LIMITS_MM
from tasks.science.statistics.declaration import check_spec
from tasks.science.statistics.gate_spec import spec_problems

SAFE_SPACE = re.compile(r"[A-Za-z0-9]{1,64}")
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# Above what a scanner's bore holds; a slip of the keyboard would take all memory.
LARGEST_EXTENT_MM = 600.0
# With fewer, the ends of a 95% interval are the outermost draws.
FEWEST_RESAMPLES = 100
LONGEST_RETEST_DAYS = 366.0
# Slices as a 2D protocol may have them; noise or a field beyond these leaves no brain to see.
DEGRADATION_LIMITS = {
    "slices_mm": (0.5, 12.0),
    "noise": (0.001, 2.0),
    "bias_field": (0.01, 2.0),
    "header_turn_degrees": (1.0, 180.0),
}


def check_consistency(study: Study, source: str) -> None:
    """Refuse a study whose parts contradict one another, naming every contradiction at once."""
    problems = []
    names = [cohort.name for cohort in study.cohorts]
    problems += [f"cohort name {n!r} is used twice; give each its own" for n in set(names) if names.count(n) > 1]
    for name in [study.name, *names, study.registered_model]:
        if not SAFE_NAME.fullmatch(name):
            problems.append(f"name {name!r} must be made of letters, digits, '-' and '_', a letter or digit first")
    problems += [
        f"cohort {c.name!r}: apart is for cohorts that are not trained on" for c in study.cohorts_of("train") if c.apart
    ]
    if not study.cohorts_of("train"):
        problems.append('no cohort has role = "train"; a study needs one')
    total = sum(study.splits.fractions().values())
    if abs(total - 1) > 1e-9:
        problems.append(f"splits add up to {total:g}; they must add up to 1")
    if min(study.splits.train, study.splits.validation) <= 0:
        problems.append("splits.train and splits.validation must be above 0")
    problems += [problem for cohort in study.cohorts for problem in phantom_problems(cohort)]
    problems += _recipe_problems(study.recipe)
    problems += _network_problems(study)
    for spec in study.associations:
        try:
            check_spec(spec)
        except ValueError as error:
            problems.append(f"association {spec.name!r}: {error}")
        if not spec.cohorts:
            problems.append(f"association {spec.name!r} names no cohort; give cohorts = [...] of: {', '.join(names)}")
        unknown = [name for name in spec.cohorts if name not in names]
        problems += [f"association {spec.name!r} names cohort {n!r}; there are: {', '.join(names)}" for n in unknown]
        apart = {c.name for c in study.cohorts if c.apart} & set(spec.cohorts)
        problems += [f"association {spec.name!r} uses {n!r}, which stands apart from every statistic" for n in apart]
        trained = {c.name for c in study.cohorts_of("train")} & set(spec.cohorts)
        problems += [f"association {spec.name!r} uses {n!r}, which the model was trained on" for n in trained]
    problems += _explanation_problems(study.explanation, names)
    problems += spec_problems(study.promotion)
    problems += _validation_problems(study.validation)
    for name in ("min_new_scans", "max_shift"):
        if not getattr(study.retraining, name) > 0:
            problems.append(f"retraining.{name} is {getattr(study.retraining, name):g}; it must be above 0")
    problems += [f"quality.limits: {problem}" for problem in unknown_figures(study.quality.limits)]
    for name, limit in study.quality.limits.items():
        if limit.min is None and limit.max is None:
            problems.append(f"quality.limits.{name} has neither min nor max; give one")
        elif limit.min is not None and limit.max is not None and limit.min > limit.max:
            problems.append(f"quality.limits.{name}: min {limit.min:g} is above max {limit.max:g}")
    if not study.quality.max_robust_z > 0:
        problems.append(f"quality.max_robust_z is {study.quality.max_robust_z:g}; it must be above 0")
    if len(set(study.seeds)) < len(study.seeds):
        problems.append("seeds must differ")
    if study.ensemble.folds == 1 or study.ensemble.folds == 2 or study.ensemble.folds < 0:
        problems.append(f"ensemble.folds is {study.ensemble.folds}; give 3 or more (train, validation, test), or 0")
    if problems:
        raise ValueError(f"{source}:\n" + "\n".join(f"  {problem}" for problem in problems))


def _network_problems(study: Study) -> list[str]:
    problems = []
    network, training, augmentation = study.network, study.training, study.training.augmentation
    channels = study.recipe.channel_names
    absent = [name for name in network.inputs if name not in channels]
    if absent or len(set(network.inputs)) < len(network.inputs):
        problems.append(f"network.inputs {list(network.inputs)}: the recipe prepares {', '.join(channels)}, each once")
    if network.input_channels not in (1, len(network.inputs or channels)):
        problems.append("network.input_channels follows from the network's inputs; leave it out")
    taken = network.inputs or channels
    if augmentation.slice_simulation > 0 and "ratio" in taken:
        problems.append(
            "training.augmentation.slice_simulation is for intensities; a ratio of thick slices cannot be made from one"
        )
    for name, value in asdict(augmentation).items():
        if name.endswith("_probability") or name == "slice_simulation":
            if not 0 <= value <= 1:
                problems.append(f"training.augmentation.{name} is {value:g}; it is a chance from 0 to 1")
        elif value < 0:
            problems.append(f"training.augmentation.{name} is {value:g}; it must not be below 0")
    for name in ("epochs", "batch_size", "accumulate_batches", "patience", "processes", "learning_rate", "temperature"):
        if not getattr(training, name) > 0:
            problems.append(f"training.{name} is {getattr(training, name):g}; it must be above 0")
    if not 0 <= training.ema_decay < 1:
        problems.append(f"training.ema_decay is {training.ema_decay:g}; it is 0 (off) or below 1")
    if study.train_subjects < 0:
        problems.append(f"train_subjects is {study.train_subjects}; give 0 for all, or how many")
    return problems


def _validation_problems(spec: ValidationSpec) -> list[str]:
    problems = []
    if spec.resamples < FEWEST_RESAMPLES:
        problems.append(f"validation.resamples is {spec.resamples}; give {FEWEST_RESAMPLES} or more, 10000 to publish")
    if spec.seed < 0 or spec.robustness.seed < 0:
        problems.append("validation.seed and validation.robustness.seed must not be below 0")
    if len(set(spec.groups)) < len(spec.groups):
        problems.append(f"validation.groups {list(spec.groups)} names a column twice")
    if not 0 < spec.retest_days <= LONGEST_RETEST_DAYS:
        problems.append(
            f"validation.retest_days is {spec.retest_days:g}; it must be above 0 and at most {LONGEST_RETEST_DAYS:g}: "
            "later sessions are longitudinal"
        )
    problems += [f"validation.controls.{name} has no value; give those of controls" for name, v in spec.controls.items()
                 if not v]  # fmt: skip
    worse = spec.robustness
    if worse.subjects < 0:
        problems.append(f"validation.robustness.subjects is {worse.subjects}; give 0 (off) or how many per cohort")
    for name, (low, high) in DEGRADATION_LIMITS.items():
        strengths = getattr(worse, name)
        outside = [strength for strength in strengths if not low <= strength <= high]
        problems += [f"validation.robustness.{name} holds {s:g}; {low:g} to {high:g} are accepted" for s in outside]
        if len(set(strengths)) < len(strengths):
            problems.append(f"validation.robustness.{name} {list(strengths)} names a strength twice")
    return problems


def _explanation_problems(spec: ExplanationSpec, cohorts: list[str]) -> list[str]:
    problems = []
    if len(set(spec.methods)) < len(spec.methods):
        problems.append(f"explanation.methods {list(spec.methods)} names a method twice")
    if spec.subjects < 2:
        problems.append(f"explanation.subjects is {spec.subjects}; it must be 2 or more, to compare two halves")
    if spec.seed < 0:
        problems.append(f"explanation.seed is {spec.seed}; it must not be below 0")
    if spec.cohort and spec.cohort not in cohorts:
        problems.append(f"explanation.cohort is {spec.cohort!r}; there are: {', '.join(cohorts)}")
    if bool(spec.atlas) != bool(spec.names):
        problems.append("explanation.atlas and explanation.names belong together: a label image and the names in it")
    return problems


def _recipe_problems(recipe: Recipe) -> list[str]:
    problems = []
    if not recipe.skull_strip and "ratio" in recipe.channel_names:
        problems.append("recipe.skull_strip = false: a T1w/T2w ratio outside the brain is none; leave it out")
    if len(set(recipe.channel_names)) < len(recipe.channel_names):
        problems.append(f"recipe.channels {list(recipe.channel_names)} names a channel twice")
    own = set(CHANNELS_OF[recipe.name])
    if recipe.name != "multichannel" and set(recipe.channel_names) != own:
        problems.append(
            f"recipe.channels {list(recipe.channel_names)} are not those of the recipe {recipe.name!r} "
            f'({", ".join(sorted(own))}); leave them out, or set name = "multichannel"'
        )
    problems += _numeric_problems(recipe)
    calibration = recipe.ratio_calibration
    default = RatioCalibration((0, 1), (0, 1))
    if calibration and recipe.templates and default.eyes_mm == calibration.eyes_mm:
        problems.append(
            "recipe.ratio_calibration looks for eyes and muscles at MNI's coordinates, and the recipe gives templates; "
            "give eyes_mm and muscles_mm in the templates' space"
        )
    names = [template.name for template in recipe.templates]
    problems += [f"recipe.templates names {n!r} twice" for n in sorted(set(names)) if names.count(n) > 1]
    for template in recipe.templates:
        if not SAFE_SPACE.fullmatch(template.name):
            problems.append(f"template name {template.name!r} must be made of letters and digits, as BIDS labels are")
        if not template.ages_months[0] < template.ages_months[1]:
            problems.append(f"template {template.name!r}: ages_months {template.ages_months} must ascend")
    return problems


def _numeric_problems(recipe: Recipe) -> list[str]:
    """Numbers with which no scan could be prepared: found later, they would exclude every one."""
    problems = []
    finest, coarsest = RESOLUTION_LIMITS_MM
    if not finest <= recipe.resolution_mm <= coarsest:
        problems.append(f"recipe.resolution_mm is {recipe.resolution_mm:g}; it must be {finest:g} to {coarsest:g}")
    if not all(0 < extent_mm <= LARGEST_EXTENT_MM for extent_mm in recipe.field_of_view_mm):
        problems.append(
            f"recipe.field_of_view_mm is {list(recipe.field_of_view_mm)}; "
            f"each must be above 0 and at most {LARGEST_EXTENT_MM:g}"
        )
    if recipe.seed < 0:
        problems.append(f"recipe.seed is {recipe.seed}; it must not be below 0")
    low, high = recipe.clip_percentiles
    if not 0 <= low < high <= 100:
        problems.append(f"recipe.clip_percentiles is [{low:g}, {high:g}]; they must ascend, from 0 to 100")
    if recipe.ratio_calibration:
        for name in ("t1w_modes", "t2w_modes"):
            eyes, muscles = getattr(recipe.ratio_calibration, name)
            if eyes == muscles:
                problems.append(f"recipe.ratio_calibration.{name} must be two different intensities; found {eyes:g}")
    return problems
