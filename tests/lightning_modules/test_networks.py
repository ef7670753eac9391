from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lightning_modules.networks.build import build_network, expected_ages_of, load_network
from lightning_modules.predict import predict_ages
from tasks.records import NetworkSpec

SPEC = NetworkSpec(channels=(2, 3, 4, 5, 6, 4), age_range_years=(10.0, 100.0), bin_width_years=3.0)
SMALL = replace(SPEC, channels=(3, 5, 4))


def saved(spec: NetworkSpec, path: Path) -> Path:
    torch.manual_seed(3)
    save_file({name: tensor.contiguous() for name, tensor in build_network(spec).state_dict().items()}, path)
    return path


@pytest.mark.parametrize("grid", [(40, 48, 40), (32, 32, 32), (33, 47, 39)])
def test_any_grid_from_the_smallest_on_gives_one_row_of_bins_per_scan(grid: tuple[int, ...]) -> None:
    logits = build_network(SPEC)(torch.zeros(2, 1, *grid))
    assert logits.shape == (2, 30)


@pytest.mark.parametrize("shape", [(1, 1, 31, 48, 40), (1, 2, 40, 48, 40), (1, 40, 48, 40)])
def test_too_small_a_grid_or_a_wrong_layout_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least 32 voxels"):
        build_network(SPEC)(torch.zeros(shape))


def test_the_published_network_has_the_published_number_of_weights() -> None:
    """Peng et al. 2021 state about 3.0 million; counted by hand for 40 bins, biases and batch norm included."""
    spec = NetworkSpec(age_range_years=(42.0, 82.0), bin_width_years=1.0)
    channels = (1, 32, 64, 128, 256, 256)
    blocks = sum(27 * a * b + 3 * b for a, b in pairwise(channels))
    expected = blocks + (256 * 64 + 3 * 64) + (64 * 40 + 40)
    assert sum(weight.numel() for weight in build_network(spec).parameters()) == expected


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(ValueError, match="no network is called 'resnet'"):
        build_network(replace(SPEC, name="resnet"))  # type: ignore[arg-type]


def test_predictions_do_not_depend_on_company_or_batch(tmp_path: Path) -> None:
    weights = saved(SMALL, tmp_path / "weights.safetensors")
    paths = [tmp_path / f"{number}.npy" for number in range(5)]
    for number, path in enumerate(paths):
        np.save(path, np.random.default_rng(number).normal(size=(1, 8, 9, 10)).astype(np.float16))
    together = predict_ages(SMALL, weights, paths, batch_size=4)
    alone = np.concatenate([predict_ages(SMALL, weights, [path]) for path in paths])
    assert together.dtype == np.float64
    assert together.shape == (5,)
    # Sums over float32 products are ordered differently in other batch sizes.
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-4)
    assert predict_ages(SMALL, weights, []).shape == (0,)


def test_a_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"

    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (trace,)

    for name, content in {"a.pt": None, "b.safetensors": pickle.dumps(Malicious())}.items():
        path = tmp_path / name
        if content is None:
            torch.save({"weights": Malicious()}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a safetensors file"):
            load_network(SMALL, path)
    assert not trace.exists()


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    weights = saved(SMALL, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"tensors differ, the first is encoder\.blocks\.0\.0\.bias \(expected"):
        load_network(replace(SMALL, channels=(4, 5, 4)), weights)


def test_a_network_in_training_mode_does_not_predict() -> None:
    with pytest.raises(ValueError, match="training mode"):
        expected_ages_of(build_network(SMALL), SMALL, torch.zeros(1, 1, 8, 8, 8))


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (np.full((1, 8, 8, 8), np.nan, np.float16), "not finite"),
        (np.zeros((8, 8, 8), np.float16), r"expected a prepared scan"),
        (np.zeros((1, 8, 8, 8), np.int16), r"expected a prepared scan"),
        (np.array([[[[None]]]]), "Object arrays cannot be loaded"),
    ],
)
def test_a_file_that_is_no_prepared_scan_is_refused(tmp_path: Path, volume: np.ndarray, message: str) -> None:
    np.save(tmp_path / "scan.npy", volume)
    weights = saved(SMALL, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=message):
        predict_ages(SMALL, weights, [tmp_path / "scan.npy"])


def test_the_folder_of_networks_works_under_another_name(tmp_path: Path) -> None:
    """A registered model carries a copy of it, away from this project."""
    source = Path(sys.modules["lightning_modules.networks.build"].__file__ or "").parent
    shutil.copytree(source, tmp_path / "carried" / "inner")
    weights = saved(SMALL, tmp_path / "weights.safetensors")
    program = f"""
import sys
from types import SimpleNamespace
from pathlib import Path
import torch
from carried.inner.build import expected_ages_of, load_network
spec = SimpleNamespace(name="sfcn", head="soft_label", channels=(3, 5, 4), age_range_years=(10.0, 100.0),
                       bin_width_years=3.0, label_sigma_years=1.0, dropout=0.5, norm="batch", input_channels=1)
network = load_network(spec, Path({str(weights)!r}))
age, = expected_ages_of(network, spec, torch.ones(1, 1, 8, 9, 10)).tolist()
assert not {{"tasks", "lightning_modules", "pytorch_lightning", "monai"}} & set(sys.modules)
print(age)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    network = load_network(SMALL, weights)
    here = float(expected_ages_of(network, SMALL, torch.ones(1, 1, 8, 9, 10)))
    assert float(done.stdout) == pytest.approx(here, abs=1e-5)
