"""Folds are dealt to subjects, alike in age and site; smaller training sets are parts of larger ones."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.science.cohort.folds import assign_folds, nested_subset


def people(n: int, sites: int, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    names = [f"sub-{number:03d}" for number in range(n)]
    sites_of = random.choice([f"site-{number}" for number in range(sites)], n)
    return pd.DataFrame({"participant_id": names, "target_years": random.uniform(20, 80, n), "site": sites_of})


@settings(max_examples=30, deadline=None)
@given(st.integers(5, 120), st.integers(1, 4), st.integers(3, 5), st.integers(0, 99))
def test_every_subject_has_one_fold_and_folds_differ_by_one(n: int, sites: int, folds: int, seed: int) -> None:
    table = people(n, sites, seed)
    found = assign_folds(table, folds, seed)
    assert sorted(found.index) == sorted(table["participant_id"])
    sizes = found.value_counts().reindex(range(folds), fill_value=0)
    assert sizes.max() - sizes.min() <= 1
    # Whatever order the rows come in.
    assert assign_folds(table.sample(frac=1, random_state=1), folds, seed).sort_index().equals(found.sort_index())


def test_each_age_band_of_each_site_is_shared_out() -> None:
    table = people(400, 2)
    folds = table["participant_id"].map(assign_folds(table, 5, 3))
    band = pd.qcut(table["target_years"], 5, labels=False)
    shares = table.assign(fold=folds, band=band).groupby(["band", "site", "fold"]).size().unstack("fold")
    assert (shares.max(axis=1) - shares.min(axis=1)).max() <= 1
    # Dealing without strata would leave bands apart by far more than one subject.
    random = np.random.default_rng(0).permutation(folds.to_numpy())
    unsorted = table.assign(fold=random, band=band).groupby(["band", "site", "fold"]).size().unstack("fold")
    assert (unsorted.max(axis=1) - unsorted.min(axis=1)).max() > 3


def test_another_seed_deals_anew_and_impossible_folds_are_refused() -> None:
    table = people(60, 2)
    assert not assign_folds(table, 5, 1).sort_index().equals(assign_folds(table, 5, 2).sort_index())
    with pytest.raises(ValueError, match="two rows"):
        assign_folds(pd.concat([table, table.iloc[:1]]), 5, 1)
    with pytest.raises(ValueError, match="cannot be dealt into 5 folds"):
        assign_folds(table.iloc[:4], 5, 1)


def test_smaller_training_sets_are_parts_of_larger_ones() -> None:
    names = [f"sub-{number}" for number in range(50)]
    sets = [nested_subset(names, n, 7) for n in (0, 5, 20, 50, 80)]
    assert [len(each) for each in sets] == [0, 5, 20, 50, 50]
    assert all(small <= large for small, large in pairwise(sets))
    assert nested_subset(names[::-1], 20, 7) == sets[2]
