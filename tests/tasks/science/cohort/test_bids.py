"""An index says every irregularity of a BIDS root and holds every scan once."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.science.cohort.bids import BidsIndex, FileInfo, index_bids, table_paths
from tasks.science.cohort.manifest import MANIFEST_DTYPES, check_manifest, manifest_frame
from tasks.science.cohort.problems import Problem, problems_frame, quoted

PARTICIPANTS = b"participant_id\tage\tsex\nsub-01\t30\tF\nsub-02\t40\tM\n"
TIDY = {
    "participants.tsv": PARTICIPANTS,
    "sub-01/anat/sub-01_T1w.nii.gz": b"one",
    "sub-02/anat/sub-02_T1w.nii.gz": b"two",
}


def kinds(index: BidsIndex) -> dict[str, str]:
    return dict(zip(index.problems["path"], index.problems["kind"], strict=True))


def test_a_tidy_cohort_has_no_problems(index_tree):
    index = index_tree(TIDY)
    assert index.problems.empty
    assert index.manifest["scan_id"].tolist() == ["site-a/sub-01_T1w", "site-a/sub-02_T1w"]
    assert index.manifest["path"].tolist() == ["sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz"]
    assert index.clinical["age_years"].tolist() == [30.0, 40.0]


def test_a_name_gives_session_run_and_entities(index_tree):
    name = "sub-01_ses-b2_acq-mprage_rec-norm_run-02_FLAIR"
    row = index_tree({f"sub-01/ses-b2/anat/{name}.nii": b"x"}).manifest.iloc[0]
    assert (row["scan_id"], row["participant_id"], row["session_id"]) == (f"site-a/{name}", "sub-01", "ses-b2")
    assert (row["run"], row["modality"], row["entities"]) == ("2", "FLAIR", "acq-mprage_rec-norm")


def test_entities_in_another_order_are_the_same_scan(index_tree):
    index = index_tree(
        {"sub-01/anat/sub-01_run-1_acq-a_T1w.nii.gz": b"x", "sub-01/anat/sub-01_acq-a_run-1_T1w.nii.gz": b"y"}
    )
    assert index.manifest["scan_id"].tolist() == ["site-a/sub-01_acq-a_run-1_T1w"]
    assert "duplicate-file" in kinds(index).values()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("sub-01/anat/sub-01_T1.nii.gz", "other-suffix"),
        ("sub-01/anat/sub-01_inplaneT2.nii.gz", "other-suffix"),
        ("sub-01/anat/T1w.nii.gz", "name-mismatch"),
        ("sub-01/anat/sub-02_T1w.nii.gz", "name-mismatch"),
        ("sub-01/ses-1/anat/sub-01_T1w.nii.gz", "name-mismatch"),
        ("sub-01/ses-1/anat/sub-01_ses-2_T1w.nii.gz", "name-mismatch"),
        ("sub-01/anat/sub-01_ses-1_T1w.nii.gz", "name-mismatch"),
        ("sub-01/anat/sub-01_space-MNI_T1w.nii.gz", "not-bids"),
        ("sub-01/anat/sub-01_desc-preproc_T1w.nii.gz", "not-bids"),
        ("sub-01/anat/sub-01_acq-a_acq-b_T1w.nii.gz", "not-bids"),
        ("sub-01/anat/sub-01_run-first_T1w.nii.gz", "not-bids"),
        ("sub-01/anat/sub-01__T1w.nii.gz", "not-bids"),
        ("sub-01/anat/sub-01_acq-a b_T1w.nii.gz", "not-bids"),
        ("sub-01/anat/sub-01_copy_T1w.nii.gz", "not-bids"),
        ("sub-01/sub-01_T1w.nii.gz", "misplaced"),
        ("sub-01/anat/old/sub-01_T1w.nii.gz", "misplaced"),
        ("sub-01/anat/sub-01_T1w.NII.GZ", "misplaced"),
        ("anat/sub-01_T1w.nii.gz", "misplaced"),
        ("sub_01/anat/sub_01_T1w.nii.gz", "misplaced"),
        ("sub-01;rm -rf/anat/sub-01;rm -rf_T1w.nii.gz", "misplaced"),
        ("sub-é/anat/sub-é_T1w.nii.gz", "misplaced"),
        ("sub-٠١/anat/sub-٠١_T1w.nii.gz", "misplaced"),
        (f"sub-{'a' * 65}/anat/sub-{'a' * 65}_T1w.nii.gz", "misplaced"),
        ("sub-/anat/sub-_T1w.nii.gz", "misplaced"),
    ],
)
def test_what_does_not_match_bids_is_said_and_not_indexed(index_tree, path, kind):
    index = index_tree({**TIDY, path: b"stray"})
    assert len(index.manifest) == 2
    assert kinds(index) == {path: kind}


@pytest.mark.parametrize(
    "path",
    [
        "sub-../../etc/anat/sub-01_T1w.nii.gz",
        "../sub-01/anat/sub-01_T1w.nii.gz",
        "/sub-01/anat/sub-01_T1w.nii.gz",
        "C:/sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01\\anat\\sub-01_T1w.nii.gz",
        "sub-01//anat/sub-01_T1w.nii.gz",
        "sub-01/./anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_T1w.nii.gz\n",
        "sub-01/anat/sub-01\x00_T1w.nii.gz",
        "sub-01/anat/sub-01\u202e_T1w.nii.gz",
        "sub-01/" + "a" * 2000 + "/sub-01_T1w.nii.gz",
        "",
    ],
)
def test_an_unsafe_path_is_said_and_never_asked_for(path):
    asked: list[str] = []

    def hashes(files):
        asked.extend(file.path for file in files)
        return {file.path: "00" for file in files}

    index = index_bids("a", [FileInfo(path, 3, "v1")], lambda name: asked.append(name) or b"", hashes)
    assert asked == []
    assert index.manifest.empty
    said = index.problems[index.problems["kind"] == "unsafe-path"]
    assert len(said) == 1
    assert said["path"].iloc[0].isprintable()


@pytest.mark.parametrize(
    "path",
    [
        "derivatives/fmriprep/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
        "sourcedata/sub-01/anat/sub-01_T1w.nii.gz",
        "code/test_T1w.nii.gz",
        ".git/annex/objects/ab/sub-01_T1w.nii.gz",
        "sub-01/func/sub-01_task-rest_bold.nii.gz",
        "sub-01/ses-1/dwi/sub-01_ses-1_dwi.nii.gz",
        "sub-01/anat/sub-01_T1w.json",
        "README",
    ],
)
def test_what_is_not_raw_anatomy_is_passed_over_in_silence(index_tree, path):
    index = index_tree({**TIDY, path: b"other"})
    assert len(index.manifest) == 2
    assert index.problems.empty


def test_two_encodings_of_one_scan_give_one_row_and_the_compressed_is_kept(index_tree):
    index = index_tree({**TIDY, "sub-01/anat/sub-01_T1w.nii": b"unpacked"})
    assert index.manifest["path"].tolist() == [path for path in TIDY if path.endswith(".gz")]
    assert kinds(index) == {"sub-01/anat/sub-01_T1w.nii": "duplicate-file"}


def test_an_empty_file_does_not_win_over_its_filled_twin(index_tree):
    index = index_tree({"sub-01/anat/sub-01_T1w.nii": b"unpacked", "sub-01/anat/sub-01_T1w.nii.gz": b""})
    assert index.manifest["path"].tolist() == ["sub-01/anat/sub-01_T1w.nii"]


def test_the_same_bytes_under_two_subjects_are_said(index_tree):
    index = index_tree({**TIDY, "sub-02/anat/sub-02_T1w.nii.gz": b"one"})
    said = index.problems.iloc[0]
    assert said["kind"] == "duplicate-content"
    assert "sub-01/anat/sub-01_T1w.nii.gz" in said["message"]
    assert "sub-02/anat/sub-02_T1w.nii.gz" in said["message"]


def test_a_subject_without_scans_and_scans_without_a_row_are_said(index_tree):
    tree = {key: value for key, value in TIDY.items() if not key.startswith("sub-02")}
    index = index_tree({**tree, "sub-03/anat/sub-03_T1w.nii.gz": b"three"})
    assert kinds(index) == {"sub-02": "missing-scan", "sub-03": "missing-participant"}


def test_a_table_of_sessions_that_names_another_subject_is_said_and_not_used(index_tree):
    visits = b"session_id\tage\nses-1\t55\n"
    tree = {
        "participants.tsv": b"participant_id\nsub-01\nsub-02\n",
        "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz": b"one",
        "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz": b"two",
    }
    index = index_tree({**tree, "sub-01/sub-02_sessions.tsv": visits})
    assert kinds(index) == {"sub-01/sub-02_sessions.tsv": "wrong-subject"}
    assert "expected sub-01/sub-01_sessions.tsv" in index.problems["message"].iloc[0]
    assert index.clinical["age_years"].isna().all()
    assert kinds(index_tree({**tree, "sub-01/ses-1/sub-01_sessions.tsv": visits})) == {
        "sub-01/ses-1/sub-01_sessions.tsv": "misplaced"
    }


def test_rows_of_a_table_of_sessions_that_name_another_subject_are_said_and_not_used(index_tree):
    visits = b"participant_id\tsession_id\tage\nsub-02\tses-1\t55\nsub-01\tses-2\t31\n01\tses-3\t32\nn/a\tses-4\t33\n"
    scans = {f"sub-01/ses-{n}/anat/sub-01_ses-{n}_T1w.nii.gz": bytes([n]) for n in (2, 3, 4)}
    index = index_tree({"participants.tsv": b"participant_id\nsub-01\n", "sub-01/sub-01_sessions.tsv": visits, **scans})
    assert kinds(index) == {"sub-01/sub-01_sessions.tsv": "wrong-subject"}
    assert "1 rows name 'sub-02', expected sub-01" in index.problems["message"].iloc[0]
    assert index.clinical["session_id"].tolist() == ["ses-2", "ses-3", "ses-4"]
    assert index.clinical["age_years"].tolist() == [31.0, 32.0, 33.0]


def test_rows_for_folders_that_are_not_there_are_said_with_what_to_do(index_tree):
    tree = {
        "participants.tsv": b"participant_id\tage\nsub-01\t30\nsub-02\t40\nsub-07\t50\n",
        "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz": b"one",
        "sub-01/ses-2/func/sub-01_ses-2_bold.nii.gz": b"bold",
        "sub-01/sub-01_sessions.tsv": b"session_id\tage\nses-1\t30\nses-2\t31\nses-3\t32\n",
        "sub-7/anat/sub-7_T1w.nii.gz": b"seven",
    }
    said = index_tree(tree).problems.set_index("path")["message"]
    assert "expected a folder sub-02/, found none" in said["sub-02"]
    assert "expected a folder sub-01/ses-3/, found none" in said["sub-01/ses-3"]
    assert "no anatomical scan" in said["sub-01/ses-2"]
    assert "Is it sub-7, which has scans and no row?" in said["sub-07"]


def test_an_empty_file_is_said_and_stays_in_the_manifest(index_tree):
    index = index_tree({**TIDY, "sub-01/anat/sub-01_T1w.nii.gz": b"", "sub-02/anat/sub-02_T1w.nii.gz": b""})
    assert index.problems["kind"].tolist() == ["empty-file", "empty-file"]
    assert len(index.manifest) == 2


def test_an_empty_root_keeps_columns_and_types(index_tree):
    index = index_tree({})
    assert index.manifest.dtypes.astype(str).to_dict() == MANIFEST_DTYPES
    assert check_manifest(index.manifest) is index.manifest
    assert set(index.problems["kind"]) == {"missing-table", "no-scans"}
    assert problems_frame([]).dtypes.astype(str).tolist() == ["str"] * 3


def test_a_root_given_one_level_too_high_is_recognised(index_tree):
    index = index_tree({f"ds1/{path}": data for path, data in TIDY.items()})
    message = index.problems.loc[index.problems["kind"] == "no-scans", "message"].iloc[0]
    assert "'ds1/'" in message


def test_a_root_without_description_is_said():
    index = index_bids("a", [], lambda path: b"", lambda files: {})
    assert "not-bids-root" in set(index.problems["kind"])


@pytest.mark.parametrize("cohort", ["", "a/b", "..", "-x", "a b", "é", "x" * 65, "a\n"])
def test_a_cohort_name_that_cannot_stand_in_a_key_is_refused(cohort):
    with pytest.raises(ValueError, match="Rename the cohort"):
        index_bids(cohort, [], lambda path: b"", lambda files: {})


def test_a_missing_hash_is_refused():
    listing = [FileInfo("sub-01/anat/sub-01_T1w.nii.gz", 3, "v1")]
    with pytest.raises(ValueError, match="no SHA-256 came back for sub-01/anat"):
        index_bids("a", listing, lambda path: b"", lambda files: {})


def test_hashes_are_asked_for_once_and_only_for_scans():
    calls: list[list[str]] = []

    def hashes(files):
        calls.append([file.path for file in files])
        return {file.path: "ab" for file in files}

    listing = [FileInfo("README", 1, "v"), FileInfo("sub-01/anat/sub-01_T1w.nii.gz", 3, "v")]
    index_bids("a", listing, lambda path: b"", hashes)
    assert calls == [["sub-01/anat/sub-01_T1w.nii.gz"]]


def test_exactly_the_tables_named_beforehand_are_read():
    paths = ["participants.tsv", "sub-01/sub-01_sessions.tsv", "participants.json"]
    strays = ["sub-01/sub-02_sessions.tsv", "derivatives/participants.tsv", "sub-01/ses-1/sub-01_ses-1_scans.tsv"]
    listing = [FileInfo(path, 1, "v") for path in [*paths, *strays]]
    asked: list[str] = []
    index_bids("a", listing, lambda path: asked.append(path) or b"", lambda files: {})
    assert asked == table_paths(listing) == paths


def test_a_manifest_survives_parquet(index_tree):
    for manifest in (index_tree(TIDY).manifest, index_tree({}).manifest):
        stored = io.BytesIO()
        manifest.to_parquet(stored)
        pd.testing.assert_frame_equal(check_manifest(pd.read_parquet(stored)), manifest)


def test_a_table_that_is_no_manifest_is_refused(index_tree):
    manifest = index_tree(TIDY).manifest
    with pytest.raises(ValueError, match="'sha256': found no such column"):
        check_manifest(manifest.drop(columns="sha256"))
    with pytest.raises(ValueError, match="'size_bytes': found float64, expected int64"):
        check_manifest(manifest.astype({"size_bytes": "float64"}))
    with pytest.raises(ValueError, match="stands in 2 manifest rows"):
        manifest_frame([*manifest.to_dict("records"), manifest.to_dict("records")[0]])


def test_problems_are_rows_in_the_order_said():
    frame = problems_frame([Problem("b", "kind", "x"), Problem("a", "kind", "y")])
    assert frame["path"].tolist() == ["b", "a"]


ODD_TEXT = st.text(st.sampled_from("ab01-_./\\ \n\x00é="), max_size=12)
NAMES = st.builds(
    lambda subject, middle, suffix, extension: f"sub-{subject}/anat/sub-{subject}{middle}_{suffix}{extension}",
    st.sampled_from(["01", "02"]) | ODD_TEXT,
    st.sampled_from(["", "_run-1", "_run-02", "_acq-x"]) | ODD_TEXT,
    st.sampled_from(["T1w", "FLAIR", "bold"]),
    st.sampled_from([".nii", ".nii.gz", ".json"]),
)


@settings(max_examples=80, deadline=None)
@given(tree=st.dictionaries(NAMES | ODD_TEXT, st.sampled_from([b"", b"a", b"b"]), max_size=12), table=st.binary())
def test_every_image_is_in_the_manifest_or_said(index_tree, tree, table):
    index = index_tree({**tree, "participants.tsv": PARTICIPANTS + table})
    images = {path for path in tree if path.endswith((".nii", ".nii.gz")) and not path.startswith((".", "code/"))}
    said = set(index.problems["path"]) | {path for path in images if quoted(path) in set(index.problems["path"])}
    assert images <= set(index.manifest["path"]) | said
    assert index.manifest["scan_id"].is_unique
    assert index.manifest["path"].is_unique
    assert not index.clinical.duplicated(["participant_id", "session_id"]).any()
    assert not index.problems.isna().any().any()
    assert (index.problems["message"] != "").all()


@pytest.mark.parametrize("order", [1, -1])
def test_the_listing_order_does_not_matter(index_tree, order):
    tree = {**TIDY, "sub-01/anat/sub-01_T1w.nii": b"x", "sub-02/anat/sub-02_T2w.nii": b"y"}
    pd.testing.assert_frame_equal(index_tree(dict(list(tree.items())[::order])).manifest, index_tree(tree).manifest)


def test_a_hundred_thousand_scans_index_in_seconds():
    people = [f"sub-{number:06d}" for number in range(50_000)]
    listing = [FileInfo(f"{name}/anat/{name}_{kind}.nii.gz", 9, "v") for name in people for kind in ("T1w", "FLAIR")]
    listing.append(FileInfo("participants.tsv", 9, "v"))
    rows = "".join(f"{name}\t{20 + number % 60}\t1\tgroup\t{number}\n" for number, name in enumerate(people))
    table = ("participant_id\tage\tsex\tgroup\tscore\n" + rows).encode()
    begun = time.process_time()
    index = index_bids("big", listing, lambda path: table, lambda files: {file.path: file.path for file in files})
    assert time.process_time() - begun < 30
    assert len(index.manifest) == 100_000
    assert len(index.clinical) == 50_000


def test_real_cross_sectional_cohort(shared_data: Path, index_root: Callable[[Path], BidsIndex]):
    index = index_root(shared_data / "ds002748")
    assert len(index.manifest) == 24
    assert index.problems.empty
    assert index.clinical["sex"].value_counts().to_dict() == {"F": 17, "M": 7}
    assert index.clinical["group"].value_counts().to_dict() == {"depr": 12, "control": 12}
    assert index.clinical["age_years"].between(19, 55).all()
    assert index.clinical["BDI"].notna().sum() == 22


def test_real_longitudinal_cohort(shared_data: Path, index_root: Callable[[Path], BidsIndex]):
    index = index_root(shared_data / "open_ms" / "longitudinal")
    assert index.manifest["modality"].value_counts().to_dict() == {"FLAIR": 5, "T2w": 5, "T1w": 4}
    assert kinds(index) == {"sub-long04/ses-2": "missing-scan"}
    third = index.clinical.set_index(["participant_id", "session_id"]).loc[("sub-long03", "ses-2")]
    assert third["age_years"] == pytest.approx(19 + 671 / 365.25)
    assert third["years_since_baseline"] == pytest.approx(671 / 365.25)


def test_real_infants_are_aged_in_months(shared_data: Path, index_root: Callable[[Path], BidsIndex]):
    index = index_root(shared_data / "infant")
    assert index.clinical["age_years"].tolist() == [0.0, 0.5, 1.0]
    assert index.clinical["sex"].isna().all()
