"""Tables that were made to hurt: nothing leaves its place, nothing hangs, and each is said."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from tasks.science.cohort import tsv
from tasks.science.cohort.bids import MAX_TABLE_BYTES, BidsIndex, FileInfo, index_bids, table_paths
from tests.tasks.science.cohort.conftest import IndexTree

SCAN = {"sub-01/anat/sub-01_T1w.nii.gz": b"x"}


def kinds(index: BidsIndex) -> dict[str, int]:
    return {str(kind): int(count) for kind, count in index.problems["kind"].value_counts().items()}


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "sub-../x", "sub-01/../sub-02", "sub-\x1b[2J", "sub-" + "9" * 10**6]
)
def test_a_person_named_like_a_path_is_nobody(index_tree: IndexTree, name: str) -> None:
    index = index_tree({**SCAN, "participants.tsv": f"participant_id\tage\nsub-01\t30\n{name}\t40\n".encode()})
    assert index.clinical["participant_id"].tolist() == ["sub-01"]
    assert kinds(index)["bad-label"] == 1
    assert index.problems["message"].str.len().max() < 400


def test_a_session_named_like_a_path_is_none(index_tree: IndexTree) -> None:
    table = b"session_id\tage\n../../ses-1\t30\nses-1\t31\n"
    scan = {"sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz": b"x"}
    index = index_tree({**scan, "participants.tsv": b"participant_id\nsub-01\n", "sub-01/sub-01_sessions.tsv": table})
    assert index.clinical["session_id"].tolist() == ["ses-1"]
    assert kinds(index) == {"bad-label": 1}


def test_control_characters_reach_no_terminal(index_tree: IndexTree) -> None:
    table = "participant_id\tage\tsite\x1b[31m\tnote\nsub-01\t30\tA\x07\x9b2J\tb\u202eoff\n".encode()
    index = index_tree({**SCAN, "participants.tsv": table})
    assert index.clinical["note"].tolist() == ["b\ufffdoff"]
    assert kinds(index) == {"control-characters": 1}
    shown = index.clinical.to_csv(sep="\t") + index.problems.to_csv(sep="\t")
    assert all(character.isprintable() for character in shown.replace("\n", "").replace("\t", ""))


def test_a_table_of_a_hundred_thousand_columns_is_refused_at_once(index_tree: IndexTree) -> None:
    start = time.process_time()
    index = index_tree({**SCAN, "participants.tsv": b"participant_id" + b"\t" * 100_000 + b"\nsub-01\n"})
    assert time.process_time() - start < 5
    assert index.clinical.shape == (1, 6)
    assert "100001 columns" in index.problems["message"].tolist()[0]


def test_a_column_name_of_a_megabyte_is_not_carried_along(index_tree: IndexTree) -> None:
    table = b"participant_id\tage\t" + b"a" * 10**6 + b"\nsub-01\t30\t1\n"
    index = index_tree({**SCAN, "participants.tsv": table})
    assert index.clinical.columns.tolist()[-1] == "column_3"
    assert kinds(index) == {"column-name": 1}
    assert index.problems["message"].str.len().max() < 400


def test_many_bad_rows_are_one_problem(index_tree: IndexTree) -> None:
    rows = b"".join(b"../%d\t3\n" % number for number in range(50_000))
    index = index_tree({**SCAN, "participants.tsv": b"participant_id\tage\nsub-01\t30\n" + rows})
    assert kinds(index) == {"bad-label": 1}
    assert "50000" in index.problems["message"].tolist()[0]


def test_a_table_that_memory_may_not_hold_is_never_read() -> None:
    huge = FileInfo("participants.tsv", MAX_TABLE_BYTES + 1, "v")
    assert table_paths([huge]) == []

    def read(path: str) -> bytes:
        raise AssertionError(path)

    def hashes(files: Sequence[FileInfo]) -> dict[str, str]:
        return {file.path: "0" * 64 for file in files}

    scan = FileInfo("sub-01/anat/sub-01_T1w.nii.gz", 9, "v")
    index = index_bids("site-a", [FileInfo("dataset_description.json", 2, "v"), scan, huge], read, hashes)
    assert kinds(index) == {"unusable-table": 1, "missing-table": 1}


def test_every_control_character_but_tab_and_line_ends_is_replaced() -> None:
    said: list[tsv.Problem] = []
    cells = "".join(chr(code) for code in range(256) if chr(code) not in "\t\n\r")
    table = tsv.read_tsv(f"x\n{cells}\n".encode(), "t.tsv", frozenset(), said)
    assert all(character.isprintable() or character == "\xa0" for character in table.rows[0]["x"] or "")
    assert [problem.kind for problem in said] == ["control-characters"]
