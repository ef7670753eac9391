"""An S3 server in a process of its own, filled from a folder before it answers: uploading would take minutes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 120
BUCKET = "bench"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, str]]:
    """Serve a copy of a folder as a bucket.

    Yields:
        The environment in which `s3://bench` is that bucket, and the server's process number in `SERVER`.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tests.benchmarks.s3_server", str(folder), str(port)]
    process = subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stderr=subprocess.DEVNULL)
    try:
        _wait(process, port)
        address = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "SERVER": str(process.pid)}
        yield {**os.environ, **ENVIRONMENT, **address}
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the S3 server did not start") from error
            time.sleep(0.2)


def serve(folder: Path, port: int) -> None:
    """Fill moto's memory with the folder's files, then answer."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends
    from moto.server import main

    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    backend.create_bucket(BUCKET, ENVIRONMENT["AWS_DEFAULT_REGION"])
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            backend.put_object(BUCKET, path.relative_to(folder).as_posix(), path.read_bytes())
    main(["-H", "127.0.0.1", "-p", str(port)])


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
