"""A study's maps as files: in template space, on the right side, of the people who were meant."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save

from infra import layout
from infra.atlases import check_atlas, with_atlas_digest
from infra.storage import Store
from infra.study import ExplanationSpec, Study
from infra.study_file import parse_study
from lightning_modules.networks.build import build_network
from tasks.science.imaging.grid import study_grid
from tasks.science.imaging.template import mni
from tasks.steps import explain as step
from tasks.steps.members import Member, member_key
from tasks.steps.progress import FittedModel

PLACE_MM = np.array([38.0, 26.0, 34.0])
STUDY = {
    "name": "planted",
    "seeds": [1],
    "cohorts": [{"name": "a", "role": "train", "root": "a"}, {"name": "b", "role": "external", "root": "b"}],
    "recipe": {"resolution_mm": 8.0},
    "network": {"channels": [1, 1], "age_range_years": [10, 90], "bin_width_years": 5.0},
    "explanation": {"methods": ["smoothgrad", "grad_ram"], "subjects": 4},
}
State = Any


def bright_means_old(study: Study) -> bytes:
    """Weights by which brightness passes through one halving and means age."""
    network = build_network(study.network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.encoder.blocks[0][0].weight[:, 0, 1, 1, 1] = 1.0
        network.encoder.mixing[0].weight.fill_(1.0)
        for norm in (network.encoder.blocks[0][1], network.encoder.mixing[1]):
            norm.weight.fill_(1.0)
        network.head.linear.weight[:, 0] = torch.linspace(-5, 5, len(network.head.linear.bias))
    return save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})


@pytest.fixture
def planted(tmp_path: Path) -> tuple[Study, Store, dict[str, Any], list[State]]:
    """Six people with a bright place to the right, in front and above, and a network that sees brightness."""
    study = parse_study(STUDY)
    store = Store(str(tmp_path / "store"), tmp_path / "cache")
    for fit in ("fit", "other"):
        store.write(member_key(fit, Member(1), "weights.safetensors"), bright_means_old(study))
    shape, affine = study_grid(study.recipe, mni())
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    near = np.exp(-(np.linalg.norm(indices * 8.0 + affine[:3, 3] - PLACE_MM, axis=-1) ** 2) / 400)
    rows = []
    for number in range(6):
        sha = f"{number:064x}"
        noise = np.random.default_rng(number).normal(0, 0.05, shape)
        content = io.BytesIO()
        np.save(content, (3 * near + noise)[None].astype(np.float16))
        store.write(layout.prepared_volume("recipe", sha), content.getvalue())
        rows.append(
            {
                "scan_id": f"b/sub-{number // 2 if number < 2 else number}_ses-{number}",
                "participant_id": f"sub-{number // 2 if number < 2 else number}",
                "session_id": f"ses-{number}",
                "sha256": sha,
                "age_years": 20.0 + 10 * number,
                "years_since_baseline": float(number == 1),
                "template": "",
            }
        )
    state = SimpleNamespace(
        spec=SimpleNamespace(name="b", role="external", apart=False), prepared=pd.DataFrame(rows), recipe_key="recipe"
    )
    return study, store, {"fit_key": "fit"}, [state]


def made(planted: tuple[Study, Store, dict[str, Any], list[State]], method: Any) -> Path:
    study, store, record, states = planted
    step.explain.fn(store, FittedModel(study, states, record, {}), method, lambda total: lambda: None)
    key = step.explanation_key(study, record["fit_key"], states, method)
    return store.local_path(layout.explanation(key, step.RECORD)).parent


def test_a_planted_place_is_where_it_was_planted_in_the_files(
    planted: tuple[Study, Store, dict[str, Any], list[State]],
) -> None:
    folder = made(planted, "grad_ram")
    image = nib.load(folder / step.SIGNED)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    assert int(image.header["sform_code"]) == 4
    values = np.maximum(image.get_fdata() - image.get_fdata().max() / 2, 0)
    indices = np.array(np.nonzero(values))
    centre = nib.affines.apply_affine(image.affine, (indices * values[tuple(indices)]).sum(axis=1) / values.sum())
    assert centre == pytest.approx(PLACE_MM, abs=4.0)
    regions = pd.read_parquet(folder / step.REGIONS)
    leading = regions[regions["set"] == "known places"].head(3)["region"]
    assert leading.str.startswith("right cortex").all()
    record = json.loads((folder / step.RECORD).read_text())
    assert record["n_subjects"] == 4
    assert record["repeatability"] > 0.95
    assert (folder / step.OVERLAY).read_bytes().startswith(b"\x89PNG")


def test_a_study_in_months_has_maps_in_months(planted: tuple[Study, Store, dict[str, Any], list[State]]) -> None:
    _, store, _, states = planted
    years = nib.load(made(planted, "grad_ram") / step.SIGNED).get_fdata()
    months = parse_study({**STUDY, "target": {"unit": "months"}})
    folder = made((months, store, {"fit_key": "other"}, states), "grad_ram")
    np.testing.assert_allclose(nib.load(folder / step.SIGNED).get_fdata(), 12 * years, rtol=1e-5)
    assert json.loads((folder / step.RECORD).read_text())["unit"] == "months per cell"


def test_one_scan_of_each_of_some_people_is_taken(planted: tuple[Study, Store, dict[str, Any], list[State]]) -> None:
    study, _, _, states = planted
    chosen = step.chosen_scans(study.explanation, states)
    assert len(chosen) == 4
    assert chosen["participant_id"].is_unique
    assert "b/sub-0_ses-0" in set(chosen["scan_id"])
    states[0].prepared.loc[5, "template"] = "other"
    assert "other" not in set(step.chosen_scans(study.explanation, states)["template"])


def test_a_method_leaves_the_others_keys_alone_and_everything_else_is_part_of_it(
    planted: tuple[Study, Store, dict[str, Any], list[State]],
) -> None:
    states = planted[3]

    def key(fit: str = "fit", **changes: Any) -> str:
        study = parse_study({**STUDY, "explanation": {**STUDY["explanation"], **changes}})  # type: ignore[dict-item]
        return step.explanation_key(study, fit, states, "grad_ram")

    assert key() == key(methods=["grad_ram", "grad_cam"])
    assert len({key(), key(seed=1), key(subjects=3), key(fit="other")}) == 4
    states[0].prepared.loc[2, "sha256"] = "f" * 64
    assert key() not in {key(seed=1), step.explanation_key(planted[0], "fit", [changed_back(states[0])], "grad_ram")}


def changed_back(state: State) -> State:
    shas = [f"{number:064x}" for number in range(len(state.prepared))]
    return SimpleNamespace(**{**vars(state), "prepared": state.prepared.assign(sha256=shas)})


def test_what_was_made_is_not_made_again(planted: tuple[Study, Store, dict[str, Any], list[State]]) -> None:
    study, store, _, states = planted
    assert step.methods_left(study, store, "fit", states) == ["smoothgrad", "grad_ram"]
    key = step.explanation_key(study, "fit", states, "grad_ram")
    # All but the record, as a killed run leaves it.
    store.write(layout.explanation(key, step.SIGNED), b"half")
    assert step.methods_left(study, store, "fit", states) == ["smoothgrad", "grad_ram"]
    store.write_json(layout.explanation(key, step.RECORD), {})
    assert step.methods_left(study, store, "fit", states) == ["smoothgrad"]


def test_one_person_has_a_map_that_nothing_repeats_and_nobody_has_none(
    planted: tuple[Study, Store, dict[str, Any], list[State]],
) -> None:
    planted[3][0].prepared = planted[3][0].prepared.head(1)
    folder = made(planted, "grad_ram")
    assert json.loads((folder / step.RECORD).read_text())["repeatability"] is None
    assert pd.read_parquet(folder / step.REGIONS)["sd_over_subjects"].isna().all()
    planted[3][0].prepared = planted[3][0].prepared.head(0)
    with pytest.raises(ValueError, match="no prepared scan"):
        made(planted, "grad_ram")


def test_an_atlas_of_another_space_is_refused_before_any_scan_is_prepared(tmp_path: Path) -> None:
    study = parse_study(STUDY)
    shape, affine = study_grid(study.recipe, mni())
    labels = np.zeros(shape, dtype=np.int16)
    labels[6:14, 6:18, 6:14] = 1
    moved = affine.copy()
    moved[:3, 3] += 200
    (tmp_path / "names.tsv").write_text("index\tname\n1\tmiddle\n")
    for where, fits in ((affine, True), (moved, False)):
        (tmp_path / "atlas.nii").write_bytes(nib.Nifti1Image(labels, where).to_bytes())
        spec = ExplanationSpec(methods=("grad_ram",), atlas="atlas.nii", names="names.tsv")
        located = with_atlas_digest(spec, str(tmp_path))
        if fits:
            check_atlas(located, study.recipe)
            names = [one.name for one in step.region_sets(replace(study, explanation=located), mni())]
            assert names == ["atlas", "tissue"]
        else:
            with pytest.raises(ValueError, match="template's space"):
                check_atlas(located, study.recipe)


def test_an_atlas_is_part_of_the_key_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "atlas.nii").write_bytes(b"one")
    (tmp_path / "names.tsv").write_bytes(b"index\tname\n")
    spec = ExplanationSpec(methods=("grad_ram",), atlas="atlas.nii", names="names.tsv")
    located = with_atlas_digest(spec, str(tmp_path))
    assert located.atlas == str(tmp_path / "atlas.nii")
    assert with_atlas_digest(located, str(tmp_path)) == located
    (tmp_path / "atlas.nii").write_bytes(b"two")
    assert with_atlas_digest(spec, str(tmp_path)).atlas_sha256 != located.atlas_sha256
    with pytest.raises(ValueError, match="Put the files back"):
        with_atlas_digest(located, str(tmp_path))
    (tmp_path / "names.tsv").unlink()
    with pytest.raises(ValueError, match="nothing is at"):
        with_atlas_digest(spec, str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": ["grad_ram"]}, "did you mean 'methods'"),
        ({"methods": ["gradcam"]}, "grad_cam"),
        ({"methods": ["grad_ram", "grad_ram"]}, "twice"),
        ({"subjects": 1}, "2 or more"),
        ({"cohort": "c"}, "there are: a, b"),
        ({"atlas": "x.nii"}, "belong together"),
    ],
)
def test_a_mistake_in_the_study_is_refused_before_anything_runs(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_study({**STUDY, "explanation": changes})
