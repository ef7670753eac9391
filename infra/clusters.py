"""Where the fan-out runs: this machine, a Dask scheduler that is given, Slurm or Kubernetes.

`python -m infra.clusters PROFILE` prints what a profile asks for: a job script for `sbatch --test-only`, or a
`DaskCluster` for `kubectl apply --dry-run=server -f -`.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
from distributed import Client, LocalCluster
from distributed.versions import VersionMismatchWarning

from infra.cluster_profiles import Address, Kubernetes, Local, Profile, Slurm, cluster_profile, load_profile
from infra.kept_workers import kept_at
from infra.local_files import check_scratch
from infra.settings import Settings, load_settings
from infra.worker_environment import WORKER_DEATHS_TOLERATED, WORKER_ENVIRONMENT

CONNECT_TIMEOUT_S = 20
# Workers of a healthy cluster come within this time; only after it is waiting worth a message.
QUIET_WAIT_S = 3.0
# A worker that died is started again by its nanny. On a loaded machine that can take longer than Dask waits (15 s)
# before it gives the worker's place up for good; a run whose workers had all died so would wait for ever.
RESTART_PATIENCE_S = 60.0
REPLACE_EVERY_S = 10.0
TLS_HELP = (
    "set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT and "
    "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY"
)
# Where to look when no worker comes.
QUEUES = {Slurm: "`squeue --me` shows the queue", Kubernetes: "`kubectl get pods` shows the pods"}


def to_stderr(text: str) -> None:
    """Say something beside the results."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def connect(settings: Settings, say: Callable[[str], None] = to_stderr) -> Iterator[Client]:
    """Give a client of the cluster that the settings name, with at least one worker; what was started ends with it.

    Args:
        settings: Which cluster, how many workers, how long to wait for the first.
        say: Called with a line when something takes long.

    Raises:
        ValueError: Nothing answers at the scheduler's address, or the kind of cluster needs an extra.
        TimeoutError: No worker came.
    """
    profile = cluster_profile(settings)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": WORKER_DEATHS_TOLERATED}),
        _client(profile, settings.home) as client,
    ):
        if not isinstance(profile, Local):
            _wait_for_a_worker(client, profile, settings.worker_wait_s, say)
        yield client


@contextmanager
def _client(profile: Profile, home: Path) -> Iterator[Client]:
    if isinstance(profile, Address):
        with _remote(profile.address) as client:
            yield client
    elif isinstance(profile, Local):
        with _local(profile, home) as client:
            yield client
    elif isinstance(profile, Slurm):
        from infra.slurm.cluster import slurm_cluster

        with slurm_cluster(profile, home) as cluster, Client(cluster) as client:
            yield client
    else:
        from infra.kubernetes.cluster import kubernetes_cluster

        with kubernetes_cluster(profile) as cluster, Client(cluster) as client:
            yield client


@contextmanager
def _remote(address: str) -> Iterator[Client]:
    try:
        with warnings.catch_warnings():
            # The preflight says which versions differ, in one line.
            warnings.simplefilter("ignore", VersionMismatchWarning)
            client = _client_of(address)
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(_refusal(address, error)) from error
    quiet_dask()
    with client:
        yield client


def _client_of(address: str) -> Client:
    """A client; Dask gives the thread of its event loop 10 s to start, which a machine that stalls can exceed once."""
    try:
        return Client(address, timeout=CONNECT_TIMEOUT_S)
    except AssertionError:
        return Client(address, timeout=CONNECT_TIMEOUT_S)


def quiet_dask() -> None:
    """A dying worker and a lost scheduler are told in padflow's own words; Dask's account would bury them."""
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _refusal(address: str, error: BaseException) -> str:
    """Why a scheduler is not reached; Dask hides most of it in the causes of what it raises."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    # Of several tries the last may have been cut off by the time limit; what the earlier ones met says more.
    protocol, _, place = address.partition("://")
    if type(error) in (OSError, TimeoutError) and (obstacle := _obstacle(place)) is not None:
        causes.append(obstacle)
    met = {kind: cause for cause in causes for kind in type(cause).__mro__}
    if ssl.SSLError in met:
        reason = getattr(met[ssl.SSLError], "reason", "") or met[ssl.SSLError]
        found, step = f"the certificates do not match ({reason})", f"expected both signed by one CA; {TLS_HELP}"
    elif isinstance(error, TypeError):
        found, step = "there is no certificate to show it", f"expected one signed by its CA; {TLS_HELP}"
    elif isinstance(error, ValueError):
        found, step = "it speaks without encryption", f"expected TLS; use tcp://{place} if that is meant"
    elif socket.gaierror in met:
        found, step = "no such host", "expected a name that this machine resolves; check PADFLOW_CLUSTER"
    elif ConnectionResetError in met and protocol == "tcp":
        found, step = "it hung up", f"expected one without encryption; if it uses TLS: tls://{place}, and {TLS_HELP}"
    else:
        found = "nothing listens there" if ConnectionRefusedError in met else str(error)
        step = "expected a Dask scheduler; start one with `dask scheduler`, or use --cluster local"
    return f"no connection to {address}: {found}, {step}"


def _obstacle(place: str) -> OSError | None:
    """What stands in the way of a plain connection: Dask's last try may have been cut off before it knew."""
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=QUIET_WAIT_S).close()
    except ValueError:
        return None
    except OSError as error:
        return error
    return None


@contextmanager
def _local(profile: Local, home: Path) -> Iterator[Client]:
    quiet_dask()
    check_scratch(home / "dask")
    environment = {**dask.config.get("distributed.nanny.pre-spawn-environ"), **WORKER_ENVIRONMENT}
    patience = {"distributed.deploy.lost-worker-timeout": f"{RESTART_PATIENCE_S} s"}
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": environment, **patience}),
        LocalCluster(
            n_workers=profile.workers,
            threads_per_worker=1,
            memory_limit=profile.worker_memory,
            # No page to look at, and so no complaint where another run has its port.
            dashboard_address=":0",
            scheduler_kwargs={"dashboard": False},
            local_directory=str(home / "dask"),
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
        kept_at(cluster, profile.workers, REPLACE_EVERY_S),
    ):
        yield client


def _wait_for_a_worker(
    client: Client, profile: Address | Slurm | Kubernetes, limit_s: float, say: Callable[[str], None]
) -> None:
    """A batch queue gives workers one by one, so the first is enough to begin with."""
    where = QUEUES.get(type(profile), f"start one with `dask worker {getattr(profile, 'address', '')} --nthreads 1`")
    try:
        client.wait_for_workers(1, timeout=min(QUIET_WAIT_S, limit_s))
    except TimeoutError:
        pass
    else:
        return
    say(f"waiting for the first worker, up to {limit_s:g} s ({where})")
    try:
        client.wait_for_workers(1, timeout=limit_s)
    except TimeoutError as error:
        raise TimeoutError(
            f"no worker came within {limit_s:g} s, expected at least one; {where}. PADFLOW_WORKER_WAIT waits longer."
        ) from error


def describe(profile_path: str) -> str:
    """What a profile asks for, as Slurm or Kubernetes is told."""
    profile = load_profile(Path(profile_path))
    if isinstance(profile, Slurm):
        from infra.slurm.cluster import job_script

        return job_script(profile, load_settings().home)
    import yaml

    from infra.kubernetes.cluster import dask_cluster

    return str(yaml.safe_dump(dask_cluster(profile), sort_keys=False))


if __name__ == "__main__":
    print(describe(sys.argv[1]), end="")
