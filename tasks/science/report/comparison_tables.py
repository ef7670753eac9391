"""Tables of the models that a study compares. Raw figures alone: corrected accuracy ranks no model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..statistics.arms import ArmComparison
from ..statistics.fold_metrics import NAMES as FOLD_METRICS
from .association_words import term
from .contents import RAW, problems_of
from .notation import (
    anything,
    count,
    decimals_for,
    interval,
    is_missing,
    metric_name,
    number,
    p_value,
    plural,
)
from .tables import Cell, Table
from .units import METRICS_IN_YEARS, Unit, in_unit, metric_label_in, metrics_in_unit, worded

METRICS_SHOWN = ("mae", "rmse", "r2", "pearson", "spearman", "slope")
PAIRED_IN_YEARS = ("mae", "reference_mae", "difference", "ci_low", "ci_high", "se")
CURVE_IN_YEARS = ("mae", "ci_low", "ci_high", "difference", "difference_ci_low", "difference_ci_high")
APART_IN_YEARS = ("age_years", "target_years", "predicted_age_years", "difference_years")


def arms_table(comparison: ArmComparison) -> Table:
    """List the models and what sets each apart from the primary one."""
    rows = tuple(
        (
            Cell(str(row["model"])),
            Cell(count(row["n_train"]), numeric=True),
            Cell(count(row["members"]), numeric=True),
            Cell(str(row["changes"])),
        )
        for row in comparison.arms.to_dict("records")
    )
    return Table("The models", ("Model", "Training subjects", "Networks", "What sets it apart"), rows)


def accuracy_table(comparison: ArmComparison, cohort: str, unit: Unit) -> Table | None:
    """Set every model's raw metrics of one cohort, rows in the study's order."""
    rows = comparison.metrics
    rows = metrics_in_unit(rows[(rows["cohort"] == cohort) & (rows["correction"] == RAW)], unit)
    if rows.empty:
        return None
    cells = {(row["model"], metric_name(str(row["metric"]))): row for row in rows.to_dict("records")}
    shown = [name for name in METRICS_SHOWN if any(name == metric for _, metric in cells)]
    body = []
    for model in comparison.models:
        found = [cells.get((model, name)) for name in shown]
        some: Mapping[Any, Any] = next((row for row in found if row is not None), {})
        scans = "" if is_missing(some.get("n_scans")) else plural(int(some["n_scans"]), "scan")
        size = Cell(count(some.get("n_subjects")), scans, numeric=True)
        body.append((Cell(model), size, *(_estimate(row) for row in found)))
    columns = ("Model", "Subjects", *(metric_label_in(name, unit) for name in shown))
    return Table(f"{cohort}, raw: estimate and 95% interval", columns, tuple(body), _notes(rows, "model"))


def paired_table(comparison: ArmComparison, cohort: str, unit: Unit) -> Table | None:
    """Set the paired tests of one cohort: the others against the primary model."""
    rows = in_unit(comparison.paired[comparison.paired["cohort"] == cohort], PAIRED_IN_YEARS, unit)
    if rows.empty:
        return None
    body = []
    for row in rows.to_dict("records"):
        unpaired = f"{count(row['n_unpaired'])} unpaired" if row["n_unpaired"] else ""
        scans = ", ".join(filter(None, (plural(int(row["n_scans"]), "scan"), unpaired)))
        body.append(
            (
                Cell(str(row["model"])),
                Cell(count(row["n_subjects"]), scans, numeric=True),
                Cell(number(row["mae"]), numeric=True),
                Cell(number(row["reference_mae"]), numeric=True),
                _difference(row["difference"], row["ci_low"], row["ci_high"]),
                _test(row["t"], row["df"], "t"),
                Cell(p_value(row["p_t"]), f"Holm {p_value(row['p_t_holm'])}", numeric=True),
                Cell(p_value(row["p_wilcoxon"]), f"Holm {p_value(row['p_wilcoxon_holm'])}", numeric=True),
            )
        )
    columns = (
        *("Model", "Subjects in both", worded("MAE (years)", unit), f"MAE of {comparison.primary}"),
        *(worded("Difference (years)", unit), "t on bootstrap SE", "p of t", "p of signed ranks"),
    )
    caption = f"{cohort}: MAE minus that of {comparison.primary}, on the same sessions"
    return Table(caption, columns, tuple(body), _notes(rows, "model"))


def folds_table(comparison: ArmComparison, unit: Unit) -> Table | None:
    """Summarise each model's folds: mean and standard deviation of each metric."""
    folds = in_unit(comparison.folds, ("mae", "rmse"), unit)
    if folds.empty:
        return None
    body = []
    for model, part in folds.groupby("model", sort=False):
        cells = []
        for name in FOLD_METRICS:
            values = part[name].astype(float).dropna()
            lost = f", {len(part) - len(values)} undefined" if len(values) < len(part) else ""
            deviation = f"SD {number(values.std())}{lost}" if len(values) > 1 else lost.strip(", ")
            cells.append(Cell(number(values.mean() if len(values) else None), deviation, numeric=True))
        repeats = part["repeat"].nunique()
        body.append(
            (
                Cell(str(model)),
                Cell(count(len(part)), plural(repeats, "repeat"), numeric=True),
                Cell(count(part["n"].sum() // repeats), "per repeat", numeric=True),
                *cells,
            )
        )
    columns = ("Model", "Folds", "Scans", *(metric_label_in(name, unit) for name in FOLD_METRICS))
    return Table("Out-of-fold predictions: mean over folds", columns, tuple(body))


def anova_table(comparison: ArmComparison) -> Table | None:
    """Set the analysis of variance of each metric over folds."""
    if comparison.anova.empty:
        return None
    body = []
    for row in comparison.anova.to_dict("records"):
        degrees = "" if is_missing(row["f"]) else f"df {count(row['df_between'])}, {count(row['df_within'])}"
        body.append(
            (
                Cell(_plain_metric(row["metric"])),
                Cell(count(row["n_models"]), numeric=True),
                Cell(count(row["n_folds"]), numeric=True),
                Cell(number(row["f"]), degrees, numeric=True),
                Cell(p_value(row["p_value"]), numeric=True),
                Cell(number(row["eta2"]), numeric=True),
            )
        )
    columns = ("Metric", "Models", "Folds of all", "F", "p", "η²")
    caption = "One-way analysis of variance over folds"
    return Table(caption, columns, tuple(body), _notes(comparison.anova, "metric"))


def fold_pairs_table(comparison: ArmComparison, metric: str, unit: Unit) -> Table | None:
    """Set every pair of models over folds: plain and corrected t, Mann-Whitney U, Cohen's d."""
    rows = comparison.fold_pairs[comparison.fold_pairs["metric"] == metric]
    if rows.empty:
        return None
    if metric in METRICS_IN_YEARS:
        rows = in_unit(rows, ("mean", "other_mean", "difference"), unit)
    rows = rows.assign(pair=[f"{a} − {b}" for a, b in zip(rows["model"], rows["other"], strict=True)])
    body = []
    for row in rows.to_dict("records"):
        body.append(
            (
                Cell(row["pair"]),
                Cell(count(row["n_folds"]), numeric=True),
                Cell(number(row["difference"]), numeric=True),
                _test(row["t_corrected"], row["df"], "t"),
                Cell(p_value(row["p_corrected"]), f"Holm {p_value(row['p_corrected_holm'])}", numeric=True),
                Cell(p_value(row["p_t"]), f"Holm {p_value(row['p_t_holm'])}", numeric=True),
                Cell(p_value(row["p_u"]), f"Holm {p_value(row['p_u_holm'])}", numeric=True),
                Cell(number(row["d"]), interval(row["d_ci_low"], row["d_ci_high"]), numeric=True),
            )
        )
    label = metric_label_in(metric, unit)
    columns = (
        *("Pair", "Folds", "Difference", "Corrected t", "p, corrected t", "p, plain t"),
        *("p, Mann-Whitney U", "Cohen's d"),
    )
    return Table(f"Pairs of models over folds, {label}", columns, tuple(body), _notes(rows, "pair"))


def curve_table(comparison: ArmComparison, cohort: str, unit: Unit) -> Table | None:
    """Set the error by training size, and its paired difference from the primary family at equal size."""
    rows = in_unit(comparison.curve[comparison.curve["cohort"] == cohort], CURVE_IN_YEARS, unit)
    if rows.empty:
        return None
    body = []
    for row in rows.to_dict("records"):
        paired = not is_missing(row["n_paired"])
        dash = Cell("–", numeric=True)
        body.append(
            (
                Cell(str(row["family"])),
                Cell(count(row["n_train"]), numeric=True),
                Cell(count(row["n_subjects"]), plural(int(row["n_scans"]), "scan"), numeric=True),
                _difference(row["mae"], row["ci_low"], row["ci_high"]),
                _difference(row["difference"], row["difference_ci_low"], row["difference_ci_high"]) if paired else dash,
                Cell(p_value(row["p_t"]), f"Holm {p_value(row['p_t_holm'])}", numeric=True) if paired else dash,
            )
        )
    reference = comparison.arms["family"].iloc[0]
    columns = (
        *("Way of training", "Training subjects", "Test subjects", worded("MAE (years)", unit)),
        *(worded(f"Minus {reference} of that size (years)", unit), "p of t"),
    )
    return Table(f"{cohort}: error by training size", columns, tuple(body), _notes(rows, "model"))


def association_tables_by_model(comparison: ArmComparison) -> list[Table]:
    """Set each association's terms of interest for every model, one table per association."""
    tables = []
    for name, rows in comparison.associations.groupby("association", sort=False):
        body = []
        for row in rows.sort_values("term", kind="stable").to_dict("records"):
            body.append(
                (
                    Cell(str(row["model"])),
                    Cell("the model was not fitted" if is_missing(row["term"]) else term(str(row["term"]))),
                    _difference(row["estimate"], row["ci_low"], row["ci_high"]),
                    Cell(p_value(row["p_value"]), numeric=True),
                    Cell(p_value(row["q_value"]), numeric=True),
                    Cell(count(row["n_used"]), f"{count(row['n_dropped'])} dropped", numeric=True),
                )
            )
        said = dict.fromkeys(
            f"{row['model']}: {problem}" for row in rows.to_dict("records") for problem in problems_of(row["problems"])
        )
        columns = ("Brain-PAD of", "Term", "Estimate", "p", "q", "n used")
        tables.append(Table(f"{name}: {anything(rows['formula'].iloc[0])}", columns, tuple(body), tuple(said)))
    return tables


def apart_table(comparison: ArmComparison, cohort: str, unit: Unit) -> Table | None:
    """Set scans that take part in no statistic one by one, as each model sees them."""
    rows = in_unit(comparison.apart[comparison.apart["cohort"] == cohort], APART_IN_YEARS, unit)
    if rows.empty:
        return None
    body, said = [], []
    for row in rows.to_dict("records"):
        session = "" if is_missing(row["session_id"]) else f", {row['session_id']}"
        if row["status"] != "ok":
            said.append(f"{row['participant_id']}{session}, {row['model']}: {row['status']}: {anything(row['reason'])}")
        body.append(
            (
                Cell(f"{row['participant_id']}{session}"),
                Cell(str(row["model"])),
                Cell(number(row[f"age_{unit}"], 1), numeric=True),
                Cell(_if_known(row[f"target_{unit}"]), numeric=True),
                Cell(number(row[f"predicted_age_{unit}"], 1), numeric=True),
                Cell(number(row[f"difference_{unit}"], 1), numeric=True),
            )
        )
    columns = ("Subject", "Model", "Age (years)", "Target (years)", "Predicted (years)", "Predicted − target (years)")
    n = rows[["participant_id"]].drop_duplicates().shape[0]
    caption = f"{cohort}: {plural(n, 'subject')} apart from every statistic"
    return Table(caption, tuple(worded(column, unit) for column in columns), tuple(body), tuple(said))


def _if_known(value: Any) -> str:
    return "not given" if is_missing(value) else number(value, 1)


def _plain_metric(metric: Any) -> str:
    return metric_label_in(metric, "years").removesuffix(" (years)")


def _estimate(row: Mapping[Any, Any] | None) -> Cell:
    if row is None:
        return Cell("–", numeric=True)
    return Cell(number(row["estimate"]), interval(row["ci_low"], row["ci_high"]), numeric=True)


def _difference(estimate: Any, ci_low: Any, ci_high: Any) -> Cell:
    decimals = decimals_for(estimate, ci_low, ci_high)
    return Cell(number(estimate, decimals), interval(ci_low, ci_high, decimals), numeric=True)


def _test(statistic: Any, df: Any, name: str) -> Cell:
    degrees = "" if is_missing(statistic) or is_missing(df) else f"{name} with {count(df)} df"
    return Cell(number(statistic), degrees, numeric=True)


def _notes(rows: pd.DataFrame, key: str) -> tuple[str, ...]:
    """Say each remark once, with what it concerns."""
    concerned: dict[str, list[str]] = {}
    for row in rows.to_dict("records"):
        note = "" if is_missing(row["note"]) else str(row["note"]).strip()
        name = _plain_metric(row[key]) if key == "metric" else str(row[key])
        if note and name not in concerned.setdefault(note, []):
            concerned[note].append(name)
    return tuple(f"{', '.join(names)}: {note}" for note, names in concerned.items())
