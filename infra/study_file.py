"""From a TOML file to a study: profiles, the models that it compares, and errors that name the nearest valid key."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from infra.study import Study
from infra.study_checks import SAFE_NAME, check_consistency
from tasks.science.statistics.declaration import expanded
from tasks.science.statistics.gate_spec import for_months

# Half of what a network for thick slices learns from stays sharp, since its scans' thickness is not known beforehand.
CLINICAL_SLICE_SIMULATION = 0.5
DEFAULT_SEEDS = (1, 2, 3, 4, 5)
# What one of several compared models may have of its own.
MODEL_KEYS = (
    "recipe",
    "network",
    "training",
    "target",
    "ensemble",
    "splits",
    "seeds",
    "train_subjects",
    "associations",
    "explanation",
)
STUDIES = Path(__file__).parent / "studies"


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


def study_reference(name_or_path: str, profile: str | None = None) -> str:
    """The path of what a user named, and behind a `#` its profile, which alters results and so travels along."""
    return str(find_study(name_or_path).absolute()) + (f"#{profile}" if profile else "")


def load_study(reference: Path | str) -> Study:
    """Read and check a study file, so that a typo stops the run before any scan is touched.

    Args:
        reference: Path of a TOML file, and behind a `#` the name of one of its profiles.

    Raises:
        ValueError: The text is not TOML, a key is unknown (the nearest valid one is named), a value has the wrong
            type, the parts contradict one another, or there is no such profile.
    """
    path, _, profile = str(reference).partition("#")
    try:
        content = tomllib.loads(Path(path).read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from error
    return parse_study(content, path, profile)


def parse_study(content: dict[str, Any], source: str = "study", profile: str = "") -> Study:
    """Check a study given as plain values, as from TOML.

    Args:
        content: Its keys. `profiles` holds changes under names; `models` changes for each model that is compared.
        source: What errors name.
        profile: The profile to take, if any.
    """
    content = _with_profile(content, source, profile)
    models = content.pop("models", [])
    if not models:
        return _parse_model(content, source)
    for model in models:
        unknown = sorted(set(model) - {"name", *MODEL_KEYS})
        if unknown or not SAFE_NAME.fullmatch(str(model.get("name", ""))):
            what = f"unknown key {unknown[0]!r}" if unknown else "a name of letters, digits, '-' and '_' is missing"
            raise ValueError(f"{source}:\n  models: {what}; a model has name, and changes of {', '.join(MODEL_KEYS)}")
    names = [model["name"] for model in models]
    if len(set(names)) < len(names):
        raise ValueError(f"{source}:\n  models: the names {names} must differ")
    arms = []
    for model in models:
        changes = {key: value for key, value in model.items() if key != "name"}
        own = merged(content, {**changes, "arm": model["name"]})
        own["registered_model"] = f"{content.get('registered_model', 'brain-age')}-{model['name']}"
        arms.append(_parse_model(own, f"{source}, model {model['name']!r}"))
    return replace(arms[0], models=tuple(arms))


def _with_profile(content: dict[str, Any], source: str, profile: str) -> dict[str, Any]:
    content = dict(content)
    profiles = content.pop("profiles", {})
    if not profile:
        return content
    if profile not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        raise ValueError(f"{source}: there is no profile {profile!r}; its profiles: {known}")
    # A small run of a study is another study: its folder, models and report stand beside those of the whole one.
    own_names = {key: f"{content[key]}-{profile}" for key in ("name", "registered_model") if key in content}
    return merged(content | own_names, profiles[profile])


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay changes over settings, table by table; named entries of a list (cohorts, models) are changed by their name.

    >>> merged({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}})
    {'a': {'b': 3, 'c': 2}}
    >>> merged({"models": [{"name": "x", "n": 1}, {"name": "y"}]}, {"models": [{"name": "x", "n": 2}]})
    {'models': [{'name': 'x', 'n': 2}, {'name': 'y'}]}
    """
    result = dict(base)
    for key, value in changes.items():
        old: Any = base.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            result[key] = merged(old, value)
        elif _named(value) and _named(old):
            result[key] = _merged_by_name(old, value)
        else:
            result[key] = value
    return result


def _merged_by_name(base: list[dict[str, Any]], changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    known = {item["name"] for item in base}
    by_name = {item["name"]: item for item in changes}
    return [merged(item, by_name.get(item["name"], {})) for item in base] + [
        item for item in changes if item["name"] not in known
    ]


def _named(value: Any) -> bool:
    items = value if isinstance(value, list) else []
    return bool(items) and all(isinstance(item, Mapping) and "name" in item for item in items)


def _parse_model(content: dict[str, Any], source: str) -> Study:
    try:
        study = TypeAdapter(Study).validate_python(content)
    except ValidationError as error:
        raise ValueError(f"{source}:\n" + "\n".join(explained(item) for item in error.errors())) from error
    augmentation = study.training.augmentation
    if study.recipe.name == "clinical_2d" and "slice_simulation" not in content.get("training", {}).get(
        "augmentation", {}
    ):
        augmentation = replace(augmentation, slice_simulation=CLINICAL_SLICE_SIMULATION)
    seeds = study.seeds or ((0,) if study.ensemble.folds else DEFAULT_SEEDS)
    study = replace(study, training=replace(study.training, augmentation=augmentation), seeds=seeds)
    try:
        study = replace(study, associations=expanded(study.associations))
    except ValueError as error:
        raise ValueError(f"{source}:\n  {error}") from error
    if study.target.unit == "months":
        study = replace(study, promotion=for_months(study.promotion, set(content.get("promotion", {}))))
    check_consistency(study, source)
    inputs = study.network.inputs or study.recipe.channel_names
    return replace(study, network=replace(study.network, inputs=inputs, input_channels=len(inputs)))


def explained(item: Any) -> str:
    """Say what is wrong with one key, and for an unknown one which was perhaps meant."""
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] not in ("unexpected_keyword_argument", "extra_forbidden"):
        found = "" if item["type"] == "missing" else f"; found {item['input']!r}"
        if item["type"] == "tuple_type" and isinstance(item["input"], str):
            return f"  {where}: expected a list; found {item['input']!r}. Write [{json.dumps(item['input'])}]"
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
