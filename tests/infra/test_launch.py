"""How many ranks a job gets, and what is told of a job that fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from infra.launch import TrainingFailed, run_training, training_processes
from tasks.records import TrainingSpec

CASES = [(0, 8, 99, 2), (1, 8, 99, 1), (2, 8, 99, 2), (3, 8, 99, 2), (8, 8, 99, 4), (4, 3, 99, 1), (0, 8, 3, 1)]


@pytest.mark.parametrize(("devices", "batch", "scans", "ranks"), CASES)
def test_ranks_deal_the_global_batch_evenly(
    monkeypatch: pytest.MonkeyPatch, devices: int, batch: int, scans: int, ranks: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    assert training_processes(TrainingSpec(batch_size=batch, processes=2), scans) == ranks


def test_a_failed_job_tells_the_end_of_its_output(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(TrainingFailed, match="output_folder"):
        run_training(tmp_path / "job.json", 1, lambda figures: None)
