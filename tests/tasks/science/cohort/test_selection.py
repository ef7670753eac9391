"""A selection accounts for every indexed scan exactly once, and gives the reason."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.records import Recipe, ScanRef, TemplateSpec
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
FLAIR = Recipe(name="flair", reference="FLAIR")
FLAIR_THROUGH_T1W = Recipe(name="flair")
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
    selection = select_scans(index, Recipe())
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
    selection = select_scans(index, Recipe(), select)
    assert taken(selection) == expected
    assert accounts_for(selection, index.manifest)


def test_what_is_not_selected_is_unused_with_its_value(index_tree):
    selection = select_scans(index_tree(TREE), Recipe(), {"edss": [2]})
    reasons = dict(zip(selection.unused["scan_id"], selection.unused["reason"], strict=True))
    assert reasons["site-a/sub-01_T1w"] == "not selected: edss is missing"


@pytest.mark.parametrize(
    ("recipe", "select", "message"),
    [
        (Recipe(channels=("T2w",)), {}, "'T2w': the cohort holds scans of FLAIR, T1w; did you mean 'T1w'"),
        (Recipe(), {"Group": ["control"]}, "did you mean 'group'"),
        (Recipe(), {"grp": ["control"]}, "did you mean 'group'"),
        (Recipe(), {"group": ["contrl"]}, "did you mean 'control'"),
        (Recipe(), {"group": ["Control"]}, "did you mean 'control'"),
        (Recipe(), {"edss": [7]}, "which no row has"),
        (Recipe(), {"edss": ["high"]}, "holds numbers"),
        (Recipe(), {"group": "control"}, "expected a list"),
        (Recipe(), {"group": []}, "expected a list"),
    ],
)
def test_a_misspelt_selection_is_refused_with_the_nearest_name(index_tree, recipe, select, message):
    with pytest.raises(ValueError, match=message):
        select_scans(index_tree(TREE), recipe, select)


def test_a_cohort_without_scans_is_refused(index_tree):
    with pytest.raises(ValueError, match="holds no scans at all"):
        select_scans(index_tree({}), Recipe())


def test_the_last_run_is_used_and_named(index_tree):
    runs = {f"sub-01/anat/sub-01_run-{run}_T1w.nii.gz": run.encode() for run in ("2", "10", "1")}
    people = {"participants.tsv": TREE["participants.tsv"]}
    selection = select_scans(index_tree({**people, **runs}), Recipe())
    assert taken(selection) == ["sub-01_run-10_T1w"]
    assert why(selection, "sub-01_run-2_T1w") == (
        "superseded by site-a/sub-01_run-10_T1w: the last run is used, "
        "since a repeat is usually made because the first was bad"
    )


def test_an_empty_last_run_gives_way_to_the_one_before(index_tree):
    runs = {"sub-01/anat/sub-01_run-1_T1w.nii.gz": b"x", "sub-01/anat/sub-01_run-2_T1w.nii.gz": b""}
    selection = select_scans(index_tree({**TREE, **runs}), Recipe(), {"entities": [""], "run": ["1", "2"]})
    assert taken(selection) == ["sub-01_run-1_T1w"]
    assert "0 bytes" in why(selection, "sub-01_run-2_T1w")


def test_one_image_per_session_and_the_other_can_be_selected(index_tree):
    tree = {**TREE, "sub-01/anat/sub-01_acq-b_T1w.nii.gz": b"b", "sub-01/anat/sub-01_part-phase_T1w.nii.gz": b"p"}
    selection = select_scans(index_tree(tree), Recipe(), {"participant_id": ["sub-01"]})
    assert taken(selection) == ["sub-01_T1w"]
    assert "select its `entities`" in why(selection, "sub-01_acq-b_T1w")
    assert "not a magnitude image" in why(selection, "sub-01_part-phase_T1w")
    assert taken(select_scans(index_tree(tree), Recipe(), {"entities": ["acq-b"]})) == ["sub-01_acq-b_T1w"]


def test_equal_bytes_of_two_subjects_are_used_for_neither(index_tree):
    selection = select_scans(index_tree({**TREE, "sub-02/anat/sub-02_T1w.nii.gz": b"1"}), Recipe())
    assert taken(selection) == []
    assert "site-a/sub-01_T1w, site-a/sub-02_T1w" in why(selection, "sub-02_T1w")


def test_equal_bytes_of_two_runs_are_one_scan(index_tree):
    runs = {f"sub-02/anat/sub-02_run-{run}_T1w.nii.gz": b"same" for run in (1, 2)}
    tree = {path: data for path, data in TREE.items() if path != "sub-02/anat/sub-02_T1w.nii.gz"}
    assert taken(select_scans(index_tree({**tree, **runs}), Recipe())) == ["sub-01_T1w", "sub-02_run-2_T1w"]


def test_sessions_are_each_taken(shared_data, index_root):
    index = index_root(shared_data / "open_ms" / "longitudinal")
    selection = select_scans(index, FLAIR)
    assert len(selection.scans) == 5
    assert len(selection.unused) == 9
    assert accounts_for(selection, index.manifest)


def test_real_controls(shared_data, index_root):
    index = index_root(shared_data / "ds002748")
    selection = select_scans(index, Recipe(), {"group": ["control"]})
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
    held = set(index.manifest["modality"])
    recipe = FLAIR_THROUGH_T1W if len(held) == 2 else {"T1w": Recipe(), "FLAIR": FLAIR}[held.pop()]
    selection = select_scans(index, recipe, select)
    assert accounts_for(selection, index.manifest)
    assert selection.scans["age_years"].notna().all()
    assert not selection.scans.duplicated(["participant_id", "session_id"]).any()
    assert (selection.excluded["reason"] != "").all()
    assert (selection.unused["reason"] != "").all()
    assert selection.scans["sha256"].is_unique


PAIRS = {
    "participants.tsv": b"participant_id\tage\nsub-01\t30\nsub-02\t40\nsub-03\t50\nsub-04\t60\n",
    "sub-01/anat/sub-01_T1w.nii.gz": b"1",
    "sub-01/anat/sub-01_run-1_T2w.nii.gz": b"1t",
    "sub-01/anat/sub-01_run-2_T2w.nii.gz": b"1u",
    "sub-02/anat/sub-02_T1w.nii.gz": b"2",
    "sub-03/anat/sub-03_T2w.nii.gz": b"3t",
    "sub-04/anat/sub-04_T1w.nii.gz": b"4",
    "sub-04/anat/sub-04_T2w.nii.gz": b"",
    "sub-04/anat/sub-04_FLAIR.nii.gz": b"4f",
}


def test_a_session_needs_every_contrast_of_the_recipe(index_tree):
    index = index_tree(PAIRS)
    selection = select_scans(index, Recipe(name="t1w_t2w_ratio"))
    assert taken(selection) == ["sub-01_T1w"]
    assert selection.scans["companions"].tolist() == ["site-a/sub-01_run-2_T2w"]
    assert why(selection, "sub-02_T1w") == "no T2w in its session, which the recipe needs beside T1w"
    assert why(selection, "sub-03_T2w") == "no T1w in its session, which the recipe needs"
    assert why(selection, "sub-04_T1w").startswith("its session's T2w cannot be used: the file has 0 bytes")
    unused = selection.unused.set_index("scan_id")["reason"].rename(lambda name: name.removeprefix("site-a/"))
    assert unused["sub-01_run-2_T2w"] == "goes with site-a/sub-01_T1w"
    assert unused["sub-01_run-1_T2w"].startswith("would go with site-a/sub-01_T1w: superseded by")
    assert unused["sub-04_T2w"].startswith("would go with site-a/sub-04_T1w: the file has 0 bytes")
    assert unused["sub-04_FLAIR"] == "another modality: FLAIR"
    assert accounts_for(selection, index.manifest)


def test_a_scan_is_named_by_all_that_it_is_made_from(index_tree):
    def key(tree: dict[str, bytes], recipe: Recipe) -> str:
        return select_scans(index_tree(tree), recipe).scans.set_index("participant_id").loc["sub-01", "sha256"]

    other_t2w = {**PAIRS, "sub-01/anat/sub-01_run-2_T2w.nii.gz": b"other"}
    ratio = Recipe(name="t1w_t2w_ratio")
    assert key(PAIRS, Recipe()) == key(other_t2w, Recipe())
    assert len({key(PAIRS, Recipe()), key(PAIRS, ratio), key(other_t2w, ratio)}) == 3


def test_an_age_chooses_its_template_and_is_part_of_the_name(index_tree):
    young, old = (
        TemplateSpec(name, "t1.nii", "grey.nii", "white.nii", ages_months=ages)
        for name, ages in (("young", (0.0, 372.0)), ("old", (372.1, 500.0)))
    )
    scans = select_scans(index_tree(PAIRS), Recipe(templates=(young, old)))
    assert scans.scans["template"].tolist() == ["young", "old"]
    assert "no template of the recipe serves its age" in why(scans, "sub-04_T1w")
    assert (scans.scans["sha256"] != scans.scans["image_sha256"]).all()
    both = select_scans(index_tree(PAIRS), Recipe(templates=(young, old), name="t1w_t2w_ratio")).scans.iloc[0]
    ref = ScanRef("", "", "", "", "", "T1w", "", 1, str(both["image_sha256"]), template=str(both["template"]))
    assert ref.key == scans.scans["sha256"].iloc[0] != both["sha256"]


@pytest.mark.parametrize(("recipe", "n_scans"), [(FLAIR, 5), (FLAIR_THROUGH_T1W, 4), (Recipe(name="t1w_t2w_ratio"), 4)])
def test_real_sessions_with_missing_contrasts(shared_data, index_root, recipe, n_scans):
    index = index_root(shared_data / "open_ms" / "longitudinal")
    selection = select_scans(index, recipe)
    assert len(selection.scans) == n_scans
    assert accounts_for(selection, index.manifest)


def test_what_tells_files_apart_chooses_the_scan_and_not_its_companions(index_tree):
    index = index_tree({**PAIRS, "sub-01/anat/sub-01_acq-b_T1w.nii.gz": b"b"})
    selection = select_scans(index, Recipe(name="t1w_t2w_ratio"), {"entities": ["acq-b"]})
    assert taken(selection) == ["sub-01_acq-b_T1w"]
    assert selection.scans["companions"].tolist() == ["site-a/sub-01_run-2_T2w"]
    assert accounts_for(selection, index.manifest)


def test_companions_go_with_the_scan_that_is_used(index_tree):
    runs = {f"sub-01/anat/sub-01_run-{run}_T1w.nii.gz": run.encode() for run in ("2", "10")}
    tree = {path: data for path, data in PAIRS.items() if path != "sub-01/anat/sub-01_T1w.nii.gz"}
    selection = select_scans(index_tree({**tree, **runs}), Recipe(name="t1w_t2w_ratio"))
    assert taken(selection) == ["sub-01_run-10_T1w"]
    unused = selection.unused.set_index("scan_id")["reason"]
    assert unused["site-a/sub-01_run-2_T2w"] == "goes with site-a/sub-01_run-10_T1w"
