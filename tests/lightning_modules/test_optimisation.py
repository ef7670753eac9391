from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, PolynomialLR
from torch.utils.data import DataLoader

from lightning_modules.brain_age_module import BrainAgeModule
from lightning_modules.data import Batch, RankBatches
from lightning_modules.fit import fit, known_warnings
from lightning_modules.fit_module import FitModule
from lightning_modules.losses import regression_loss
from lightning_modules.optimisation import follow, optimizer_of, schedule_of
from lightning_modules.out_of_memory import OutOfMemory, explained, largest_that_fits
from tasks.records import TrainingSpec
from tests.lightning_modules.conftest import NETWORK, TRAINING, JobMaker

STEPS_PER_EPOCH, EPOCHS = 5, 7
SPEC = TrainingSpec(epochs=EPOCHS, learning_rate=0.1, weight_decay=0.01)


def rates(spec: TrainingSpec) -> list[float]:
    optimizer = optimizer_of(nn.Linear(2, 2).parameters(), spec)
    schedule = schedule_of(optimizer, spec, STEPS_PER_EPOCH * EPOCHS)
    found = []
    for _ in range(STEPS_PER_EPOCH * EPOCHS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def torchs(spec: TrainingSpec, steps: int, **schedule: Any) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=spec.learning_rate)
    other = schedule.pop("by")(optimizer, **schedule)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        other.step()
    return found


def test_schedules_are_those_of_torch() -> None:
    by_epoch = torchs(SPEC, EPOCHS, by=PolynomialLR, total_iters=EPOCHS, power=0.9)
    found = rates(replace(SPEC, schedule="polynomial", schedule_power=0.9))
    np.testing.assert_allclose(found, np.repeat(by_epoch, STEPS_PER_EPOCH), rtol=1e-12)
    steps = STEPS_PER_EPOCH * EPOCHS
    by_step = torchs(SPEC, steps, by=CosineAnnealingLR, T_max=steps)
    np.testing.assert_allclose(rates(replace(SPEC, schedule="cosine")), by_step, rtol=1e-9)
    assert set(rates(replace(SPEC, schedule="constant"))) == {0.1}
    one_cycle = rates(SPEC)
    assert max(one_cycle) == pytest.approx(0.1, rel=1e-3)
    assert int(np.argmax(one_cycle)) == pytest.approx(steps / 4, abs=1)
    assert one_cycle[-1] < 1e-4
    for steps in range(1, 9):
        weight = torch.nn.Parameter(torch.zeros(1))
        optimizer = optimizer_of([weight], SPEC)
        schedule_of(optimizer, SPEC, steps)
        assert 0 <= optimizer.param_groups[0]["lr"] <= SPEC.learning_rate


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)]
)
def test_optimisers_decay_kernels_alone(name: Any, kind: type) -> None:
    layers = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2))
    layers[0].bias.requires_grad_(False)  # type: ignore[union-attr]
    optimizer = optimizer_of(layers.parameters(), replace(SPEC, optimizer=name))
    assert type(optimizer) is kind
    kernels, rest = optimizer.param_groups
    assert (kernels["weight_decay"], rest["weight_decay"]) == (0.01, 0.0)
    assert [p.shape for p in kernels["params"]] == [layers[0].weight.shape]
    # The frozen one is left out.
    assert len(rest["params"]) == 2


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    weights = [nn.Parameter(torch.zeros(1))]
    with pytest.raises(ValueError, match="no optimizer is called 'lion'; known: 'adamw'"):
        optimizer_of(weights, replace(SPEC, optimizer="lion"))  # type: ignore[arg-type]
    optimizer = optimizer_of(weights, SPEC)
    with pytest.raises(ValueError, match="no schedule is called 'step'; known: 'one_cycle'"):
        schedule_of(optimizer, replace(SPEC, schedule="step"), 10)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no regression loss is called 'huber'; known: mse"):
        regression_loss(torch.zeros(1), torch.zeros(1), "huber")


def test_regression_losses_match_numpy() -> None:
    predicted, ages = np.array([20.0, 52.0, 55.2]), np.array([21.5, 40.0, 55.5])
    distance = np.abs(predicted - ages)
    expected = {
        "mse": (distance**2).mean(),
        "l1": distance.mean(),
        "smooth_l1": np.where(distance < 1, distance**2 / 2, distance - 0.5).mean(),
    }
    for name, value in expected.items():
        assert float(regression_loss(torch.tensor(predicted), torch.tensor(ages), name)) == pytest.approx(value)


def test_an_average_follows_its_network_and_forgets_where_it_began() -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    average = deepcopy(network).requires_grad_(False)
    expected = network.weight.detach().double().numpy().copy()
    for step in range(400):
        with torch.no_grad():
            network.weight += torch.randn_like(network.weight)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network.weight.detach().double().numpy()
        follow(average, network, 0.9, step)
    np.testing.assert_allclose(average.weight.numpy(), expected, atol=1e-4)
    # A first step takes nine tenths of the new weights.
    start, moved = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.zeros_(start.weight)
    nn.init.ones_(moved.weight)
    follow(start, moved, 0.999, 0)
    assert start.weight.item() == pytest.approx(0.9)


class Line(FitModule):
    """A fit of one layer on numbers instead of volumes."""

    def training_loss(self, batch: Batch) -> Tensor:
        return (self.network(batch[1])[:, 0] - batch[2]).square().mean()

    def validation_rows(self, batch: Batch) -> Tensor:
        error = (self.evaluated(batch[1])[:, 0] - batch[2]).abs().double()
        return torch.stack([error, error], dim=1)


