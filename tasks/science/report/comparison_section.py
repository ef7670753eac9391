"""The report's section on the models that a study compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..statistics.arms import ArmComparison
from .comparison_figures import associations_by_model, error_by_model, error_by_training_size, folds_by_model
from .comparison_tables import (
    APART_IN_YEARS,
    CURVE_IN_YEARS,
    PAIRED_IN_YEARS,
    accuracy_table,
    anova_table,
    apart_table,
    arms_table,
    association_tables_by_model,
    curve_table,
    fold_pairs_table,
    folds_table,
    paired_table,
)
from .figures import Drawing
from .notation import count, estimate_with_interval, is_missing, p_value
from .tables import Table
from .units import Unit, in_unit, metrics_in_unit

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Cohort:
    """One cohort's accuracy by model and the paired tests."""

    name: str
    role: str
    accuracy: Table | None
    paired: Table | None


@dataclass(frozen=True)
class ComparisonSection:
    """What the page shows of the comparison; None and empty where the study has no material for it.

    Attributes:
        title: Of the section.
        sentences: What the paired tests found, a sentence per cohort.
        problems: What could not be compared.
        saved: Tables that the page offers as CSV: summary, file name, table in the unit shown.
    """

    title: str
    sentences: tuple[str, ...]
    problems: tuple[str, ...]
    arms: Table
    errors: Drawing | None
    cohorts: tuple[Cohort, ...]
    folds: Table | None
    fold_dots: Drawing | None
    anova: Table | None
    fold_pairs: Table | None
    curve: Drawing | None
    curves: tuple[Table, ...]
    forest: Drawing | None
    associations: tuple[Table, ...]
    apart: tuple[Table, ...]
    saved: tuple[tuple[str, str, pd.DataFrame], ...]


def comparison_section(comparison: ArmComparison, unit: Unit) -> ComparisonSection:
    """Set the comparison's tables and figures.

    Args:
        comparison: The tables, in years.
        unit: In which the page shows ages and errors.
    """
    cohorts = dict.fromkeys(comparison.metrics["cohort"].tolist() + comparison.paired["cohort"].tolist())
    several = len(comparison.arms) > 1
    shown = tuple(_cohort(comparison, str(cohort), unit) for cohort in cohorts) if several else ()
    return ComparisonSection(
        title="Comparison of the models" if several else "Folds and subjects apart",
        # In patients less error is no better model, so that nothing is concluded from it in words.
        sentences=tuple(paired_sentence(comparison, c.name, unit) for c in shown if c.role != "clinical"),
        problems=comparison.problems,
        arms=arms_table(comparison),
        errors=error_by_model(comparison, unit) if several else None,
        cohorts=shown,
        folds=folds_table(comparison, unit),
        fold_dots=folds_by_model(comparison, unit),
        anova=anova_table(comparison),
        fold_pairs=fold_pairs_table(comparison, "mae", unit),
        curve=error_by_training_size(comparison, unit),
        curves=tuple(table for cohort in cohorts if (table := curve_table(comparison, str(cohort), unit)) is not None),
        forest=associations_by_model(comparison) if several else None,
        associations=tuple(association_tables_by_model(comparison)) if several else (),
        apart=tuple(
            table
            for cohort in dict.fromkeys(comparison.apart["cohort"])
            if (table := apart_table(comparison, str(cohort), unit)) is not None
        ),
        saved=_saved(comparison, unit),
    )


def _cohort(comparison: ArmComparison, cohort: str, unit: Unit) -> Cohort:
    roles = comparison.metrics.loc[comparison.metrics["cohort"] == cohort, "role"]
    roles = roles if len(roles) else comparison.paired.loc[comparison.paired["cohort"] == cohort, "role"]
    return Cohort(
        name=cohort,
        role=str(roles.iloc[0]),
        accuracy=accuracy_table(comparison, cohort, unit),
        paired=paired_table(comparison, cohort, unit),
    )


def paired_sentence(comparison: ArmComparison, cohort: str, unit: Unit) -> str:
    """Say which models the paired t-test, after Holm, shows to differ from the primary one in a cohort."""
    rows = in_unit(comparison.paired[comparison.paired["cohort"] == cohort], PAIRED_IN_YEARS, unit)
    tested = [row for row in rows.to_dict("records") if not is_missing(row["p_t_holm"])]
    found = [row for row in tested if row["p_t_holm"] < SIGNIFICANCE]
    untested = len(rows) - len(tested)
    lost = f" {count(untested)} could not be tested." if untested else ""
    if not tested:
        return f"{cohort}: no model could be tested against {comparison.primary}.{lost if len(rows) else ''}"
    if not found:
        return f"{cohort}: no model is shown to differ from {comparison.primary} ({len(tested)} tested).{lost}"
    said = "; ".join(
        f"{row['model']} is {'less' if row['difference'] > 0 else 'more'} accurate by "
        f"{estimate_with_interval(abs(row['difference']), *_ends(row), unit)}, p {_equals(row['p_t_holm'])}"
        for row in found
    )
    return f"{cohort}: {len(found)} of {len(tested)} models differ from {comparison.primary}: {said}.{lost}"


def _ends(row: Mapping[Any, Any]) -> tuple[float, float]:
    low, high = row["ci_low"], row["ci_high"]
    return (low, high) if row["difference"] > 0 else (-high, -low)


def _equals(value: object) -> str:
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"


def _saved(comparison: ArmComparison, unit: Unit) -> tuple[tuple[str, str, pd.DataFrame], ...]:
    pairs = comparison.fold_pairs
    lengths = pairs["metric"].isin(["mae", "rmse"])
    pairs = pd.concat(
        [in_unit(pairs[lengths], ("mean", "other_mean", "difference"), unit), pairs[~lengths]], ignore_index=True
    )
    return (
        ("All metrics by model", "models-metrics", metrics_in_unit(comparison.metrics, unit)),
        ("All paired tests", "models-paired", in_unit(comparison.paired, PAIRED_IN_YEARS, unit)),
        ("Every fold", "models-folds", in_unit(comparison.folds, ("mae", "rmse"), unit)),
        ("All pairs over folds, every metric", "models-fold-pairs", pairs),
        ("Learning curve", "models-curve", in_unit(comparison.curve, CURVE_IN_YEARS, unit)),
        ("Associations by model", "models-associations", comparison.associations),
        ("Subjects apart", "models-apart", in_unit(comparison.apart, APART_IN_YEARS, unit)),
    )
