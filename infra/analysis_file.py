"""From a TOML file to declared models: a file of models alone, one that ships with padflow, or a whole study's."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from infra.study_file import STUDIES, explained, load_study
from tasks.records import FORBID_UNKNOWN_KEYS, AssociationSpec
from tasks.science.statistics.declaration import check_spec, expanded
from tasks.science.statistics.formula import nearest

ANALYSES = Path(__file__).parent / "analyses"
KEYS = ("associations", "models", "defaults")


@dataclass(frozen=True)
class _Models:
    __pydantic_config__ = FORBID_UNKNOWN_KEYS

    associations: tuple[AssociationSpec, ...]


def find_analysis(name_or_path: str) -> Path:
    """Resolve what a user typed: a TOML file, or the name of an analysis or study that ships with padflow."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    for folder in (ANALYSES, STUDIES):
        shipped = folder / f"{name_or_path}.toml"
        if "/" not in name_or_path and shipped.is_file():
            return shipped
    known = ", ".join(sorted(p.stem for p in ANALYSES.glob("*.toml")))
    raise ValueError(
        f"no file of models at {name_or_path!r}, and no analysis of that name ships with padflow (there are: "
        f"{known}).\n"
        "Give the path of a TOML file with [[associations]], each with a name and a formula."
    )


def load_models(reference: str) -> tuple[AssociationSpec, ...]:
    """Read and check declared models, so that a typo is said before any row is read.

    Args:
        reference: A path, behind a `#` a profile of a study, or a shipped name.

    Returns:
        The models, screens written out.

    Raises:
        ValueError: The text is not TOML, a key is unknown (the nearest valid one is named), or a model is malformed.
    """
    name, _, profile = reference.partition("#")
    path = find_analysis(name)
    try:
        # Windows editors put a mark before the text.
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from error
    if "cohorts" in content:
        return load_study(f"{path}#{profile}").associations
    return parse_models(content, str(path))


def parse_models(content: dict[str, Any], source: str = "models") -> tuple[AssociationSpec, ...]:
    """Check models given as plain values: `associations` (or `models`), and `defaults` that each of them has."""
    unknown = [key for key in content if key not in KEYS]
    if unknown:
        raise ValueError(f"{source}: unknown key {unknown[0]!r}; {nearest(unknown[0], KEYS)}")
    lists, defaults = [content.get(key, []) for key in KEYS[:2]], content.get("defaults", {})
    items = [item for each in lists if isinstance(each, list) for item in each]
    if not all(isinstance(item, dict) for item in (defaults, *items)) or not all(isinstance(e, list) for e in lists):
        raise ValueError(f"{source}: expected [[associations]] and [defaults] to be tables of keys.")
    if not items:
        raise ValueError(f"{source}: no models; expected [[associations]], each with a name and a formula.")
    declared = [{**defaults, **item} for item in items]
    try:
        found = TypeAdapter(_Models).validate_python({"associations": declared})
    except ValidationError as error:
        lines = [explained({**item, "loc": _named(item["loc"], declared)}) for item in error.errors()]
        raise ValueError(f"{source}:\n" + "\n".join(lines)) from error
    try:
        specs = expanded(found.associations)
        for spec in specs:
            check_spec(spec)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    return specs


def _named(location: tuple[str | int, ...], declared: list[dict[str, Any]]) -> tuple[str | int, ...]:
    """Where an error is, by the model's name instead of its number."""
    if len(location) < 2 or not isinstance(location[1], int):
        return location
    name = declared[location[1]].get("name")
    return (location[0], name, *location[2:]) if isinstance(name, str) else location
