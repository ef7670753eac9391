"""Each subject plays one part per member; in a cross-validation each is tested once, and calibration stays out."""

from __future__ import annotations

import pandas as pd

from infra.study import CohortSpec, Study
from tasks.records import EnsembleSpec
from tasks.steps.members import Member, member_rows, members_of, unseen_predictions

COHORT = CohortSpec("healthy", "train", "train")


def rows() -> pd.DataFrame:
    """Thirty subjects of whom five come twice; every sixth calibrates."""
    table = pd.DataFrame([(f"sub-{n:02d}", visit) for n in range(30) for visit in range(1 + (n % 6 == 1))])
    table.columns = pd.Index(["participant_id", "years_since_baseline"])
    number = table["participant_id"].str[-2:].astype(int)
    split = number.map(lambda n: "calibration" if n % 6 == 0 else "validation" if n % 6 == 1 else "train")
    scan_id = table["participant_id"] + "_" + table["years_since_baseline"].astype(str)
    return table.assign(scan_id=scan_id, split=split, target_years=20.0 + number, site="a")


def study(folds: int, train_subjects: int = 0, seeds: tuple[int, ...] = (1, 2)) -> Study:
    return Study("s", (COHORT,), ensemble=EnsembleSpec(folds), seeds=seeds, train_subjects=train_subjects)


def test_without_folds_members_are_seeds_on_the_persistent_parts() -> None:
    assert members_of(study(0)) == (Member(1), Member(2))
    assert member_rows(study(0), rows(), Member(1)).equals(rows())


def test_each_subject_is_tested_once_per_seed_and_never_by_a_member_that_has_seen_it() -> None:
    members = members_of(study(5))
    assert len(members) == 10
    assert len({member.fit_seed for member in members}) == 10
    tested: list[tuple[int, str]] = []
    for member in members:
        table = member_rows(study(5), rows(), member)
        assert len(table) == len(rows())
        assert (table.groupby("participant_id")["split"].nunique() == 1).all()
        held_out = table["split"] == "calibration"
        assert set(table.loc[held_out, "participant_id"]) == {f"sub-{n:02d}" for n in range(0, 30, 6)}
        assert set(table["split"]) == {"train", "validation", "test", "calibration"}
        tested += [(member.seed, name) for name in set(table.loc[table["split"] == "test", "participant_id"])]
    assert len(tested) == len(set(tested)) == 2 * 25


def test_a_learning_curve_leaves_validation_and_calibration_alone() -> None:
    small, large = (member_rows(study(0, n), rows(), Member(1)) for n in (5, 12))
    others = rows()[rows()["split"] != "train"]
    for table in (small, large):
        assert table[table["split"] != "train"]["scan_id"].tolist() == others["scan_id"].tolist()
    trained = [set(table.loc[table["split"] == "train", "participant_id"]) for table in (small, large)]
    assert [len(each) for each in trained] == [5, 12]
    assert trained[0] < trained[1]


def test_unseen_predictions_are_of_members_that_have_not_seen_the_scan() -> None:
    table = pd.DataFrame(
        {
            "seed": [1, 1, 1, 1],
            "fold": [0, 1, 0, 1],
            "scan_id": ["a", "a", "b", "b"],
            "split": ["test", "train", "calibration", "calibration"],
            "target_years": [50.0, 50.0, 60.0, 60.0],
            "predicted_age_years": [40.0, 50.0, 60.0, 62.0],
        }
    )
    assert unseen_predictions(table, "test")["predicted_age_years"].tolist() == [40.0]
    assert unseen_predictions(table, "calibration")["predicted_age_years"].tolist() == [61.0]
