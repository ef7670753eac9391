"""The clinical table reads tables as people write them, and says what it could not take at its word."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.science.cohort.ages import read_age, unit_per_year
from tasks.science.cohort.clinical_table import CLINICAL_DTYPES, clinical_table
from tasks.science.cohort.manifest import manifest_frame
from tasks.science.cohort.session_times import times_since_baseline
from tasks.science.cohort.tsv import typed_column


def scans(*visits: tuple[str, str]) -> pd.DataFrame:
    rows = [
        {
            "scan_id": f"a/{person}_{session}_T1w",
            "cohort": "a",
            "participant_id": person,
            "session_id": session,
            "run": "",
            "modality": "T1w",
            "path": f"{person}/{session}",
            "size_bytes": 1,
            "version": "",
            "sha256": f"{person}{session}",
            "entities": "",
        }
        for person, session in visits
    ]
    return manifest_frame(rows)


def one(header: str, row: str, notes: bytes | None = None) -> tuple[pd.Series, pd.DataFrame]:
    """The row of one subject, and the problems."""
    table = f"participant_id\t{header}\nsub-01\t{row}\n".encode()
    frame, problems = clinical_table(table, {}, scans(("sub-01", "")), notes)
    assert len(frame) == 1
    return frame.iloc[0], problems


def people(sessions: dict[str, bytes], table: bytes | None, *visits: tuple[str, str]):
    frame, problems = clinical_table(table, sessions, scans(*visits))
    return frame.set_index("session_id"), problems


@pytest.mark.parametrize(
    ("header", "cell", "age_years", "kind"),
    [
        ("age", "30", 30.0, None),
        ("Age", "30.5", 30.5, None),
        ("age_years", "30", 30.0, None),
        ("age_months", "18", 1.5, None),
        ("age", "0", 0.0, None),
        ("age", "089", 89.0, None),
        ("age", "89+", 89.0, "age"),
        ("age", ">89", 89.0, "age"),
        ("age", "23,5", 23.5, "age"),
        ("age", "-1", None, "age"),
        ("age", "999", None, "age"),
        ("age", "130.1", None, "age"),
        ("age", "25-30", None, "age"),
        ("age", "old", None, "age"),
        ("age", "inf", None, "age"),
        ("age", "n/a", None, None),
        ("age", "NaN", None, None),
        ("age", "", None, None),
        ("weight", "70", None, None),
    ],
)
def test_age_is_read_or_said(header, cell, age_years, kind):
    row, problems = one(header + "\tgroup", cell + "\tx")
    assert (None if pd.isna(row["age_years"]) else row["age_years"]) == age_years
    assert problems["kind"].tolist() == ([kind] if kind else [])
    if kind:
        assert "sub-01" in problems["message"].iloc[0]


@pytest.mark.parametrize(("unit", "age_years"), [("months", 2.0), ("Years", 24.0), ("weeks", 24 * 7 / 365.25)])
def test_the_unit_of_age_is_taken_from_the_notes(unit, age_years):
    row, problems = one("age", "24", b'{"age": {"Units": "' + unit.encode() + b'"}}')
    assert row["age_years"] == pytest.approx(age_years)
    assert problems.empty


def test_an_unknown_unit_of_age_is_not_guessed():
    row, problems = one("age", "24", b'{"age": {"Units": "decades"}}')
    assert pd.isna(row["age_years"])
    assert problems["kind"].tolist() == ["age-unit"]
    assert unit_per_year("y") == 1.0


def test_age_columns_that_disagree_are_said():
    row, problems = one("age\tage_months", "30\t480")
    assert row["age_years"] == 30.0
    assert "differ between age columns" in problems["message"].iloc[0]


@pytest.mark.parametrize("cell", ["F", "f", "female", "Female", "WOMAN"])
def test_female_in_many_spellings(cell):
    assert one("sex", cell)[0]["sex"] == "F"


@pytest.mark.parametrize("cell", ["M", "m", "male", "man"])
def test_male_by_gender(cell):
    row, problems = one("gender", cell)
    assert row["sex"] == "M"
    assert "gender" not in row
    assert problems.empty


@pytest.mark.parametrize("cell", ["1", "2", "0", "other", "w"])
def test_codes_of_sex_are_not_guessed(cell):
    row, problems = one("sex", cell)
    assert pd.isna(row["sex"])
    assert problems["kind"].tolist() == ["sex"]


def test_codes_of_sex_are_taken_from_the_notes():
    row, problems = one("sex", "1", b'{"sex": {"Levels": {"1": "male", "2": "female"}}}')
    assert row["sex"] == "M"
    assert problems.empty


@pytest.mark.parametrize(
    "notes", [b"{", b"\xff\xfe\x00", b"[1]", b'{"sex": {"Levels": [1]}}', b'{"age": 3}', b"[" * 9999]
)
def test_broken_notes_stop_nothing(notes):
    row, _ = one("age\tsex", "30\tF", notes)
    assert (row["age_years"], row["sex"]) == (30.0, "F")


def test_site_is_text_and_never_missing():
    assert one("site", "3")[0]["site"] == "3"
    assert one("site", "unknown")[0]["site"] == ""
    assert one("age", "3")[0]["site"] == ""


@pytest.mark.parametrize("missing", ["n/a", "N/A", "NA", "nan", ""])
def test_a_numeric_column_with_missing_values_is_numeric(missing):
    table = f"participant_id\tedss\nsub-01\t1.5\nsub-02\t{missing}\n".encode()
    frame, problems = clinical_table(table, {}, scans(("sub-01", ""), ("sub-02", "")))
    assert frame["edss"].dtype == "float64"
    assert frame["edss"].isna().tolist() == [False, True]
    assert problems.empty


@pytest.mark.parametrize(
    ("values", "dtype", "remark"),
    [
        (["1", "2.5", None], "float64", ""),
        (["1", "x"], "str", ""),
        (["1e5", "-.5"], "float64", ""),
        (["007", "008"], "str", ""),
        (["0.5", "0"], "float64", ""),
        (["1,5", "2"], "float64", "decimal commas"),
        (["1,234", "2"], "str", "thousands"),
        (["1,5", "two"], "str", ""),
        (["inf", "1"], "str", ""),
        (["1_000"], "str", ""),
        (["١"], "str", ""),
        ([None, None], "float64", ""),
        ([], "float64", ""),
        (["=cmd()|' /C calc'!A0"], "str", ""),
    ],
)
def test_types_of_columns(values, dtype, remark):
    column, said = typed_column(values)
    assert str(column.dtype) == dtype
    assert remark in said if remark else said == ""


def test_a_formula_in_a_cell_is_only_text():
    row, _ = one("note\tage", "=cmd()\t30")
    assert row["note"] == "=cmd()"


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfparticipant_id\tage\r\nsub-01\t30\r\n",
        b"participant_id\tage\rsub-01\t30\r",
        b"\n participant_id \t age \n\n sub-01 \t 30 \n\n",
        b"participant_id\tage\t\nsub-01\t30\t\n",
        b'"participant_id"\t"age"\n"sub-01"\t"30"\n',
        b"participant_id\tage\nsub-01\t30",
        b"age\tPARTICIPANT_ID\n30\tsub-01\n",
    ],
)
def test_harmless_spellings_of_a_table_are_read(data):
    frame, problems = clinical_table(data, {}, scans(("sub-01", "")))
    assert frame["age_years"].tolist() == [30.0]
    assert set(problems["kind"]) <= {"column-name"}


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("participant_id\tage\tsite\nsub-01\t30\tMün\n".encode("latin-1"), "encoding"),
        ("participant_id\tage\nsub-01\t30\n".encode("utf-16"), "encoding"),
        (b"participant_id\tage\tsex\nsub-01\t30\n", "ragged-row"),
        (b"participant_id\tage\tage\nsub-01\t30\t31\n", "column-name"),
        (b"participant_id\tage\nsub-01\t30\nsub-01\t30\n", "duplicate-row"),
        (b"participant_id\tage\n01\t30\n", "missing-prefix"),
    ],
)
def test_readable_irregularities_are_said(data, kind):
    frame, problems = clinical_table(data, {}, scans(("sub-01", "")))
    assert frame["age_years"].tolist() == [30.0]
    assert problems["kind"].tolist() == [kind]
    assert problems["path"].tolist() == ["participants.tsv"]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty-table"),
        (b"participant_id,age\nsub-01,30\n", "unusable-table"),
        (b"subject\tage\nsub-01\t30\n", "unusable-table"),
        (b"participant_id\tage\nsub-01\t30\t40\n", "ragged-row"),
        (b"participant_id\tage\nsub-01\t30\nsub-01\t31\n", "duplicate-row"),
        (b"participant_id\tage\nsub-../../etc\t30\n", "bad-label"),
        (b"participant_id\tage\nsub-01;rm -rf\t30\n", "bad-label"),
        (b"participant_id\tage\n\t30\n", "bad-label"),
        (None, "missing-table"),
    ],
)
def test_unusable_rows_give_no_age_and_are_said(data, kind):
    frame, problems = clinical_table(data, {}, scans(("sub-01", "")))
    assert frame["participant_id"].tolist() == ["sub-01"]
    assert frame["age_years"].isna().all()
    assert kind in set(problems["kind"])


def test_a_row_that_conflicts_with_its_repeat_keeps_what_agrees():
    data = b"participant_id\tage\tsex\nsub-01\t30\tF\nsub-01\t31\tF\n"
    frame, problems = clinical_table(data, {}, scans(("sub-01", "")))
    assert frame["sex"].tolist() == ["F"]
    assert "they differ in age" in problems["message"].iloc[0]


def test_names_that_padflow_uses_are_moved_aside_and_said():
    row, problems = one("sha256\tsplit\tsha256_reported", "x\ty\tz")
    assert (row["sha256_reported_reported"], row["split_reported"], row["sha256_reported"]) == ("x", "y", "z")
    assert problems["kind"].tolist() == ["column-name"] * 2


BASE = b"participant_id\tage\tsex\tedss\nsub-01\t30\tF\t2\n"


@pytest.mark.parametrize(
    "sessions",
    [
        b"session_id\tdays_since_baseline\nses-1\t0\nses-2\t731\n",
        b"session_id\tyears_since_baseline\nses-1\t0\nses-2\t2.00137\n",
        b"session_id\tacq_time\nses-1\t1877-06-15T10:00:00\nses-2\t1879-06-16T10:00:00.000Z\n",
        b"session_id\tage\nses-1\t30\nses-2\t32.00137\n",
        b"session_id\tage\nses-2\t32.00137\nses-1\tn/a\n",
        b"session_id\tdays_since_baseline\nses-2\t731\n",
        b"session_id\tdays_since_baseline\n2\t731\n1\t0\n",
    ],
)
def test_sessions_are_dated_from_whatever_dates_them(sessions):
    table, _ = people({"sub-01": sessions}, BASE, ("sub-01", "ses-1"), ("sub-01", "ses-2"))
    assert table["years_since_baseline"].tolist() == pytest.approx([0, 731 / 365.25], abs=1e-4)
    assert table["age_years"].tolist() == pytest.approx([30, 30 + 731 / 365.25], abs=1e-4)
    assert table["sex"].tolist() == ["F", "F"]


def test_sessions_without_times_have_no_later_age():
    table, problems = people({}, BASE, ("sub-01", "ses-1"), ("sub-01", "ses-2"))
    assert table["age_years"].isna().tolist() == [False, True]
    assert table["years_since_baseline"].isna().tolist() == [False, True]
    assert problems["kind"].tolist() == ["unknown-time"]
    assert "sub-01 ses-2" in problems["message"].iloc[0]


def test_session_ages_come_without_a_baseline_age():
    sessions = b"session_id\tage\tdays_since_baseline\nses-1\tn/a\t0\nses-2\t41\t365.25\n"
    table, _ = people({"sub-01": sessions}, None, ("sub-01", "ses-1"), ("sub-01", "ses-2"))
    assert table["age_years"].tolist() == [40.0, 41.0]


def test_an_only_session_is_the_baseline_whatever_its_name():
    table, problems = people({}, BASE, ("sub-01", "ses-7"))
    assert table["years_since_baseline"].tolist() == [0.0]
    assert table["age_years"].tolist() == [30.0]
    assert problems.empty


def test_an_only_session_that_says_its_time_is_not_the_baseline():
    sessions = {"sub-01": b"session_id\tdays_since_baseline\nses-2\t731\n"}
    table, _ = people(sessions, BASE, ("sub-01", "ses-2"))
    assert table["age_years"].tolist() == pytest.approx([30 + 731 / 365.25])


def test_sessions_come_in_natural_order():
    table, _ = people({}, BASE, ("sub-01", "ses-10"), ("sub-01", "ses-2"))
    assert table.index.tolist() == ["ses-2", "ses-10"]
    assert table["years_since_baseline"].iloc[0] == 0.0


def test_a_session_overrides_its_subject_even_with_missing():
    sessions = {"sub-01": b"session_id\tdays_since_baseline\tedss\nses-1\t0\tn/a\nses-2\t9\t3.5\n"}
    table, _ = people(sessions, BASE, ("sub-01", "ses-1"), ("sub-01", "ses-2"))
    assert table["edss"].isna().tolist() == [True, False]
    assert table["edss"].iloc[1] == 3.5


def test_sessions_in_participants_tsv_are_sessions():
    data = b"participant_id\tsession_id\tage\nsub-01\tses-1\t30\nsub-01\tses-2\t33\n"
    table, problems = people({}, data, ("sub-01", "ses-1"), ("sub-01", "ses-2"))
    assert table["age_years"].tolist() == [30.0, 33.0]
    assert table["years_since_baseline"].tolist() == [0.0, 3.0]
    assert problems.empty


def test_unreadable_session_times_are_said():
    sessions = {"sub-01": b"session_id\tdays_since_baseline\tacq_time\nses-1\tx\tyesterday\nses-2\t999999\tn/a\n"}
    table, problems = people(sessions, BASE, ("sub-01", "ses-1"), ("sub-01", "ses-2"))
    assert table["years_since_baseline"].isna().tolist() == [False, True]
    assert problems["kind"].tolist() == ["session-time", "unknown-time"]


def test_sessions_that_tables_and_scans_do_not_share_are_said():
    sessions = {"sub-01": b"session_id\tage\nses-1\t30\nses-3\t33\n"}
    table, problems = people(sessions, BASE, ("sub-01", "ses-1"), ("sub-01", "ses-2"))
    assert table.index.tolist() == ["ses-1", "ses-2", "ses-3"]
    said = dict(zip(problems["kind"], problems["path"], strict=True))
    assert said["missing-scan"] == "sub-01/ses-3"
    assert said["missing-session"] == "sub-01/ses-2"


def test_the_table_survives_parquet():
    data = b"participant_id\tage\tgroup\tempty\tscore\nsub-01\t30\tx\tn/a\t1\nsub-02\tn/a\tn/a\tn/a\tn/a\n"
    for table in (clinical_table(data, {}, scans(("sub-03", "ses-1")))[0], clinical_table(None, {}, scans())[0]):
        stored = io.BytesIO()
        table.to_parquet(stored)
        pd.testing.assert_frame_equal(pd.read_parquet(stored), table)
        assert {str(dtype) for dtype in table.dtypes} <= {"str", "float64"}


def test_an_empty_cohort_keeps_its_columns():
    table, _ = clinical_table(None, {}, scans())
    assert table.dtypes.astype(str).to_dict() == CLINICAL_DTYPES


@settings(max_examples=80, deadline=None)
@given(data=st.binary() | st.text().map(lambda text: b"participant_id\tage\tsex\n" + text.encode("utf-8", "ignore")))
def test_no_bytes_stop_a_table(data):
    table, _ = clinical_table(data, {"sub-01": data}, scans(("sub-01", "ses-1")))
    assert not table.duplicated(["participant_id", "session_id"]).any()
    assert {str(dtype) for dtype in table.dtypes} <= {"str", "float64"}
    assert table["participant_id"].str.fullmatch("sub-[A-Za-z0-9]+").all()


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 130, allow_subnormal=False))
def test_a_plain_age_is_taken_as_it_is(age_years):
    assert read_age(repr(age_years)) == (age_years, "")


def test_two_sessions_at_one_whole_age_are_not_said_to_be_at_one_time() -> None:
    sessions: tuple[str, ...] = ("1", "2", "3")
    assert times_since_baseline(sessions, {}, {"1": 50.0, "2": 50.0, "3": 52.0}, None)[0] == {"1": 0.0, "3": 2.0}
    exact = times_since_baseline(sessions, {}, {"1": 50.1, "2": 50.1, "3": 52.1}, None)[0]
    assert exact == {"1": 0.0, "2": 0.0, "3": pytest.approx(2.0)}
    same_day = {"1": {"days_since_baseline": "0"}, "2": {"days_since_baseline": "0"}}
    assert times_since_baseline(sessions[:2], same_day, {"1": 50.0, "2": 50.0}, None)[0] == {"1": 0.0, "2": 0.0}
