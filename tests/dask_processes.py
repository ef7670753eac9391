"""A Dask cluster as a site runs it: scheduler and workers in processes of their own, over TCP with TLS."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PATIENCE_S = 60


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey
) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    is_authority = subject == issuer
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_certificates(folder: Path) -> dict[str, str]:
    """A certificate authority of the site's own, and one certificate that it signed, as Dask's environment names them.

    Returns:
        The environment of every process that may take part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    authority, member = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    (folder / "ca.pem").write_bytes(_certificate("site CA", authority, "site CA", authority))
    (folder / "cert.pem").write_bytes(_certificate("member", member, "site CA", authority))
    (folder / "key.pem").write_bytes(_private(member))
    environment = {
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true",
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(folder / "ca.pem"),
    }
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        environment[f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT"] = str(folder / "cert.pem")
        environment[f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY"] = str(folder / "key.pem")
    return environment


@contextmanager
def dask_process(folder: Path, name: str, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """`dask scheduler` or `dask worker` with its log in the folder; ended with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        finally:
            process.kill()


@contextmanager
def scheduler(folder: Path, **environment: str) -> Iterator[str]:
    """A scheduler on the loopback; gives its address, once it listens."""
    contact = folder / "scheduler.json"
    arguments = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    with dask_process(folder, "scheduler", *arguments, "--scheduler-file", str(contact), **environment) as process:
        deadline = time.monotonic() + PATIENCE_S
        while not contact.exists():
            assert process.poll() is None, (folder / "scheduler.log").read_text()
            assert time.monotonic() < deadline, "the scheduler did not start"
            time.sleep(0.1)
        time.sleep(0.1)
        yield str(json.loads(contact.read_text())["address"])


@contextmanager
def worker(
    folder: Path, name: str, address: str, *options: str, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker as the README starts one; options and environment override."""
    given = ["--nthreads", "1", "--memory-limit", "3GiB", "--no-dashboard", "--name", name, *options]
    with dask_process(folder, name, "worker", address, *given, **environment) as process:
        yield process
