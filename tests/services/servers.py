"""Servers on the loopback for as long as a test takes: PostgreSQL, MLflow and Prefect on it, and Prefect's workers."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg2

from tests.processes import free_port, healthy, running, wait_until

PASSWORD = "hidden-secret"  # noqa: S105 (of a server that lives for minutes)
USER = "padflow"
RUN_WITHIN_S = 900
SCHEDULE_EVERY_S = 30
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
STARTED = ("PENDING", "RUNNING", *ENDED)


def binary(name: str) -> str:
    """A program of PostgreSQL: in the path, or where Debian keeps it; no link, or it would not find its own files."""
    known = [
        path for path in (shutil.which(name), *map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))) if path
    ]
    if not known:
        raise FileNotFoundError(f"{name} of PostgreSQL is not installed")
    return str(Path(known[0]).resolve())


@contextmanager
def postgresql(log: Path) -> Iterator[int]:
    """A PostgreSQL server in a folder of its own, as an unprivileged user where we are root; gives its port."""
    folder = Path(tempfile.mkdtemp(prefix="padflow-postgresql-"))
    as_user = []
    if os.getuid() == 0:
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        as_user = ["runuser", "-u", "postgres", "--"]
    port, data = free_port(), folder / "data"
    secret = folder / "password"
    secret.write_text(PASSWORD)
    if as_user:
        os.chown(secret, owner.pw_uid, owner.pw_gid)
    try:
        command = [
            binary("initdb"),
            "-D",
            str(data),
            "-U",
            USER,
            "--auth=scram-sha-256",
            f"--pwfile={secret}",
            "-E",
            "UTF8",
        ]
        subprocess.run([*as_user, *command, "--locale=C"], check=True, stdout=subprocess.DEVNULL, cwd=folder)
        options = [
            f"-cport={port}",
            "-clisten_addresses=127.0.0.1",
            f"-cunix_socket_directories={folder}",
            "-cfsync=off",
        ]
        options += ["-cmax_connections=200"]
        with running([*as_user, binary("postgres"), "-D", str(data), *options], log, dict(os.environ)) as process:
            wait_until("PostgreSQL", lambda: _answers(port), process, log)
            for name in ("mlflow", "prefect"):
                _execute(port, f"CREATE DATABASE {name}")
            yield port
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _execute(port: int, statement: str) -> None:
    connection = psycopg2.connect(host="127.0.0.1", port=port, user=USER, password=PASSWORD, dbname="postgres")
    connection.autocommit = True
    try:
        connection.cursor().execute(statement)
    finally:
        connection.close()


def _answers(port: int) -> bool:
    try:
        _execute(port, "SELECT 1")
    except psycopg2.OperationalError:
        return False
    return True


@dataclass
class Services:
    """Everything that runs, and the environment in which commands and workers find it."""

    prefect_api: str
    tracking: str
    environment: dict[str, str]
    logs: Path

    def prefect(self, *arguments: str) -> str:
        """A command of Prefect's own."""
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def post(self, path: str, **body: Any) -> Any:
        """A question to Prefect's API."""
        return httpx.post(f"{self.prefect_api}{path}", json=body, timeout=60).raise_for_status().json()

    def deployment(self, name: str) -> str:
        """Id of a deployment, by its flow's and its own name."""
        found = httpx.get(f"{self.prefect_api}/deployments/name/{name}", timeout=60).raise_for_status().json()
        return str(found["id"])

    def run(self, deployment: str, **parameters: Any) -> dict[str, Any]:
        """Have a worker run a deployment now, as `prefect deployment run` would, and give the finished run."""
        path = f"/deployments/{self.deployment(deployment)}/create_flow_run"
        started = self.post(path, state={"type": "SCHEDULED"}, parameters=parameters)
        return self.finished(lambda run: run["id"] == started["id"])

    def run_by_schedule(self, deployment: str) -> dict[str, Any]:
        """Give a deployment a schedule until it has fired once, and give the finished run."""
        place = f"{self.prefect_api}/deployments/{self.deployment(deployment)}/schedules"
        every = {"schedule": {"interval": SCHEDULE_EVERY_S, "timezone": "UTC"}, "active": True}
        (made,) = httpx.post(place, json=[every], timeout=60).raise_for_status().json()
        run = self.found(lambda run: run["auto_scheduled"] and run["state_type"] in STARTED)
        httpx.delete(f"{place}/{made['id']}", timeout=60).raise_for_status()
        return self.finished(lambda other: other["id"] == run["id"])

    def finished(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for a run of a kind to end."""
        return self.found(lambda run: wanted(run) and run["state_type"] in ENDED)

    def found(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for a run of a kind to be there."""
        deadline = time.monotonic() + RUN_WITHIN_S
        while True:
            runs = [run for run in self.post("/flow_runs/filter", sort="START_TIME_ASC") if wanted(run)]
            if runs:
                return runs[0]
            assert time.monotonic() < deadline, self.worker_logs()
            time.sleep(1)

    def worker_logs(self) -> str:
        """What the workers and their runs printed of late."""
        return "\n".join(path.read_text()[-4000:] for path in sorted(self.logs.glob("worker-*.log")))


@contextmanager
def services(folder: Path, **environment: str) -> Iterator[Services]:
    """PostgreSQL, an MLflow and a Prefect server on it, every deployment, and a worker of each pool."""
    logs = folder / "logs"
    logs.mkdir(parents=True)
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("PADFLOW_", "PREFECT_", "MLFLOW_"))
    }
    own |= {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    own |= {"PREFECT_WORKER_QUERY_SECONDS": "2", "COLUMNS": "200", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with ExitStack() as stack:
        port = stack.enter_context(postgresql(logs / "postgresql.log"))
        account = f"{USER}:{PASSWORD}@127.0.0.1:{port}"
        mlflow_port, prefect_port = free_port(), free_port()
        tracking, api = f"http://127.0.0.1:{mlflow_port}", f"http://127.0.0.1:{prefect_port}/api"
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"postgresql://{account}/mlflow"]
        command += ["--artifacts-destination", str(folder / "artifacts"), "--port", str(mlflow_port), "--workers", "1"]
        mlflow = stack.enter_context(running(command, logs / "mlflow.log", own))
        database = {"PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{account}/prefect"}
        command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(prefect_port)]
        prefect = stack.enter_context(running(command, logs / "prefect.log", own | database))
        wait_until("Prefect", lambda: healthy(f"{api}/health"), prefect, logs / "prefect.log")
        wait_until("MLflow", lambda: healthy(f"{tracking}/health"), mlflow, logs / "mlflow.log")
        own |= {"PREFECT_API_URL": api, "MLFLOW_TRACKING_URI": tracking, **environment}
        found = Services(api, tracking, own, logs)
        found.prefect("work-pool", "create", "padflow", "--type", "process")
        found.prefect("work-pool", "create", "padflow-gpu", "--type", "process")
        found.prefect("concurrency-limit", "create", "padflow-promotion", "1")
        found.prefect("deploy", "--all", "--prefect-file", "infra/prefect.yaml")
        for pool in ("padflow", "padflow-gpu"):
            command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--name", pool]
            stack.enter_context(running(command, logs / f"worker-{pool}.log", own))
        yield found
