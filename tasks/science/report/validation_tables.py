"""Tables of validation beside metrics: agreement, calibration, centring, retest, shift, robustness, statuses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from ..cohort.outliers import FIGURES
from .contents import is_ok
from .notation import anything, count, decimals_for, humanise, interval, is_missing, number, p_value, plural
from .tables import Cell, Table
from .units import PER_YEAR, Unit, everything_in_unit, in_unit, worded
from .validation_figures import degradation_label

LIMITS_IN_YEARS = ("estimate", "ci_low", "ci_high")
SHIFT_NAMES = {
    **{f"brain_pad_{unit}": f"brain-PAD, against calibration scans ({unit})" for unit in PER_YEAR},
    **{f"target_{unit}": f"true age ({unit})" for unit in PER_YEAR},
    **{name: figure.label for name, figure in FIGURES.items()},
}


def limits_table(limits: pd.DataFrame, cohort: str, unit: Unit) -> Table | None:
    """Set bias and limits of agreement of one cohort in one row."""
    rows = limits[limits["cohort"] == cohort] if len(limits) else limits
    if rows.empty:
        return None
    lengths = rows["figure"] != "slope"
    table = pd.concat([in_unit(rows[lengths], LIMITS_IN_YEARS, unit), rows[~lengths]])
    shown = {row["figure"]: row for row in table.to_dict("records")}
    first = shown["bias"]
    columns = ("bias", "sd", "lower limit", "upper limit", "slope")
    cells = (
        Cell(cohort),
        Cell(count(first["n_subjects"]), plural(int(first["n_scans"]), "scan"), numeric=True),
        *(_cell(*(shown[name][key] for key in LIMITS_IN_YEARS)) for name in columns),
    )
    head = ("Cohort", "Subjects", f"Bias ({unit})", f"SD of differences ({unit})", f"Lower limit ({unit})")
    return Table(
        f"{cohort}: agreement of predicted and true, raw",
        (*head, f"Upper limit ({unit})", "Slope of difference on mean"),
        (cells,),
        _notes(rows["note"]),
    )


def bins_table(bins: pd.DataFrame, cohort: str, target: str, unit: Unit) -> Table | None:
    """Set the calibration of one cohort bin by bin."""
    rows = bins[bins["cohort"] == cohort] if len(bins) else bins
    if rows.empty:
        return None
    rows = in_unit(everything_in_unit(rows, unit), ("ci_low", "ci_high"), unit)
    body = tuple(
        (
            Cell(f"{number(row[f'age_from_{unit}'], 1)} to {number(row[f'age_to_{unit}'], 1)}"),
            Cell(count(row["n_subjects"]), plural(int(row["n_scans"]), "scan"), numeric=True),
            Cell(number(row[f"age_mean_{unit}"], 1), numeric=True),
            _cell(row[f"predicted_mean_{unit}"], row["ci_low"], row["ci_high"]),
            Cell(number(row[f"predicted_mean_{unit}"] - row[f"age_mean_{unit}"], 1), numeric=True),
        )
        for row in rows.to_dict("records")
    )
    name = target.capitalize()
    columns = (f"{name} ({unit})", "Subjects", f"Mean {target}", "Mean predicted, raw", "Predicted − true")
    return Table(f"{cohort}: calibration by bins of {target}", columns, body, _notes(rows["note"]))


def centring_table(centring: pd.DataFrame, unit: Unit) -> Table | None:
    """Set the mean brain-PAD of each cohort's healthy controls; the corrected one below the raw one."""
    if centring.empty:
        return None
    rows = in_unit(everything_in_unit(centring, unit), ("ci_low", "ci_high"), unit)
    body = tuple(
        (
            Cell(str(row["cohort"])),
            Cell(str(row["who"])),
            Cell(str(row["correction"])),
            Cell(count(row["n_subjects"]), plural(int(row["n_scans"]), "scan"), numeric=True),
            _cell(row[f"mean_pad_{unit}"], row["ci_low"], row["ci_high"]),
            Cell(_centred(row)),
        )
        for row in rows.to_dict("records")
    )
    columns = ("Cohort", "Who", "Predictions", "Subjects", f"Mean brain-PAD ({unit})", "Centred")
    return Table("Mean brain-PAD of healthy controls", columns, body, _notes(rows["note"], rows["cohort"]))


