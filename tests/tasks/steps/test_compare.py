"""Which rows of the store a comparison of models is made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from infra import layout
from infra.storage import Store
from infra.study import CohortSpec, Study
from infra.study_file import parse_study
from tasks.science.statistics.arms import HELD_OUT
from tasks.science.statistics.bootstrap import metric_table
from tasks.steps.compare import family_names, gather_comparison, settings_apart
from tasks.steps.members import member_key, members_of
from tasks.steps.progress import CohortState, FittedModel, predictions_key, validation_key
from tasks.steps.validate import measured, predictions_of

CONTENT: dict[str, Any] = {
    "name": "few",
    "cohorts": [{"name": "healthy", "role": "train", "root": "train"}],
    "network": {"name": "resnet18", "head": "regression"},
    "seeds": [1, 2],
    "models": [
        {"name": "rnc", "training": {"objective": "rank_n_contrast"}},
        {"name": "plain"},
        {"name": "plain-small", "train_subjects": 4},
    ],
}


def with_folds(folds: int) -> Study:
    return parse_study({**CONTENT, "ensemble": {"folds": folds}})


def stored_model(store: Store, study: Study, offset: float) -> FittedModel:
    """A model of twelve subjects, of which one is for calibration and two are the persistent test part."""
    rows = pd.DataFrame(
        {
            "scan_id": [f"sub-{n:02d}_T1w" for n in range(12)],
            "participant_id": [f"healthy/sub-{n:02d}" for n in range(12)],
            "session_id": "",
            "target_years": [20.0 + 5 * n for n in range(12)],
            "split": ["train"] * 7 + ["validation"] * 2 + ["calibration"] + ["test"] * 2,
        }
    )
    key = f"{study.arm:x<16}"
    store.write_table(f"{layout.fit_folder(key)}/rows.parquet", rows)
    for member in members_of(study):
        split = rows["split"]
        if member.fold >= 0:
            dealt = [str((n + member.seed) % study.ensemble.folds) for n in range(9)]
            parts = ["test" if fold == str(member.fold) else "train" for fold in dealt]
            split = pd.Series([*parts, *split[9:]])
        table = rows[["scan_id", "target_years"]].assign(
            split=split, predicted_age_years=rows["target_years"] + offset * (1 + rows.index % 3) + member.seed
        )
        store.write(member_key(key, member, "predictions.csv"), table.to_csv(index=False).encode())
    record = {"fit_key": key, "subjects_by_split": {"train": study.train_subjects or 7}}
    return FittedModel(study, [], record, {})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "cache")


def models_of(store: Store, study: Study) -> list[FittedModel]:
    return [stored_model(store, arm, offset) for arm, offset in zip(study.arms, (1.0, 2.0, 3.0), strict=True)]


def test_models_that_differ_in_size_alone_are_a_family_named_after_the_largest() -> None:
    assert family_names(list(with_folds(0).arms)) == ["rnc", "plain", "plain"]


def test_what_sets_a_model_apart_is_said_by_its_settings() -> None:
    primary, plain, small = with_folds(0).arms
    assert settings_apart(primary, primary) == {}
    assert settings_apart(plain, primary) == {"training.objective": "age"}
    assert settings_apart(small, primary) == {"training.objective": "age", "train_subjects": "4"}
    wider = replace(plain, network=replace(plain.network, inputs=("T1w", "ratio"), input_channels=2))
    assert settings_apart(wider, plain) == {"network.inputs": "T1w, ratio"}


def test_the_persistent_test_part_is_held_out_of_the_whole_ensemble(store: Store) -> None:
    comparison = gather_comparison(store, models_of(store, with_folds(0)))
    assert comparison is not None
    mae = comparison.metrics[comparison.metrics["metric"] == "mae"].set_index("model")
    assert set(mae["cohort"]) == {HELD_OUT}
    # Scans 10 and 11: offset × (2, 3) and the seeds' mean of 1.5.
    assert mae["estimate"].to_dict() == pytest.approx({"rnc": 4.0, "plain": 6.5, "plain-small": 9.0})
    assert (mae["n_subjects"] == 2).all()
    assert comparison.folds.empty
    assert comparison.arms.set_index("model")["n_train"].to_dict() == {"rnc": 7, "plain": 7, "plain-small": 4}
    curve = comparison.curve.set_index("model")
    assert list(curve.index) == ["rnc", "plain-small", "plain"]
    assert curve.loc["plain", "reference"] == "rnc"
    assert "no model of this size" in curve.loc["plain-small", "note"]


def test_folds_hold_what_their_network_has_not_seen_and_not_the_test_part(store: Store) -> None:
    comparison = gather_comparison(store, models_of(store, with_folds(3)))
    assert comparison is not None
    folds = comparison.folds
    assert folds.groupby(["model", "repeat"])["n"].sum().eq(9).all()
    assert folds.groupby("model").size().eq(6).all()
    assert (folds["n_train"] == 6).all()
    # Of the held-out scans those of the folds are once more seen by no member that is asked.
    assert comparison.paired["n_scans"].tolist() == [11, 11]
    assert set(comparison.fold_pairs["n_folds"]) == {6}


def scored_cohort(store: Store, model: FittedModel, spec: CohortSpec, contrast: str, offset: float) -> CohortState:
    """Four subjects of another hospital, of whom the last has no prediction, in the store as the steps write them."""
    names = [f"sub-{n}" for n in range(4)]
    prepared = pd.DataFrame(
        {
            "scan_id": [f"{name}_ses-1_{contrast}" for name in names],
            "cohort": spec.name,
            "participant_id": names,
            "session_id": "ses-1",
            "sha256": "0",
            "age_years": [30.0, 40.0, 50.0, 60.0],
            "target_years": [31.0, 40.0, 50.0, 60.0],
        }
    )
    state = CohortState(spec, None, None, "r", (), prepared, ())  # type: ignore[arg-type]
    table = prepared[["scan_id"]].assign(
        predicted_age_years=[*(prepared["target_years"][:3] + offset), float("nan")],
        corrected_age_years=float("nan"),
        status=["ok"] * 3 + ["out-of-range"],
        reason=[""] * 3 + ["too old"],
    )
    store.write_table(layout.predictions(predictions_key(model.fit_key, state)), table)
    return state


def test_models_on_other_contrasts_meet_in_their_sessions_and_subjects_stay_apart(store: Store) -> None:
    study = with_folds(0)
    specs = (CohortSpec("external", "external", "external"), CohortSpec("abnormal", "clinical", "clinic", apart=True))
    models = []
    for model, contrast, offset in zip(models_of(store, study), ("FLAIR", "T1w", "T1w"), (1.0, 3.0, -2.0), strict=True):
        states = [scored_cohort(store, model, spec, contrast, offset) for spec in specs]
        errors = measured(predictions_of(store, model.fit_key, states[0]))
        metrics = metric_table(errors, (), 20).assign(cohort="external", predictor="model", correction="raw")
        store.write_table(layout.validation(validation_key(model.study, model.fit_key, states)), metrics)
        models.append(replace(model, states=states))
    comparison = gather_comparison(store, models)
    assert comparison is not None
    external = comparison.paired[comparison.paired["cohort"] == "external"].set_index("model")
    assert external["n_scans"].tolist() == [3, 3]
    assert external["difference"].tolist() == pytest.approx([2.0, 1.0])
    mae = comparison.metrics[(comparison.metrics["cohort"] == "external") & (comparison.metrics["metric"] == "mae")]
    assert mae["estimate"].tolist() == pytest.approx([1.0, 3.0, 2.0])
    assert comparison.apart.groupby("model", sort=False).size().to_dict() == {"rnc": 4, "plain": 4, "plain-small": 4}
    assert comparison.apart.loc[comparison.apart["participant_id"] == "sub-3", "reason"].tolist() == ["too old"] * 3
    assert "abnormal" not in {*comparison.metrics["cohort"], *comparison.paired["cohort"], *comparison.curve["cohort"]}


def test_one_model_without_folds_has_nothing_to_compare(store: Store) -> None:
    alone = parse_study({key: value for key, value in CONTENT.items() if key != "models"})
    assert gather_comparison(store, [stored_model(store, alone, 1.0)]) is None
    folded = replace(alone, ensemble=replace(alone.ensemble, folds=3), seeds=(1,))
    comparison = gather_comparison(store, [stored_model(store, folded, 1.0)])
    assert comparison is not None
    assert comparison.models == ["few"]
    assert comparison.anova.empty
