from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from infra.settings import load_settings
from infra.storage import Store
from infra.study import CohortSpec, Study
from tasks.records import NetworkSpec, Recipe, TaskWeights, TrainingSpec
from tasks.science.imaging.recipe import study_grid
from tasks.science.imaging.template import mni
from tasks.steps.members import Member
from tasks.steps.train import TrainingPlan, member_job
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


def test_a_members_job_says_where_priors_and_white_matter_lie(tmp_path: Path) -> None:
    settings = load_settings(tmp_path)
    columns = ["scan_id", "participant_id", "sha256", "target_years", "split", "template"]
    rows = [(f"scan-{n}", f"sub-{n}", f"{n:064d}", 0.1 * n, "train" if n < 6 else "validation", "") for n in range(8)]
    plan = TrainingPlan(pd.DataFrame(rows, columns=columns), "1" * 64)
    job = member_job(STUDY, settings, Store(str(tmp_path / "store"), settings.cache), plan, Member(1))
    assert {Path(row.tissue_path).is_file() for row in job.rows} == {True}
    assert Path(job.white_matter_folder) == Path(job.rows[0].tissue_path).parent
    plain = replace(STUDY, network=NetworkSpec(name="resnet18"))
    job = member_job(plain, settings, Store(str(tmp_path / "store"), settings.cache), plan, Member(1))
    assert {row.tissue_path for row in job.rows} == {""}


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