def _centred(row: dict[Any, Any]) -> str:
    if is_missing(row["ci_low"]):
        return "not judged"
    return "0 lies in the interval" if row["ci_low"] <= 0 <= row["ci_high"] else "off 0"


def retest_table(retest: pd.DataFrame, unit: Unit) -> Table | None:
    """Set the agreement of two sessions of the same people."""
    if retest.empty:
        return None
    rows = in_unit(everything_in_unit(retest, unit), ("within_sd_ci_low", "within_sd_ci_high"), unit)
    body, notes = [], []
    for row in rows.to_dict("records"):
        days = "–" if is_missing(row["interval_days"]) else f"{row['interval_days']:.0f}"
        longest = "" if is_missing(row["interval_days"]) else f"longest {row['interval_days_longest']:.0f}"
        body.append(
            (
                Cell(str(row["cohort"])),
                Cell(str(row["quantity"])),
                Cell(count(row["n_subjects"]), numeric=True),
                Cell(days, longest, numeric=True),
                Cell(number(row["icc"], 3), interval(row["icc_ci_low"], row["icc_ci_high"], 3), numeric=True),
                _cell(row[f"within_sd_{unit}"], row["within_sd_ci_low"], row["within_sd_ci_high"]),
                Cell(number(row[f"repeatability_{unit}"]), numeric=True),
                Cell(number(row[f"mean_change_{unit}"]), numeric=True),
            )
        )
        left = []
        if row["n_longitudinal"]:
            left.append(f"{plural(int(row['n_longitudinal']), 'subject')} with sessions further apart: longitudinal")
        if row["n_unknown"]:
            left.append(f"{plural(int(row['n_unknown']), 'subject')} whose sessions no time is known of")
        notes += [f"{row['cohort']}: {said}" for said in [*left, *filter(None, [_text(row["note"])])]]
    columns = (
        *("Cohort", "Of", "Subjects", "Days apart (median)", "ICC(2,1)", f"Within-subject SD ({unit})"),
        *(f"Repeatability coefficient ({unit})", f"Mean change ({unit})"),
    )
    return Table("Two sessions of the same people, raw", columns, tuple(body), tuple(dict.fromkeys(notes)))


def shift_in_unit(shift: pd.DataFrame, unit: Unit) -> pd.DataFrame:
    """Convert the means of those figures that are in years, and name them anew."""
    if shift.empty:
        return shift
    lengths = shift["figure"].str.endswith("_years")
    shown = in_unit(shift[lengths], ("mean_reference", "mean"), unit)
    named = shown.assign(figure=shown["figure"].str.removesuffix("years") + unit)
    return pd.concat([named, shift[~lengths]]).sort_index()


def shift_name(figure: object) -> str:
    """Write a figure of the shift table for a reader."""
    return SHIFT_NAMES.get(str(figure), humanise(str(figure)))


def shift_table(shift: pd.DataFrame, cohort: str, unit: Unit) -> Table | None:
    """Set every figure of one cohort against the training reference, the shifted ones first."""
    rows = shift_in_unit(shift[shift["cohort"] == cohort], unit) if len(shift) else shift
    if rows.empty:
        return None
    rows = rows.assign(size=rows["smd"].abs().fillna(0)).sort_values(
        ["shifted", "size"], ascending=[False, False], kind="stable"
    )
    body = tuple(
        (
            Cell(shift_name(row["figure"])),
            Cell("shifted" if row["shifted"] else "–"),
            Cell(count(row["n"]), _unmeasured(row["n_missing"]), numeric=True),
            _plain(row["mean"], row["mean_reference"]),
            _plain(row["mean_reference"], row["mean"]),
            _cell(row["smd"], row["ci_low"], row["ci_high"]),
            Cell(number(row["ks"]), numeric=True),
            Cell(p_value(row["p_ks"]), f"Holm {p_value(row['p_ks_holm'])}", numeric=True),
        )
        for row in rows.to_dict("records")
    )
    who = str(rows["who"].iloc[0]) if "who" in rows else "everybody"
    columns = (
        *("Figure", "Shift", "Subjects", "Mean", "Training mean", "Standardised difference", "KS distance"),
        "p of KS",
    )
    names = rows["figure"].map(shift_name)
    n = int(rows["n_reference"].max())
    caption = f"{cohort} ({who}) against {count(n)} training subjects"
    return Table(caption, columns, body, _notes(rows["note"], names))


