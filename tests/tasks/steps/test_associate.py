"""Tables of several cohorts become one without counting anybody twice."""

from __future__ import annotations

import pandas as pd

from tasks.steps.associate import each_person_once
from tasks.steps.validate import joined


def test_a_person_in_two_cohorts_of_one_data_set_counts_once() -> None:
    table = pd.DataFrame(
        {
            "data_set": ["/a", "/a", "/b", "/a"],
            "participant_id": ["sub-1", "sub-1", "sub-1", "sub-1"],
            "session_id": ["", "", "", "ses-2"],
            "x": [1, 2, 3, 4],
        }
    )
    kept, copies = each_person_once(table)
    assert list(kept["x"]) == [1, 3, 4]
    assert copies == 1


def test_columns_of_other_types_or_without_values_survive_joining() -> None:
    first = pd.DataFrame({"score": [1.5, 2.0], "edss": [float("nan")] * 2})
    second = pd.DataFrame({"score": ["low", "high"], "edss": [float("nan")] * 2})
    table = joined([first, second])
    assert list(table["score"]) == ["1.5", "2.0", "low", "high"]
    assert table["edss"].isna().all()
    assert len(table) == 4
