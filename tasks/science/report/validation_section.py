"""The report's part on validation beside metrics: per cohort agreement and calibration, then what spans cohorts."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from .contents import ReportContents, cohorts_of_role
from .figures import Drawing
from .tables import Table
from .units import everything_in_unit, in_unit
from .validation_figures import agreement, calibration, coverage_by_level, error_by_level, error_growth
from .validation_tables import (
    bins_table,
    centring_table,
    limits_table,
    retest_table,
    robustness_table,
    shift_in_unit,
    shift_name,
    shift_table,
    status_table,
)

# Parts of a cohort that a scanner or a place makes; sex and age bands are in the tables.
FOREST_GROUPS = ("site", "scanner")
MOST_NAMED = 4
SAVED = {
    "limits-of-agreement": "Limits of agreement",
    "centring": "Centring",
    "retest": "Retest",
    "retest-pairs": "Every pair of sessions",
    "shift": "Every figure against training",
    "robustness": "Growth of the error",
    "robustness-scans": "Every scan made worse",
}
INTERVALS_IN_YEARS = {
    "centring": ("ci_low", "ci_high"),
    "retest": ("within_sd_ci_low", "within_sd_ci_high"),
    "robustness": ("ci_low", "ci_high"),
}


@dataclass(frozen=True)
class CohortAgreement:
    """Figures and tables of one cohort."""

    agreement: Drawing | None
    limits: Table | None
    calibration: Drawing | None
    bins: Table | None


@dataclass(frozen=True)
class ValidationSection:
    """What spans cohorts; None and empty where a study has nothing to show there.

    Attributes:
        forests: Error by site and by scanner.
        coverage: How often intervals held.
        centring: Mean brain-PAD of controls.
        retest: Two sessions of the same people.
        shifts: One table per cohort.
        shifted: Cohorts with a shift, in words.
        growth: Error on scans made worse.
        robustness: Its table.
        statuses: Predictions that are figures, and those that are not.
        saved: Tables that the page offers as CSV: summary, file name, table in the unit shown.
    """

    forests: tuple[Drawing, ...]
    coverage: Drawing | None
    centring: Table | None
    retest: Table | None
    shifts: tuple[Table, ...]
    shifted: tuple[str, ...]
    growth: Drawing | None
    robustness: Table | None
    statuses: Table | None
    saved: tuple[tuple[str, str, pd.DataFrame], ...]


def cohort_agreement(contents: ReportContents, cohort: str, position: int) -> CohortAgreement:
    """Set what is shown of one cohort below its metrics; in patients a difference may be the disease."""
    limits, bins = table_of(contents, "limits-of-agreement"), table_of(contents, "calibration-bins")
    target, unit = contents.target, contents.unit
    return CohortAgreement(
        agreement=agreement(table_of(contents, "agreement"), limits, cohort, position, target, unit),
        limits=limits_table(limits, cohort, unit),
        calibration=calibration(bins, contents.metrics, cohort, position, target, unit),
        bins=bins_table(bins, cohort, target, unit),
    )


def validation_section(contents: ReportContents) -> ValidationSection:
    """Set what spans cohorts."""
    unit, shift = contents.unit, table_of(contents, "shift")
    growth = table_of(contents, "robustness")
    cohorts = dict.fromkeys(shift["cohort"]) if len(shift) else {}
    external = set(cohorts_of_role(contents.flow, "external"))
    metrics = contents.metrics[contents.metrics["cohort"].isin(external)]
    forests = (error_by_level(metrics, group, place, unit) for place, group in enumerate(FOREST_GROUPS, 1))
    return ValidationSection(
        forests=tuple(drawing for drawing in forests if drawing is not None),
        coverage=coverage_by_level(contents.coverage),
        centring=centring_table(table_of(contents, "centring"), unit),
        retest=retest_table(table_of(contents, "retest"), unit),
        shifts=tuple(table for cohort in cohorts if (table := shift_table(shift, str(cohort), unit)) is not None),
        shifted=tuple(_shifted(shift_in_unit(shift, unit), str(cohort)) for cohort in cohorts),
        growth=error_growth(growth, unit),
        robustness=robustness_table(growth, unit),
        statuses=status_table(contents.predictions),
        saved=tuple((summary, name, _in_unit(contents, name)) for name, summary in SAVED.items()),
    )


def table_of(contents: ReportContents, name: str) -> pd.DataFrame:
    """One of the tables of validation; empty where there is none."""
    table = contents.validation.get(name)
    return pd.DataFrame() if table is None else table


def _shifted(shift: pd.DataFrame, cohort: str) -> str:
    rows = shift[shift["cohort"] == cohort]
    moved = rows[rows["shifted"].astype(bool)]
    if moved.empty:
        return f"{cohort}: none of {len(rows)} figures has shifted."
    moved = moved.reindex(moved["smd"].abs().sort_values(ascending=False, kind="stable").index)
    named = [shift_name(name) for name in moved["figure"].head(MOST_NAMED)]
    more = " and others" if len(moved) > MOST_NAMED else ""
    return f"{cohort}: {len(moved)} of {len(rows)} figures have shifted: {'; '.join(named)}{more}."


def _in_unit(contents: ReportContents, name: str) -> pd.DataFrame:
    table = everything_in_unit(table_of(contents, name), contents.unit)
    if name == "shift":
        return shift_in_unit(table, contents.unit)
    if name == "limits-of-agreement" and len(table):
        lengths = table["figure"] != "slope"
        years = ("estimate", "ci_low", "ci_high")
        return pd.concat([in_unit(table[lengths], years, contents.unit), table[~lengths]]).sort_index()
    return in_unit(table, INTERVALS_IN_YEARS.get(name, ()), contents.unit)
