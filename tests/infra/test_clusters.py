"""One setting names the cluster, and what it stands for is started for real as far as this machine can."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dask
import pytest
import yaml

from infra import slurm
from infra.cluster_profiles import Address, Kubernetes, Local, Slurm, cluster_profile, load_profile, parse_profile
from infra.clusters import connect
from infra.settings import Settings, load_settings
from infra.worker_environment import THREAD_POOLS, WORKER_ENVIRONMENT
from tests.command_line import CommandLine
from tests.dask_processes import make_certificates, scheduler, worker

INFRA = Path(slurm.__file__).parents[1]


@pytest.fixture(autouse=True)
def settings_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Settings for a cluster, and nothing else of the environment."""
    for name in [name for name in os.environ if name.startswith(("PADFLOW_", "DASK_"))]:
        monkeypatch.delenv(name)

    def load(cluster: str, **environment: str) -> Settings:
        for name, value in {"PADFLOW_HOME": str(tmp_path), "PADFLOW_CLUSTER": cluster, **environment}.items():
            monkeypatch.setenv(name, value)
        return load_settings()

    return load


def test_one_setting_names_every_kind(settings_of: Any, tmp_path: Path) -> None:
    profile = tmp_path / "site.toml"
    profile.write_text('kind = "slurm"\nworkers = 40\npartition = "long"\n')
    assert cluster_profile(settings_of("local", PADFLOW_WORKERS="2")) == Local(2)
    assert cluster_profile(settings_of("tls://head:8786")) == Address("tls://head:8786")
    assert cluster_profile(settings_of("slurm", PADFLOW_WORKERS="5")) == Slurm(workers=5)
    assert cluster_profile(settings_of(str(profile), PADFLOW_WORKER_MEMORY="2GiB")) == Slurm(
        workers=5, partition="long", worker_memory="2GiB"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"kind": "slurm", "partion": "x"}, "did you mean 'partition'"),
        ({"kind": "pbs"}, "expected 'slurm' or 'kubernetes'"),
        ({"kind": "kubernetes"}, "image: found missing"),
        ({"kind": "slurm", "workers": "many"}, "workers: found 'many'"),
    ],
)
def test_a_wrong_profile_is_said(content: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_profile(content, "site.toml")


def test_an_extra_that_is_missing_is_named(settings_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("dask_jobqueue", "dask_kubernetes.operator"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    profile = str(INFRA / "kubernetes" / "profile.toml")
    for cluster, extra in (("slurm", "slurm"), (profile, "kubernetes")):
        with pytest.raises(ValueError, match=rf"pip install 'padflow\[{extra}\]'"), connect(settings_of(cluster)):
            pass


# A site's scheduler and workers, over TCP with TLS ----------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a scheduler with two workers in processes of their own, and the certificates' environment."""
    folder = tmp_path_factory.mktemp("site")
    tls = make_certificates(folder / "certificates")
    with ExitStack() as stack:
        address = stack.enter_context(scheduler(folder, **tls))
        for name in ("one", "two"):
            stack.enter_context(worker(folder, name, address, **tls))
        yield address, tls


def test_the_flow_runs_over_tls(
    site: tuple[str, dict[str, str]], study_file: Path, phantoms: Path, prefect_server: str, tmp_path: Path
) -> None:
    address, tls = site
    assert address.startswith("tls://")
    for cohort in ("train", "external", "clinical"):
        (tmp_path / "data" / cohort).mkdir(parents=True)
        for path in [*(phantoms / cohort).glob("*.*"), *sorted((phantoms / cohort).glob("sub-*"))[:1]]:
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, tmp_path / "data" / cohort / path.name)
    padflow = CommandLine(tmp_path / "home", str(tmp_path / "data"), PREFECT_API_URL=prefect_server, **tls)
    printed = padflow("preprocess", str(study_file), "--cluster", address, "--json")
    assert json.loads(printed) == {"prepared": 4, "excluded": 0}
    assert not (tmp_path / "home" / "dask").exists(), "a local cluster was started"


def test_a_client_without_a_certificate_is_refused(site: tuple[str, dict[str, str]]) -> None:
    address, tls = site
    host, port = address.removeprefix("tls://").split(":")
    context = ssl.create_default_context(cafile=tls["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"])
    context.check_hostname = False
    with (
        socket.create_connection((host, int(port)), timeout=10) as connection,
        pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"),
        context.wrap_socket(connection) as stream,
    ):
        # TLS 1.3 tells the client only when it reads.
        stream.recv(1)


def test_why_a_scheduler_is_not_reached_is_one_line(
    site: tuple[str, dict[str, str]], settings_of: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address, _ = site
    other = make_certificates(tmp_path / "other")

    def said(cluster: str, tls: dict[str, str]) -> str:
        config = {
            "distributed.comm.tls.ca-file": tls.get("DASK_DISTRIBUTED__COMM__TLS__CA_FILE"),
            "distributed.comm.tls.client.cert": tls.get("DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT"),
            "distributed.comm.tls.client.key": tls.get("DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY"),
        }
        refused = pytest.raises(ValueError, match="no connection to")
        with dask.config.set(config), refused as caught, connect(settings_of(cluster)):
            pass
        text = str(caught.value)
        print(text)
        assert "\n" not in text
        return text

    assert "there is no certificate to show it" in said(address, {})
    assert "the certificates do not match" in said(address, other)
    assert "it hung up" in said(address.replace("tls", "tcp"), {})
    # Dask tries these again until its time is up.
    monkeypatch.setattr("infra.clusters.CONNECT_TIMEOUT_S", 1)
    assert "nothing listens there" in said("tcp://127.0.0.1:1", {})
    assert "no such host" in said("tcp://no-such-host.invalid:8786", {})


def test_no_worker_within_the_time_is_said(settings_of: Any, tmp_path: Path) -> None:
    told: list[str] = []
    with scheduler(tmp_path / "site") as address:
        settings = settings_of(address, PADFLOW_WORKER_WAIT="0.2s")
        with (
            pytest.raises(TimeoutError, match=r"no worker came within 0.2 s.*dask worker"),
            connect(settings, told.append),
        ):
            pass
    assert told == [f"waiting for the first worker, up to 0.2 s (start one with `dask worker {address} --nthreads 1`)"]


# Slurm -----------------------------------------------------------------------------------------------------------

SBATCH = """#!/usr/bin/env bash
# Stands in for Slurm: each job is a process group of its own.
set -euo pipefail
bash -n "$1"
echo "$1" >> "{folder}/submitted"
job=$(mktemp "{folder}/job-XXXX.sh"); cp "$1" "$job"
setsid bash "$job" > "$job.log" 2>&1 < /dev/null &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/usr/bin/env bash
echo "$1" >> "{folder}/cancelled"
kill -TERM -- "-$1"
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where `sbatch` and `scancel` keep account; they run jobs on this machine."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def directives(script: str) -> list[list[str]]:
    """The `#SBATCH` lines that Slurm reads: those before the first command."""
    found = []
    for line in script.splitlines()[1:]:
        if line.startswith("#SBATCH"):
            found.append(shlex.split(line.removeprefix("#SBATCH")))
        elif line.strip() and not line.startswith("#"):
            break
    return found


def test_the_job_script_is_one_that_slurm_takes(tmp_path: Path) -> None:
    from infra.slurm.cluster import job_script

    profile = load_profile(INFRA / "slurm" / "profile.toml")
    assert isinstance(profile, Slurm)
    script = job_script(profile, tmp_path)
    subprocess.run(["bash", "-n"], input=script.encode(), check=True)
    assert script.splitlines()[0] == "#!/usr/bin/env bash"
    given = {words[0].split("=")[0]: words[-1].split("=", 1)[-1] for words in directives(script)}
    # Every directive, none after a command, where Slurm would not read it.
    assert len(given) == script.count("#SBATCH")
    assert given["-p"] == "batch"
    assert given["--cpus-per-task"] == "4"
    assert given["--mem"] == f"{4 * (3 * 1024 + 256)}M"
    assert given["--constraint"] == "x86-64-v3"
    exported = dict(
        line.removeprefix("export ").split("=", 1) for line in script.splitlines() if line.startswith("export ")
    )
    assert exported == WORKER_ENVIRONMENT
    command = script.strip().splitlines()[-1]
    for part in ("--nthreads 1 ", "--nworkers 4 ", "--memory-limit 3.00GiB", "--protocol tls://", "--nanny"):
        assert part in command


def test_the_flows_batch_script_is_one_that_slurm_takes() -> None:
    path = INFRA / "slurm" / "flow.sbatch"
    subprocess.run(["bash", "-n", str(path)], check=True)
    script = path.read_text()
    assert len(directives(script)) == script.count("#SBATCH")
    assert all(words[0].startswith("--") and "=" in words[0] for words in directives(script))
    refused = subprocess.run(["bash", str(path)], capture_output=True, text=True)
    assert refused.returncode != 0
    assert "usage: sbatch flow.sbatch STUDY.toml" in refused.stderr


def test_a_slurm_job_that_ends_is_replaced_and_all_end_with_the_block(
    settings_of: Any, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.slurm.cluster.REPLACE_EVERY_S", 0.5)
    settings = settings_of("slurm", PADFLOW_WORKERS="1", PADFLOW_WORKER_MEMORY="1GiB")

    def environment() -> dict[str, str | None]:
        return {name: os.environ.get(name) for name in THREAD_POOLS}

    with dask.config.set({"distributed.deploy.lost-worker-timeout": "0.5s"}), connect(settings) as client:
        assert client.scheduler.address.startswith("tls://")
        first = client.submit(os.getpid, pure=False).result()
        assert client.submit(environment).result() == THREAD_POOLS
        # The node goes down, or the job reaches its walltime.
        os.killpg(os.getpgid(first), signal.SIGKILL)
        assert client.submit(os.getpid, pure=False).result(timeout=60) != first
    assert len((stand_in / "submitted").read_text().split()) == 2
    deadline = time.monotonic() + 30
    while any(_alive(int(job)) for job in (stand_in / "cancelled").read_text().split()):
        assert time.monotonic() < deadline, "a job outlived the run"
        time.sleep(0.1)
    assert not list(tmp_path.glob(".tls*")), "keys were left behind"


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_local_worker_whose_place_was_given_up_is_replaced(settings_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Dask gives the place up before the nanny can have started another process.
    monkeypatch.setattr("infra.clusters.RESTART_PATIENCE_S", 0.05)
    monkeypatch.setattr("infra.clusters.REPLACE_EVERY_S", 1.0)
    with connect(settings_of("local", PADFLOW_WORKERS="1", PADFLOW_WORKER_MEMORY="1GiB")) as client:
        first = client.submit(os.getpid, pure=False).result()
        (nanny,) = client.cluster.workers.values()
        os.kill(first, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while nanny in client.cluster.workers.values():
            assert time.monotonic() < deadline, "Dask did not give the place up"
            time.sleep(0.01)
        # A process that the nanny has begun may still come, do what waits, and go.
        time.sleep(2)
        assert client.submit(os.getpid, pure=False).result(timeout=60) != first


# Kubernetes ------------------------------------------------------------------------------------------------------


def documents(name: str) -> dict[str, dict[str, Any]]:
    """The resources of one file, by kind."""
    return {item["kind"]: item for item in yaml.safe_load_all((INFRA / "kubernetes" / name).read_text())}


def test_the_kubernetes_files_agree_with_one_another() -> None:
    profile = load_profile(INFRA / "kubernetes" / "profile.toml")
    assert isinstance(profile, Kubernetes)
    cluster = documents("dask-cluster.yaml")["DaskCluster"]
    storage, flow = documents("storage.yaml"), documents("flow.yaml")
    pod = flow["Job"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    workers = cluster["spec"]["worker"]["spec"]
    for name in (profile.secret, workers["containers"][0]["envFrom"][0]["secretRef"]["name"]):
        assert name == storage["Secret"]["metadata"]["name"] == container["envFrom"][0]["secretRef"]["name"]
    for volume in (workers["volumes"][0], pod["volumes"][0]):
        assert volume["persistentVolumeClaim"]["claimName"] == storage["PersistentVolumeClaim"]["metadata"]["name"]
    assert container["image"] == profile.image == workers["containers"][0]["image"]
    assert not container["image"].endswith(":latest")
    name = cluster["metadata"]["name"]
    assert {"name": "PADFLOW_CLUSTER", "value": f"tcp://{name}-scheduler:8786"} in container["env"]
    guarded = flow["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    assert guarded == {"dask.org/cluster-name": name}


def test_kubernetes_workers_have_one_thread_and_a_limit() -> None:
    container = documents("dask-cluster.yaml")["DaskCluster"]["spec"]["worker"]["spec"]["containers"][0]
    arguments = container["args"]
    environment = {item["name"]: item["value"] for item in container["env"]}
    assert arguments[arguments.index("--nthreads") + 1] == "1"
    assert WORKER_ENVIRONMENT.items() <= environment.items()
    limit = int(arguments[arguments.index("--memory-limit") + 1])
    assert limit == 3 * 2**30
    assert int(container["resources"]["limits"]["memory"]) > limit


def test_the_manifest_is_what_dask_kubernetes_makes_and_its_operator_takes() -> None:
    operator = pytest.importorskip(
        "dask_kubernetes", reason="the extra is not installed: pip install padflow[kubernetes]"
    )
    import jsonschema

    from infra.clusters import describe

    made = yaml.safe_load(describe(str(INFRA / "kubernetes" / "profile.toml")))
    shipped = documents("dask-cluster.yaml")["DaskCluster"]
    assert {**made, "metadata": shipped["metadata"]}["spec"]["worker"] == shipped["spec"]["worker"]
    crds = Path(operator.__file__).parent / "operator/deployment/helm/dask-kubernetes-operator/crds"

    def schema(name: str) -> Any:
        return yaml.safe_load((crds / f"{name}.yaml").read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    for manifest in (made, shipped):
        jsonschema.validate(manifest, _closed(schema("daskcluster")))
    # The operator's job holds an ordinary pod, as ours does.
    pod = schema("daskjob")["properties"]["spec"]["properties"]["job"]["properties"]["spec"]
    jsonschema.validate(documents("flow.yaml")["Job"]["spec"]["template"]["spec"], _closed(pod))
    broken = yaml.safe_load(yaml.safe_dump(made).replace("volumeMounts", "volumeMount"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, _closed(schema("daskcluster")))


def _closed(schema: Any) -> Any:
    """A structural schema drops unknown keys without a word; here a misspelt one is an error."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value) for name, value in schema.items()}
    if isinstance(closed.get("properties"), dict) and "additionalProperties" not in closed:
        closed["additionalProperties"] = False
        # Every resource has these.
        for name in ("apiVersion", "kind", "metadata"):
            closed["properties"].setdefault(name, {})
    return closed
