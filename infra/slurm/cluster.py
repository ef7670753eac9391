"""Workers in Slurm jobs, by dask-jobqueue; the scheduler stays in the flow's process."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dask.utils import parse_bytes
from distributed import Security

from infra.cluster_profiles import Slurm
from infra.kept_workers import kept_at
from infra.worker_environment import NANNY_MEMORY_BYTES, WORKER_ENVIRONMENT, ExtraMissing

# A job ends at its walltime or with its node; what is missing is asked for again this often.
REPLACE_EVERY_S = 60.0
MIB = 2**20


@contextmanager
def slurm_cluster(profile: Slurm, home: Path) -> Iterator[Any]:
    """Submit the jobs, replace those that end, and cancel all with the block.

    Args:
        profile: What to ask Slurm for.
        home: Folder that every node sees, where the profile names none.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise ExtraMissing("slurm", "dask-jobqueue") from error
    shared = Path(profile.shared_folder or home)
    with (
        _certificates(shared) as security,
        SLURMCluster(**cluster_options(profile, home), security=security) as cluster,
    ):
        cluster.scale(n=profile.workers)
        with kept_at(cluster, profile.workers, REPLACE_EVERY_S):
            yield cluster


@contextmanager
def _certificates(shared: Path) -> Iterator[Security]:
    """Encrypt this run's connections with a certificate of its own, which only its user may read.

    A login node is shared, and whoever reaches an open Dask scheduler runs code as its owner.
    """
    shared.mkdir(parents=True, exist_ok=True)
    made = Security.temporary().get_tls_config_for_role("worker")
    with tempfile.TemporaryDirectory(dir=shared, prefix=".tls-") as folder:
        paths = {}
        for part in ("ca_file", "cert", "key"):
            paths[part] = Path(folder) / f"{part}.pem"
            paths[part].write_text(made[part])
        roles = {
            f"tls_{role}_{part}": str(paths[part])
            for role in ("scheduler", "worker", "client")
            for part in ("cert", "key")
        }
        yield Security(require_encryption=True, tls_ca_file=str(paths["ca_file"]), **roles)


def cluster_options(profile: Slurm, home: Path) -> dict[str, Any]:
    """What `SLURMCluster` is told, but for the certificates."""
    shared = Path(profile.shared_folder or home)
    worker_bytes = parse_bytes(profile.worker_memory)
    job_mib = -(-profile.workers_per_job * (worker_bytes + NANNY_MEMORY_BYTES) // MIB)
    exports = [f"export {name}={shlex.quote(value)}" for name, value in WORKER_ENVIRONMENT.items()]
    return {
        # One core and so one thread per process.
        "cores": profile.workers_per_job,
        "processes": profile.workers_per_job,
        "memory": f"{profile.workers_per_job * worker_bytes} B",
        "job_mem": f"{job_mib}M",
        "queue": profile.partition,
        "account": profile.account,
        "walltime": profile.walltime,
        "interface": profile.interface,
        "python": profile.python,
        "job_name": "padflow-worker",
        "job_script_prologue": ["set -e", *profile.setup, *exports],
        "job_extra_directives": list(profile.directives),
        "log_directory": str(shared / "slurm-logs"),
        "local_directory": profile.local_folder,
        "protocol": "tls://",
        "scheduler_options": {"dashboard": False, "dashboard_address": ":0"},
        # A full queue may start a job long before a scheduler on a busy login node answers.
        "death_timeout": 300,
        "nanny": True,
    }


def job_script(profile: Slurm, home: Path) -> str:
    """The batch script of one job, as `sbatch --test-only` checks it."""
    try:
        from dask_jobqueue.slurm import SLURMJob
    except ImportError as error:
        raise ExtraMissing("slurm", "dask-jobqueue") from error
    options = cluster_options(profile, home)
    options.pop("scheduler_options")
    return str(SLURMJob("tls://SCHEDULER:8786", name="padflow-worker", **options).job_script())
