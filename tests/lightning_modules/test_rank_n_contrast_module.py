"""Rank-N-Contrast as a fit: views, validation in years, the head on the frozen encoder, ranks, resume."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr

from lightning_modules.fit import augmentation_of, fit
from lightning_modules.frozen_regressor import Features, features_of, fit_head
from lightning_modules.inputs import NetworkInputs
from lightning_modules.networks.age_head import AgeHead
from lightning_modules.networks.build import ages_of_outputs, load_network
from lightning_modules.objectives import module_class, training_scans
from lightning_modules.rank_n_contrast_module import RankNContrastModule
from tasks.records import AugmentationSpec, NetworkSpec, TrainingJob
from tests.lightning_modules.conftest import NETWORK, TRAINING, JobMaker, launch

REGRESSION = replace(NETWORK, head="regression", dropout=0.0)
RANKED = replace(
    TRAINING,
    objective="rank_n_contrast",
    loss="l1",
    processes=1,
    regressor_epochs=20,
    augmentation=AugmentationSpec(flip_probability=0.5, shift_voxels=1),
)


def outputs(job: TrainingJob) -> tuple[dict[str, torch.Tensor], dict[str, Any], list[dict[str, str]]]:
    folder = Path(job.output_folder)
    with (folder / "predictions.csv").open(newline="") as file:
        predictions = list(csv.DictReader(file))
    return load_file(folder / "weights.safetensors"), json.loads((folder / "report.json").read_text()), predictions


@pytest.fixture(scope="module")
def learned(job_of: JobMaker) -> TrainingJob:
    training = replace(RANKED, epochs=12, batch_size=8, learning_rate=1e-2)
    job = job_of(train=32, validation=10, test=16, training=training, network=REGRESSION)
    fit(job)
    return job


def test_features_stand_in_the_order_of_ages_of_scans_that_were_never_seen(learned: TrainingJob) -> None:
    network = load_network(learned.network, Path(learned.output_folder) / "weights.safetensors")
    found = features_of(network, learned, "test")
    centred = (found.values - found.values.mean(dim=0)).numpy()
    along = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    assert abs(spearmanr(along, found.ages_years.numpy()).statistic) > 0.8


def test_the_saved_network_predicts_like_any_other(learned: TrainingJob) -> None:
    _, report, predictions = outputs(learned)
    tested = [row for row in predictions if row["split"] == "test"]
    ages = np.array([float(row["target_years"]) for row in tested])
    errors = np.abs(np.array([float(row["predicted_age_years"]) for row in tested]) - ages)
    assert errors.mean() < 0.5 * np.abs(ages - np.median(ages)).mean()
    assert 0 <= report["regressor_epoch"] <= learned.training.regressor_epochs


def test_the_validation_error_is_in_years_and_falls(learned: TrainingJob) -> None:
    with (Path(learned.output_folder) / "curves.csv").open(newline="") as file:
        curve = [(float(row["val_mae_years"]), float(row["val_loss"])) for row in csv.DictReader(file)]
    ages = np.array([row.target_years for row in learned.rows if row.split == "validation"])
    spread_years = np.abs(ages - ages.mean()).mean()
    assert min(error for error, _ in curve) < 0.6 * spread_years
    assert curve[-1][1] < curve[0][1]
    # Ranks drawn at random cost the log of how many scans stand as far, about log(n) − 1.
    assert curve[-1][1] < np.log(len(ages)) - 1


def test_two_ranks_rank_as_one_process_does(job_of: JobMaker) -> None:
    """Loss, validation and weights, where no layer depends on how a batch is shared.

    By SGD: a bias before a group norm has no gradient but rounding errors, which Adam would make as large as any.
    """
    training = replace(RANKED, epochs=3, optimizer="sgd", learning_rate=0.05)
    one = job_of(train=16, training=training, network=replace(REGRESSION, norm="group"))
    two = replace(one, training=replace(one.training, processes=2), output_folder=one.output_folder + "-two")
    fit(one)
    done = launch(two)
    assert done.returncode == 0, done.stderr
    found, expected = outputs(two), outputs(one)
    for name in expected[0]:
        torch.testing.assert_close(found[0][name], expected[0][name], rtol=1e-3, atol=1e-4)
    assert found[1]["val_mae_years"] == pytest.approx(expected[1]["val_mae_years"], abs=1e-2)
    curves = [(Path(job.output_folder) / "curves.csv").read_text().splitlines()[1:] for job in (one, two)]
    rows = np.array([[[float(value) for value in line.split(",")[1:4]] for line in lines] for lines in curves])
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-3)


def test_one_seed_gives_one_set_of_weights_and_the_head_alone_is_fitted_afterwards(job_of: JobMaker) -> None:
    job = job_of(train=6, validation=3, training=replace(RANKED, epochs=3), network=REGRESSION)
    again = replace(job, output_folder=job.output_folder + "-again")
    for each in (job, again):
        fit(each)
    found, expected = outputs(again)[0], outputs(job)[0]
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    best = torch.load(Path(job.output_folder) / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    changed = {name for name in expected if not torch.equal(expected[name], best[f"network.{name}"])}
    assert changed == {"head.linear.weight", "head.linear.bias"}


def test_a_batch_holds_two_views_that_depend_on_seed_epoch_scan_and_view_alone(job_of: JobMaker) -> None:
    job = job_of(training=RANKED, network=REGRESSION)
    assert module_class(job) is RankNContrastModule
    views = RankNContrastModule.views
    rows = [row for row in job.rows if row.split == "train"]
    loader, augmentation = training_scans(job, augmentation_of(job), views), augmentation_of(job)
    inputs = NetworkInputs(job.network, job.channels, augmentation, [row.scan_id for row in rows], views)
    _, volumes, _ = torch.utils.data.default_collate([loader[5, 0], loader[5, 1]])
    together = inputs.training(volumes, torch.tensor([0, 1]), epoch=5)
    assert together.shape[:2] == (2, views)
    alone = inputs.training(volumes[1:], torch.tensor([1]), epoch=5)
    assert torch.equal(alone[0], together[1])
    assert not torch.equal(together[:, 0], together[:, 1])
    assert not torch.equal(inputs.training(volumes, torch.tensor([0, 1]), epoch=6), together)


@pytest.mark.parametrize("head", ["regression", "soft_label"])
def test_a_head_is_fitted_on_features_of_any_scale_and_place(head: str) -> None:
    """Far from 0 and tiny, as features that nothing normalises may be."""
    random = torch.Generator().manual_seed(3)
    spec = NetworkSpec(head=head, age_range_years=(10.0, 100.0), bin_width_years=3.0, label_sigma_years=3.0)  # type: ignore[arg-type]
    ages = 20 + 60 * torch.rand(60, generator=random, dtype=torch.float64)
    directions = torch.randn(1, 12, generator=random)
    values = 5 + 0.01 * ((ages[:, None].float() - 50) / 17) @ directions
    values += 0.001 * torch.randn(60, 12, generator=random)
    known, held_out = Features(values[:40], ages[:40]), Features(values[40:], ages[40:])
    network = AgeHead(spec, 12)
    fitted = fit_head(network, known, held_out, spec, replace(RANKED, regressor_epochs=60), seed=1)
    assert min(fitted.val_mae_years) == fitted.val_mae_years[fitted.best_epoch]
    with torch.no_grad():
        errors = (ages_of_outputs(network.eval()(held_out.values).double(), spec) - held_out.ages_years).abs()
    assert float(errors.mean()) == pytest.approx(min(fitted.val_mae_years), abs=0.05)
    assert float(errors.mean()) < 3


def test_what_cannot_be_ranked_is_refused(job_of: JobMaker) -> None:
    with pytest.raises(ValueError, match="two or more"):
        fit(job_of(validation=1, training=RANKED, network=REGRESSION))
    network = replace(REGRESSION, name="multitask_unet", channels=(4, 4, 4))
    with pytest.raises(ValueError, match="one age head"):
        fit(job_of(training=RANKED, network=network))
