from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from lightning_modules.fit import Ranks, check_job, claim_folder, fit
from lightning_modules.kept_steps import place_to_resume
from tasks.records import AugmentationSpec, TrainingJob
from tests.lightning_modules.conftest import ROOT, TRAINING, JobMaker, command_of, environment, launch
from tests.lightning_modules.without_batch_norm import gradient_path

ONE = replace(TRAINING, processes=1)
EPOCHS = 12


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def outputs(job: TrainingJob) -> tuple[dict[str, torch.Tensor], dict[str, Any], list[dict[str, str]]]:
    folder = Path(job.output_folder)
    report = json.loads((folder / "report.json").read_text())
    return load_file(folder / "weights.safetensors"), report, table(folder / "predictions.csv")


def assert_bitwise_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


Fitted = tuple[TrainingJob, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def two_ranks(job_of: JobMaker) -> Fitted:
    """13 training, 5 validation and 3 test scans on two ranks: nothing divides evenly; steps are kept and averaged."""
    job = job_of(training=replace(TRAINING, epochs=EPOCHS, checkpoint_minutes=0.0, ema_decay=0.9))
    return job, launch(job)


def test_two_ranks_print_each_epoch_once_and_warn_of_nothing(two_ranks: Fitted) -> None:
    _, done = two_ranks
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["epoch"] for line in lines] == list(range(EPOCHS))
    assert all(line["epochs"] == EPOCHS and np.isfinite(line["train_loss"] + line["val_mae_years"]) for line in lines)
    # The whole of stderr: a bar, a tip or a warning of any library would be here.
    assert done.stderr == ""


def test_two_ranks_predict_each_scan_once(two_ranks: Fitted) -> None:
    job, done = two_ranks
    assert done.returncode == 0, done.stderr
    _, report, predictions = outputs(job)
    assert [row["scan_id"] for row in predictions] == [row.scan_id for row in job.rows]
    assert [row["split"] for row in predictions] == [row.split for row in job.rows]
    assert [float(row["target_years"]) for row in predictions] == [row.target_years for row in job.rows]
    assert report["n_scans"] == {"train": 13, "validation": 5, "test": 3}
    assert report["world_size"] == 2
    assert report["epochs_run"] == EPOCHS
    assert report["stopped_early"] is False


def test_the_validation_error_of_two_ranks_is_that_of_each_scan_once(two_ranks: Fitted) -> None:
    job, done = two_ranks
    assert done.returncode == 0, done.stderr
    _, report, predictions = outputs(job)
    held_out = [row for row in predictions if row["split"] == "validation"]
    mae = np.mean([abs(float(row["target_years"]) - float(row["predicted_age_years"])) for row in held_out])
    curve = table(Path(job.output_folder) / "curves.csv")
    assert report["val_mae_years"] == pytest.approx(mae, abs=1e-9)
    # The best epoch as the ranks measured it together, and as one process measures it from the saved weights.
    assert float(curve[report["best_epoch"]]["val_mae_years"]) == pytest.approx(mae, abs=1e-3)
    assert min(float(row["val_mae_years"]) for row in curve) == float(curve[report["best_epoch"]]["val_mae_years"])


def test_a_killed_fit_resumes_and_ends_with_the_weights_of_an_unbroken_one(two_ranks: Fitted) -> None:
    """Resumed and unbroken fits are equal bitwise, and so are two fits of one seed."""
    unbroken, done = two_ranks
    assert done.returncode == 0, done.stderr
    job = replace(unbroken, output_folder=str(Path(unbroken.output_folder).with_name("broken")))
    folder = Path(job.output_folder) / "checkpoints"
    process = subprocess.Popen(
        command_of(job), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline_s = time.monotonic() + 120
    # In the middle of the second epoch, or as soon after it as one can look.
    while not any(folder.glob("kept-*4.ckpt")) and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.002)
    for each in (*psutil.Process(process.pid).children(recursive=True), process):
        each.kill()
    process.wait()
    assert place_to_resume(folder)[1] >= (1, 1)
    assert not (Path(job.output_folder) / "report.json").exists()
    again = launch(job)
    assert again.returncode == 0, again.stderr
    assert 0 < len(again.stdout.splitlines()) < EPOCHS
    weights, report, predictions = outputs(job)
    expected_weights, expected_report, expected_predictions = outputs(unbroken)
    assert report["epochs_run"] == EPOCHS
    assert report["best_epoch"] == expected_report["best_epoch"]
    assert predictions == expected_predictions
    assert_bitwise_equal(weights, expected_weights)


