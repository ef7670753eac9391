"""The same study on an S3 server in its own process, over real HTTP: data, store and predictions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import s3fs

from tests.command_line import CommandLine

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "hidden-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.mark.studies
def test_a_study_runs_on_s3(study_file: Path, phantoms: Path, tmp_path: Path, s3_server: str) -> None:
    options = {"key": "testing", "secret": "hidden-secret", "client_kwargs": {"endpoint_url": s3_server}}
    bucket = s3fs.S3FileSystem(**options)
    bucket.mkdir("cohort")
    bucket.mkdir("results")
    for cohort, subjects in (("train", 10), ("external", 3), ("clinical", 4)):
        for path in sorted((phantoms / cohort).glob("*.*")):
            bucket.put_file(str(path), f"cohort/{cohort}/{path.name}")
        for folder in sorted((phantoms / cohort).glob("sub-*"))[:subjects]:
            bucket.put(str(folder), f"cohort/{cohort}/{folder.name}", recursive=True)
    environment = {**CREDENTIALS, "AWS_ENDPOINT_URL": s3_server, "PADFLOW_STORE": "s3://results/brain-age"}
    padflow = CommandLine(tmp_path / "home", "s3://cohort", **environment)
    printed = padflow("run", str(study_file), "--json")
    cohorts = json.loads(printed)["cohorts"]
    assert [(c["prepared"], c["missing"]) for c in cohorts] == [(10, 0), (3, 0), (8, 0)]
    bucket.invalidate_cache()
    kept = bucket.find("results/brain-age")
    assert sum(name.endswith(".npy") for name in kept) == 21
    assert any("/reports/" in name for name in kept)
    padflow("run", str(study_file))
    assert "nothing to do" in padflow.stderr
    scan = next(name for name in bucket.find("cohort/external") if name.endswith("_T1w.nii.gz"))
    table = json.loads(padflow("predict", "models:/brain-age-tiny@champion", f"s3://{scan}", "--json"))
    assert table[0]["status"] == "ok"
    for path in [*(tmp_path / "home").rglob("*.json"), *(tmp_path / "home").rglob("*.html")]:
        assert "hidden-secret" not in path.read_text(errors="replace")
