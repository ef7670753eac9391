"""Which cluster a study runs on, from one setting: `local`, an address, `slurm`, `kubernetes`, or a profile of those.

A profile is a TOML file whose `kind` is `slurm` or `kubernetes`; infra/slurm/profile.toml and
infra/kubernetes/profile.toml show every key. The environment wins over the profile, the profile over the defaults.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from infra.settings import Settings

DEFAULT_WORKER_MEMORY = "3GiB"
ADDRESS = re.compile(r"^(tcp|tls|ws|wss|ucx)://\S+$")


@dataclass(frozen=True)
class Local:
    """Workers on this machine, started for the run."""

    workers: int
    worker_memory: str = DEFAULT_WORKER_MEMORY


@dataclass(frozen=True)
class Address:
    """A Dask scheduler that somebody else has started."""

    address: str
    worker_memory: str = DEFAULT_WORKER_MEMORY


@dataclass(frozen=True)
class Slurm:
    """Workers in Slurm jobs; the scheduler lives in the flow's process, so run that on a login or controller node.

    Attributes:
        workers: How many in all; a fixed number, since adaptive clusters end workers that are in the middle of a scan.
        worker_memory: Limit of each (Dask notation).
        workers_per_job: How many share one job.
        partition: Slurm's partition (`-p`).
        account: Whom the time is charged to (`-A`).
        walltime: Limit of one job (`-t`); a job that reaches it is replaced.
        interface: Network interface that nodes reach each other by, such as `ib0`.
        python: Python of the workers; none: the flow's own, which must lie on a file system that nodes share.
        setup: Shell lines before the worker starts, such as `module load` or an `export`.
        directives: Further `#SBATCH` options, such as `--constraint=skylake`.
        shared_folder: Folder that every node sees, for job logs and the run's certificates; none: PADFLOW_HOME.
        local_folder: Folder on a node for scratch, such as `$TMPDIR`.
    """

    workers: int = 8
    worker_memory: str = DEFAULT_WORKER_MEMORY
    workers_per_job: int = 1
    partition: str | None = None
    account: str | None = None
    walltime: str = "24:00:00"
    interface: str | None = None
    python: str | None = None
    setup: tuple[str, ...] = ()
    directives: tuple[str, ...] = ()
    shared_folder: str | None = None
    local_folder: str = "${TMPDIR:-/tmp}"


@dataclass(frozen=True)
class Kubernetes:
    """Worker pods that the Dask operator starts from a `DaskCluster` resource.

    Attributes:
        image: Container image with padflow and its lock; pinned by a tag or digest, since outputs depend on it.
        workers: How many pods; a fixed number, since adaptive clusters end pods that are in the middle of a scan.
        worker_memory: Limit of each worker (Dask notation); the pod gets a little more.
        name: Name of the `DaskCluster`; none: one per run.
        namespace: Where it runs; none: the current one.
        secret: A Secret whose keys become environment variables, such as `AWS_ACCESS_KEY_ID`.
        volume_claim: A PersistentVolumeClaim mounted at `mount_path`, for data or a store that are folders.
        mount_path: Where it is mounted.
        environment: Further variables of workers, such as `AWS_ENDPOINT_URL`.
    """

    image: str
    workers: int = 8
    worker_memory: str = DEFAULT_WORKER_MEMORY
    name: str | None = None
    namespace: str | None = None
    secret: str | None = None
    volume_claim: str | None = None
    mount_path: str = "/data"
    environment: dict[str, str] = field(default_factory=dict)


Profile = Local | Address | Slurm | Kubernetes
KINDS: dict[str, type[Slurm] | type[Kubernetes]] = {"slurm": Slurm, "kubernetes": Kubernetes}


def cluster_profile(settings: Settings) -> Profile:
    """Resolve the one setting.

    Raises:
        ValueError: It is none of what it may be, or a profile has an unknown key or a wrong value.
    """
    given: dict[str, Any] = {"workers": settings.asked_workers, "worker_memory": settings.worker_memory}
    given = {name: value for name, value in given.items() if value is not None}
    if settings.cluster == "local":
        return Local(**{**given, "workers": settings.workers})
    if ADDRESS.match(settings.cluster):
        return Address(settings.cluster, settings.worker_memory or DEFAULT_WORKER_MEMORY)
    if settings.cluster in KINDS:
        return replace(parse_profile({"kind": settings.cluster}, f"PADFLOW_CLUSTER={settings.cluster}"), **given)
    path = Path(settings.cluster)
    if not path.is_file():
        raise ValueError(
            f"PADFLOW_CLUSTER is {settings.cluster!r}; expected local, slurm, kubernetes, an address "
            "(tcp://HOST:8786 or tls://HOST:8786), or the path of a profile such as infra/slurm/profile.toml."
        )
    return replace(load_profile(path), **given)


def load_profile(path: Path) -> Slurm | Kubernetes:
    """Read and check a profile."""
    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from error
    return parse_profile(content, str(path))


def parse_profile(content: dict[str, Any], source: str) -> Slurm | Kubernetes:
    """Check a profile given as plain values.

    >>> parse_profile({"kind": "slurm", "partion": "long"}, "site.toml")
    Traceback (most recent call last):
    ValueError: site.toml: unknown key 'partion'; did you mean 'partition'?
    """
    values = {name: value for name, value in content.items() if name != "kind"}
    kind = KINDS.get(content.get("kind", ""))
    if kind is None:
        raise ValueError(f"{source}: kind is {content.get('kind')!r}; expected {' or '.join(map(repr, KINDS))}")
    valid = [f.name for f in fields(kind)]
    for name in values:
        if name not in valid:
            near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(valid)}"
            raise ValueError(f"{source}: unknown key {name!r}; {hint}")
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        item = error.errors()[0]
        where = ".".join(str(part) for part in item["loc"])
        found = "missing" if item["type"] == "missing" else repr(item["input"])
        example = f"infra/{content['kind']}/profile.toml"
        raise ValueError(f"{source}: {where}: found {found}, expected: {item['msg']}; {example} shows one") from error