def test_two_ranks_step_as_one_process_does(job_of: JobMaker) -> None:
    """The same global batches, without batch norm and dropout, give the same gradient, and weights after 8 steps."""
    one = job_of(train=16, training=replace(ONE, epochs=2), network=replace(job_of().network, dropout=0.0))
    two = replace(one, training=replace(one.training, processes=2), output_folder=one.output_folder + "-two")
    script = str(Path(__file__).with_name("without_batch_norm.py"))
    for job in (one, two):
        done = launch(job, script)
        assert done.returncode == 0, done.stderr
    found, expected = outputs(two)[0], outputs(one)[0]
    assert found.keys() == expected.keys()
    assert not any("running" in name for name in found)
    # float32 sums in another order, through Adam, whose first steps amplify gradients near zero.
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=2e-5)
    whole = load_file(gradient_path(Path(one.output_folder), 0))
    largest = max(float(gradient.abs().max()) for gradient in whole.values())
    for rank in range(2):
        shared = load_file(gradient_path(Path(two.output_folder), rank))
        assert shared.keys() == whole.keys()
        for name in whole:
            # The last digits of float32, whose sums run in another order.
            torch.testing.assert_close(shared[name], whole[name], rtol=1e-5, atol=1e-6 * largest)


def test_one_process_fits_in_this_one_and_repeats_itself_bitwise(job_of: JobMaker) -> None:
    job = job_of(train=6, validation=3, training=ONE)
    again = replace(job, output_folder=job.output_folder + "-again")
    other = replace(job, output_folder=job.output_folder + "-other", seed=8)
    for each in (job, again, other):
        fit(each)
    assert_bitwise_equal(outputs(again)[0], outputs(job)[0])
    name = "head.linear.weight"
    assert not torch.equal(outputs(other)[0][name], outputs(job)[0][name])


def test_a_fit_stops_early_and_a_finished_one_does_not_go_on(job_of: JobMaker) -> None:
    job = job_of(train=4, validation=2, training=replace(ONE, epochs=40, patience=2, learning_rate=1e-9))
    fit(job)
    _, report, predictions = outputs(job)
    assert report["stopped_early"] is True
    assert report["epochs_run"] == report["best_epoch"] + 3 < 40
    (Path(job.output_folder) / "report.json").unlink()
    fit(job)
    assert outputs(job)[1]["epochs_run"] == report["epochs_run"]
    assert outputs(job)[2] == predictions


def test_the_network_learns_age_from_brightness(job_of: JobMaker) -> None:
    training = replace(
        ONE,
        epochs=15,
        batch_size=8,
        learning_rate=1e-2,
        augmentation=AugmentationSpec(flip_probability=0.0, shift_voxels=0),
    )
    job = job_of(train=40, validation=12, test=20, training=training)
    fit(job)
    tested = [row for row in outputs(job)[2] if row["split"] == "test"]
    ages = np.array([float(row["target_years"]) for row in tested])
    error = np.abs(np.array([float(row["predicted_age_years"]) for row in tested]) - ages).mean()
    assert error < 0.5 * np.abs(ages - np.median(ages)).mean()


def test_outputs_of_another_job_are_never_resumed(job_of: JobMaker) -> None:
    job = job_of()
    folder = Path(job.output_folder)
    claim_folder(folder, job)
    moved = tuple(replace(row, path=row.path + ".elsewhere") for row in job.rows)
    claim_folder(folder, replace(job, rows=moved))
    with pytest.raises(ValueError, match="checkpoints of another job"):
        claim_folder(folder, replace(job, seed=8))


def test_a_job_that_cannot_be_fitted_is_refused_before_training(job_of: JobMaker) -> None:
    job, alone = job_of(training=ONE), Ranks(0, 1, 1)
    check_job(job, alone)
    wrong = {
        "asks for 2 processes, 1 run": job_of(),
        "0 validation scans": job_of(training=ONE, validation=0),
        "twice, the first is train-0": replace(job, rows=(*job.rows, job.rows[0])),
        "outside age_range_years": replace(job, rows=(replace(job.rows[0], target_years=101.0), *job.rows[1:])),
    }
    for message, each in wrong.items():
        with pytest.raises(ValueError, match=message):
            check_job(each, alone)


def test_what_was_wrong_stands_at_the_end_of_the_launchers_output(job_of: JobMaker) -> None:
    job = job_of(train=2)
    done = launch(job)
    assert done.returncode != 0
    assert "2 training scans over 2 processes" in "\n".join(done.stderr.splitlines()[-40:])


def test_a_rank_ends_when_its_flow_is_killed() -> None:
    """The flow's process is left a zombie on purpose: it still takes signals, and yet it is gone."""
    flow = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    program = (
        "import time; from lightning_modules.parent_watch import watch_parents; watch_parents(); time.sleep(0.5);"
        "print('watching', flush=True); time.sleep(60)"
    )
    rank = subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment() | {"PADFLOW_PARENT_PID": str(flow.pid)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert rank.stdout is not None
        assert rank.stdout.readline() == "watching\n"
        os.kill(flow.pid, signal.SIGKILL)
        _, said = rank.communicate(timeout=20)
        assert rank.returncode == 75
        assert f"the flow (process {flow.pid}) is gone" in said
    finally:
        rank.kill()
        flow.wait()
