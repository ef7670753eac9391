"""Before any scan is touched: can every worker do this study's work? What is wrong is said in one line.

A worker with other libraries would make other bytes, one that does not see the store would fail scan after scan.
Workers that come later (from a batch queue) are checked as they come, and leave again if they are unfit.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dask.utils import format_bytes, parse_bytes
from distributed import Client, Worker, WorkerPlugin

from infra import layout
from infra.cluster_profiles import Local, cluster_profile
from infra.settings import Settings
from infra.storage import Store, open_filesystem
from infra.worker_environment import THREAD_POOLS
from tasks import records
from tasks.records import Recipe, ScanRef
from tasks.science.code_digest import code_digest
from tasks.science.imaging.recipe import recipe_digest

PACKAGES = ("padflow", "numpy", "scipy", "SimpleITK", "nibabel", "dask", "distributed", "cloudpickle")
# A store that a worker cannot reach mostly hangs; a healthy one answers within a second or two.
STORAGE_ANSWERS_WITHIN_S = 30.0
TOPIC = "padflow-preflight"
LIMIT_SLACK = 0.99
PROBE = b"Written by a worker of padflow, to see whether it may write here.\n"


class UnfitWorkers(RuntimeError):
    """Some workers cannot do the study's work; nothing was touched."""


@dataclass(frozen=True)
class Demands:
    """What a worker must have and see.

    Attributes:
        python: Version of Python, without the patch level.
        versions: Package → version of the flow's.
        recipe: The study's recipe.
        recipe_key: Its digest in the flow: the recipe's fields and version, the libraries' versions, the template.
        code: Digest of the sources that make a prepared scan, which a commit may change under the same version of the
            recipe.
        store_url: The store.
        cache: Its local cache.
        witness: Key of an object that the flow has written, and its SHA-256: a store of the same name on another disk
            lacks it.
        scan_uris: One scan of each cohort.
        memory_bytes: Smallest memory limit; 0: any.
    """

    python: str
    versions: dict[str, str]
    recipe: Recipe
    recipe_key: str
    code: str
    store_url: str
    cache: str
    witness: tuple[str, str]
    scan_uris: tuple[str, ...]
    memory_bytes: int


def demands_of(
    settings: Settings, store: Store, recipe: Recipe, recipe_key: str, scans: Sequence[ScanRef], witness: str
) -> Demands:
    """What this flow's own process has, and so its workers must have.

    Args:
        settings: For the memory of workers that padflow did not start itself.
        store: The store.
        recipe: The study's recipe.
        recipe_key: Its digest.
        scans: What is to be done.
        witness: Key of an object that is in the store.
    """
    profile = cluster_profile(settings)
    return Demands(
        python=_python(),
        versions=_versions(),
        recipe=recipe,
        recipe_key=recipe_key,
        code=_preparing_code(),
        store_url=store.url,
        cache=str(store.cache),
        witness=(witness, hashlib.sha256(store.read(witness)).hexdigest()),
        scan_uris=tuple({scan.cohort: scan.uri for scan in scans}.values()),
        # A local cluster has what the machine can give.
        memory_bytes=0 if isinstance(profile, Local) else parse_bytes(profile.worker_memory),
    )


@contextmanager
def fit_workers(client: Client, demands: Demands, say: Callable[[str], None]) -> Iterator[None]:
    """Refuse to begin with unfit workers, and turn away those that come while the block runs.

    Args:
        client: Of a cluster with at least one worker.
        demands: What workers must have.
        say: Called with a line for each worker that is turned away later.

    Raises:
        UnfitWorkers: With one line per kind of fault: what was found, what was expected, what to do.
    """
    found = client.run(problems_here, demands, on_error="return")
    unfit = _by_problem(found)
    if unfit:
        total = len(found)
        lines = [f"{_who(workers, total)}: {problem}" for problem, workers in unfit.items()]
        raise UnfitWorkers("\n".join(lines))
    client.subscribe_topic(TOPIC, lambda event: say(str(event[1])))
    client.register_plugin(Gate(demands, frozenset(found)), name=TOPIC)
    try:
        yield
    finally:
        # The cluster may be gone already, which is told elsewhere.
        with suppress(Exception):
            client.unregister_worker_plugin(TOPIC)
            client.unsubscribe_topic(TOPIC)


class Gate(WorkerPlugin):
    """Checks a worker that comes later, before it takes its first scan; an unfit one leaves and says so.

    Dask ignores a plugin that fails on such a worker, so the worker has to go by itself.
    """

    name = TOPIC

    def __init__(self, demands: Demands, checked: frozenset[str]) -> None:
        self.demands = demands
        self.checked = checked

    async def setup(self, worker: Worker) -> None:
        """Called by Dask on each worker that is there, and on each that comes."""
        if worker.address in self.checked:
            return
        problems = await problems_here(self.demands, worker)
        if problems:
            worker.log_event(TOPIC, f"worker {worker.name} is turned away: {'; '.join(problems)}")
            worker.loop.add_callback(worker.close_gracefully, restart=False, reason="unfit for this study")


