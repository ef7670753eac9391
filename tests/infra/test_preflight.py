"""Unfit workers are found before any scan is touched, and said in one line each."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from infra.clusters import connect
from infra.preflight import Demands, UnfitWorkers, demands_of, fit_workers
from infra.settings import Settings, load_settings
from infra.storage import Store
from tasks.records import Recipe, ScanRef
from tasks.science.imaging.recipe import recipe_digest
from tests.dask_processes import scheduler, worker

RECIPE = Recipe(resolution_mm=4.0)
REPOSITORY = Path(__file__).parents[2]


class Site:
    """A scheduler in a process of its own, a store, one scan; workers are added one by one."""

    def __init__(self, folder: Path, address: str, stack: ExitStack) -> None:
        self.folder, self.address, self._stack = folder, address, stack
        self.store = Store(str(folder / "store"), folder / "cache")
        self.store.write("cohorts/c/latest.json", b"{}")
        self.scan = folder / "data" / "sub-1_T1w.nii.gz"
        self.scan.parent.mkdir()
        self.scan.write_bytes(b"scan")

    def add(self, name: str, *options: str, **environment: str) -> None:
        self._stack.enter_context(worker(self.folder, name, self.address, *options, **environment))

    def demands(self, settings: Settings, **other: Any) -> Demands:
        scan = ScanRef("c/sub-1_T1w", "c", "sub-1", "", "", "T1w", str(self.scan), 4, "0" * 64)
        key = recipe_digest(RECIPE)
        return replace(demands_of(settings, self.store, RECIPE, key, [scan], "cohorts/c/latest.json"), **other)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with ExitStack() as stack:
        made = Site(folder, stack.enter_context(scheduler(folder)), stack)
        made.add("fit")
        yield made


@pytest.fixture
def settings(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    monkeypatch.setenv("PADFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("PADFLOW_CLUSTER", site.address)
    monkeypatch.delenv("PADFLOW_WORKER_MEMORY", raising=False)
    return load_settings()


def refusal(settings: Settings, demands: Demands) -> str:
    """The one line that a study is refused with."""
    with connect(settings) as client, pytest.raises(UnfitWorkers) as caught, fit_workers(client, demands, print):
        pass
    said = str(caught.value)
    print(said)
    assert "found" in said
    assert "expected" in said
    assert "; " in said
    assert "\n" not in said
    return said


def test_a_fit_worker_passes_within_a_second(site: Site, settings: Settings) -> None:
    demands = site.demands(settings)
    with connect(settings) as client:
        with fit_workers(client, demands, print):
            pass
        start = time.monotonic()
        with fit_workers(client, demands, print):
            took_s = time.monotonic() - start
    assert took_s < 1


def test_a_store_on_another_disk_is_told_from_the_flows(site: Site, settings: Settings, tmp_path: Path) -> None:
    elsewhere = Store(str(tmp_path / "elsewhere"), tmp_path)
    elsewhere.write("x", b"")
    said = refusal(settings, site.demands(settings, store_url=elsewhere.url))
    assert "found no cohorts/c/latest.json" in said


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"store_url": "http://127.0.0.1:1/x"}, "on http://127.0.0.1:1/x, expected to read and write"),
        ({"scan_uris": ("/nowhere/sub-1_T1w.nii.gz",)}, "FileNotFoundError"),
        ({"recipe_key": "0" * 64}, "found recipe"),
        ({"code": "0" * 64}, "found padflow's code"),
        ({"memory_bytes": 4 * 2**30}, "expected 4.00 GiB"),
        ({"python": "3.10"}, "expected Python 3.10"),
    ],
    ids=["store", "data", "recipe", "code", "memory", "python"],
)
def test_what_is_wrong_is_one_line(site: Site, settings: Settings, change: dict[str, Any], part: str) -> None:
    assert part in refusal(settings, site.demands(settings, **change))


def test_a_late_worker_with_another_numpy_is_turned_away(site: Site, settings: Settings, tmp_path: Path) -> None:
    # What a worker of an older environment would say of itself.
    metadata = tmp_path / "older" / "numpy-1.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.0\n")
    path = f"{metadata.parents[1]}:{os.environ.get('PYTHONPATH', Path.cwd())}"
    said: list[str] = []
    with connect(settings) as client, fit_workers(client, site.demands(settings), said.append):
        before = names(client)
        site.add("older", PYTHONPATH=path)
        site.add("late")
        wait_for(lambda: said and "late" in names(client) and "older" not in names(client))
        # Scans go to the fit ones only.
        results = client.gather(
            client.map(lambda _: __import__("distributed").get_worker().name, range(20), pure=False)
        )
    assert before == {"fit"}
    assert set(results) <= {"fit", "late"}
    assert "worker older is turned away: found numpy 1.0, expected numpy" in said[0]
    # The next run finds no trace of the check.
    with connect(settings) as client:
        assert "padflow-preflight" not in client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.worker_plugins)


def test_a_late_worker_of_another_commit_with_the_same_recipe_version_is_turned_away(
    site: Site, settings: Settings, tmp_path: Path
) -> None:
    for room in ("tasks", "infra"):
        shutil.copytree(REPOSITORY / room, tmp_path / "other" / room)
    intensity = tmp_path / "other" / "tasks" / "science" / "imaging" / "intensity.py"
    intensity.write_text(intensity.read_text() + "\n# Another commit.\n")
    said: list[str] = []
    with connect(settings) as client, fit_workers(client, site.demands(settings), said.append):
        site.add("other-commit", PYTHONPATH=str(tmp_path / "other"))
        wait_for(lambda: said and "other-commit" not in names(client))
    assert "worker other-commit is turned away: found padflow's code" in said[0]
    assert "it would make other bytes under the same key: install the flow's commit there" in said[0]


def test_threads_that_are_not_pinned(site: Site, settings: Settings) -> None:
    pinned = {"MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    site.add("loose", "--no-nanny", "--nthreads", "2", OMP_NUM_THREADS="8", **pinned)
    with connect(settings) as client:
        client.wait_for_workers(1)
        wait_for(lambda: "loose" in names(client))
    said = refusal(settings, site.demands(settings))
    assert "found 2 threads, OMP_NUM_THREADS=8, expected one thread" in said
    assert "1 of 3 workers" in said


def names(client: Client) -> set[str]:
    return {item["name"] for item in client.scheduler_info(n_workers=-1)["workers"].values()}


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)
