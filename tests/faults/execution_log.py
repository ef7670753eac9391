"""Loaded by Dask workers of a test (`distributed.worker.preload`): writes down each begin, computation and publication.

The product has no hook for it. Lines are appended in one write each, so that several workers may share the file.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

current = threading.local()


def note(event: str, sha256: str) -> None:
    """Append one line to the file that EXECUTION_LOG names."""
    handle = os.open(os.environ["EXECUTION_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, f"{event} {sha256} {os.getpid()}\n".encode())
    finally:
        os.close(handle)


def dask_setup(worker: Any) -> None:
    """Called by Dask before a worker takes its first scan."""
    from infra.storage import Store
    from tasks.steps import prepare

    prepare_one, prepare_scan, publish = prepare.prepare_one, prepare.prepare_scan, Store.publish

    def counted_one(store_url: str, cache: str, scan: Any, **rest: Any) -> Any:
        current.sha256 = scan.key
        note("begun", scan.key)
        if scan.uri.endswith(os.environ.get("TAKES_ALL_MEMORY", "no such scan")):
            hoard = []
            while True:
                hoard.append(bytearray(b"x" * 2**26))
                time.sleep(0.02)
        return prepare_one(store_url, cache, scan, **rest)

    def counted_scan(*inputs: Any) -> Any:
        # Long enough to be killed in.
        time.sleep(float(os.environ.get("SLOWER_S", "0")))
        result = prepare_scan(*inputs)
        note("computed", current.sha256)
        return result

    def counted_publish(store: Store, key: str, content: bytes) -> bool:
        written = publish(store, key, content)
        if written and key.endswith(".json"):
            note("finished", current.sha256)
        return written

    prepare.prepare_one, prepare.prepare_scan, Store.publish = counted_one, counted_scan, counted_publish  # type: ignore[assignment, method-assign]
    note("worker", "-")
