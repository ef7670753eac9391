"""A scan that kills its worker each time is told apart from its neighbours, which are unharmed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from distributed.scheduler import KilledWorker

from infra.clusters import connect
from infra.settings import load_settings
from tasks.records import ScanRef
from tasks.steps.fan_out import with_suspects_last


def scan(number: int) -> ScanRef:
    return ScanRef(f"c/sub-{number}_T1w", "c", f"sub-{number}", "", "", "T1w", f"/none/{number}", 1, f"{number:064d}")


def test_only_the_killer_is_suspected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("PADFLOW_WORKERS", "2")
    counted = tmp_path / "counted"
    counted.mkdir()

    def work(item: ScanRef) -> str:
        with (counted / item.participant_id).open("a") as file:
            file.write("x")
        if item.participant_id == "sub-5":
            os._exit(1)
        time.sleep(0.05)
        return item.participant_id

    scans = [scan(number) for number in range(12)]
    with connect(load_settings()) as client:
        results = {item.participant_id: result for item, result in with_suspects_last(client, work, scans)}
    assert isinstance(results.pop("sub-5"), KilledWorker)
    assert results == {f"sub-{number}": f"sub-{number}" for number in range(12) if number != 5}
    assert len((counted / "sub-5").read_text()) >= 3
