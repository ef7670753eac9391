"""What stops a training: copies across parts or in an external cohort, a target that is missing."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pandas as pd
import pytest

from infra import layout
from infra.storage import Store
from infra.study import CohortSpec, SplitSpec, Study
from tasks.records import AgeBias, Recipe, TargetSpec
from tasks.steps.index import index_cohort
from tasks.steps.progress import CohortState, cohort_state, finished_scans
from tasks.steps.train import calibrate, intervals, plan_training
from tests.tasks.steps.test_quality import tiny_cohort

RECIPE = "0123456789abcdef" * 4
HEALTHY, EXTERNAL = CohortSpec("healthy", "train", "healthy"), CohortSpec("external", "external", "external")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "cache")


def state_of(store: Store, root: Path, spec: CohortSpec, study: Study) -> CohortState:
    """A cohort whose every scan is prepared; a prepared volume is as its voxels are, whatever the file's bytes."""
    indexed = index_cohort(store, spec.name, str(root))
    for row in indexed.select(Recipe(), {}).scans.to_dict("records"):
        voxels = gzip.decompress(Path(root, row["path"]).read_bytes())
        store.write(layout.prepared_volume(RECIPE, row["sha256"]), b"")
        sidecar = {"quality": {"snr": 8.0}, "volume_sha256": hashlib.sha256(voxels).hexdigest()}
        store.write_json(layout.prepared_sidecar(RECIPE, row["sha256"]), sidecar)
    return cohort_state(store, spec, indexed, study, finished_scans(store, RECIPE))


def copy_compressed_anew(source: Path, target: Path) -> None:
    """The same voxels and header in a file of other bytes."""
    target.write_bytes(gzip.compress(gzip.decompress(source.read_bytes()), compresslevel=1, mtime=12345))


def image(root: Path, number: int) -> Path:
    return root / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}_T1w.nii.gz"


def test_a_copy_that_was_compressed_anew_stops_the_run_and_is_named(store: Store, tmp_path: Path) -> None:
    study = Study("s", (HEALTHY,), seeds=(1,), splits=SplitSpec(0.5, 0.25, 0.25))
    tiny_cohort(tmp_path / "healthy", 12)
    plan = plan_training(study, store, [state_of(store, tmp_path / "healthy", HEALTHY, study)])
    splits = plan.rows.set_index("participant_id")["split"]
    trained, calibrating = (int(splits[splits == part].index[0][-2:]) for part in ("train", "calibration"))
    copy_compressed_anew(image(tmp_path / "healthy", trained), image(tmp_path / "healthy", calibrating))
    state = state_of(store, tmp_path / "healthy", HEALTHY, study)
    assert state.prepared["sha256"].nunique() == 12
    with pytest.raises(ValueError, match="in two splits") as refused:
        plan_training(study, store, [state])
    for number in (trained, calibrating):
        assert f"sub-{number:02d}" in str(refused.value)


def test_a_copy_in_an_external_cohort_stops_the_run(store: Store, tmp_path: Path) -> None:
    study = Study("s", (HEALTHY, EXTERNAL), seeds=(1,))
    tiny_cohort(tmp_path / "healthy", 8)
    tiny_cohort(tmp_path / "external", 20)
    for number in range(8):
        image(tmp_path / "external", number).unlink()
    states = [state_of(store, tmp_path / spec.name, spec, study) for spec in (HEALTHY, EXTERNAL)]
    plan_training(study, store, states)
    copy_compressed_anew(image(tmp_path / "healthy", 3), image(tmp_path / "external", 15))
    states[1] = state_of(store, tmp_path / "external", EXTERNAL, study)
    with pytest.raises(ValueError, match="in training and in evaluation") as refused:
        plan_training(study, store, states)
    assert "external/sub-15_T1w" in str(refused.value)


def test_training_scans_without_the_target_are_excluded_rows(store: Store, tmp_path: Path) -> None:
    study = Study("s", (HEALTHY,), target=TargetSpec("myelination_months", "months"), seeds=(1,))
    tiny_cohort(tmp_path / "healthy", 6)
    table = tmp_path / "healthy" / "participants.tsv"
    people = pd.read_csv(table, sep="\t").assign(myelination_months=["3", "n/a", "6.5", "9", "12", "n/a"])
    people.to_csv(table, sep="\t", index=False)
    state = state_of(store, tmp_path / "healthy", HEALTHY, study)
    assert [(item.scan_id, item.stage) for item in state.excluded] == [
        ("healthy/sub-01_T1w", "target"), ("healthy/sub-05_T1w", "target"),
    ]  # fmt: skip
    assert "has no myelination_months" in state.excluded[0].reason
    assert state.prepared["target_years"].tolist() == [0.25, 6.5 / 12, 0.75, 1.0]
    assert sum(state.counts.values()) == 2 * state.counts["indexed"]


def test_a_model_of_another_target_has_no_age_bias_and_few_subjects_have_no_interval() -> None:
    calibration = pd.DataFrame(
        {"target_years": [20.0, 40.0, 60.0, 80.0], "predicted_age_years": [25.0, 42.0, 58.0, 74.0]}
    )
    assert calibrate(calibration, TargetSpec())[0] is not None
    bias, why = calibrate(calibration, TargetSpec("myelination_months", "months"))
    assert bias is None
    assert "learns myelination_months" in why
    found = intervals(calibration, AgeBias(0.8, 8.0, 4))
    assert found["raw"]["half_width_years"] is None
    assert "too few" in found["raw"]["note"]
    many = pd.concat([calibration] * 10, ignore_index=True)
    assert intervals(many, None)["raw"]["half_width_years"] == 6.0