class Numbers(torch.utils.data.Dataset[tuple[int, Tensor, Tensor]]):
    values = torch.randn(10, 3, generator=torch.Generator().manual_seed(4))

    def __getitem__(self, epoch_and_index: tuple[int, int]) -> tuple[int, Tensor, Tensor]:
        index = epoch_and_index[1]
        return index, self.values[index], self.values[index].sum() + 1


def fitted_line(batch_size: int, accumulate: int, **changes: Any) -> FitModule:
    spec = replace(TRAINING, optimizer="sgd", schedule="constant", learning_rate=0.05, epochs=2)
    spec = replace(spec, batch_size=batch_size, accumulate_batches=accumulate, **changes)
    torch.manual_seed(1)
    module = Line(nn.Linear(3, 1), spec, 0, 4, 10, [])
    train = DataLoader(Numbers(), batch_sampler=RankBatches(10, batch_size, 0, 1, 0))
    module.batch_sizes = train.batch_sampler.sizes  # type: ignore[union-attr]
    held_out = DataLoader(Numbers(), batch_sampler=[[(0, index) for index in range(10)]])
    with known_warnings():
        trainer = pl.Trainer(
            max_epochs=2,
            accumulate_grad_batches=accumulate,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, train, held_out)
    return module


def test_accumulated_batches_step_as_one_batch_does_also_at_an_epochs_end() -> None:
    """Ten scans: a step of eight, then one of two, which Lightning alone would halve."""
    whole, parts = fitted_line(8, 1), fitted_line(4, 2)
    assert whole.trainer.global_step == parts.trainer.global_step == 4
    torch.testing.assert_close(parts.network.state_dict(), whole.network.state_dict(), rtol=1e-5, atol=1e-6)
    assert parts.train_loss() == pytest.approx(whole.train_loss(), rel=1e-5)


def test_what_is_judged_is_the_average() -> None:
    module = fitted_line(4, 1, ema_decay=0.5)
    assert module.average is not None
    batch = next(iter(DataLoader(Numbers(), batch_size=10, sampler=[(0, index) for index in range(10)])))
    judged = float(module.validation_rows(batch)[:, 0].mean())
    assert judged == pytest.approx(float((module.average(batch[1])[:, 0] - batch[2]).abs().mean()))
    assert float(module.trainer.callback_metrics["val_mae_years"]) == pytest.approx(judged)
    assert not torch.equal(module.average.weight, module.network.weight)


def test_the_average_is_what_is_written_and_mixed_precision_learns(job_of: JobMaker) -> None:
    spec = replace(TRAINING, processes=1, ema_decay=0.9, precision="bf16", clip_norm=1.0, optimizer="adam")
    job = job_of(train=8, validation=4, training=replace(spec, schedule="polynomial", learning_rate=1e-2))
    fit(job)
    folder = Path(job.output_folder)
    state = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    from safetensors.torch import load_file

    weights = load_file(folder / "weights.safetensors")
    assert all(torch.equal(tensor, state[f"average.{name}"]) for name, tensor in weights.items())
    assert any(not torch.equal(tensor, state[f"network.{name}"]) for name, tensor in weights.items())
    report = json.loads((folder / "report.json").read_text())
    curve = (folder / "curves.csv").read_text().splitlines()
    best = dict(zip(curve[0].split(","), curve[1 + report["best_epoch"]].split(","), strict=True))
    # Judged in full precision, as it is predicted from the file.
    assert float(best["val_mae_years"]) == pytest.approx(report["val_mae_years"], abs=1e-3)


CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore of it.")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to")


@pytest.mark.parametrize("lacking", [CUDA, CPU])
def test_a_lack_of_memory_names_the_batch_and_what_fits(
    job_of: JobMaker, monkeypatch: pytest.MonkeyPatch, lacking: RuntimeError
) -> None:
    convolve = nn.Conv3d.forward

    def small_memory(layer: nn.Conv3d, volumes: Tensor) -> Tensor:
        if len(volumes) > 3:
            raise lacking
        return convolve(layer, volumes)

    monkeypatch.setattr(nn.Conv3d, "forward", small_memory)
    job = job_of(train=16, training=replace(TRAINING, processes=1, batch_size=12))
    with pytest.raises(OutOfMemory) as refused:
        fit(job)
    said = str(refused.value)
    assert "12 scans per process (batch_size 12 over 1 processes, 1 channels of 9×8×11 voxels, precision 32)" in said
    assert "3 scans per process fit: set batch_size = 3 and accumulate_batches = 4" in said
    assert "More of it" not in said


def test_what_fits_is_found_by_halving_and_other_errors_pass() -> None:
    tried: list[int] = []

    def step(n: int) -> None:
        tried.append(n)
        if n > 2:
            raise CPU

    assert largest_that_fits(10, step) == 2
    assert tried == [10, 5, 2]
    tried.clear()
    assert largest_that_fits(3, lambda n: step(n + 2)) == 0
    module = BrainAgeModule(NETWORK, TRAINING, 0, 1, 1, [])
    with pytest.raises(RuntimeError, match="something else"), explained(module, (1, 9, 8, 11), 1):
        raise RuntimeError("something else")
    # As torch itself says it, for more than a machine can have.
    with pytest.raises(OutOfMemory, match="2 scans per process fit"), explained(module, (1, 9, 8, 11), 1):
        torch.empty(2**50)
