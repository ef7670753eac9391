"""Splits are by subject, never move, and leaks are refused."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.science.cohort.splits import SPLIT_NAMES, assign_splits, refuse_leaks

PEOPLE = st.lists(st.integers(0, 300).map(lambda number: f"sub-{number:03d}"), unique=True, max_size=80)
WEIGHTS = st.lists(st.integers(0, 10), min_size=4, max_size=4).filter(any)
FRACTIONS = WEIGHTS.map(lambda weights: {name: w / sum(weights) for name, w in zip(SPLIT_NAMES, weights, strict=True)})
USUAL = {"train": 0.7, "validation": 0.1, "calibration": 0.1, "test": 0.1}


def as_map(splits: pd.DataFrame) -> dict[str, str]:
    return dict(zip(splits["participant_id"], splits["split"], strict=True))


@settings(max_examples=150, deadline=None)
@given(first=PEOPLE, second=PEOPLE, before=FRACTIONS, after=FRACTIONS, seed=st.integers(0, 9))
def test_nobody_ever_moves(first, second, before, after, seed):
    earlier = assign_splits(None, first, before, seed)
    later = assign_splits(earlier, second, after, seed + 1)
    assert as_map(earlier).items() <= as_map(later).items()
    assert set(later["participant_id"]) == {*first, *second}


@settings(max_examples=150, deadline=None)
@given(people=PEOPLE, fractions=FRACTIONS, seed=st.integers(0, 9))
def test_each_split_ends_within_one_of_its_share(people, fractions, seed):
    counts = assign_splits(None, people, fractions, seed)["split"].value_counts()
    wanted = {name: share for name, share in fractions.items() if share > 0}
    if len(people) >= len(wanted):
        assert all(counts.get(name, 0) >= 1 for name in wanted)
    if all(share * len(people) >= 1 for share in wanted.values()):
        assert all(abs(counts.get(name, 0) - share * len(people)) < 1 + 1e-9 for name, share in wanted.items())
    assert set(counts.index) <= set(wanted)


@settings(max_examples=100, deadline=None)
@given(people=PEOPLE, data=st.data())
def test_the_order_of_subjects_does_not_matter(people, data):
    shuffled = data.draw(st.permutations(people))
    pd.testing.assert_frame_equal(assign_splits(None, people, USUAL, 3), assign_splits(None, shuffled, USUAL, 3))


def test_the_assignment_is_the_same_on_every_machine():
    people = [f"sub-{number:02d}" for number in range(1, 13)]
    splits = as_map(assign_splits(None, people, USUAL, 0))
    assert sorted(splits.values()).count("train") == 9
    assert {name: split for name, split in splits.items() if split != "train"} == {
        "sub-10": "calibration",
        "sub-11": "test",
        "sub-12": "validation",
    }


def test_another_seed_gives_other_splits():
    people = [f"sub-{number}" for number in range(40)]
    assert as_map(assign_splits(None, people, USUAL, 0)) != as_map(assign_splits(None, people, USUAL, 1))


def test_new_subjects_restore_the_shares():
    half = {"train": 0.5, "test": 0.5}
    earlier = assign_splits(None, [f"sub-{n}" for n in range(10)], {"train": 1.0}, 0)
    later = assign_splits(earlier, [f"sub-{n}" for n in range(20)], half, 0)
    assert later["split"].value_counts().to_dict() == {"train": 10, "test": 10}


def test_shares_are_of_the_subjects_that_are_present():
    earlier = assign_splits(None, [f"gone-{n}" for n in range(50)], {"train": 1.0}, 0)
    later = assign_splits(earlier, [f"sub-{n}" for n in range(20)], {"train": 0.5, "test": 0.5}, 0)
    present = later[later["participant_id"].str.startswith("sub")]
    assert present["split"].value_counts().to_dict() == {"train": 10, "test": 10}


def test_a_subject_that_comes_back_finds_its_split():
    people = [f"sub-{n}" for n in range(20)]
    first = assign_splits(None, people, USUAL, 0)
    without = assign_splits(first, people[5:], USUAL, 0)
    assert as_map(assign_splits(without, people, USUAL, 0)) == as_map(first)


def test_splits_survive_parquet():
    for splits in (assign_splits(None, ["sub-1"], USUAL, 0), assign_splits(None, [], USUAL, 0)):
        stored = io.BytesIO()
        splits.to_parquet(stored)
        pd.testing.assert_frame_equal(pd.read_parquet(stored), splits)
        pd.testing.assert_frame_equal(assign_splits(splits, [], USUAL, 0), splits)


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({}, "sum to 0"),
        ({"train": 0.7}, "sum to 0.7"),
        ({"train": 0.7, "test": 0.300001}, "sum to 1"),
        ({"train": 1.5, "test": -0.5}, "shares from 0 to 1"),
        ({"train": float("nan"), "test": 1.0}, "shares from 0 to 1"),
        ({"train": 0.5, "holdout": 0.5}, "unknown splits holdout"),
    ],
)
def test_fractions_that_are_no_shares_are_refused(fractions, message):
    with pytest.raises(ValueError, match=message):
        assign_splits(None, ["sub-1"], fractions, 0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("sub-1", "train"), ("sub-1", "test")], "sub-1"),
        ([("sub-1", "holdout")], "holdout"),
        ([("sub-1", None)], "missing"),
    ],
)
def test_contradictory_earlier_splits_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        assign_splits(pd.DataFrame(rows, columns=["participant_id", "split"]), [], USUAL, 0)


COLUMNS = ["scan_id", "participant_id", "sha256", "split", "cohort", "role"]
CLEAN = [
    ("a/1", "sub-1", "h1", "train", "a", "train"),
    ("a/1b", "sub-1", "h1b", "train", "a", "train"),
    ("a/2", "sub-2", "h2", "test", "a", "train"),
    ("b/1", "sub-1", "h3", "", "b", "external"),
    ("c/1", "sub-1", "h4", None, "c", "clinical"),
    ("a/9", "sub-9", "h9", None, "a", "clinical"),
]


def study(*rows: tuple[str | None, ...]) -> pd.DataFrame:
    return pd.DataFrame([*CLEAN, *rows], columns=COLUMNS)


def test_a_clean_study_passes():
    refuse_leaks(study())
    refuse_leaks(study().iloc[:0])
    refuse_leaks(study().astype("str"))
    refuse_leaks(pd.concat([study().iloc[:3], study().iloc[3:].reset_index(drop=True)]))


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (("a/3", "sub-1", "h5", "test", "a", "train"), r"same subject is in two splits: .*a/1 \(train\).*a/3 \(test\)"),
        (
            ("a/3", "sub-3", "h1", "validation", "a", "train"),
            r"same content .* in two splits: a/1 .*a/3 \(validation\)",
        ),
        (("d/3", "sub-3", "h1", "calibration", "d", "train"), r"same content .* in two splits: a/1 .*d/3"),
        (("a/3", "sub-1", "h5", None, "a", "clinical"), r"same subject .* evaluation: a/3 \(clinical\) against a/1"),
        (("b/3", "sub-3", "h1", None, "b", "external"), r"same content .* evaluation: b/3 \(external\) against a/1"),
        (("b/3", "sub-3", "h2", "test", "b", "external"), r"same content .* evaluation: b/3 \(external\) against a/2"),
        (("a/3", "sub-3", "h5", None, "a", "train"), "have no split .*a/3"),
        (("a/3", "sub-3", "h5", "holdout", "a", "train"), "have no split .*a/3"),
        (("a/3", "sub-3", "", "test", "a", "train"), "have no sha256"),
        (("a/3", None, "h5", "test", "a", "train"), "have no participant_id"),
        (("a/3", "sub-3", "h5", "test", "a", "other"), "role other"),
    ],
)
def test_a_leak_is_refused_and_its_rows_are_named(row, named):
    with pytest.raises(ValueError, match=named):
        refuse_leaks(study(row))
    with pytest.raises(ValueError, match=named):
        refuse_leaks(pd.DataFrame([row, *CLEAN], columns=COLUMNS, index=[0] * 7))


def test_twenty_thousand_subjects_are_split_in_moments():
    splits = assign_splits(None, [f"sub-{number}" for number in range(20_000)], USUAL, 0)
    assert splits["split"].value_counts().to_dict() == {
        "train": 14_000,
        "validation": 2_000,
        "calibration": 2_000,
        "test": 2_000,
    }
