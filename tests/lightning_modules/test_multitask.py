"""The multi-task loss against its parts by hand, and a fit that segments white matter found in the scans themselves."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_modules.fit import augmentation_of, fit
from lightning_modules.inputs import NetworkInputs
from lightning_modules.multitask_loss import TaskBalance, task_losses
from lightning_modules.multitask_module import MultitaskModule
from lightning_modules.networks.build import load_network
from lightning_modules.networks.multitask_unet import Tasks
from lightning_modules.objectives import module_class, training_scans
from lightning_modules.white_matter import white_matter_of
from tasks.records import AugmentationSpec, NetworkSpec, TaskWeights, TrainingJob, TrainingRow, TrainingSpec

GRID = (12, 14, 10)
NETWORK = NetworkSpec(
    name="multitask_unet", head="regression", channels=(4, 6, 8), age_range_years=(0.0, 2.0), dropout=0.0
)
TRAINING = TrainingSpec(
    epochs=2,
    batch_size=4,
    learning_rate=5e-3,
    processes=1,
    augmentation=AugmentationSpec(flip_probability=0.5, shift_voxels=1),
)


def tissues(random: np.random.Generator) -> np.ndarray:
    """One brain: white matter in the middle, grey matter around it, CSF outside; shape (3, i, j, k)."""
    away = np.linalg.norm(np.indices(GRID).reshape(3, -1).T - np.array(GRID) / 2 - random.normal(0, 0.4, 3), axis=1)
    away = away.reshape(GRID)
    return np.stack([(away >= 4.3) & (away < 5.5), (away >= 2.8) & (away < 4.3), away < 2.8])


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    """Brains whose white matter brightens with age."""
    folder, random = tmp_path_factory.mktemp("multitask"), np.random.default_rng(6)
    likely = 0.02 + 0.94 * np.mean([tissues(random) for _ in range(40)], axis=0)
    np.save(folder / "priors.npy", (likely / likely.sum(axis=0)).astype(np.float32))
    rows = []
    for number in range(30):
        label_years = float(random.uniform(0.1, 1.9))
        levels = np.array([-2.0, -0.5, 0.3 + label_years])
        parts = tissues(random)
        volume = np.tensordot(levels, parts, 1) + random.normal(0, 0.1, GRID) * parts.any(axis=0)
        path = folder / f"scan-{number}.npy"
        np.save(path, volume[None].astype(np.float16))
        part = "train" if number < 16 else "validation" if number < 22 else "test"
        rows.append(
            TrainingRow(
                path.stem, f"sub-{number}", str(path), label_years, part, tissue_path=str(folder / "priors.npy")
            )  # type: ignore[arg-type]
        )
    return TrainingJob(NETWORK, TRAINING, 3, tuple(rows), str(folder / "output"), resolution_mm=1.0)


def found_tasks(random: torch.Generator) -> Tasks:
    return Tasks(
        ages=torch.randn(3, 1, generator=random),
        ages_by_scale=torch.randn(3, 2, 1, generator=random),
        white_matter_logits=torch.randn(3, 1, 4, 4, 4, generator=random),
        reconstruction=torch.randn(3, 2, 4, 4, 4, generator=random),
    )


def test_each_task_is_measured_as_its_formula_says() -> None:
    random = torch.Generator().manual_seed(0)
    found, labels = found_tasks(random), torch.tensor([0.2, 1.0, 1.7], dtype=torch.float64)
    volumes = torch.randn(3, 2, 4, 4, 4, generator=random)
    white = (torch.rand(3, 1, 4, 4, 4, generator=random) > 0.6).float()
    losses = task_losses(found, labels, volumes, white, NETWORK, replace(TRAINING, loss="l1"))
    combined = np.abs(found.ages[:, 0].numpy() - labels.numpy()).mean()
    scales = np.abs(found.ages_by_scale[:, :, 0].numpy() - labels.numpy()[:, None]).mean()
    assert float(losses["age"]) == pytest.approx((combined + scales) / 2, rel=1e-6)
    p, t = 1 / (1 + np.exp(-found.white_matter_logits.double().numpy())), white.double().numpy()
    overlap = np.mean([1 - 2 * (a * b).sum() / (a.sum() + b.sum()) for a, b in zip(p, t, strict=True)])
    entropy = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    assert float(losses["segmentation"]) == pytest.approx(overlap + entropy, rel=1e-5)
    difference = np.abs(found.reconstruction.numpy() - volumes.numpy()).mean()
    assert float(losses["reconstruction"]) == pytest.approx(difference, rel=1e-6)
    assert "segmentation" not in task_losses(found, labels, volumes, None, NETWORK, TRAINING)


def test_declared_weights_add_up_and_a_weight_of_nothing_leaves_its_task_out() -> None:
    losses = {"age": torch.tensor(2.0), "segmentation": torch.tensor(torch.inf), "reconstruction": torch.tensor(0.5)}
    balance = TaskBalance(NETWORK, replace(TRAINING, task_weights=TaskWeights(3.0, 0.0, 4.0)))
    assert float(balance(losses)) == 8
    assert list(balance.parameters()) == []


@pytest.mark.parametrize(
    ("loss", "best"), [("mse", math.log(4.0)), ("l1", math.log(4.0)), ("smooth_l1", math.log(4.0))]
)
def test_learned_weights_settle_where_the_likelihood_is_largest(loss: str, best: float) -> None:
    """Of an age loss L: σ² = L of squared errors, b = L of absolute ones; of a cross-entropy, σ² = 2 L."""
    training = replace(TRAINING, loss=loss, learned_task_weights=True)  # type: ignore[arg-type]
    balance = TaskBalance(NETWORK, training)
    losses = {"age": torch.tensor(4.0), "segmentation": torch.tensor(0.6), "reconstruction": torch.tensor(0.1)}
    optimizer = torch.optim.LBFGS(balance.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        total: torch.Tensor = balance(losses)
        total.backward()
        return total

    optimizer.step(step)
    found = {name: value.item() for name, value in balance.log_variances.items()}
    expected = {"age": best, "segmentation": math.log(1.2), "reconstruction": math.log(0.1)}
    assert found == pytest.approx(expected, abs=1e-3)


def test_weights_that_make_no_age_network_are_refused() -> None:
    for weights in (TaskWeights(age=0.0), TaskWeights(segmentation=-1.0)):
        with pytest.raises(ValueError, match="task_weights"):
            TaskBalance(NETWORK, replace(TRAINING, task_weights=weights))


def test_white_matter_is_found_once_and_moves_with_its_scan(job: TrainingJob) -> None:
    job = replace(job, white_matter_folder=job.output_folder + "-white")
    scans = training_scans(job, augmentation_of(job), views=1)
    rows = [row for row in job.rows if row.split == "train"]
    network = replace(NETWORK, crop_voxels=(8, 10, 9))
    inputs = NetworkInputs(network, job.channels, augmentation_of(job), [row.scan_id for row in rows])
    index, volume, _ = scans[4, 2]
    white = white_matter_of(rows[2], job.channels, Path(job.white_matter_folder))
    assert torch.equal(volume[1].bool(), white)
    assert 0.5 * white.sum() < (volume[0] > 0.1).sum() < 1.5 * white.sum()
    # The mask sent along as a scan is a witness of every move.
    indices, marked = torch.tensor([index]), volume[1:][None]
    for epoch in range(6):
        seen = inputs.training(marked, indices, epoch)
        assert seen.shape[2:] == network.crop_voxels
        assert torch.equal(inputs.training_target(marked, indices, epoch), seen.to(marked))
    kept = list(Path(job.white_matter_folder).iterdir())
    assert len(kept) == 1
    before = kept[0].stat().st_mtime_ns
    _ = scans[0, 2]
    assert kept[0].stat().st_mtime_ns == before


def test_a_fit_learns_all_three_tasks(job: TrainingJob) -> None:
    training = replace(TRAINING, epochs=12, learning_rate=2e-2, task_weights=TaskWeights(5.0, 1.0, 3.0))
    each = replace(job, training=training, output_folder=job.output_folder + "-learned")
    assert module_class(each) is MultitaskModule
    fit(each)
    report = json.loads((Path(each.output_folder) / "report.json").read_text())
    labels = np.array([row.target_years for row in each.rows if row.split == "validation"])
    assert report["val_mae_years"] < 0.7 * np.abs(labels - labels.mean()).mean()
    network = load_network(each.network, Path(each.output_folder) / "weights.safetensors")
    overlaps, likenesses = [], []
    for row in each.rows:
        if row.split != "test":
            continue
        volume = torch.from_numpy(np.load(row.path)).float()[None]
        with torch.no_grad():
            found = network.tasks_of(volume)
        white = white_matter_of(row, each.channels, Path(each.output_folder) / "white-matter")
        segmented = found.white_matter_logits[0, 0] > 0
        overlaps.append(2 * float((segmented & white).sum()) / float(segmented.sum() + white.sum()))
        likenesses.append(np.corrcoef(found.reconstruction.flatten(), volume.flatten())[0, 1])
    assert np.mean(overlaps) > 0.8
    assert np.mean(likenesses) > 0.4


@pytest.mark.parametrize("weights", [TaskWeights(), TaskWeights(segmentation=0.0), TaskWeights(1.0, 1.0, 0.0)])
def test_what_the_optimiser_moves_is_what_has_a_gradient(weights: TaskWeights) -> None:
    """DDP waits for a gradient of everything that takes one."""
    training = replace(TRAINING, task_weights=weights, learned_task_weights=True)
    module = MultitaskModule(NETWORK, training, seed=1, total_steps=2, n_val=2, calibration=())
    volumes = torch.rand(2, 1 + module.segments, *GRID, generator=torch.Generator().manual_seed(1)).round()
    module.training_loss((torch.arange(2), volumes, torch.tensor([0.5, 1.5], dtype=torch.float64))).backward()
    fitted = {id(p) for p in module.fitted_parameters() if p.requires_grad}
    assert fitted == {id(p) for p in module.parameters() if p.grad is not None}
    assert fitted == {id(p) for p in module.parameters() if p.requires_grad}


def test_scans_without_tissue_priors_are_refused(job: TrainingJob) -> None:
    bare = tuple(replace(row, tissue_path="") for row in job.rows)
    with pytest.raises(ValueError, match="16 training scans have no tissue_path, the first is scan-0"):
        fit(replace(job, rows=bare, output_folder=job.output_folder + "-bare"))
