"""A month's retraining on real servers: PostgreSQL, MLflow and Prefect on it, a worker, a schedule, an automation.

`make test-services` runs it; it needs Debian's PostgreSQL and takes minutes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from tasks.science.imaging.phantom import PhantomSpec, write_phantom
from tests.services.servers import PASSWORD, Services, services

pytestmark = [pytest.mark.services, pytest.mark.timeout(1800)]
STUDY = """
name = "tiny"
seeds = [1]
registered_model = "brain-age-tiny"
excluded_tolerance = 0.5

[[cohorts]]
name = "healthy"
role = "train"
root = "train"

[[cohorts]]
name = "external"
role = "external"
root = "external"

[recipe]
resolution_mm = 6.0
bias_correction = false

[network]
channels = [4, 8]
age_range_years = [0.0, 110.0]
bin_width_years = 5.0
label_sigma_years = 5.0

[training]
epochs = 3
batch_size = 4
processes = 1

[splits]
train = 0.6
validation = 0.2
calibration = 0.2

[promotion]
fewest_subjects = 3
mae_margin_years = 60.0
centring_years = 90.0
level_margins_years = {}
gates = ["mae", "centring", "levels"]

[retraining]
min_new_scans = 2
"""
MODEL = "brain-age-tiny"
# At first, and with each of two arrivals.
FIRST, ARRIVING = 8, 2


@pytest.fixture(scope="module")
def webhook() -> Iterator[tuple[str, list[str]]]:
    """A server that takes notifications, and what it took."""
    taken: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", taken
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study and its data, of which the last subjects to train on have not come yet."""
    folder = tmp_path_factory.mktemp("retraining")
    for name, subjects, seed in (("train", FIRST + 2 * ARRIVING, 1), ("external", 3, 2)):
        spec = PhantomSpec(subjects=subjects, sites=2, seed=seed, patients=0.0, spacing_mm=5.0, variant="stripped")
        write_phantom(spec, folder / "data" / name)
    (folder / "later").mkdir()
    for subject in sorted((folder / "data" / "train").glob("sub-*"))[FIRST:]:
        shutil.move(subject, folder / "later" / subject.name)
    (folder / "tiny.toml").write_text(STUDY)
    return folder


@pytest.fixture(scope="module")
def running(place: Path, webhook: tuple[str, list[str]]) -> Iterator[Services]:
    environment = {
        "PADFLOW_HOME": str(place / "home"),
        "PADFLOW_DATA": str(place / "data"),
        "PADFLOW_STUDY": str(place / "tiny.toml"),
        "PADFLOW_WORKERS": "2",
        "PADFLOW_NOTIFY_BLOCK": "custom-webhook/ops",
    }
    with services(place / "services", **environment) as found:
        code = (
            "from prefect.blocks.notifications import CustomWebhookNotificationBlock as Webhook\n"
            f"block = Webhook(name='ops', url={webhook[0]!r}, json_data={{'text': '{{{{body}}}}'}})\n"
            "block.save('ops')\n"
        )
        subprocess.run([sys.executable, "-c", code], env=found.environment, check=True, timeout=120)
        yield found


def arrive(place: Path) -> None:
    """Let the next subjects' scans come."""
    for subject in sorted((place / "later").iterdir())[:ARRIVING]:
        shutil.move(subject, place / "data" / "train" / subject.name)


def padflow(running: Services, *arguments: str) -> str:
    command = [sys.executable, "-m", "flows.cli", *arguments]
    done = subprocess.run(command, env=running.environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def decisions(running: Services) -> list[tuple[str, str | None]]:
    made = json.loads(padflow(running, "decisions", MODEL, "--json"))
    return [(item["kind"], item["champion_after"]) for item in made]


def champion(running: Services) -> str:
    address = f"{running.tracking}/api/2.0/mlflow/registered-models/alias"
    found = httpx.get(address, params={"name": MODEL, "alias": "champion"}, timeout=60).raise_for_status().json()
    return str(found["model_version"]["version"])


def prepared(place: Path) -> set[str]:
    return {path.name for path in (place / "home" / "store" / "prepared").glob("*/*.npy")}


def test_a_month_and_the_next(running: Services, place: Path, webhook: tuple[str, list[str]]) -> None:
    # The schedule fires, and the first model is champion.
    run = running.run_by_schedule("retraining/monthly")
    assert run["state_type"] == "COMPLETED", running.worker_logs()
    assert run["name"] == "retraining tiny"
    assert decisions(running) == [("first", "1")]
    before = prepared(place)

    # New scans have come: the next run prepares those alone, trains, validates and decides.
    arrive(place)
    run = running.run("retraining/monthly")
    assert run["state_type"] == "COMPLETED", running.worker_logs()
    assert "preprocess, train, validate, decide" in run["state"]["message"]
    assert len(prepared(place)) == len(before) + ARRIVING
    assert decisions(running) == [("first", "1"), ("promoted", "2")]

    # Again, with nothing new.
    run = running.run("retraining/monthly")
    assert run["state"]["message"].startswith("nothing to do")
    assert len(decisions(running)) == 2

    # The nightly run prepares what has come, and its event has the automation retrain.
    arrive(place)
    run = running.run("preprocess-new-scans/preprocess-new-scans")
    said = f"prepared {ARRIVING}, excluded 0 scans; {ARRIVING} are not trained on yet"
    assert run["state"]["message"].startswith(said), running.worker_logs()
    run = running.finished(lambda run: (run["created_by"] or {}).get("type") == "AUTOMATION")
    assert "train, validate, decide" in run["state"]["message"], running.worker_logs()
    assert [kind for kind, _ in decisions(running)] == ["first", "promoted", "promoted"]

    # Consumers see the alias, and a rollback.
    rolled_back = json.loads(padflow(running, "rollback", MODEL, "--reason", "drill", "--json"))
    assert rolled_back["champion_after"] == champion(running) == "2"

    keys = {item["key"] for item in running.post("/artifacts/filter")}
    assert {"decision-brain-age-tiny", "report-tiny", "mlflow-tiny"} <= keys

    # What fails is told.
    assert running.run("retrain/retrain", study="absent.toml")["state_type"] == "FAILED"
    deadline = time.monotonic() + 60
    while not webhook[1] and time.monotonic() < deadline:
        time.sleep(1)
    assert "retrain absent failed" in webhook[1][0]
    assert "no study file at" in webhook[1][0]
    for path in place.rglob("*.log"):
        assert PASSWORD not in path.read_text(errors="replace"), path
