"""What a report is made of: the tables of a finished study, checked to have the columns that the page reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from ..statistics.analysis import Analysis, gathered
from ..statistics.arms import ArmComparison
from .notation import is_missing, metric_name
from .units import Unit

MODEL = "model"
MEAN_AGE = "mean age"
MEDIAN_AGE = "median age"
TISSUE_VOLUMES = "tissue volumes"
RAW = "raw"
CORRECTED = "bias-corrected"
OVERALL_NAMES = frozenset({"overall", "all", "", "none"})

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "flow": ("cohort", "role", "indexed", "unused", "prepared", "excluded", "missing"),
    "exclusions": ("cohort", "scan_id", "stage", "reason"),
    "curves": ("epoch", "train_loss", "val_loss", "val_mae_years"),
    "metrics": (
        *("cohort", "predictor", "correction", "group", "level", "metric"),
        *("n_subjects", "n_scans", "estimate", "ci_low", "ci_high", "note"),
    ),
    "predictions": (
        *("cohort", "role", "scan_id", "participant_id", "session_id", "age_years", "predicted_age_years"),
        *("brain_pad_years", "corrected_brain_pad_years", "sex", "site", "status", "reason"),
    ),
    "coverage": (
        *("cohort", "correction", "group", "level", "n_subjects", "n_covered", "nominal", "coverage"),
        *("ci_low", "ci_high", "half_width_years", "note"),
    ),
    "quality": ("cohort", "scan_id"),
    "flags": ("cohort", "scan_id", "figure", "rule", "found", "robust_z", "fate", "reason"),
}
# What a cohort may not know of its subjects; the page says "not given".
OPTIONAL_COLUMNS = ("sex", "site", "session_id", "reason", "note")


class Estimate(NamedTuple):
    """One number of the metrics table with its interval."""

    estimate: float
    ci_low: float
    ci_high: float
    n_subjects: int
    n_scans: int


@dataclass(frozen=True)
class Explanation:
    """The mean map of one method.

    Attributes:
        facts: `method`, `cohort`, `n_subjects`, `age_range`, `age_unit`, `members`, `template`, `cell_mm`, `unit`,
            `repeatability`.
        regions: One row per set of regions and region, as `MapAverage.regions` gives them.
        picture: PNG bytes of the map on the template.
        model: Which of the compared models; "" where there is one alone.
    """

    facts: dict[str, Any]
    regions: pd.DataFrame
    picture: bytes
    model: str = ""


@dataclass(frozen=True)
class ReportContents:
    """Everything that one report shows; the page computes nothing but counts and wording from it.

    Attributes:
        study_name: The study's name, the page's title.
        study_digest: SHA-256 of the study.
        study_text: The study file as it was read (TOML).
        flow: One row per cohort; `indexed = unused + prepared + excluded + missing`, in scans.
        exclusions: One row per excluded scan.
        training: Facts of the fit. `n_subjects` and `n_scans` (a split's name → a count), `best_epoch` (from 0),
            `epochs_run` (or `epochs`) and `age_range_years` (first and last training age) are read by name where they
            are present; whatever else is given is listed as it stands, a key that ends in `_s` as a duration.
        curves: One row per epoch, epochs from 0; with a column `seed`, one row per member of the ensemble and epoch.
        metrics: One row per cohort, predictor, correction, group, level and metric; the whole cohort is the group
            `overall`, sites are the group `site`. A baseline's `mae_difference` is the model's MAE minus its, paired.
        predictions: One row per scan; clinical columns may follow. Ages and brain-PAD in years.
        analysis: The declared models of brain-PAD, fitted or not.
        publication: What `publish` wrote of them, by file name; without it there are no figures of them.
        group_column: The column of `predictions` whose levels the brain-PAD figure compares.
        montages: Label and PNG bytes of example slices.
        quality: One row per prepared scan: a column per quality figure, and `absent`, which says why one is missing.
        flags: One row per scan and finding of the study's thresholds; `fate` says whether the scan is `used`.
        sheets: Cohort and PNG bytes of its contact sheet: the worst scans beside some others.
        explanations: Maps of where the model reads age, in the study's order of methods.
        provenance: Versions, digests, addresses and dates; a mapping in it becomes a part of the table.
        cautions: Plain sentences shown at the top; `find_cautions` derives them.
        coverage: One row per cohort, correction, group and level: how often intervals of age held (`nominal` and
            `coverage` from 0 to 1); an infinite half-width says why in `note`.
        comparison: The models that the study compares; None where it has one, without folds or subjects apart.
        validation: What validation looks at beside metrics, by name: `agreement` (one row per scan),
            `calibration-bins`, `centring`, `limits-of-agreement`, `retest`, `retest-pairs`, `shift`, `robustness`,
            `robustness-scans`; any may be absent or empty.
        target: What the model learns, in words: `age`, or what somebody has read from the scan.
        unit: In which the page shows ages and errors; the tables here are in years. Associations stay in the units
            that their formulas name.
        decision: Whether the model became the champion, gate by gate; None where nothing is decided yet.
        champion: The version in use when the page is written, and the number of the decision by which it is.
    """

    study_name: str
    study_digest: str
    study_text: str
    flow: pd.DataFrame
    exclusions: pd.DataFrame
    training: dict[str, Any]
    curves: pd.DataFrame
    metrics: pd.DataFrame
    predictions: pd.DataFrame
    analysis: Analysis = field(default_factory=lambda: gathered([]))
    publication: Mapping[str, bytes] = field(default_factory=dict)
    group_column: str | None = None
    montages: tuple[tuple[str, bytes], ...] = ()
    quality: pd.DataFrame = field(default_factory=pd.DataFrame)
    flags: pd.DataFrame = field(default_factory=pd.DataFrame)
    sheets: tuple[tuple[str, bytes], ...] = ()
    explanations: tuple[Explanation, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()
    coverage: pd.DataFrame = field(default_factory=pd.DataFrame)
    comparison: ArmComparison | None = None
    validation: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    target: str = "age"
    unit: Unit = "years"
    decision: dict[str, Any] | None = None
    champion: tuple[str, int] | None = None

    @property
    def associations(self) -> pd.DataFrame:
        """One row per model and term; one that was not fitted is a row without a term, so that it does not vanish."""
        return self.analysis.effects

    def __post_init__(self) -> None:
        for name in COLUMNS:
            object.__setattr__(self, name, with_columns(getattr(self, name), name))


def empty_table(name: str) -> pd.DataFrame:
    """Make an empty table of the report, for a study that has nothing to put there.

    Args:
        name: One of the keys of `COLUMNS`.

    Returns:
        No rows, the named table's columns.
    """
    return pd.DataFrame(columns=list(COLUMNS[name]))


def with_columns(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Check that a table has the columns that the page reads; an empty one needs none, and some may be unknown.

    Raises:
        ValueError: A table with rows lacks a column.
    """
    if table.empty:
        return empty_table(name)
    unknown = [column for column in OPTIONAL_COLUMNS if column in COLUMNS[name] and column not in table.columns]
    table = table.assign(**dict.fromkeys(unknown)) if unknown else table
    absent = [column for column in COLUMNS[name] if column not in table.columns]
    if absent:
        raise ValueError(
            f"The report's table '{name}' lacks {', '.join(absent)}; it has {', '.join(map(str, table.columns))}. "
            f"Give the columns {', '.join(COLUMNS[name])}."
        )
    return table.reset_index(drop=True)


def overall(metrics: pd.DataFrame) -> pd.DataFrame:
    """Select the rows that describe whole cohorts rather than a site, sex or age band."""
    if metrics.empty:
        return metrics
    return metrics[metrics["group"].map(lambda group: is_missing(group) or str(group).lower() in OVERALL_NAMES)]


def headline(
    metrics: pd.DataFrame, cohort: str, metric: str, predictor: str = MODEL, correction: str = RAW
) -> Estimate | None:
    """Find one whole-cohort number, so that sentences and tables cannot disagree.

    Args:
        metrics: The report's metrics table.
        cohort: The cohort's name.
        metric: A metric in the report's spelling (`mae`, `slope`, ...).
        predictor: `model`, `mean age` or `tissue volumes`.
        correction: `raw` or `bias-corrected`.

    Returns:
        The estimate, or None where the table has no such row.
    """
    rows = overall(metrics)
    if rows.empty:
        return None
    wanted = (rows["cohort"] == cohort) & (rows["predictor"] == predictor) & (rows["correction"] == correction)
    rows = rows[wanted & (rows["metric"].map(metric_name) == metric)]
    if rows.empty:
        return None
    row = rows.iloc[0]
    numbers = [float("nan") if is_missing(row[key]) else float(row[key]) for key in ("estimate", "ci_low", "ci_high")]
    estimate, low, high = numbers
    return Estimate(estimate, low, high, _whole(row["n_subjects"]), _whole(row["n_scans"]))


def predictors(metrics: pd.DataFrame) -> list[str]:
    """Name the predictors that a metrics table holds: the model first, then the baselines, the strictest first."""
    known = (MODEL, TISSUE_VOLUMES, MEDIAN_AGE, MEAN_AGE)
    names = {str(name) for name in metrics["predictor"]}
    return [name for name in known if name in names] + sorted(names - set(known))


@dataclass(frozen=True)
class Comparison:
    """The model's raw MAE beside a baseline's in one cohort.

    Attributes:
        baseline: The baseline's name.
        model_mae: The model's error in years.
        baseline_mae: The baseline's error in years.
        difference: Model minus baseline, over the same subjects, where the table holds the paired difference.
    """

    baseline: str
    model_mae: Estimate
    baseline_mae: Estimate
    difference: Estimate | None

    @property
    def is_better(self) -> bool:
        """Whether the data show the model to be better: the paired interval below zero, or else separate intervals."""
        if self.difference is not None:
            return self.difference.ci_high < 0
        return self.model_mae.ci_high < self.baseline_mae.ci_low

    @property
    def is_worse(self) -> bool:
        """Whether the data show the model to be worse."""
        if self.difference is not None:
            return self.difference.ci_low > 0
        return self.model_mae.ci_low > self.baseline_mae.ci_high


def compare_with_constant(metrics: pd.DataFrame, cohort: str) -> Comparison | None:
    """Compare the model with the better of the baselines that say one age for everybody.

    Args:
        metrics: The report's metrics. A row of a baseline whose metric is `mae_difference` is the model's MAE minus
            that baseline's, paired by subject; without it, separate intervals are compared, which asks for more.
        cohort: The cohort.

    Returns:
        The comparison, or None where one of the two errors was not estimated.
    """
    model = headline(metrics, cohort, "mae")
    found = [(name, headline(metrics, cohort, "mae", name)) for name in (MEAN_AGE, MEDIAN_AGE)]
    estimated = [(name, mae) for name, mae in found if mae is not None and not is_missing(mae.estimate)]
    if model is None or is_missing(model.estimate) or not estimated:
        return None
    name, mae = min(estimated, key=lambda pair: pair[1].estimate)
    difference = headline(metrics, cohort, "mae_difference", name)
    if difference is not None and is_missing(difference.ci_high):
        difference = None
    return Comparison(name, model, mae, difference)


def _whole(value: Any) -> int:
    return 0 if is_missing(value) else int(value)


def cohorts_of_role(flow: pd.DataFrame, role: str) -> list[str]:
    """Name the cohorts that play a role, in the study's order."""
    return [str(cohort) for cohort in flow.loc[flow["role"] == role, "cohort"]]


def usable(predictions: pd.DataFrame) -> pd.DataFrame:
    """Select the predictions that are figures: status `ok` with an age and a prediction."""
    numbers = predictions[["age_years", "predicted_age_years", "brain_pad_years"]].astype(float)
    return predictions[is_ok(predictions) & numbers.notna().all(axis=1)]


def is_ok(predictions: pd.DataFrame) -> pd.Series:
    """Mark the predictions that passed their checks; a status that is not given did not."""
    return predictions["status"].map(lambda status: not is_missing(status) and status == "ok").astype(bool)


def unpredicted(flow: pd.DataFrame, predictions: pd.DataFrame) -> list[tuple[str, int, int]]:
    """Find the cohorts to be scored whose prepared scans have fewer predictions than scans: rows lost silently.

    Returns:
        Per such cohort: name, prepared scans, scans without a prediction.
    """
    counts = predictions["cohort"].value_counts()
    scored = flow[flow["role"] != "train"].to_dict("records")
    lost = [
        (row["cohort"], int(row["prepared"]), int(row["prepared"]) - int(counts.get(row["cohort"], 0)))
        for row in scored
    ]
    return [(str(cohort), n_prepared, n_lost) for cohort, n_prepared, n_lost in lost if n_lost > 0]


def problems_of(value: Any) -> tuple[str, ...]:
    """Read the problems of one association, which a table may hold as a text, a list or nothing."""
    if is_missing(value):
        return ()
    items = [value] if isinstance(value, str) else list(value)
    return tuple(str(item).strip() for item in items if str(item).strip())
