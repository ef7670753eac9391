"""The atlas that a study gives for its maps: read from where it says, checked by its bytes."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from infra.storage import read_uri
from infra.study import ExplanationSpec, resolve_root
from infra.templates import load_template
from tasks.records import Recipe
from tasks.science.imaging.grid import study_grid, template_on_grid
from tasks.science.imaging.regions import atlas_regions


def with_atlas_digest(spec: ExplanationSpec, data: str) -> ExplanationSpec:
    """Say where a study's atlas lies and what bytes it is, so that these are part of the maps' key.

    Args:
        spec: As the study declares it.
        data: The data folder, which relative paths are below.

    Raises:
        ValueError: A file is not there, or is another one than the study says.
    """
    if not spec.atlas or not spec.methods:
        return spec
    located = replace(spec, atlas=resolve_root(spec.atlas, data), names=resolve_root(spec.names, data))
    found = _digest(*_contents(located))
    if spec.atlas_sha256 not in ("", found):
        raise ValueError(
            f"explanation.atlas: content is sha256 {found[:8]}…, the study says {spec.atlas_sha256[:8]}….\n"
            "Put the files back that the study was made with, or change its atlas_sha256, which makes the maps anew."
        )
    return replace(located, atlas_sha256=found)


def check_atlas(spec: ExplanationSpec, recipe: Recipe) -> None:
    """Refuse an atlas that does not fit the study's space before hours of work rather than after.

    Raises:
        ValueError: It cannot be used, or does not lie on a template of the recipe.
    """
    if not spec.atlas or not spec.methods:
        return
    for name in [template.name for template in recipe.templates] or [""]:
        template = load_template(recipe, name)
        shape, affine = study_grid(recipe, template)
        atlas_regions(*read_atlas(spec), shape, affine, template_on_grid(template, shape, affine)[3])


def read_atlas(spec: ExplanationSpec) -> tuple[bytes, bytes]:
    """The bytes of a located atlas and of its table of names.

    Raises:
        OSError: Storage failed, or the bytes are others than when the run began.
    """
    contents = _contents(spec)
    if _digest(*contents) != spec.atlas_sha256:
        raise OSError(f"the atlas at {spec.atlas} changed while the study ran; run again")
    return contents


def _contents(spec: ExplanationSpec) -> tuple[bytes, bytes]:
    try:
        return read_uri(spec.atlas), read_uri(spec.names)
    except FileNotFoundError as error:
        raise ValueError(
            f"explanation.atlas: nothing is at {error.filename or error}; "
            "give paths below --data, absolute paths or URLs in the study's [explanation]"
        ) from error


def _digest(image: bytes, names: bytes) -> str:
    return hashlib.sha256(hashlib.sha256(image).digest() + hashlib.sha256(names).digest()).hexdigest()
