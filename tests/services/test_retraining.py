"""A month's retraining on real servers: PostgreSQL, MLflow and Prefect on it, a worker, a schedule, an automation.

`make test-services` runs it; it needs Debian's PostgreSQL and takes minutes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.services.servers import PASSWORD, Services, services
from tests.tiny_study import STUDY

pytestmark = [pytest.mark.services, pytest.mark.timeout(1800)]
GATES = """
[promotion]
fewest_subjects = 3
mae_margin_years = 60.0
centring_years = 90.0
level_margins_years = {}
gates = ["mae", "centring", "levels"]

[retraining]
min_new_scans = 3
"""
MODEL = "brain-age-tiny"


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
def place(tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> Path:
    """A folder with the study and its data, of which the last subjects to train on have not come yet."""
    folder = tmp_path_factory.mktemp("retraining")
    shutil.copytree(phantoms, folder / "data")
    (folder / "later").mkdir()
    for subject in sorted((folder / "data" / "train").glob("sub-*"))[-6:]:
        shutil.move(subject, folder / "later" / subject.name)
    (folder / "tiny.toml").write_text(STUDY + GATES)
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


def arrive(place: Path, count: int) -> None:
    """Let the next subjects' scans come."""
    for subject in sorted((place / "later").iterdir())[:count]:
        shutil.move(subject, place / "data" / "train" / subject.name)


def padflow(running: Services, *arguments: str) -> str:
    command = [sys.executable, "-m", "flows.cli", *arguments]
    done = subprocess.run(command, env=running.environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def decisions(running: Services) -> list[tuple[str, str | None]]:
    made = json.loads(padflow(running, "decisions", MODEL, "--json"))
    return [(item["kind"], item["champion_after"]) for item in made]


def prepared(place: Path) -> set[str]:
    return {path.name for path in (place / "home" / "store" / "prepared").glob("*/*.npy")}


def test_a_month_and_the_next(running: Services, place: Path, webhook: tuple[str, list[str]]) -> None:
    # The schedule fires, and the first model is champion.
    running.schedule("retraining/monthly", in_s=20)
    run = running.finished("monthly", 1)
    assert run["state_type"] == "COMPLETED", running.worker_logs()
    assert run["auto_scheduled"]
    assert run["name"] == "retraining tiny"
    assert decisions(running) == [("first", "1")]
    before = prepared(place)

    # New scans have come: the next scheduled run prepares those alone, trains, validates and decides.
    arrive(place, 3)
    running.prefect("deployment", "run", "retraining/monthly", "--in", "1 second")
    run = running.finished("monthly", 2)
    assert run["state_type"] == "COMPLETED", running.worker_logs()
    assert "preprocess, train, validate, decide" in run["state"]["message"]
    assert len(prepared(place)) == len(before) + 3
    assert decisions(running) == [("first", "1"), ("promoted", "2")]

    # Again, with nothing new.
    running.prefect("deployment", "run", "retraining/monthly")
    run = running.finished("monthly", 3)
    assert run["state"]["message"].startswith("nothing to do")
    assert len(decisions(running)) == 2

    # The nightly run prepares what has come, and its event has the automation retrain.
    arrive(place, 3)
    running.prefect("deployment", "run", "preprocess-new-scans/preprocess-new-scans")
    run = running.finished("preprocess-new-scans", 1)
    assert run["state"]["message"].startswith("prepared 3, excluded 0 scans; 3 are not trained on yet")
    run = running.finished("monthly", 4)
    assert "train, validate, decide" in run["state"]["message"]
    assert run["created_by"]["type"] == "AUTOMATION"
    assert [kind for kind, _ in decisions(running)] == ["first", "promoted", "promoted"]

    # Consumers see the alias, and a rollback.
    assert json.loads(padflow(running, "rollback", MODEL, "--reason", "drill", "--json"))["champion_after"] == "2"

    keys = {item["key"] for item in running.post("/artifacts/filter")}
    assert {"decision-brain-age-tiny", "report-tiny", "mlflow-tiny"} <= keys

    # What fails is told.
    running.prefect("deployment", "run", "retrain/retrain", "--param", "study=absent.toml")
    assert running.finished("retrain", 1)["state_type"] == "FAILED"
    assert any("retrain absent failed" in text and "no study file at" in text for text in webhook[1])
    for path in place.rglob("*.log"):
        assert PASSWORD not in path.read_text(errors="replace"), path