def _unmeasured(n: Any) -> str:
    return f"{count(n)} not measured" if n else ""


def _plain(value: Any, beside: Any) -> Cell:
    sizes = [abs(float(each)) for each in (value, beside) if not is_missing(each)]
    decimals = decimals_for(*(each for each in (value, beside) if not is_missing(each))) if sizes else 2
    return Cell(number(value, decimals), numeric=True)


def robustness_table(growth: pd.DataFrame, unit: Unit) -> Table | None:
    """Set how the error grows on the same scans made worse, and what was refused."""
    if growth.empty:
        return None
    rows = in_unit(everything_in_unit(growth, unit), ("ci_low", "ci_high"), unit)
    body = tuple(
        (
            Cell(f"{row['cohort']}: {degradation_label(row['kind'], row['strength'])}"),
            Cell(count(row["n_subjects"]), numeric=True),
            Cell(count(row["n_rejected"]), _detected(row), numeric=True),
            Cell(count(row["n_unusable"]), numeric=True),
            Cell(count(row["n_scored"]), numeric=True),
            Cell(_if_scored(row[f"mae_original_{unit}"]), numeric=True),
            Cell(_if_scored(row[f"mae_{unit}"]), numeric=True),
            Cell("–", numeric=True)
            if is_missing(row[f"growth_{unit}"])
            else _cell(row[f"growth_{unit}"], row["ci_low"], row["ci_high"]),
        )
        for row in rows.to_dict("records")
    )
    columns = (
        *("Scans made worse", "Subjects", "Rejected", "Age refused", "Scored", worded("MAE as it was (years)", unit)),
        *(worded("MAE now (years)", unit), worded("Growth (years)", unit)),
    )
    return Table("The same scans made worse", columns, body, _notes(rows["note"]))


def _detected(row: dict[Any, Any]) -> str:
    if row["kind"] != "header_turn":
        return ""
    return f"{count(row['n_turned_back'])} more turned back"


def _if_scored(value: Any) -> str:
    return "–" if is_missing(value) else number(value)


def status_table(predictions: pd.DataFrame) -> Table | None:
    """Count predictions by cohort and status; what is not `ok` is in no metric, whatever its reason."""
    if predictions.empty:
        return None
    rows = predictions.assign(status=predictions["status"].map(anything), usable=is_ok(predictions))
    body = []
    for (cohort, _, status), part in rows.groupby(["cohort", "usable", "status"], sort=False):
        reason = "" if part["usable"].all() else next((anything(r) for r in part["reason"] if not is_missing(r)), "")
        body.append((Cell(str(cohort)), Cell(str(status)), Cell(count(len(part)), numeric=True), Cell(reason)))
    body.sort(key=lambda cells: (cells[0].text, cells[1].text != "ok", cells[1].text))
    return Table("Predictions by status", ("Cohort", "Status", "Scans", "First reason"), tuple(body))


def _cell(estimate: Any, ci_low: Any, ci_high: Any) -> Cell:
    if is_missing(estimate):
        return Cell(number(None), numeric=True)
    decimals = decimals_for(estimate, ci_low, ci_high)
    return Cell(number(estimate, decimals), interval(ci_low, ci_high, decimals), numeric=True)


def _text(value: Any) -> str:
    return "" if is_missing(value) else str(value).strip()


def _notes(notes: Iterable[Any], names: Iterable[Any] | None = None) -> tuple[str, ...]:
    said: dict[str, list[str]] = {}
    for note, name in zip(notes, names if names is not None else iter(lambda: "", None), strict=False):
        if _text(note):
            said.setdefault(_text(note), []).append(str(name))
    return tuple(
        f"{', '.join(dict.fromkeys(filter(None, whose)))}: {note}" if any(whose) else note
        for note, whose in said.items()
    )
