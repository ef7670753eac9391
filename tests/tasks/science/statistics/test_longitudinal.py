from __future__ import annotations

import pandas as pd
import pytest

from tasks.science.statistics.longitudinal import add_baseline_columns, annualised_change

TABLE = pd.DataFrame(
    {
        "cohort": ["a", "a", "a", "b", "b"],
        "participant_id": ["s1", "s1", "s2", "s1", "s1"],
        "session_id": ["ses-10", "ses-2", "ses-1", "ses-1", "ses-2"],
        "years_since_baseline": [2.0, 0.0, 0.0, 0.0, 0.5],
        "brain_pad_years": [5.0, 1.0, 3.0, 2.0, 3.0],
        "age_years": [42.0, 40.0, 50.0, 60.0, 60.5],
    }
)


def test_baseline_is_the_first_session_of_the_same_person() -> None:
    made = add_baseline_columns(TABLE, ["age_years_baseline", "age_years", "nothing_baseline"])
    assert list(made.age_years_baseline) == [40.0, 40.0, 50.0, 60.0, 60.0]
    assert "nothing_baseline" not in made
    assert "age_years_baseline" not in TABLE


def test_without_times_sessions_are_ordered_as_people_count() -> None:
    made = add_baseline_columns(TABLE.drop(columns="years_since_baseline"), ["age_years_baseline"])
    assert list(made.age_years_baseline)[:2] == [40.0, 40.0]


def test_a_baseline_that_is_there_is_left_alone() -> None:
    table = TABLE.assign(age_years_baseline=1.0)
    assert add_baseline_columns(table, ["age_years_baseline"]) is table


def test_change_per_year() -> None:
    change = annualised_change(TABLE, "brain_pad_years")
    assert list(change.columns) == ["cohort", "participant_id", "n_sessions", "years", "brain_pad_years_per_year"]
    assert change.to_numpy().tolist() == [["a", "s1", 2, 2.0, 2.0], ["b", "s1", 2, 0.5, 2.0]]


def test_change_of_nobody_is_an_empty_table_and_an_absent_column_a_mistake() -> None:
    assert annualised_change(TABLE.iloc[:1], "brain_pad_years").empty
    with pytest.raises(ValueError, match="needs the column edss"):
        annualised_change(TABLE, "edss")
