"""The store and the data server do what networks and servers do wrong: waited for, or said; never half an object."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import s3fs

from infra.bids_root import BidsRoot
from infra.storage import Store
from infra.storage_faults import StorageRefused
from tasks.science.cohort.bids import FileInfo
from tests.faults.conftest import SUBJECTS, Audit, remarks, sha256s, whole_scans
from tests.faults.fault_proxy import CutShort, Fault, FaultProxy, LoseAnswer, OtherBytes, Refuse, Stall

ACCOUNT = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


class Site:
    """A bucket with a cohort, a bucket for results, and a proxy before both."""

    def __init__(self, server: str, cohort: Path, name: str) -> None:
        endpoint = {"endpoint_url": server}
        self.bucket = s3fs.S3FileSystem(key="testing", secret=ACCOUNT["AWS_SECRET_ACCESS_KEY"], client_kwargs=endpoint)
        self.data, self.results = f"data-{name}", f"results-{name}"
        self.bucket.mkdir(self.data)
        self.bucket.mkdir(self.results)
        self.bucket.put(f"{cohort}/train", f"{self.data}/train", recursive=True)
        self.proxy = FaultProxy(server)

    def audit(self, folder: Path, **environment: str) -> Audit:
        """`padflow` that sees the buckets through the proxy only."""
        there = {"AWS_ENDPOINT_URL": self.proxy.url, "PADFLOW_STORE": f"s3://{self.results}/store"}
        folder.mkdir(exist_ok=True)
        return Audit(folder, f"s3://{self.data}", **ACCOUNT, **there, PADFLOW_STORE_TIMEOUT="2", **environment)

    def objects(self) -> dict[str, bytes]:
        """Everything prepared, past the proxy."""
        self.bucket.invalidate_cache()
        return {name: self.bucket.cat_file(name) for name in self.bucket.find(f"{self.results}/store/prepared")}


@pytest.fixture
def site(s3_server: str, cohort: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    name = request.node.name.replace("_", "-").removeprefix("test-")[:40].strip("-")
    site = Site(s3_server, cohort, name)
    with site.proxy:
        yield site


def test_faults_that_pass_are_waited_for(site: Site, study: Path, cohort: Path, tmp_path: Path) -> None:
    scans = sorted(site.bucket.find(f"{site.data}/train"))
    images = [f"/{name}" for name in scans if name.endswith(".nii.gz")]
    first: dict[tuple[str, str], list[Fault]] = {
        ("GET", images[0]): [Refuse(500, "InternalError"), Refuse(503, "SlowDown")],
        ("GET", images[1]): [CutShort(), CutShort()],
        ("GET", images[2]): [Stall(after_bytes=1000)],
        ("GET", images[3]): [Stall()],
    }
    seen: set[str] = set()

    def plan(method: str, path: str, before: int) -> Fault | None:
        if (method, path) in first and before < len(first[method, path]):
            return first[method, path][before]
        if method == "PUT" and path.endswith(".npy") and path not in seen:
            # Each volume's first upload meets another fault; the second may meet what the first one left.
            seen.add(path)
            return (Refuse(503, "SlowDown"), LoseAnswer(), Refuse(500, "InternalError"))[len(seen) % 3]
        return Refuse(500, "InternalError") if path.endswith("latest.json") and before == 0 else None

    site.proxy.plan = plan
    audit = site.audit(tmp_path, PADFLOW_WORKERS="1")
    assert json.loads(audit.padflow("preprocess", str(study), "--json")) == {"prepared": SUBJECTS, "excluded": 0}
    assert remarks(audit.padflow.stderr) == []
    assert site.proxy.faults.keys() >= {"Refuse 500", "Refuse 503", "CutShort", "Stall", "LoseAnswer"}
    assert whole_scans(site.objects()) == sha256s(cohort)
    assert audit.counts("computed") == dict.fromkeys(sha256s(cohort), 1)


def test_faults_that_stay_are_said_and_the_other_scans_are_done(
    site: Site, study: Path, cohort: Path, tmp_path: Path
) -> None:
    images = [f"/{name}" for name in sorted(site.bucket.find(f"{site.data}/train")) if name.endswith(".nii.gz")]
    lasting = {images[0]: OtherBytes(), images[1]: Refuse(503, "SlowDown"), images[2]: CutShort()}
    once: dict[str, Fault] = {images[3]: OtherBytes()}

    def plan(method: str, path: str, before: int) -> Fault | None:
        # The first read is the index's.
        if method != "GET" or before == 0:
            return None
        return lasting.get(path) or (once.get(path) if before == 1 else None)

    site.proxy.plan = plan
    audit = site.audit(tmp_path, PADFLOW_WORKERS="1")
    audit.padflow("preprocess", str(study), code=1)
    said = audit.padflow.stderr
    assert "error: 3 scans are left" in said
    assert "the manifest says" in said
    assert "503 SlowDown" in said
    assert "the answer was cut short" in said
    assert "Traceback" not in said
    assert len(said.splitlines()) <= 6
    assert len(whole_scans(site.objects())) == SUBJECTS - 3
    site.proxy.plan = lambda *_: None
    assert json.loads(audit.padflow("preprocess", str(study), "--json")) == {"prepared": 3, "excluded": 0}
    assert whole_scans(site.objects()) == sha256s(cohort)
    assert audit.computed_after_finish() == []
    assert audit.counts("finished") == dict.fromkeys(sha256s(cohort), 1)


def test_expired_credentials_are_said_in_one_line(site: Site, study: Path, tmp_path: Path) -> None:
    site.proxy.plan = lambda method, path, _: Refuse(403, "ExpiredToken")
    audit = site.audit(tmp_path)
    audit.padflow("preprocess", str(study), code=1)
    (line,) = audit.padflow.stderr.splitlines()
    assert "the credentials have expired" in line
    assert "Renew" in line
    assert audit.counts("begun").total() == 0


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "AccessDenied", "access is denied (AccessDenied). Ask for permission"),
        (404, "NoSuchBucket", "there is no such bucket (NoSuchBucket). Create it"),
        (403, "InvalidAccessKeyId", "the access key is unknown there (InvalidAccessKeyId). Renew"),
        (400, "MalformedXML", "the server answered 400 MalformedXML"),
    ],
)
def test_a_store_that_refuses_is_asked_once(
    status: int, code: str, words: str, s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with FaultProxy(s3_server, lambda *_: Refuse(status, code)) as proxy, _environment(monkeypatch, proxy.url):
        store = Store("s3://anywhere/store", tmp_path)
        with pytest.raises(StorageRefused, match=re.escape(f"s3://anywhere/store/write-check.txt: {words}")) as refusal:
            store.check_writable()
        assert len(str(refusal.value).splitlines()) == 1
        assert proxy.faults.total() == 1


def test_credentials_that_expire_in_the_middle_stop_the_run(site: Site, study: Path, tmp_path: Path) -> None:
    written: set[str] = set()

    def plan(method: str, path: str, _: int) -> Fault | None:
        if method == "PUT" and path.endswith(".npy"):
            written.add(path)
        return Refuse(403, "ExpiredToken") if len(written) > 2 else None

    site.proxy.plan = plan
    audit = site.audit(tmp_path, PADFLOW_WORKERS="1")
    audit.padflow("preprocess", str(study), code=1)
    (line,) = audit.padflow.stderr.splitlines()
    assert "the credentials have expired (ExpiredToken). Renew" in line
    # No scan is computed for nothing but the one whose volume was refused.
    assert audit.counts("computed").total() == 3
    assert len(whole_scans(site.objects())) == 2


def test_of_two_writers_one_publishes(
    site: Site, s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with _environment(monkeypatch, s3_server):
        for url in (f"s3://{site.results}/race", str(tmp_path / "race")):
            store = Store(url, tmp_path / "cache")
            assert store.publish("a/b.npy", b"first")
            assert not store.publish("a/b.npy", b"second")
            assert store.read("a/b.npy") == b"first"


def test_two_uploads_that_meet_are_no_refusal(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def plan(method: str, path: str, before: int) -> Fault | None:
        if method != "PUT" or before > 0:
            return None
        code, winner = path.split("/")[-2:]
        if winner == "other.npy":
            site.bucket.pipe_file(path.lstrip("/"), b"other")
        return Refuse(409, code)

    site.proxy.plan = plan
    with _environment(monkeypatch, site.proxy.url):
        store = Store(f"s3://{site.results}/race", tmp_path)
        for code in ("ConditionalRequestConflict", "OperationAborted"):
            assert store.publish(f"{code}/ours.npy", b"ours")
            assert store.read(f"{code}/ours.npy") == b"ours"
            assert not store.publish(f"{code}/other.npy", b"ours")
            assert store.read(f"{code}/other.npy") == b"other"
    assert site.proxy.faults == {"Refuse 409": 4}


def test_a_large_scan_is_hashed_in_pieces_and_a_piece_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("infra.bids_root.PIECE_BYTES", 1000)
    content = bytes(range(256)) * 13
    site.bucket.pipe_file(f"{site.data}/bids/large.nii", content)
    site.proxy.plan = lambda method, path, before: CutShort() if (method, before) == ("GET", 2) else None
    with _environment(monkeypatch, site.proxy.url):
        bids = BidsRoot(f"s3://{site.data}/bids")
        files = [FileInfo("large.nii", len(content), "v")]
        assert bids.hashes(files, {}) == {"large.nii": hashlib.sha256(content).hexdigest()}
    assert site.proxy.requests["GET", f"/{site.data}/bids/large.nii"] == 5
    assert site.proxy.faults == {"CutShort": 1}


@contextmanager
def _environment(monkeypatch: pytest.MonkeyPatch, server: str) -> Iterator[None]:
    for name, value in {**ACCOUNT, "AWS_ENDPOINT_URL": server}.items():
        monkeypatch.setenv(name, value)
    yield
