"""The study file: everything that alters results, and nothing about where they are computed."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from tasks.records import (
    CHANNELS_OF,
    FORBID_UNKNOWN_KEYS,
    AssociationSpec,
    NetworkSpec,
    RatioCalibration,
    Recipe,
    Role,
    TrainingSpec,
    digest,
)
from tasks.science.cohort.outliers import Limit, unknown_figures
from tasks.science.imaging.grid import RESOLUTION_LIMITS_MM
from tasks.science.statistics.declaration import check_spec

SAFE_SPACE = re.compile(r"[A-Za-z0-9]{1,64}")
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# Above what a scanner's bore holds; a slip of the keyboard would take all memory.
LARGEST_EXTENT_MM = 600.0
# Half of what a network for thick slices learns from stays sharp, since its scans' thickness is not known beforehand.
CLINICAL_SLICE_SIMULATION = 0.5
STUDIES = Path(__file__).parent / "studies"
AGE_BAND = "age_band"
"""What `validation.groups` calls bands of age, which no table has as a column."""


@dataclass(frozen=True)
class CohortSpec:
    """One cohort of the study.

    Attributes:
        name: Its name in keys, tables and the report.
        role: `train` (healthy), `external` (healthy, never trained on) or `clinical` (patients and their controls).
        root: BIDS root: a URL, or a path relative to the data folder (`--data`, `PADFLOW_DATA`).
        select: Column of the clinical table → accepted values; other subjects are unused.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    name: str
    role: Role
    root: str
    select: dict[str, tuple[str | float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class SplitSpec:
    """Parts of the training cohort, by subject; `calibration` is seen by nothing but the age-bias fit."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    train: float = 0.7
    validation: float = 0.15
    calibration: float = 0.15
    test: float = 0.0
    seed: int = 0

    def fractions(self) -> dict[str, float]:
        """The parts that are used, by name."""
        parts = {name: getattr(self, name) for name in ("train", "validation", "calibration", "test")}
        return {name: fraction for name, fraction in parts.items() if fraction > 0}


@dataclass(frozen=True)
class ValidationSpec:
    """How external validation resamples and what it stratifies by."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    resamples: int = 10_000
    seed: int = 0
    groups: tuple[str, ...] = ("site",)


@dataclass(frozen=True)
class QualitySpec:
    """Which prepared scans are good enough. No part of the recipe: changing it recomputes no scan.

    Attributes:
        max_robust_z: Robust standard deviations from what is usual at a scan's site beyond which it is an outlier.
        limits: Quality figure → lowest (`min`) and highest (`max`) value that the study accepts.
        on_limit: `exclude` or `flag` a scan beyond a limit.
        on_outlier: `exclude` or `flag` an outlier. Outlying anatomy never excludes: it may be the disease.
        site: Column of the clinical table that names the scanner; scans are compared within it.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    max_robust_z: float = 4.0
    limits: dict[str, Limit] = field(default_factory=dict)
    on_limit: Literal["exclude", "flag"] = "exclude"
    on_outlier: Literal["exclude", "flag"] = "flag"
    site: str = "site"

    @property
    def can_exclude(self) -> bool:
        """Whether any figure can exclude a scan: if not, nobody has to read figures to know what is prepared."""
        return self.on_outlier == "exclude" or (self.on_limit == "exclude" and bool(self.limits))


@dataclass(frozen=True)
class Study:
    """A whole study. Each step receives only the parts that it uses, so a changed part redoes only its own steps.

    Attributes:
        name: Names the study's folder in the store and its MLflow experiment.
        cohorts: Where the scans are and what each cohort is for.
        recipe: How scans are prepared.
        network: The network's shape.
        training: How it is fitted.
        splits: Parts of the training cohort.
        seeds: One ensemble member is trained per seed.
        validation: Bootstrap of the external metrics.
        quality: Which prepared scans are good enough.
        associations: Declared models of brain-PAD.
        excluded_tolerance: Share of excluded scans above which the command line ends with exit code 3.
        registered_model: Name in the MLflow registry.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    name: str
    cohorts: tuple[CohortSpec, ...]
    recipe: Recipe = field(default_factory=Recipe)
    network: NetworkSpec = field(default_factory=NetworkSpec)
    training: TrainingSpec = field(default_factory=TrainingSpec)
    splits: SplitSpec = field(default_factory=SplitSpec)
    seeds: tuple[int, ...] = (0,)
    validation: ValidationSpec = field(default_factory=ValidationSpec)
    quality: QualitySpec = field(default_factory=QualitySpec)
    associations: tuple[AssociationSpec, ...] = ()
    excluded_tolerance: float = 0.1
    registered_model: str = "brain-age"

    def digest(self) -> str:
        """Name the study by its content."""
        return digest(asdict(self))

    def cohorts_of(self, *roles: str) -> list[CohortSpec]:
        """The cohorts that have one of the given roles, in the order of the file."""
        return [cohort for cohort in self.cohorts if cohort.role in roles]


def find_study(name_or_path: str) -> Path:
    """Resolve what a user typed: a path to a TOML file, or the name of a study that ships with padflow."""
    shipped = STUDIES / f"{name_or_path}.toml"
    path = Path(name_or_path)
    if path.is_file():
        return path
    if "/" not in name_or_path and shipped.is_file():
        return shipped
    known = ", ".join(sorted(p.stem for p in STUDIES.glob("*.toml")))
    raise ValueError(
        f"no study file at {name_or_path!r}, and no study of that name ships with padflow (there are: {known}).\n"
        "Give the path of a TOML file; the README's section 'Your own data' shows one."
    )


def load_study(path: Path) -> Study:
    """Read and check a study file, so that a typo stops the run before any scan is touched.

    Raises:
        ValueError: The text is not TOML, a key is unknown (the nearest valid one is named), a value has the wrong
            type, or the parts contradict one another.
    """
    try:
        content = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from error
    return parse_study(content, str(path))


def parse_study(content: dict[str, Any], source: str = "study") -> Study:
    """Check a study given as plain values, as from TOML."""
    try:
        study = TypeAdapter(Study).validate_python(content)
    except ValidationError as error:
        raise ValueError(f"{source}:\n" + "\n".join(_explain(item) for item in error.errors())) from error
    if study.recipe.name == "clinical_2d" and "slice_simulation" not in content.get("training", {}):
        study = replace(study, training=replace(study.training, slice_simulation=CLINICAL_SLICE_SIMULATION))
    _check_consistency(study, source)
    return replace(study, network=replace(study.network, input_channels=len(study.recipe.channel_names)))


def _explain(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] not in ("unexpected_keyword_argument", "extra_forbidden"):
        found = "" if item["type"] == "missing" else f"; found {item['input']!r}"
        return f"  {where}: {item['msg'][0].lower()}{item['msg'][1:]}{found}"
    valid = _valid_keys(item["loc"][:-1])
    near = difflib.get_close_matches(str(item["loc"][-1]), valid, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(valid)}"
    return f"  {where}: unknown key; {hint}"


def _valid_keys(location: tuple[str | int, ...]) -> list[str]:
    kind: Any = Study
    for part in location:
        if isinstance(part, int) or not is_dataclass(kind):
            continue
        hint = get_type_hints(kind).get(str(part))
        if hint is None:  # A key of the user's own, as a figure's name in `quality.limits`.
            continue
        kind = next((arg for arg in get_args(hint) if is_dataclass(arg)), hint)
    return [f.name for f in fields(kind)] if is_dataclass(kind) else []


def _check_consistency(study: Study, source: str) -> None:
    problems = []
    names = [cohort.name for cohort in study.cohorts]
    problems += [f"cohort name {n!r} is used twice; give each its own" for n in set(names) if names.count(n) > 1]
    for name in [study.name, *names, study.registered_model]:
        if not SAFE_NAME.fullmatch(name):
            problems.append(f"name {name!r} must be made of letters, digits, '-' and '_', a letter or digit first")
    if not study.cohorts_of("train"):
        problems.append('no cohort has role = "train"; a study needs one')
    total = sum(study.splits.fractions().values())
    if abs(total - 1) > 1e-9:
        problems.append(f"splits add up to {total:g}; they must add up to 1")
    if min(study.splits.train, study.splits.validation) <= 0:
        problems.append("splits.train and splits.validation must be above 0")
    problems += _recipe_problems(study.recipe)
    if study.network.input_channels not in (1, len(study.recipe.channel_names)):
        problems.append("network.input_channels follows from the recipe's channels; leave it out")
    if not 0 <= study.training.slice_simulation <= 1:
        problems.append(f"training.slice_simulation is {study.training.slice_simulation:g}; it is a chance from 0 to 1")
    elif study.training.slice_simulation > 0 and "ratio" in study.recipe.channel_names:
        problems.append("training.slice_simulation is for intensities; a ratio of thick slices cannot be made from one")
    for spec in study.associations:
        try:
            check_spec(spec)
        except ValueError as error:
            problems.append(f"association {spec.name!r}: {error}")
        unknown = [name for name in spec.cohorts if name not in names]
        problems += [f"association {spec.name!r} names cohort {n!r}; there are: {', '.join(names)}" for n in unknown]
        trained = {c.name for c in study.cohorts_of("train")} & set(spec.cohorts)
        problems += [f"association {spec.name!r} uses {n!r}, which the model was trained on" for n in trained]
    problems += [f"quality.limits: {problem}" for problem in unknown_figures(study.quality.limits)]
    for name, limit in study.quality.limits.items():
        if limit.min is None and limit.max is None:
            problems.append(f"quality.limits.{name} has neither min nor max; give one")
        elif limit.min is not None and limit.max is not None and limit.min > limit.max:
            problems.append(f"quality.limits.{name}: min {limit.min:g} is above max {limit.max:g}")
    if not study.quality.max_robust_z > 0:
        problems.append(f"quality.max_robust_z is {study.quality.max_robust_z:g}; it must be above 0")
    if not study.seeds or len(set(study.seeds)) < len(study.seeds):
        problems.append("seeds must hold at least one seed, each once")
    if problems:
        raise ValueError(f"{source}:\n" + "\n".join(f"  {problem}" for problem in problems))


def _recipe_problems(recipe: Recipe) -> list[str]:
    problems = []
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


def resolve_root(root: str, data: str) -> str:
    """Where a cohort lies: a URL or absolute path as it stands, anything else below the data folder.

    >>> resolve_root("site-a", "s3://bucket/raw")
    's3://bucket/raw/site-a'
    >>> resolve_root("s3://site-a/bids", "/data")
    's3://site-a/bids'
    """
    if "://" in root or root.startswith("/"):
        return root
    base = data if "://" in data else os.path.abspath(data)  # noqa: PTH100 (resolving links would change the key)
    return base.rstrip("/") + "/" + root.strip("/") if root.strip("/.") else base.rstrip("/")
