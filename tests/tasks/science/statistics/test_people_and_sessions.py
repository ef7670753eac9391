"""Which row is a person's first, and whether two rows are one: what a table leaves open is said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.records import AssociationSpec
from tasks.science.statistics.analysis import analyse
from tasks.science.statistics.association import fit_association

from .made_up_clinic import cohort, spec

MODEL = AssociationSpec("m", "brain_pad_years ~ edss + age_years")


def sessions(names: tuple[str, ...] = ("baseline", "M12", "M24")) -> pd.DataFrame:
    """Sixty people at three sessions in no order; the first has EDSS below 2, later ones above 5."""
    random = np.random.default_rng(0)
    rows = [
        {
            "participant_id": f"p{person:02d}",
            "session_id": name,
            "age_years": 40.0 + person % 30 + visit,
            "edss": float(random.integers(0, 4)) / 2 + (6.0 if visit else 0.0),
            "brain_pad_years": float(random.normal()),
        }
        for person in range(60)
        for visit, name in enumerate(names)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=1, ignore_index=True)


def said(table: pd.DataFrame, spec: AssociationSpec = MODEL) -> str:
    return " ".join(fit_association(spec, table).problems)


def test_ages_tell_the_first_session_where_its_name_does_not() -> None:
    fit = fit_association(MODEL, sessions())
    assert fit.n_dropped == {"later session": 120}
    assert (fit.rows["edss"] < 3).all()
    assert "in their names" not in " ".join(fit.problems)


def test_an_order_by_names_alone_is_said() -> None:
    table = sessions().assign(age_years=lambda rows: 40.0 + rows["participant_id"].str[1:].astype(int) % 30)
    assert "taken in the order M12, M24, baseline. If that is wrong, add years_since_baseline." in said(table)
    assert "in their names" not in said(table.assign(session_id=table["session_id"].replace("baseline", "M00")))


def test_one_name_at_several_sites_is_said() -> None:
    table = sessions()
    assert "several sites" not in said(table.assign(site="A"))
    shared = table.assign(site=np.where(table["session_id"] == "M24", "B", "A"))
    assert "60 participants have rows of several sites" in said(shared)


def test_a_row_that_stands_twice_is_used_once_and_said_without_sessions_too() -> None:
    table = sessions().drop(columns="session_id")
    spec = AssociationSpec("m", "brain_pad_years ~ edss + age_years", sessions="all")
    once, twice = fit_association(spec, table), fit_association(spec, pd.concat([table, table], ignore_index=True))
    assert twice.n_dropped == {"the same row again": 180}
    assert "180 rows stand in the table twice" in " ".join(twice.problems)
    np.testing.assert_allclose(twice.coefficients["se"], once.coefficients["se"])


def test_without_names_of_people_copies_are_said_and_kept() -> None:
    table = sessions().drop(columns=["participant_id", "session_id"])
    again = pd.concat([table, table.head(7)], ignore_index=True)
    fit = fit_association(MODEL, again)
    assert fit.n_used == 187
    assert "7 rows equal another in every column" in " ".join(fit.problems)
    everyone = AssociationSpec("m", MODEL.formula, sessions="all")
    assert "no participant_id: each row counts as a person." in said(table, everyone)


def test_a_combination_of_levels_with_two_people_is_named() -> None:
    table = sessions().assign(sex="F", diagnosis=lambda rows: np.where(rows["participant_id"] < "p30", "HC", "MS"))
    table.loc[table["participant_id"].isin(["p01", "p02", "p41", "p42", "p43"]), "sex"] = "M"
    crossed = AssociationSpec("m", "brain_pad_years ~ diagnosis * sex + age_years")
    assert "diagnosis × sex: HC, M has 2 subjects, on which the interaction rests." in said(table, crossed)
    assert "on which the interaction rests" not in said(
        table, AssociationSpec("m", "brain_pad_years ~ diagnosis + sex + age_years")
    )


def test_equal_times_carry_no_hazard_ratio() -> None:
    first = sessions().query("session_id == 'baseline'").assign(years=2.0, event=lambda rows: rows.index % 2)
    spec = AssociationSpec("m", "years ~ brain_pad_years + age_years", event="event")
    assert "all times to the event or to the end of watching are equal" in said(first, spec)


@pytest.mark.parametrize("name", ["subject_id", "Participant_ID", "patient", "Subject"])
def test_people_under_another_name_are_not_so_many_people(name: str) -> None:
    table = cohort(30, sessions=4).rename(columns={"participant_id": name}).drop(columns="scan_id")
    found = analyse([spec("brain_pad_years ~ age_years")], table).fits[0]
    assert found.coefficients.empty
    assert f"{name} repeats its names (30 in 120 rows)" in found.problems[0]
    stratified = analyse([spec("brain_pad_years ~ age_years", stratify="site")], table).fits[0]
    assert stratified.coefficients.empty
    grouped = analyse([spec("brain_pad_years ~ age_years", sessions="all", groups=name)], table).fits[0]
    assert grouped.kind == "mixed"


def test_sessions_without_people_are_said() -> None:
    table = cohort(30, sessions=4).drop(columns=["participant_id", "scan_id"])
    found = analyse([spec("brain_pad_years ~ age_years")], table).fits[0]
    assert any("each row counts as a person, though session_id tells of several" in s for s in found.problems)


@pytest.mark.parametrize(
    ("names", "is_said"),
    [
        (("ses-1", "ses-2"), False),
        (("2021-01-15", "2022-06-03"), False),
        (("20210115", "20220603"), False),
        (("15.01.2021", "03.06.2022"), True),
        (("m12", "y2"), True),
        (("first", "second"), True),
    ],
)
def test_which_session_is_the_first_is_said_where_names_do_not_tell(names: tuple[str, str], is_said: bool) -> None:
    table = cohort(30, sessions=2).drop(columns=["years_since_baseline", "age_years"])
    table["session_id"] = np.tile(names, 30)
    found = analyse([spec("brain_pad_years ~ edss")], table).fits[0]
    assert any("only in their names" in sentence for sentence in found.problems) == is_said


def test_sessions_without_a_time_are_said() -> None:
    table = cohort(30, sessions=2)
    table.loc[table.index[:8:2], "years_since_baseline"] = np.nan
    found = analyse([spec("brain_pad_years ~ edss")], table).fits[0]
    assert any("4 sessions have no years_since_baseline" in sentence for sentence in found.problems)


def test_cohorts_that_a_table_does_not_tell_are_said() -> None:
    found = analyse([spec("brain_pad_years ~ edss")], cohort().drop(columns="cohort")).fits[0]
    assert any("is not applied: the table has no column cohort" in sentence for sentence in found.problems)
