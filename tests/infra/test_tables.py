"""Tables as users bring them: what an empty cell is, and what is not."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.tables import read_table


def test_none_is_missing_among_numbers_and_names_and_a_level_among_words(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("participant_id,treatment,edss,nfl\na,None,1.5,None\nNone,IFN,None,none\nc,n/a,2,NULL\n")
    rows = read_table(str(path)).rows
    assert rows.participant_id.isna().tolist() == [False, True, False]
    assert rows.treatment.fillna("").tolist() == ["None", "IFN", ""]
    assert rows.edss.fillna(-1).tolist() == [1.5, -1, 2]
    assert pd.api.types.is_numeric_dtype(rows.nfl)
    assert rows.nfl.isna().all()


def test_a_gzip_of_several_members_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    whole = gzip.compress(b"a,b\n1,2\n") + gzip.compress(b"3,4\n")
    path.write_bytes(whole)
    assert read_table(str(path)).rows.to_dict("list") == {"a": [1, 3], "b": [2, 4]}
    path.write_bytes(whole + b"\0" * 512)
    assert len(read_table(str(path)).rows) == 2


def test_a_gzip_with_something_behind_it_or_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    whole = gzip.compress(b"a,b\n1,2\n")
    for content, message in ((whole + b"hello", "what gzip did not write"), (whole[:-5], "cut off")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_table(str(path))


def test_a_gzip_of_too_much_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"a\n" + b"1\n" * 100) * 2)
    monkeypatch.setattr("infra.tables.LARGEST_BYTES", 300)
    with pytest.raises(ValueError, match="GiB of text"):
        read_table(str(path))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
def test_text_in_an_encoding_that_is_not_said_is_refused_in_words(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("a,b\n1,2\n".encode(encoding))
    with pytest.raises(ValueError, match="NUL bytes: is it UTF-16 or UTF-32"):
        read_table(str(path))


def test_parquet_with_a_column_of_its_index_name_keeps_both(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": ["a", "b"], "x": [1, 2]}).set_index("id", drop=False)
    table.to_parquet(tmp_path / "t.parquet")
    rows = read_table(str(tmp_path / "t.parquet")).rows
    assert rows.to_dict("list") == {"id_index": ["a", "b"], "id": ["a", "b"], "x": [1, 2]}


def test_parquet_columns_of_one_name_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="the columns a stand twice"):
        read_table(str(tmp_path / "t.parquet"))


def test_parquet_bytes_are_text_and_lists_are_left_out_and_said(tmp_path: Path) -> None:
    columns = {"y": [1, 2], "l": [[1], [2]], "s": [{"a": 1}, None], "b": ["Mü".encode(), None], "z": [b"\xff", b"a"]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    read = read_table(str(tmp_path / "t.parquet"))
    assert read.rows.fillna("").to_dict("list") == {"y": [1, 2], "b": ["Mü", ""]}
    said = " ".join(read.problems)
    assert "l holds lists" in said
    assert "s holds lists" in said
    assert "z holds bytes that are no UTF-8 text" in said
