from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infra.settings import load_settings
from infra.study import CohortSpec, Study
from tasks.records import NetworkSpec, Recipe, TaskWeights, TrainingSpec
from tasks.science.imaging.recipe import study_grid
from tasks.science.imaging.template import mni
from tasks.steps.white_matter import WhiteMatterFiles, white_matter_files

RECIPE = Recipe(resolution_mm=4.0)
STUDY = Study(
    "s", (CohortSpec("infants", "train", "train"),), recipe=RECIPE, network=NetworkSpec(name="multitask_unet")
)


def test_priors_lie_on_the_grid_of_the_prepared_scans_and_are_written_once(tmp_path: Path) -> None:
    settings = load_settings(tmp_path)
    found = white_matter_files(STUDY, settings, "0" * 64, ["", "", ""])
    assert list(found.priors) == [""]
    path = Path(found.priors[""])
    priors = np.load(path)
    assert priors.shape == (3, *study_grid(RECIPE, mni())[0])
    np.testing.assert_allclose(priors.sum(axis=0), 1, atol=1e-5)
    written_ns = path.stat().st_mtime_ns
    assert white_matter_files(STUDY, settings, "0" * 64, [""]) == found
    assert path.stat().st_mtime_ns == written_ns


@pytest.mark.parametrize(
    "study",
    [
        replace(STUDY, network=NetworkSpec(name="sfcn")),
        replace(STUDY, training=TrainingSpec(task_weights=TaskWeights(segmentation=0.0))),
    ],
)
def test_nothing_is_written_where_nothing_is_segmented(tmp_path: Path, study: Study) -> None:
    assert white_matter_files(study, load_settings(tmp_path), "0" * 64, [""]) == WhiteMatterFiles()
    assert not list(tmp_path.iterdir())
