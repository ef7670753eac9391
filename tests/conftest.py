"""What every test may ask for: real data where it is, one phantom study, an S3 server in its own process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

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
    write_phantom(PhantomSpec(subjects=16, sites=2, seed=1, patients=0.0, spacing_mm=3.0), root / "train")
    write_phantom(PhantomSpec(subjects=5, sites=2, seed=2, patients=0.0, spacing_mm=3.0), root / "external")
    spec = PhantomSpec(subjects=6, sites=1, seed=3, patients=0.5, sessions=2, spacing_mm=3.0)
    write_phantom(spec, root / "clinical")
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
def s3_server() -> Iterator[str]:
    """The address of an S3 server in its own process, over real HTTP on the loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = "from moto.server import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "the S3 server ended"
                assert time.monotonic() < deadline, "the S3 server did not start"
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)