async def problems_here(demands: Demands, dask_worker: Worker) -> list[str]:
    """What is wrong with the worker that this runs on; nothing, mostly."""
    problems = _of_versions(demands) + _of_threads(dask_worker) + _of_memory(demands, dask_worker)
    if not problems:
        # Imports and storage take their time; the worker's own heartbeat goes on meanwhile.
        check = asyncio.to_thread(lambda: _of_recipe(demands) + _of_storage(demands))
        try:
            problems = await asyncio.wait_for(check, STORAGE_ANSWERS_WITHIN_S)
        except TimeoutError:
            problems = [
                f"found no answer from {demands.store_url} or the data within {STORAGE_ANSWERS_WITHIN_S:g} s, "
                "expected one in a few; check the workers' network, and their AWS_ENDPOINT_URL"
            ]
    return problems


def _of_versions(demands: Demands) -> list[str]:
    here = {"Python": _python(), **_versions()}
    expected = {"Python": demands.python, **demands.versions}
    other = [name for name in expected if here[name] != expected[name]]
    if not other:
        return []
    found = ", ".join(f"{name} {here[name]}" for name in other)
    wanted = ", ".join(f"{name} {expected[name]}" for name in other)
    return [f"found {found}, expected {wanted}; install the same requirements.lock there as for the flow"]


def _of_threads(worker: Worker) -> list[str]:
    loose = [name for name in THREAD_POOLS if os.environ.get(name) != "1"]
    if worker.state.nthreads == 1 and not loose:
        return []
    found = [f"{worker.state.nthreads} threads"] if worker.state.nthreads != 1 else []
    found += [f"{name}={os.environ.get(name, '(unset)')}" for name in loose]
    exports = " ".join(f"{name}=1" for name in loose)
    command = f"{exports} dask worker … --nthreads 1".strip()
    return [f"found {', '.join(found)}, expected one thread and no thread pools; start it with `{command}`"]


def _of_memory(demands: Demands, worker: Worker) -> list[str]:
    limit = worker.memory_manager.memory_limit
    if not demands.memory_bytes or (limit and limit >= LIMIT_SLACK * demands.memory_bytes):
        return []
    found = f"a memory limit of {format_bytes(limit)}" if limit else "no memory limit"
    expected = format_bytes(demands.memory_bytes)
    return [
        f"found {found}, expected {expected}; start it with `--memory-limit {demands.memory_bytes}`, "
        "or set PADFLOW_WORKER_MEMORY to what the recipe needs"
    ]


def _of_recipe(demands: Demands) -> list[str]:
    here = recipe_digest(demands.recipe)
    if here != demands.recipe_key:
        return [
            f"found recipe {here[:12]}…, expected {demands.recipe_key[:12]}…; "
            "its padflow or template differs from the flow's: install the same commit there"
        ]
    code = _preparing_code()
    if code != demands.code:
        return [
            f"found padflow's code {code[:12]}…, expected {demands.code[:12]}…; "
            "it would make other bytes under the same key: install the flow's commit there"
        ]
    return []


def _preparing_code() -> str:
    """Names the code that makes a prepared scan of given bytes."""
    tasks = Path(records.__file__).parent
    return code_digest(tasks / "science" / "imaging", tasks / "records.py", tasks / "steps" / "prepare.py")


def _of_storage(demands: Demands) -> list[str]:
    problems = []
    try:
        store = Store(demands.store_url, Path(demands.cache))
        key, sha256 = demands.witness
        if _sha256(store, key) != sha256:
            problems.append(
                f"found no {key} in {store.url}, expected what the flow has just written; "
                "put the store where every machine sees the same (s3://…, or a shared file system)"
            )
        else:
            store.write(layout.preflight_probe(), PROBE)
    except Exception as error:
        problems.append(
            f"found {_short(error)} on {demands.store_url}, expected to read and write there; "
            "give workers the same credentials and mounts as the flow"
        )
    for uri in demands.scan_uris:
        try:
            filesystem, path = open_filesystem(uri)
            filesystem.cat_file(path, start=0, end=1)
        except Exception as error:
            problems.append(
                f"found {_short(error)} on {uri}, expected to read it; "
                "give --data as a URL or path that workers see, with their credentials and mounts"
            )
    return problems


def _sha256(store: Store, key: str) -> str | None:
    try:
        return hashlib.sha256(store.read(key)).hexdigest()
    except FileNotFoundError:
        return None


def _by_problem(found: dict[str, Any]) -> dict[str, list[str]]:
    """Which workers have which problem."""
    unfit: dict[str, list[str]] = defaultdict(list)
    for worker, result in found.items():
        if isinstance(result, BaseException):
            text = (
                f"found {_short(result)}, expected padflow to run there; install the same requirements.lock and padflow"
            )
            unfit[text].append(worker)
            continue
        for problem in result:
            unfit[problem].append(worker)
    return unfit


def _who(workers: list[str], total: int) -> str:
    if len(workers) == total:
        return f"all {total} workers" if total > 1 else f"worker {workers[0]}"
    return f"{len(workers)} of {total} workers (such as {workers[0]})"


def _short(error: BaseException) -> str:
    # A first line says what; botocore and aiohttp go on for pages.
    text = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {text[:200]}"


def _python() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def _versions() -> dict[str, str]:
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        # CPU and CUDA builds of a version are the same to a study.
        return version(name).split("+")[0]
    except PackageNotFoundError:
        return "(not installed)"
