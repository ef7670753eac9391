"""What a training job needs to find the white matter of its scans: their templates' tissue priors, on this machine."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from infra import layout
from infra.settings import Settings
from infra.storage import replace_file
from infra.study import Study
from infra.templates import load_template
from tasks.science.imaging.template import MNI_NAME


@dataclass(frozen=True)
class WhiteMatterFiles:
    """Where they lie; all members and models of a recipe share them.

    Attributes:
        folder: Where the scans' white matter is kept as it is found; "" where no network segments it.
        priors: Name of a template ("": MNI) → file of its tissue priors.
    """

    folder: str = ""
    priors: dict[str, str] = field(default_factory=dict)


def white_matter_files(study: Study, settings: Settings, recipe_key: str, names: Iterable[str]) -> WhiteMatterFiles:
    """Write the tissue priors of some templates where a multi-task network segments white matter.

    Args:
        study: Its network, task weights and recipe.
        settings: Names the home folder.
        recipe_key: Of the recipe, which the folder is named by.
        names: Templates that the scans took; "" is MNI.

    Returns:
        Where everything is; nothing where nothing is segmented.
    """
    if study.network.name != "multitask_unet" or not study.training.task_weights.segmentation:
        return WhiteMatterFiles()
    from tasks.science.imaging.recipe import tissue_priors_on_grid

    folder = settings.home / "white-matter" / recipe_key[: layout.KEY_LENGTH]
    priors: dict[str, str] = {}
    for name in sorted(set(names)):
        path = folder / f"priors-{name or MNI_NAME}.npy"
        priors[name] = str(path)
        if not path.exists():
            content = io.BytesIO()
            np.save(content, tissue_priors_on_grid(study.recipe, load_template(study.recipe, name)))
            replace_file(Path(path), content.getvalue())
    return WhiteMatterFiles(str(folder), priors)
