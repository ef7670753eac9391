"""Templates that a study gives: read from where it says, checked by their bytes, kept once per process."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from infra.storage import read_uri
from infra.study import resolve_root
from tasks.records import Recipe, TemplateSpec
from tasks.science.imaging.grid import study_grid
from tasks.science.imaging.template import Template, given_template, mni

MOST_TEMPLATES = 16


def with_template_digests(recipe: Recipe, data: str) -> Recipe:
    """Say where a recipe's templates lie and what bytes they are, so that these are part of every key.

    Args:
        recipe: As the study declares it.
        data: The data folder, which relative paths are below.

    Raises:
        ValueError: A file is not there, is no template, or is another one than the study says.
    """
    return replace(recipe, templates=tuple(_resolved(spec, data) for spec in recipe.templates))


def _resolved(spec: TemplateSpec, data: str) -> TemplateSpec:
    places = {which: resolve_root(uri, data) for which, uri in spec.files.items()}
    located = replace(spec, **places)  # type: ignore[arg-type]
    found = _read(located).digest
    if spec.sha256 not in ("", found):
        raise ValueError(
            f"template {spec.name!r}: content is sha256 {found[:8]}…, the study says {spec.sha256[:8]}….\n"
            "Put the files back that the study was made with, or change its sha256, which makes every scan anew."
        )
    return replace(located, sha256=found)


def check_grids(recipe: Recipe) -> None:
    """Refuse a grid that no scan could be brought to, before every scan is excluded for it.

    Reading MNI takes half a second, so this is for runs that have scans to prepare.

    Raises:
        ValueError: The recipe's box cuts a template's brain.
    """
    for name in [spec.name for spec in recipe.templates] or [""]:
        study_grid(recipe, load_template(recipe, name))


def load_template(recipe: Recipe, name: str) -> Template:
    """The template of that name in a recipe; "" is MNI.

    Raises:
        OSError: Storage failed, or the bytes are others than those of the recipe.
    """
    if not name:
        return mni()
    spec = next(spec for spec in recipe.templates if spec.name == name)
    template = _read(spec)
    if template.digest != spec.sha256:
        raise OSError(f"template {name!r} at {spec.t1} changed while the study ran; run again")
    return template


@lru_cache(maxsize=MOST_TEMPLATES)
def _read(spec: TemplateSpec) -> Template:
    return given_template(spec.name, template_contents(spec))


def template_contents(spec: TemplateSpec) -> dict[str, bytes]:
    """The bytes of a template's files.

    Raises:
        ValueError: A file is not there.
    """
    try:
        return {which: read_uri(uri) for which, uri in spec.files.items()}
    except FileNotFoundError as error:
        raise ValueError(
            f"template {spec.name!r}: nothing is at {error.filename or error}; "
            "give paths below --data, absolute paths or URLs in the study's [[recipe.templates]]"
        ) from error


def travelling_name(spec: TemplateSpec, which: str) -> str:
    """The name of a template's file inside a registered model."""
    return f"template-{spec.name}-{which}.nii"
