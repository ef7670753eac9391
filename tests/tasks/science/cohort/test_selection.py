"""A selection accounts for every indexed scan exactly once, and gives the reason."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.science.cohort.manifest import MANIFEST_DTYPES
from tasks.science.cohort.selection import Selection, select_scans

TREE = {
    "participants.tsv": (
        b"participant_id\tage\tsex\tgroup\tedss\n"
        b"sub-01\t30\tF\tcontrol\tn/a\nsub-02\t40\tM\tpatient\t2\nsub-03\tn/a\tM\tcontrol\tn/a\nsub-04\t50\tF\tother\t3\n"
    ),
    "sub-01/anat/sub-01_T1w.nii.gz": b"1",
    "sub-01/anat/sub-01_FLAIR.nii.gz": b"1f",
    "sub-02/anat/sub-02_T1w.nii.gz": b"2",
    "sub-03/anat/sub-03_T1w.nii.gz": b"3",
}
EXCLUDED_COLUMNS = ["scan_id", "participant_id", "sha256", "stage", "reason"]


def taken(selection: Selection) -> list[str]:
    return selection.scans["scan_id"].str.removeprefix("site-a/").tolist()


def why(selection: Selection, name: str) -> str:
    return selection.excluded.set_index("scan_id").loc[f"site-a/{name}", "reason"]


def accounts_for(selection: Selection, manifest: pd.DataFrame) -> bool:
    parts = [selection.scans["scan_id"], selection.excluded["scan_id"], selection.unused["scan_id"]]
    return sorted(pd.concat(parts)) == sorted(manifest["scan_id"])


def test_scans_carry_their_clinical_row(index_tree):
    index = index_tree(TREE)
    selection = select_scans(index, "T1w")
    assert taken(selection) == ["sub-01_T1w", "sub-02_T1w"]
    assert list(selection.scans)[: len(MANIFEST_DTYPES)] == list(MANIFEST_DTYPES)
    assert selection.scans["age_years"].tolist() == [30.0, 40.0]
    assert selection.scans["group"].tolist() == ["control", "patient"]
    assert selection.unused["reason"].tolist() == ["another modality: FLAIR"]
    assert selection.unused["scan_id"].tolist() == ["site-a/sub-01_FLAIR"]
    assert list(selection.excluded) == EXCLUDED_COLUMNS
    assert selection.excluded["stage"].tolist() == ["selection"]
    assert "no age" in why(selection, "sub-03_T1w")
    assert accounts_for(selection, index.manifest)


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ({"group": ["control"]}, ["sub-01_T1w"]),
        ({"group": ["control", "patient"]}, ["sub-01_T1w", "sub-02_T1w"]),
        ({"participant_id": ["sub-02"]}, ["sub-02_T1w"]),
        ({"edss": [2]}, ["sub-02_T1w"]),
        ({"edss": ["2"]}, ["sub-02_T1w"]),
        ({"group": ["control"], "sex": ["M"]}, []),
        ({"group": ["other"]}, []),
    ],
)
def test_select_narrows(index_tree, select, expected):
    index = index_tree(TREE)
    selection = select_scans(index, "T1w", select)
    assert taken(selection) == expected
    assert accounts_for(selection, index.manifest)


def test_what_is_not_selected_is_unused_with_its_value(index_tree):
    selection = select_scans(index_tree(TREE), "T1w", {"edss": [2]})
    reasons = dict(zip(selection.unused["scan_id"], selection.unused["reason"], strict=True))
    assert reasons["site-a/sub-01_T1w"] == "not selected: edss is missing"


@pytest.mark.parametrize(
    ("modality", "select", "message"),
    [
        ("t1w", {}, "did you mean 'T1w'"),
        ("T2w", {}, "holds scans of FLAIR, T1w"),
        ("T1w", {"Group": ["control"]}, "did you mean 'group'"),
        ("T1w", {"grp": ["control"]}, "did you mean 'group'"),
        ("T1w", {"group": ["contrl"]}, "did you mean 'control'"),
        ("T1w", {"group": ["Control"]}, "did you mean 'control'"),
        ("T1w", {"edss": [7]}, "which no row has"),
        ("T1w", {"edss": ["high"]}, "holds numbers"),
        ("T1w", {"group": "control"}, "expected a list"),
        ("T1w", {"group": []}, "expected a list"),
    ],
)
def test_a_misspelt_selection_is_refused_with_the_nearest_name(index_tree, modality, select, message):
    with pytest.raises(ValueError, match=message):
        select_scans(index_tree(TREE), modality, select)


def test_a_cohort_without_scans_is_refused(index_tree):
    with pytest.raises(ValueError, match="holds no scans at all"):
        select_scans(index_tree({}), "T1w")


def test_the_last_run_is_used_and_named(index_tree):
    runs = {f"sub-01/anat/sub-01_run-{run}_T1w.nii.gz": run.encode() for run in ("2", "10", "1")}
    people = {"participants.tsv": TREE["participants.tsv"]}
    selection = select_scans(index_tree({**people, **runs}), "T1w")
    assert taken(selection) == ["sub-01_run-10_T1w"]
    assert why(selection, "sub-01_run-2_T1w") == (
        "superseded by site-a/sub-01_run-10_T1w: the last run is used, "
        "since a repeat is usually made because the first was bad"
    )


def test_an_empty_last_run_gives_way_to_the_one_before(index_tree):
    runs = {"sub-01/anat/sub-01_run-1_T1w.nii.gz": b"x", "sub-01/anat/sub-01_run-2_T1w.nii.gz": b""}
    selection = select_scans(index_tree({**TREE, **runs}), "T1w", {"entities": [""], "run": ["1", "2"]})
    assert taken(selection) == ["sub-01_run-1_T1w"]
    assert "0 bytes" in why(selection, "sub-01_run-2_T1w")


def test_one_image_per_session_and_the_other_can_be_selected(index_tree):
    tree = {**TREE, "sub-01/anat/sub-01_acq-b_T1w.nii.gz": b"b", "sub-01/anat/sub-01_part-phase_T1w.nii.gz": b"p"}
    selection = select_scans(index_tree(tree), "T1w", {"participant_id": ["sub-01"]})
    assert taken(selection) == ["sub-01_T1w"]
    assert "select its `entities`" in why(selection, "sub-01_acq-b_T1w")
    assert "not a magnitude image" in why(selection, "sub-01_part-phase_T1w")
    assert taken(select_scans(index_tree(tree), "T1w", {"entities": ["acq-b"]})) == ["sub-01_acq-b_T1w"]


def test_equal_bytes_of_two_subjects_are_used_for_neither(index_tree):
    selection = select_scans(index_tree({**TREE, "sub-02/anat/sub-02_T1w.nii.gz": b"1"}), "T1w")
    assert taken(selection) == []
    assert "site-a/sub-01_T1w, site-a/sub-02_T1w" in why(selection, "sub-02_T1w")


def test_equal_bytes_of_two_runs_are_one_scan(index_tree):
    runs = {f"sub-02/anat/sub-02_run-{run}_T1w.nii.gz": b"same" for run in (1, 2)}
    tree = {path: data for path, data in TREE.items() if path != "sub-02/anat/sub-02_T1w.nii.gz"}
    assert taken(select_scans(index_tree({**tree, **runs}), "T1w")) == ["sub-01_T1w", "sub-02_run-2_T1w"]


def test_sessions_are_each_taken(shared_data, index_root):
    index = index_root(shared_data / "open_ms" / "longitudinal")
    selection = select_scans(index, "FLAIR")
    assert len(selection.scans) == 5
    assert len(selection.unused) == 9
    assert accounts_for(selection, index.manifest)


def test_real_controls(shared_data, index_root):
    index = index_root(shared_data / "ds002748")
    selection = select_scans(index, "T1w", {"group": ["control"]})
    assert (len(selection.scans), len(selection.excluded), len(selection.unused)) == (12, 0, 12)


SCAN_NAMES = st.builds(
    lambda subject, session, middle, suffix: (
        f"sub-{subject}/{session}anat/sub-{subject}_{session.replace('/', '_')}{middle}{suffix}.nii.gz"
    ),
    st.sampled_from(["01", "02", "03", "99"]),
    st.sampled_from(["", "ses-1/", "ses-2/"]),
    st.sampled_from(["", "run-1_", "run-2_", "acq-a_", "acq-a_run-3_", "part-phase_"]),
    st.sampled_from(["T1w", "FLAIR"]),
)


@settings(max_examples=60, deadline=None)
@given(
    scans=st.dictionaries(SCAN_NAMES, st.binary(max_size=1), min_size=1, max_size=15),
    select=st.sampled_from([{}, {"group": ["control"]}, {"sex": ["M"], "group": ["control", "patient"]}]),
)
def test_every_manifest_row_is_in_exactly_one_part(index_tree, scans, select):
    index = index_tree({"participants.tsv": TREE["participants.tsv"], **scans})
    modality = index.manifest["modality"].iloc[0]
    selection = select_scans(index, modality, select)
    assert accounts_for(selection, index.manifest)
    assert selection.scans["age_years"].notna().all()
    assert not selection.scans.duplicated(["participant_id", "session_id"]).any()
    assert (selection.excluded["reason"] != "").all()
    assert (selection.unused["reason"] != "").all()
    assert selection.scans["sha256"].is_unique
