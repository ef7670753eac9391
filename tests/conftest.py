"""What every test may ask for: real data where it is, one phantom study, an S3 server in its own process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes import free_port, healthy, running, wait_until
from tests.tiny_study import STUDY

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from infra.settings import Settings

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _no_remembered_object_store() -> Iterator[None]:
    """fsspec remembers a file system by its arguments; the server is the environment's, and each test has its own."""
    _forget_object_stores()
    yield
    _forget_object_stores()


def _forget_object_stores() -> None:
    if "s3fs" in sys.modules:
        sys.modules["s3fs"].S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real scans and tables beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real data is absent: ../shared/data does not stand beside the checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small phantom cohorts at coarse voxels: `train`, `external`, `clinical` (two sessions each)."""
    from tasks.science.imaging.phantom import PhantomSpec, write_phantom

    root = tmp_path_factory.mktemp("phantoms")
    # A stripped head is registered in a third of the time; the external ones have their skulls.
    spec = PhantomSpec(subjects=16, sites=2, seed=1, patients=0.0, spacing_mm=3.0, variant="stripped")
    write_phantom(spec, root / "train")
    write_phantom(PhantomSpec(subjects=5, sites=2, seed=2, patients=0.0, spacing_mm=3.0), root / "external")
    clinical = PhantomSpec(subjects=6, sites=1, seed=3, patients=0.5, sessions=2, spacing_mm=3.0, variant="stripped")
    write_phantom(clinical, root / "clinical")
    return root


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """The tiny study as a file of the test's own."""
    path = tmp_path / "tiny.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, MlflowClient, str]]:
    """An embedded MLflow registry: the settings that name it, its client, and a run for versions to name."""
    import mlflow

    from infra import tracking
    from infra.settings import load_settings

    settings = load_settings(tmp_path_factory.mktemp("registry"))
    client = tracking.connect(settings)
    run_id = tracking.start_run(client, tracking.experiment_id(client, settings, "registry"), "registry", {})
    yield settings, client, run_id
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of the server of `prefect_server`."""
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="session")
def prefect_server(prefect_home: Path) -> Iterator[str]:
    """The API address of a Prefect server in its own process, for commands that are not about starting one."""
    port, log = free_port(), prefect_home / "server.log"
    app = ["--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "PREFECT_HOME": str(prefect_home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with running([sys.executable, "-m", "uvicorn", *app], log, environment) as process:
        wait_until("Prefect", lambda: healthy(f"http://127.0.0.1:{port}/api/health"), process, log)
        yield f"http://127.0.0.1:{port}/api"


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server in its own process, over real HTTP on the loopback."""
    port, log = free_port(), tmp_path_factory.mktemp("s3") / "server.log"
    code = "from moto.server import main; main()"
    command = [sys.executable, "-c", code, "-H", "127.0.0.1", "-p", str(port)]
    with running(command, log, dict(os.environ)) as process:
        wait_until("moto", lambda: healthy(f"http://127.0.0.1:{port}/moto-api/"), process, log)
        yield f"http://127.0.0.1:{port}"
