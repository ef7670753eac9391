"""A phantom that a study describes is written once and whole, whatever kills the writer, and never mistaken."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from infra.phantom_cohorts import customary_spec, phantom_root, with_phantom_roots, write_absent_phantoms
from infra.study import CohortSpec
from infra.study_file import parse_study
from tasks.science.imaging.phantom import write_phantom
from tests.tiny_study import STUDY

SMALL = {"subjects": 2, "sites": 1, "spacing_mm": 8.0}
COHORT = CohortSpec("healthy", "train", "train", phantom=SMALL)
KILLED_WRITER = """
import sys, time
from infra.study import CohortSpec
from infra.phantom_cohorts import write_absent_phantoms
def start(total):
    def advance():
        print("one is done", flush=True)
        time.sleep(60)
    return advance
cohort = CohortSpec("healthy", "train", sys.argv[2], phantom={"subjects": 2, "sites": 1, "spacing_mm": 8.0})
write_absent_phantoms((cohort,), sys.argv[1], 1, lambda description: start)
"""


def silent(description: str):
    return lambda total: lambda: None


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def study_of(**changes: object):
    content = tomllib.loads(STUDY)
    content["cohorts"][0] |= {"phantom": SMALL} | changes
    return parse_study(content)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return files(write_phantom(customary_spec(SMALL), tmp_path_factory.mktemp("whole")).root)


def test_a_killed_writing_is_no_cohort_and_the_next_run_completes_it(tmp_path: Path, whole: dict[str, bytes]) -> None:
    root = tmp_path / phantom_root(COHORT)
    arguments = [sys.executable, "-c", KILLED_WRITER, str(tmp_path), phantom_root(COHORT)]
    writer = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "one is done\n"
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    assert not root.exists()
    written = replace(COHORT, root=phantom_root(COHORT))
    write_absent_phantoms((written,), str(tmp_path), 1, silent)
    assert files(root) == whole
    assert sorted(path.name for path in root.parent.iterdir() if path.is_dir()) == [root.name]


def test_two_runs_at_once_write_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def slowly(spec, root, workers, progress):
        written.append(root)
        root.mkdir()
        time.sleep(0.3)

    monkeypatch.setattr("infra.phantom_cohorts.write_phantom", slowly)
    with ThreadPoolExecutor(2) as pool:
        for run in [pool.submit(write_absent_phantoms, (COHORT,), str(tmp_path), 1, silent) for _ in range(2)]:
            run.result()
    assert len(written) == 1


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    write_absent_phantoms((COHORT, replace(COHORT, phantom=None, root="elsewhere")), str(tmp_path), 1, silent)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_another_spec_is_another_folder() -> None:
    roots = [with_phantom_roots(study_of(phantom=SMALL | change)).cohorts[0].root for change in ({}, {"seed": 1}, {})]
    assert roots[0] == roots[2] != roots[1]
    # What is customary may be said or left out.
    assert phantom_root(COHORT) == phantom_root(replace(COHORT, phantom=SMALL | {"patients": 0.4}))


def test_remote_data_is_answered() -> None:
    with pytest.raises(ValueError, match=r"cohort 'healthy' is a phantom, .* the data is at s3://bucket/raw"):
        write_absent_phantoms((COHORT,), "s3://bucket/raw", 1, silent)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"phantom": {"subjects": 2, "spacing": 4.0}}, "unknown key 'spacing'; did you mean 'spacing_mm'?"),
        ({"phantom": {"sites": 2}}, "subjects is missing"),
        ({"phantom": {"subjects": 0}}, "subjects is 0, expected at least 1"),
        ({"phantom": {"subjects": "many"}}, "cohort 'healthy': phantom"),
        ({"root": "s3://bucket/raw"}, "its root names a folder below the data; found 's3://bucket/raw'"),
        ({"root": "../up"}, "its root names a folder below the data"),
    ],
)
def test_a_phantom_that_cannot_be_made_is_refused_with_the_study(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        study_of(**changes)


def test_months_are_taken_for_infants() -> None:
    spec = customary_spec({"subjects": 4, "population": "infants", "age_range_months": [3, 18]})
    assert spec.age_range_years == (0.25, 1.5)
    assert spec.contrasts == ("T1w", "T2w")
