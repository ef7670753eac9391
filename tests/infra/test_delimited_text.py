"""Delimited text as people and spreadsheets write it: nothing is lost, shifted or renumbered unsaid."""

from __future__ import annotations

import pytest

from infra.delimited_text import read_delimited


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n1,5,2\n", "line 3 has 3 cells, the header (line 1, 'a,b') has 2"),
        ("a,b\n1,5,2\n", "write decimal points in place of decimal commas"),
        ("My study\na;b;c\n1;2;3\n", "Remove what stands above the header"),
        ("Cohort A, 2020\na,b,c\n1,2,3\n", "line 2 has 3 cells, the header (line 1, 'Cohort A, 2020') has 2"),
        ("My study,,\na,b,c\n1,2,3\n", "line 1 names one of 3 columns ('My study')"),
        ('a,b\n"x,3\n7,4\n', "line 2 opens a quote that is not closed"),
        ("sep=;\n", "is empty"),
    ],
)
def test_cells_that_have_no_place_are_refused_with_their_line(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_delimited(text, "t.csv")
    assert message in str(caught.value)


def test_empty_cells_behind_the_last_column_are_no_cells() -> None:
    rows, said = read_delimited("a,b\n1,2,\n3,4,,  \n\n", "t.csv")
    assert rows.to_dict("list") == {"a": [1, 3], "b": [2, 4]}
    assert said == []


def test_rows_that_lack_cells_are_said_with_their_lines() -> None:
    rows, said = read_delimited("a,b,c\n1,2\n1,2,3\n1\n", "t.csv")
    assert rows.c.isna().tolist() == [True, False, True]
    assert said == ["t.csv: 2 rows have fewer cells than the header (lines 2, 4): their last ones count as missing."]


def test_quotes_may_hold_delimiters_line_ends_and_inches() -> None:
    rows, said = read_delimited('"a\nb",y\n"x, ""q""\nz",3\n5" disk,4\n"p", 5\n', "t.csv")
    assert rows.to_dict("list") == {"a\nb": ['x, "q"\nz', '5" disk', "p"], "y": [3, 4, 5]}
    assert said == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("sep=;\na;b\n1,5;2\n", ["a", "b"]),
        ('"sep=|"\na;c|b\n1|2\n', ["a;c", "b"]),
        ('"a;b;c;d",y\n1,2\n', ["a;b;c;d", "y"]),
        ("a|b|c|d,y,z\n1,2,3\n4,5,6\n", ["a|b|c|d", "y", "z"]),
        ("age (y, m);b\n1;2\n", ["age (y, m)", "b"]),
        ("x\n1\n", ["x"]),
        ("x, x ,,\n1,2,3,\n", ["x", "x.1", "Unnamed: 2", "Unnamed: 3"]),
    ],
)
def test_the_delimiter_is_the_one_that_the_rows_have_too(text: str, names: list[str]) -> None:
    assert list(read_delimited(text, "t.csv")[0].columns) == names


def test_what_is_odd_about_a_header_is_said() -> None:
    assert read_delimited("p1,51.8,F\np2,40.2,M\n", "t.csv")[1] == [
        "t.csv: line 1 holds numbers (51.8): is it a row? Write a header of names above it."
    ]
    assert "the columns x stand twice" in " ".join(read_delimited("x,x,,\n1,2,3,4\n", "t.csv")[1])


def test_zeros_before_a_number_make_a_code_in_its_column_alone() -> None:
    rows, said = read_delimited('g;"h";v;n\n"007";1;0.05;10\n 12;2;00.5;\n;3;1e-05;20\n', "t.csv")
    assert rows.g.fillna("").tolist() == ["007", "12", ""]
    assert rows.drop(columns="g").fillna(-1).to_dict("list") == {
        "h": [1, 2, 3],
        "v": [0.05, 0.5, 1e-05],
        "n": [10, -1, 20],
    }
    assert said == ["t.csv: zeros stand before the numbers of g ('007'): read as codes, not as amounts."]
