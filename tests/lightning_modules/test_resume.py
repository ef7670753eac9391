"""A fit that is killed, torn or asked to stop ends with the weights of an unbroken one."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import random
import signal
import sys
import time
import warnings
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lightning_modules.data import Place, RankBatches
from lightning_modules.fit import fit
from lightning_modules.kept_steps import PREEMPTED_EXIT_CODE, kept_files, place_to_resume
from tasks.records import TrainingJob
from tests.lightning_modules.conftest import TRAINING, JobMaker

# Everything that has a state of its own: averaged weights, accumulated batches, a schedule, dropout.
TRAINED = replace(
    TRAINING,
    processes=1,
    epochs=3,
    batch_size=4,
    accumulate_batches=2,
    ema_decay=0.9,
    clip_norm=1.0,
    checkpoint_minutes=0.0,
)
# A server that has imported torch starts each fit in milliseconds.
SERVED = multiprocessing.get_context("forkserver")
SERVED.set_forkserver_preload(["lightning_modules.fit"])
MOST_KILLS = 6


def quiet_fit(job: TrainingJob) -> None:
    errors = Path(job.output_folder).parent / "stderr.txt"
    with Path(os.devnull).open("w") as sys.stdout, errors.open("w") as sys.stderr:
        fit(job)


def started(job: TrainingJob) -> BaseProcess:
    process = SERVED.Process(target=quiet_fit, args=(job,))
    process.start()
    return process


def wait_for_steps(job: TrainingJob, process: BaseProcess, done: int) -> None:
    """Wait until a step after `done` is kept, or the process ends."""
    folder = Path(job.output_folder) / "checkpoints"
    while process.is_alive() and newest_step(folder) <= done:
        time.sleep(0.002)


def newest_step(folder: Path) -> int:
    return max((int(path.stem.partition("-")[2]) for path in kept_files(folder)), default=0)


def outcome(job: TrainingJob) -> tuple[dict[str, torch.Tensor], dict[str, Any], str, list[dict[str, float]]]:
    folder = Path(job.output_folder)
    with (folder / "curves.csv").open(newline="") as file:
        curves = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    report = json.loads((folder / "report.json").read_text())
    return load_file(folder / "weights.safetensors"), report, (folder / "predictions.csv").read_text(), curves


def assert_same_outcome(found: TrainingJob, expected: TrainingJob) -> None:
    weights, report, predictions, curves = outcome(found)
    expected_weights, expected_report, expected_predictions, expected_curves = outcome(expected)
    assert weights.keys() == expected_weights.keys()
    assert all(torch.equal(weights[name], expected_weights[name]) for name in weights)
    assert predictions == expected_predictions
    assert report["best_epoch"] == expected_report["best_epoch"]
    assert report["epochs_run"] == expected_report["epochs_run"]
    for row, whole in zip(curves, expected_curves, strict=True):
        for name in ("epoch", "train_loss", "val_loss", "val_mae_years", "learning_rate"):
            assert row[name] == pytest.approx(whole[name], rel=1e-12), name


@pytest.fixture(scope="module")
def unbroken(job_of: JobMaker) -> TrainingJob:
    """31 training scans in batches of 4, two to a step: 8 batches and 4 steps per epoch, the last batch of 3."""
    job = job_of(train=31, validation=4, test=2, training=TRAINED)
    fit(job)
    return job


def broken(job: TrainingJob, tmp_path: Path) -> TrainingJob:
    return replace(job, output_folder=str(tmp_path / "output"))


def test_a_fit_killed_at_random_moments_ends_as_an_unbroken_one(unbroken: TrainingJob, tmp_path: Path) -> None:
    job, dice = broken(unbroken, tmp_path), random.Random(3)
    folder = Path(job.output_folder) / "checkpoints"
    places: list[Place] = []
    for _ in range(MOST_KILLS):
        process = started(job)
        # Kept steps are written most of the time, so that some of these moments lie within a write.
        wait_for_steps(job, process, newest_step(folder))
        time.sleep(dice.uniform(0, 0.08))
        process.kill()
        process.join()
        places.append(place_to_resume(folder)[1])
        if (Path(job.output_folder) / "report.json").exists():
            break
    process = started(job)
    process.join()
    assert process.exitcode == 0, (tmp_path / "stderr.txt").read_text()
    assert sum(place.batches_done > 0 for place in places) >= 2, places
    assert places == sorted(places)
    assert not list(folder.glob(".*"))
    assert len(kept_files(folder)) == 2
    assert_same_outcome(job, unbroken)


def test_a_torn_newest_step_leaves_the_one_before(unbroken: TrainingJob, tmp_path: Path) -> None:
    job = broken(unbroken, tmp_path)
    folder = Path(job.output_folder) / "checkpoints"
    process = started(job)
    wait_for_steps(job, process, 5)
    process.kill()
    process.join()
    newest, before = kept_files(folder)[:2]
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    with pytest.warns(UserWarning, match=f"{newest.name} cannot be read"):
        resumed, _ = place_to_resume(folder)
    assert resumed == before
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*cannot be read.*")
        fit(job)
    assert_same_outcome(job, unbroken)


def test_a_fit_that_is_asked_to_stop_keeps_its_step_and_says_so(unbroken: TrainingJob, tmp_path: Path) -> None:
    # Nothing but the signal makes it keep a step within an epoch.
    slow = replace(unbroken, training=replace(unbroken.training, checkpoint_minutes=60.0))
    job = broken(slow, tmp_path)
    folder = Path(job.output_folder) / "checkpoints"
    process = started(job)
    wait_for_steps(job, process, 0)
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join(timeout=30)
    said = (tmp_path / "stderr.txt").read_text()
    assert process.exitcode == PREEMPTED_EXIT_CODE, said
    place = place_to_resume(folder)[1]
    assert f"{place.batches_done} batches of epoch {place.epoch} are kept" in said
    assert "Traceback" not in said
    assert not (Path(job.output_folder) / "report.json").exists()
    fit(job)
    assert_same_outcome(job, unbroken)


def test_a_sampler_begins_at_its_place_before_anybody_tells_it_the_epoch() -> None:
    """Loader workers ask for batches when the loader is made, and Lightning tells the epoch only afterwards."""
    whole = RankBatches(20, 4, 0, 1, seed=1)
    whole.set_epoch(3)
    resumed = RankBatches(20, 4, 0, 1, seed=1, begins=Place(3, 2))
    assert list(resumed) == list(whole)[2:]
    assert len(resumed) == len(whole) == 5
    resumed.set_epoch(4)
    whole.set_epoch(4)
    assert list(resumed) == list(whole)
