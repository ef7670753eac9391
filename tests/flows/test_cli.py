"""The command line: every command has help with an example, and mistakes are answered in words."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from flows.cli import app

COMMANDS = [
    "run",
    "preprocess",
    "train",
    "validate",
    "associate",
    "index",
    "status",
    "report",
    "export",
    "predict",
    "card",
    "lineage",
    "forget",
    "phantom",
]
runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    # Commands put their flags into the environment; monkeypatch takes them out again. None of these tests may start a
    # flow: Prefect's embedded server would live on in this process, and in every process that is forked from it.
    handler = signal.getsignal(signal.SIGTERM)
    for name in ("PADFLOW_HOME", "PADFLOW_STORE", "PADFLOW_DATA", "PADFLOW_WORKERS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PADFLOW_HOME", str(tmp_path / "home"))
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = runner.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"padflow {command}" in result.output
    assert "Example" in result.output


def test_a_typo_in_a_study_is_answered(tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text('name = "x"\ncohort = []\n')
    result = runner.invoke(app, ["run", str(study)])
    assert result.exit_code == 1
    assert "did you mean 'cohorts'?" in result.stderr


def test_an_absent_data_root_is_answered(tmp_path: Path, study_file: Path) -> None:
    result = runner.invoke(app, ["run", str(study_file), "--data", str(tmp_path / "nowhere")])
    assert result.exit_code == 1
    assert "found no files" in result.stderr


def test_status_before_any_run_says_what_to_run(study_file: Path, tmp_path: Path) -> None:
    result = runner.invoke(app, ["status", str(study_file), "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert re.search(r"not indexed.*padflow preprocess", result.stderr, re.DOTALL)


def test_wrong_usage_has_a_code_of_its_own() -> None:
    assert runner.invoke(app, ["phantom", "out", "--patients", "2"]).exit_code == 2


@pytest.mark.parametrize("age", ["nan", "inf", "0", "-3"])
def test_an_age_that_is_no_age_is_refused_before_a_model_is_loaded(age: str, tmp_path: Path) -> None:
    arguments = ["models:/brain-age@champion", "sub-01_T1w.nii.gz", "--age", age, "--home", str(tmp_path)]
    result = runner.invoke(app, ["predict", *arguments])
    assert result.exit_code == 2
    assert f"{age} is no age" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_phantom_has_the_people_that_were_asked_for(tmp_path: Path) -> None:
    arguments = ["--subjects", "3", "--sites", "1", "--ages", "30", "40", "--patients", "0", "--workers", "1"]
    result = runner.invoke(app, ["phantom", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 0, result.output
    people = pd.read_csv(tmp_path / "out" / "participants.tsv", sep="\t", keep_default_na=False)
    assert len(people) == 3
    assert people["age"].between(30, 40).all()
    assert set(people["diagnosis"]) == {"HC"}


def test_an_index_prints_ten_problems_of_a_kind_and_counts_the_rest(tmp_path: Path) -> None:
    root = tmp_path / "site"
    (root / "sub-0" / "anat").mkdir(parents=True)
    (root / "sub-0" / "anat" / "sub-0_T1w.nii.gz").write_bytes(b"x")
    (root / "dataset_description.json").write_text("{}")
    rows = "".join(f"sub-{number}\t30\n" for number in range(5000))
    (root / "participants.tsv").write_text(f"participant_id\tage\n{rows}")
    result = runner.invoke(app, ["index", str(root)])
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) < 40
    assert "missing-scan: and 4989 more" in result.stdout


def test_a_phantom_of_a_memory_clinic_has_its_groups_and_scales(tmp_path: Path) -> None:
    arguments = [
        "--disease",
        "neurodegeneration",
        "--subjects",
        "6",
        "--sites",
        "1",
        "--spacing",
        "8",
        "--workers",
        "1",
    ]
    result = runner.invoke(app, ["phantom", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 0, result.output
    people = pd.read_csv(tmp_path / "out" / "participants.tsv", sep="\t", keep_default_na=False)
    assert set(people["diagnosis"]) == {"CU", "AD", "PD"}
    assert people["age"].between(50, 85).all()
    assert {"mmse", "cdr_sb", "updrs_iii", "hoehn_yahr"} <= set(people)


def test_a_phantom_of_infants_is_scanned_in_two_contrasts(tmp_path: Path) -> None:
    arguments = ["--population", "infants", "--subjects", "2", "--sites", "1", "--ages", "6", "12", "--spacing", "6"]
    result = runner.invoke(app, ["phantom", str(tmp_path / "out"), *arguments, "--workers", "1", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["scans"] == 4
    people = pd.read_csv(tmp_path / "out" / "participants.tsv", sep="\t", keep_default_na=False)
    assert people["age_months"].between(6, 12).all()
    wrong = runner.invoke(app, ["phantom", str(tmp_path / "other"), "--contrasts", "T1w,PD", "--workers", "1"])
    assert wrong.exit_code == 1
    assert "expected some of T1w, T2w, FLAIR" in wrong.output
