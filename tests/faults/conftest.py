"""A small cohort whose preprocessing is disturbed, and what was executed for each of its scans."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.command_line import CommandLine
from tests.tiny_study import STUDY

SUBJECTS = 6
PATIENCE_S = 240
PRELOAD = Path(__file__).with_name("execution_log.py")


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one phantom cohort, `train`."""
    from tasks.science.imaging.phantom import PhantomSpec, write_phantom

    root = tmp_path_factory.mktemp("fault-data")
    # A stripped head is registered in a third of the time.
    spec = PhantomSpec(subjects=SUBJECTS, sites=1, seed=5, patients=0.0, spacing_mm=4.0, variant="stripped")
    write_phantom(spec, root / "train")
    return root


@pytest.fixture(scope="session", autouse=True)
def _shared_prefect(prefect_server: str, prefect_home: Path) -> None:
    """All commands that are not about Prefect's server share one: each of its own would take longer than the scans."""
    Audit.prefect_api_url, Audit.prefect_database = prefect_server, prefect_home / "prefect.db"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of that cohort alone."""
    head, rest = STUDY.split("[[cohorts]]", 1)
    healthy = rest.split("[[cohorts]]", 1)[0]
    settings = rest[rest.index("[recipe]") : rest.index("[[associations]]")]
    path = tmp_path / "faults.toml"
    path.write_text(f"{head}[[cohorts]]{healthy}{settings}")
    return path


class Audit:
    """`padflow` whose workers write down what they do."""

    prefect_api_url = ""
    prefect_database = Path()

    def __init__(
        self, folder: Path, data: str, *, embedded: bool = False, empty: bool = False, **environment: str
    ) -> None:
        self.log = folder / "executions.log"
        self.log.touch()
        counted = {"EXECUTION_LOG": str(self.log), "DASK_DISTRIBUTED__WORKER__PRELOAD": str(PRELOAD)}
        if not embedded:
            counted["PREFECT_API_URL"] = self.prefect_api_url
        self.padflow = CommandLine(folder / "home", data, **counted, **environment)
        if embedded and not empty:
            copy_tables(self.prefect_database, folder / "home" / "prefect" / "prefect.db")
        self.store = folder / "home" / "store"

    def counts(self, event: str) -> Counter[str]:
        """Scan → how often."""
        lines = (line.split() for line in self.log.read_text().splitlines())
        return Counter(sha256 for said, sha256, _ in lines if said == event)

    def computed_after_finish(self) -> list[str]:
        """Scans that were computed although they were finished."""
        finished, again = set(), []
        for said, sha256, _ in (line.split() for line in self.log.read_text().splitlines()):
            if said == "finished":
                finished.add(sha256)
            elif said == "computed" and sha256 in finished:
                again.append(sha256)
        return again

    def workers(self) -> list[int]:
        """Process ids of the workers, oldest first."""
        lines = (line.split() for line in self.log.read_text().splitlines())
        return [int(pid) for said, _, pid in lines if said == "worker"]

    def wait_for(self, event: str, count: int, alive: Callable[[], bool]) -> None:
        """Wait until something happened to so many scans."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.counts(event)) < count:
            assert alive(), f"the command ended before {count} scans had {event}: {self.padflow.stderr[-3000:]}"
            assert time.monotonic() < deadline, "preprocessing made no progress"
            time.sleep(0.02)


def copy_tables(database: Path, to: Path) -> None:
    """Spare an embedded Prefect server the migrations of an empty database, which take longer than the scans."""
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)


def remarks(stderr: str) -> list[str]:
    """What a command says beside how far it is, which slow machines show, and that the cohort's heads are stripped."""
    usual = (" per minute, ", " scans came skull-stripped")
    return [line for line in stderr.splitlines() if not any(part in line for part in usual)]


def wait_until_gone(processes: list[psutil.Process], seconds: float) -> None:
    """Fail if a process outlives the time."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    left = [process.cmdline() for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    for process in alive:
        process.kill()
    assert not left


def sha256s(cohort: Path) -> set[str]:
    """The scans of a cohort, by their bytes."""
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in cohort.glob("train/sub-*/anat/*.nii.gz")}


def whole_scans(objects: dict[str, bytes]) -> set[str]:
    """Scans that are finished, after a look into every object: a half one fails here."""
    for name, content in objects.items():
        if name.endswith(".npy"):
            volume = np.load(io.BytesIO(content), allow_pickle=False)
            assert np.isfinite(volume).all()
            assert volume.any()
        elif name.endswith(".json"):
            json.loads(content)
    names = {name.rsplit("/", 1)[-1] for name in objects}
    finished = {name.removesuffix(".json") for name in names if name.endswith(".json") and "excluded" not in name}
    assert {f"{scan}.npy" for scan in finished} <= names
    return finished


def local_objects(store: Path) -> dict[str, bytes]:
    """Everything under `prepared/` of a store on this machine."""
    return {str(path): path.read_bytes() for path in store.glob("prepared/*/*") if not path.name.startswith(".")}
