"""Worker pods by the Dask operator: the `DaskCluster` resource that dask-kubernetes makes, with padflow's limits."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dask.utils import parse_bytes

from infra.cluster_profiles import Kubernetes
from infra.worker_environment import NANNY_MEMORY_BYTES, WORKER_DEATHS_TOLERATED, WORKER_ENVIRONMENT, ExtraMissing

# A flow that is killed leaves its cluster behind; the operator deletes it after so long without work.
ORPHAN_LIVES_S = 3600
SCHEDULER_RESOURCES = {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "4Gi"}}


@contextmanager
def kubernetes_cluster(profile: Kubernetes) -> Iterator[Any]:
    """Create the `DaskCluster`, and delete it with the block.

    Raises:
        ValueError: The extra is not installed.
        RuntimeError: No Kubernetes answers, or the operator does not act.
    """
    manifest = dask_cluster(profile)
    from dask_kubernetes.operator import KubeCluster

    try:
        cluster = KubeCluster(custom_cluster_spec=manifest, namespace=profile.namespace, quiet=True)
    except Exception as error:
        # Whatever kr8s raises (no credentials, no such host, no operator), the way out is the same.
        raise RuntimeError(
            f"Kubernetes did not start {manifest['metadata']['name']!r}: {type(error).__name__}: {error}; "
            "expected credentials for it (`kubectl get daskclusters` must work) and the Dask operator in the cluster "
            "(helm install --repo https://helm.dask.org --generate-name dask-kubernetes-operator)"
        ) from error
    with cluster:
        yield cluster


def dask_cluster(profile: Kubernetes) -> dict[str, Any]:
    """The `DaskCluster` resource of a profile.

    Args:
        profile: Image, number and size of the workers, where credentials and data are.

    Returns:
        Plain values, as `kubectl apply` takes them as YAML.
    """
    try:
        from dask_kubernetes.operator import make_cluster_spec
    except ImportError as error:
        raise ExtraMissing("kubernetes", "dask-kubernetes") from error
    worker_bytes = parse_bytes(profile.worker_memory)
    command = ["dask", "worker", "--nthreads", "1", "--memory-limit", str(worker_bytes)]
    environment = {
        **WORKER_ENVIRONMENT,
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(WORKER_DEATHS_TOLERATED),
        **profile.environment,
    }
    spec = make_cluster_spec(
        profile.name or f"padflow-{uuid.uuid4().hex[:8]}",
        profile.image,
        n_workers=profile.workers,
        env=environment,
        worker_command=command,
        idle_timeout=ORPHAN_LIVES_S,
    )
    pods = spec["spec"]
    worker = pods["worker"]["spec"]["containers"][0]
    # Kubernetes kills at its limit without a word; Dask, at its own below that, restarts the worker and counts it.
    memory = str(worker_bytes + NANNY_MEMORY_BYTES)
    worker["resources"] = {"requests": {"cpu": "1", "memory": memory}, "limits": {"memory": memory}}
    pods["scheduler"]["spec"]["containers"][0]["resources"] = SCHEDULER_RESOURCES
    if profile.secret:
        worker["envFrom"] = [{"secretRef": {"name": profile.secret}}]
    if profile.volume_claim:
        worker["volumeMounts"] = [{"name": "data", "mountPath": profile.mount_path}]
        claim = {"name": "data", "persistentVolumeClaim": {"claimName": profile.volume_claim}}
        pods["worker"]["spec"]["volumes"] = [claim]
    return dict(spec)
