"""Study files: typos are answered with the nearest valid key, contradictions are refused before any work."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from pathlib import Path

import pytest

from infra.study import resolve_root
from infra.study_file import STUDIES, find_study, load_study, parse_study
from tasks.records import RatioCalibration, Recipe, TemplateSpec, as_json, recipe_from
from tests.tiny_study import STUDY


def study_with(**changes: object) -> dict[str, object]:
    return {**tomllib.loads(STUDY), **changes}


@pytest.mark.parametrize(
    ("typo", "hint"),
    [
        ({"cohort": []}, "did you mean 'cohorts'?"),
        ({"training": {"epoch": 3}}, "did you mean 'epochs'?"),
        ({"recipe": {"resolution": 1.0}}, "did you mean 'resolution_mm'?"),
        ({"cohorts": [{"name": "a", "role": "train", "root": "a", "selct": {}}]}, "did you mean 'select'?"),
        ({"splits": {"trian": 1.0}}, "did you mean 'train'?"),
        ({"network": {"zzzz": 1}}, "valid keys: name, head, channels"),
        ({"quality": {"max_robust": 3.0}}, "did you mean 'max_robust_z'?"),
        ({"quality": {"limits": {"snr": {"mim": 3.0}}}}, "did you mean 'min'?"),
        ({"validation": {"retest": 3}}, "did you mean 'retest_days'?"),
        ({"validation": {"robustness": {"slices": [5.0]}}}, "did you mean 'slices_mm'?"),
    ],
)
def test_unknown_keys_are_answered_with_the_nearest(typo: dict[str, object], hint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)):
        parse_study(study_with(**typo))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "../up"}, "must be made of letters"),
        ({"splits": {"train": 0.5, "validation": 0.2, "calibration": 0.2}}, "add up to 0.9"),
        ({"cohorts": [{"name": "a", "role": "external", "root": "a"}], "associations": []}, 'role = "train"'),
        ({"associations": [{"name": "x", "formula": "brain_pad_years ~ age_years", "cohorts": ["nobody"]}]}, "nobody"),
        ({"associations": [{"name": "x", "formula": "a ~ b", "cohorts": ["healthy"]}]}, "trained on"),
        ({"associations": [{"name": "x", "formula": "a ~ __import__('os')", "cohorts": ["ms"]}]}, "__import__"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"validation": {"resamples": 10}}, "validation.resamples is 10; give 100 or more"),
        ({"validation": {"groups": ["site", "site"]}}, "names a column twice"),
        ({"validation": {"retest_days": 0}}, "validation.retest_days is 0"),
        ({"validation": {"retest_days": 4000}}, "later sessions are longitudinal"),
        ({"validation": {"controls": {"diagnosis": []}}}, "validation.controls.diagnosis has no value"),
        ({"validation": {"robustness": {"subjects": -1}}}, "validation.robustness.subjects is -1"),
        ({"validation": {"robustness": {"slices_mm": [5.0, 40.0]}}}, "validation.robustness.slices_mm holds 40"),
        ({"validation": {"robustness": {"noise": [0.1, 0.1]}}}, "names a strength twice"),
        ({"quality": {"limits": {"srn": {"min": 5.0}}}}, "no quality figure is called 'srn'; did you mean 'snr'?"),
        ({"quality": {"limits": {"snr": {}}}}, "quality.limits.snr has neither min nor max"),
        ({"quality": {"limits": {"snr": {"min": 5.0, "max": 1.0}}}}, "min 5 is above max 1"),
        ({"quality": {"max_robust_z": 0.0}}, "must be above 0"),
        ({"training": {"augmentation": {"slice_simulation": 1.5}}}, "training.augmentation.slice_simulation is 1.5"),
        (
            {"training": {"augmentation": {"slice_simulation": 0.5}}, "recipe": {"name": "t1w_t2w_ratio"}},
            "slice_simulation is for",
        ),
        ({"recipe": {"resolution_mm": 0.3}}, "recipe.resolution_mm is 0.3; it must be 0.5 to 16"),
        ({"recipe": {"resolution_mm": float("nan")}}, "recipe.resolution_mm is nan"),
        ({"recipe": {"field_of_view_mm": [160.0, -1.0, 160.0]}}, "recipe.field_of_view_mm is [160.0, -1.0, 160.0]"),
        ({"recipe": {"field_of_view_mm": [1.6e5, 192.0, 160.0]}}, "at most 600"),
        ({"recipe": {"clip_percentiles": [99, 1]}}, "recipe.clip_percentiles is [99, 1]; they must ascend"),
        ({"recipe": {"seed": -1}}, "recipe.seed is -1"),
        (
            {"recipe": {"ratio_calibration": {"t1w_modes": [30, 45], "t2w_modes": [5, 5]}}},
            "recipe.ratio_calibration.t2w_modes must be two different intensities",
        ),
    ],
)
def test_contradictions_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_study(study_with(**changes))


def test_a_wrong_type_says_what_was_found() -> None:
    with pytest.raises(ValueError, match=r"recipe\.resolution_mm.*found 'fine'"):
        parse_study(study_with(recipe={"resolution_mm": "fine"}))


def test_a_text_that_is_not_toml_is_said(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("name = ")
    with pytest.raises(ValueError, match="not valid TOML"):
        load_study(path)


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_study_loads_and_is_found_by_name(path: Path) -> None:
    assert load_study(find_study(path.stem)).name == path.stem


@pytest.mark.parametrize("name", ["ms-flair", "clinical-2d", "infant-myelination", "rank-n-contrast"])
@pytest.mark.parametrize("profile", ["phantom", "tiny"])
def test_the_published_studies_run_on_phantoms_that_they_describe(name: str, profile: str) -> None:
    whole, small = load_study(find_study(name)), load_study(f"{find_study(name)}#{profile}")
    assert small.name == f"{name}-{profile}"
    assert all(cohort.phantom for cohort in small.cohorts)
    assert not any(cohort.phantom for cohort in whole.cohorts)
    assert [arm.arm for arm in small.arms] == [arm.arm for arm in whole.arms]
    # What is compared is the same; only sizes differ.
    for arm, published in zip(small.arms, whole.arms, strict=True):
        assert (arm.network.name, arm.network.inputs) == (published.network.name, published.network.inputs)
        assert (arm.training.objective, arm.training.loss) == (published.training.objective, published.training.loss)
        assert arm.training.augmentation == published.training.augmentation
        assert arm.recipe.contrasts == published.recipe.contrasts
        own = [spec for spec in arm.associations if spec not in published.associations]
        assert [spec for spec in arm.associations if spec in published.associations] == list(published.associations)
        # A phantom knows a variable that goes with nothing.
        assert {spec.name for spec in own} <= {"education"}
    sizes, published_sizes = ([arm.train_subjects for arm in study.arms] for study in (small, whole))
    assert [sizes.index(n) for n in sizes] == [published_sizes.index(n) for n in published_sizes]


def test_an_unknown_study_names_those_that_ship() -> None:
    with pytest.raises(ValueError, match=r"ds002748, .*, ms-flair, open-ms-2d, .*, rank-n-contrast"):
        find_study("nothing")


def test_every_field_is_part_of_the_digest() -> None:
    study = parse_study(tomllib.loads(STUDY))
    changed = [
        dataclasses.replace(study, excluded_tolerance=0.2),
        dataclasses.replace(study, recipe=dataclasses.replace(study.recipe, seed=9)),
        dataclasses.replace(study, training=dataclasses.replace(study.training, epochs=9)),
        dataclasses.replace(study, associations=()),
    ]
    assert len({study.digest(), *(other.digest() for other in changed)}) == 5
    assert parse_study(tomllib.loads(STUDY)).digest() == study.digest()


def test_relative_roots_are_below_the_data_folder() -> None:
    assert resolve_root("a", "s3://bucket/raw/") == "s3://bucket/raw/a"
    assert resolve_root(".", "/data") == "/data"
    assert resolve_root("/else/where", "/data") == "/else/where"


def test_a_network_for_thick_slices_meets_them_in_training() -> None:
    clinical = study_with(recipe={"name": "clinical_2d"})
    assert parse_study(clinical).training.augmentation.slice_simulation == 0.5
    assert parse_study({**clinical, "training": {"epochs": 3}}).training.augmentation.slice_simulation == 0.5
    assert (
        parse_study(
            {**clinical, "training": {"augmentation": {"slice_simulation": 0.0}}}
        ).training.augmentation.slice_simulation
        == 0.0
    )
    assert parse_study(study_with()).training.augmentation.slice_simulation == 0.0


def test_quality_thresholds_are_no_part_of_the_recipe() -> None:
    """A changed threshold recomputes no scan."""
    plain = parse_study(study_with())
    limited = parse_study(study_with(quality={"limits": {"snr": {"min": 5.0}}, "on_outlier": "exclude"}))
    assert not plain.quality.can_exclude
    assert limited.quality.can_exclude
    assert plain.recipe == limited.recipe
    assert plain.digest() != limited.digest()


def test_a_recipe_survives_the_json_of_a_registered_model() -> None:
    calibration = RatioCalibration((20.0, 60.0), (150.0, 40.0), eyes_mm=((1.0, 2.0, 3.0, 4.0),))
    template = TemplateSpec("newborn", "t1.nii", "grey.nii", "white.nii", ages_months=(0.0, 3.0), sha256="1" * 64)
    recipe = Recipe(
        name="multichannel", channels=("T2w", "ratio"), reference="T2w", resolution_mm=2.0, templates=(template,),
        field_of_view_mm=(160.0, 192.0, 160.0), mask="template", bias_correction=False, ratio_calibration=calibration,
        clip_percentiles=(1.0, 99.0), seed=3, skull_strip=False,
    )  # fmt: skip
    unchanged = [field.name for field in dataclasses.fields(Recipe) if getattr(recipe, field.name) == field.default]
    assert unchanged == ["field_of_view_mm"]
    again = recipe_from(json.loads(as_json(recipe)))
    assert again == recipe
    assert hash(again) == hash(recipe)
    assert recipe_from(json.loads(as_json(Recipe()))) == Recipe()


def test_calibration_at_mnis_coordinates_is_refused_in_other_templates() -> None:
    templates = [{"name": "a", "t1": "a.nii", "grey": "b.nii", "white": "c.nii"}]
    calibration = {"t1w_modes": [1.0, 2.0], "t2w_modes": [3.0, 4.0]}
    recipe = {"name": "t1w_t2w_ratio", "templates": templates, "ratio_calibration": calibration}
    with pytest.raises(ValueError, match="give eyes_mm and muscles_mm"):
        parse_study(study_with(recipe=recipe))
    own = {"eyes_mm": [[0.0, 0.0, 0.0, 5.0]], "muscles_mm": [[9.0, 0.0, 0.0, 5.0]]}
    parse_study(study_with(recipe={**recipe, "ratio_calibration": {**calibration, **own}}))


COMPARED = {
    "models": [
        {"name": "flair", "recipe": {"name": "flair"}},
        {"name": "t1w", "network": {"name": "resnet18", "head": "regression"}, "seeds": [4]},
    ],
    "profiles": {"tiny": {"training": {"epochs": 2}, "models": [{"name": "t1w", "train_subjects": 9}]}},
}


def test_each_compared_model_is_a_whole_study_with_changes_of_its_own() -> None:
    study = parse_study(study_with(**COMPARED))
    flair, t1w = study.arms
    assert (flair.arm, flair.recipe.name, flair.network.name, flair.network.inputs) == (
        "flair",
        "flair",
        "sfcn",
        ("FLAIR",),
    )
    assert (t1w.arm, t1w.recipe.name, t1w.network.name, t1w.seeds) == ("t1w", "t1w", "resnet18", (4,))
    assert flair.registered_model != t1w.registered_model
    assert flair.cohorts == t1w.cohorts == study.cohorts
    # A study of one model is its own only arm.
    plain = parse_study(study_with())
    assert plain.arms == (plain,)


def test_a_profile_changes_named_parts_and_is_a_study_of_its_own() -> None:
    study = parse_study(study_with(**COMPARED), profile="tiny")
    assert study.name == "tiny-tiny"
    assert [arm.training.epochs for arm in study.arms] == [2, 2]
    assert [arm.train_subjects for arm in study.arms] == [0, 9]
    assert parse_study(study_with(**COMPARED)).arms[0].training.epochs == 3
    with pytest.raises(ValueError, match="no profile 'small'; its profiles: tiny"):
        parse_study(study_with(**COMPARED), profile="small")


@pytest.mark.parametrize(
    ("models", "part"),
    [
        ([{"name": "a", "recip": {}}], "unknown key 'recip'"),
        ([{"recipe": {}}], "a name of letters"),
        ([{"name": "a"}, {"name": "a"}], "must differ"),
        ([{"name": "a", "network": {"inputs": ["FLAIR"]}}], "the recipe prepares T1w"),
        ([{"name": "a", "training": {"epochs": 0}}], "model 'a'"),
    ],
)
def test_a_model_that_cannot_be_compared_is_refused_by_name(models: list[dict[str, object]], part: str) -> None:
    with pytest.raises(ValueError, match=re.escape(part)):
        parse_study(study_with(models=models))


def test_five_members_are_trained_where_a_study_names_no_seeds() -> None:
    plain = study_with()
    del plain["seeds"]
    assert parse_study(plain).seeds == (1, 2, 3, 4, 5)
    assert parse_study(plain | {"ensemble": {"folds": 5}}).seeds == (0,)


def test_the_published_studies_compare_what_their_papers_do() -> None:
    from tasks.steps.compare import family_names

    arms = {name: load_study(find_study(name)).arms for name in ("rank-n-contrast", "infant-myelination")}
    assert sorted(set(family_names(list(arms["rank-n-contrast"])))) == ["plain", "rnc"]
    assert [arm.network.inputs for arm in arms["infant-myelination"]][:5] == [
        ("ratio",), ("T1w",), ("T2w",), ("T1w", "T2w"), ("T1w", "T2w", "ratio"),
    ]  # fmt: skip
