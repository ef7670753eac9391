"""How padflow speaks to an S3 server. This file travels with a registered model, and so imports nothing of padflow."""

from __future__ import annotations

import os
from typing import Any

CONNECT_TIMEOUT_S = 10.0
# How long an S3 server may be silent within an answer (`PADFLOW_STORE_TIMEOUT`, seconds).
READ_TIMEOUT_S = 20.0
# S3-compatible servers often lack the newer checksum headers.
CONFIG: dict[str, Any] = {
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
    "connect_timeout": CONNECT_TIMEOUT_S,
    # A page of a long listing is asked for again here; whole operations are repeated by `infra.storage_faults`.
    "retries": {"total_max_attempts": 3, "mode": "standard"},
}


def s3_options() -> dict[str, Any]:
    """Arguments of fsspec's S3 file system; credentials and endpoint come from the environment alone.

    Raises:
        ValueError: `PADFLOW_STORE_TIMEOUT` holds no number of seconds.
    """
    # A stale listing would hide finished work.
    return {"use_listings_cache": False, "config_kwargs": {**CONFIG, "read_timeout": _read_timeout_s()}}


def _read_timeout_s() -> float:
    text = os.environ.get("PADFLOW_STORE_TIMEOUT", "")
    try:
        seconds = float(text or READ_TIMEOUT_S)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ValueError(f"PADFLOW_STORE_TIMEOUT is {text!r}; expected seconds. Unset it for {READ_TIMEOUT_S:g}.")
    return seconds
