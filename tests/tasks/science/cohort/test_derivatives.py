"""Names of derivatives follow BIDS and stay in their folder; tables account for people and scans."""

from __future__ import annotations

import io
import json

import pandas as pd
import pytest

from tasks.science.cohort.derivative_tables import column_notes, excluded_table, people_and_sessions, tsv
from tasks.science.cohort.derivatives import DerivativeNames, dataset_description

MNI = "MNI152NLin2009aSym"


def test_names_keep_the_entities_of_the_source_in_their_order() -> None:
    names = DerivativeNames("site-a/sub-07_ses-2_acq-mprage_run-01_chunk-3_T1w", MNI)
    folder = "sub-07/ses-2/anat/sub-07_ses-2_acq-mprage_run-01"
    assert names.image("T1w") == f"{folder}_space-{MNI}_chunk-3_desc-preproc_T1w"
    assert names.image("ratio") == f"{folder}_space-{MNI}_chunk-3_desc-preproc_T1wT2wratio"
    assert names.mask == f"{folder}_space-{MNI}_chunk-3_desc-brain_mask"
    assert names.transform == f"{folder}_from-T1w_to-{MNI}_mode-image_chunk-3_xfm"
    by_t1w = DerivativeNames("a/sub-1_FLAIR", MNI, "T1w")
    assert by_t1w.transform == f"sub-1/anat/sub-1_from-T1w_to-{MNI}_mode-image_xfm"
    assert by_t1w.image("FLAIR") == f"sub-1/anat/sub-1_space-{MNI}_desc-preproc_FLAIR"


@pytest.mark.parametrize(
    "scan_id",
    [
        *("a/sub-../../../etc_T1w", "a/..", "a/sub-1/../../x_T1w", "a/sub-1_T1w\n", "a/sub-1_ses-../x_T1w", "", "a/"),
        *("a/sub-1_desc-x_T1w", "a/sub-1_sub-2_T1w", "a/T1w", "a/sub-" + "1" * 65 + "_T1w", "a/sub-é_T1w", "a/sub-1_"),
    ],
)
def test_a_name_that_is_not_bids_is_refused(scan_id: str) -> None:
    with pytest.raises(ValueError, match="no BIDS name"):
        DerivativeNames(scan_id, MNI)


def test_a_template_or_channel_cannot_lead_a_file_elsewhere() -> None:
    assert DerivativeNames("a/sub-1_T1w", "../../UNC infant/12").space == "UNCinfant12"
    with pytest.raises(ValueError, match="template"):
        DerivativeNames("a/sub-1_T1w", "../..")
    with pytest.raises(ValueError, match="channel"):
        DerivativeNames("a/sub-1_T1w", MNI).image("../T1w")


def scans(**columns: list[object]) -> pd.DataFrame:
    fixed = {"scan_id": ["c/x"] * 4, "path": ["p"] * 4, "participant_id": ["sub-1", "sub-1", "sub-2", "sub-3"]}
    return pd.DataFrame({**fixed, **columns})


def test_people_have_one_row_and_their_sessions_hold_what_changes() -> None:
    table = scans(
        session_id=["ses-1", "ses-2", "ses-1", "ses-1"],
        age_years=[30.5, 31.5, 40.0, None],
        sex=["F", "F", "M", None],
        edss=[1.0, 2.0, None, 3.0],
    )
    people, sessions = people_and_sessions(table)
    assert people.columns.tolist() == ["participant_id", "age", "sex"]
    assert tsv(people).decode().splitlines()[1:] == ["sub-1\t30.5\tF", "sub-2\t40.0\tM", "sub-3\tn/a\tn/a"]
    assert tsv(sessions["sub-1"]).decode() == "session_id\tage\tedss\nses-1\t30.5\t1.0\nses-2\t31.5\t2.0\n"
    assert tsv(sessions["sub-3"]).decode().splitlines()[1] == "ses-1\tn/a\t3.0"
    assert column_notes(people)["age"]["Units"] == "years"
    assert "raw data set" in column_notes(sessions["sub-1"])["edss"]["Description"]


def test_a_cohort_without_sessions_has_no_sessions_tables() -> None:
    table = scans(session_id=[""] * 4, age_years=[1.0] * 4, site=["", "x", "x", "x"]).drop(index=0)
    people, sessions = people_and_sessions(table)
    assert sessions == {}
    assert people["participant_id"].tolist() == ["sub-1", "sub-2", "sub-3"]


def test_no_cell_breaks_a_line_of_a_table() -> None:
    table = pd.DataFrame({"na\tme": ["a\tb", "c\nd\re", None, "=1\x1b[31m"], "n": [1.5, None, 2.0, 3.0]})
    read = pd.read_csv(io.BytesIO(tsv(table)), sep="\t", keep_default_na=False)
    assert read.shape == (4, 2)
    assert read["na me"].tolist() == ["a b", "c d e", "n/a", "=1 [31m"]
    assert read["n"].tolist() == ["1.5", "n/a", "2.0", "3.0"]


def test_excluded_scans_are_named_with_their_person() -> None:
    table = excluded_table([("c/sub-2_T1w", "read", "cut short"), ("c/sub-1_ses-1_T2w", "unused", "another modality")])
    assert table.to_numpy().tolist() == [
        ["c/sub-1_ses-1_T2w", "sub-1", "unused", "another modality"],
        ["c/sub-2_T1w", "sub-2", "read", "cut short"],
    ]
    assert tsv(excluded_table([])).decode() == "scan_id\tparticipant_id\tstage\treason\n"


def test_the_description_says_that_it_is_a_derivative() -> None:
    text = json.dumps(dataset_description("site-a", "study", "1.2.3", "s3://bucket/site-a"))
    description = json.loads(text)
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "padflow"
    assert description["GeneratedBy"][0]["Version"] == "1.2.3"
    assert description["SourceDatasets"] == [{"URL": "s3://bucket/site-a"}]
