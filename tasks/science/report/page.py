"""The report as one HTML page that needs nothing beside it: styles, figures and data are inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

from .association_section import association_section
from .comparison_section import ComparisonSection, comparison_section
from .contents import COLUMNS, CORRECTED, MODEL, RAW, ReportContents, cohorts_of_role, is_ok
from .decision_section import decision_sentence, decision_table
from .disease_figures import brain_pad_by_group
from .explanation_tables import METHOD_NAMES, explanation_caption, region_tables
from .figures import Drawing, error_against_baselines, predicted_against_age, training_curves
from .interval_tables import coverage_table
from .notation import is_missing
from .page_parts import Data, Figure, png_address, render, saved_table, with_data
from .quality_tables import flag_counts, quality_table
from .tables import (
    Table,
    exclusion_counts,
    facts_table,
    flow_table,
    group_table,
    metrics_table,
    subgroup_tables,
)
from .units import everything_in_unit, facts_in_unit
from .validation_section import ValidationSection, cohort_agreement, validation_section
from .verdict import answer_questions


@dataclass(frozen=True)
class CohortValidation:
    """What the page shows of one cohort's accuracy: raw first, corrected apart, parts of it last."""

    cohort: str
    role: str
    raw: Table | None
    corrected: Table | None
    scatter: Figure | None
    calibration: Figure | None
    bins: Table | None
    agreement: Figure | None
    limits: Table | None
    parts: list[Table]
    coverage: Table | None


def render_report(contents: ReportContents) -> str:
    """Set a study's results as a page that a data team, an analyst and a clinician can read and keep.

    Equal contents give equal bytes, so that a report can be compared and hashed; nothing is fetched, and no script runs
    but the one that sorts tables.

    Args:
        contents: The results.

    Returns:
        HTML, UTF-8 when written.
    """
    parts = (_flow, _quality, _training, _validation, _decision, _explanations, _disease, _comparison, _provenance)
    shown = {name: value for part in parts for name, value in part(contents).items()}
    return render("page.html", contents=contents, answers=answer_questions(contents), **shown)


def _flow(contents: ReportContents) -> dict[str, Any]:
    predictions, exclusions = contents.predictions, contents.exclusions
    diagrams = [_diagram(row, predictions) for row in contents.flow.to_dict("records")]
    not_ok = predictions.loc[~is_ok(predictions), ["cohort", "scan_id", "status", "reason"]]
    return {
        "diagrams": diagrams,
        "flow_counts": flow_table(contents.flow) if diagrams else None,
        "exclusion_counts": exclusion_counts(exclusions) if len(exclusions) else None,
        "exclusion_list": saved_table(exclusions, "Every excluded scan", "exclusions", show_all=True),
        "unusable": saved_table(not_ok, "Predictions that are not usable", "unusable-predictions", show_all=True),
    }


def _quality(contents: ReportContents) -> dict[str, Any]:
    flags = contents.flags[list(COLUMNS["flags"])]
    return {
        "quality_summary": quality_table(contents.quality),
        "flag_counts": flag_counts(flags),
        "flag_list": saved_table(flags, "Every finding", "quality-findings"),
        "all_quality": saved_table(contents.quality, "All quality figures", "quality"),
        "sheets": [(cohort, png_address(png)) for cohort, png in contents.sheets],
    }


def _diagram(row: Mapping[Any, Any], predictions: pd.DataFrame) -> dict[str, Any]:
    mine = predictions[predictions["cohort"] == row["cohort"]]
    n_ok = int(is_ok(mine).sum())
    counts = {key: int(row[key]) for key in ("indexed", "unused", "prepared", "excluded", "missing")}
    return {
        "cohort": str(row["cohort"]),
        "role": str(row["role"]),
        **counts,
        "used": counts["indexed"] - counts["unused"],
        "predicted": len(mine),
        "predicted_ok": n_ok,
        "predicted_not_ok": len(mine) - n_ok,
    }


def _training(contents: ReportContents) -> dict[str, Any]:
    best: Any = contents.training.get("best_epoch")
    return {
        "training_facts": facts_table(facts_in_unit(contents.training, contents.unit), "The fit"),
        "curves": with_data(training_curves(contents.curves, None if is_missing(best) else int(best), contents.unit)),
    }


def _validation(contents: ReportContents) -> dict[str, Any]:
    cohorts = _cohorts_with_numbers(contents)
    external = set(cohorts_of_role(contents.flow, "external"))
    parts = [_cohort_validation(contents, cohort, position) for position, cohort in enumerate(cohorts, 1)]
    baselines = error_against_baselines(
        contents.metrics, [c for c in cohorts if c in external] or cohorts, contents.unit
    )
    return {
        "external": [part for part in parts if part.cohort in external],
        "other_cohorts": [part for part in parts if part.cohort not in external],
        "corrected_parts": [part for part in parts if part.corrected],
        "baselines": with_data(baselines),
        "checks": _checks(contents),
        "all_coverage": saved_table(everything_in_unit(contents.coverage, contents.unit), "All coverage", "coverage"),
        "all_metrics": saved_table(everything_in_unit(contents.metrics, contents.unit), "All metrics", "metrics"),
        "all_predictions": saved_table(
            everything_in_unit(contents.predictions, contents.unit), "All predictions", "predictions"
        ),
    }


def _decision(contents: ReportContents) -> dict[str, Any]:
    made, champion = contents.decision, contents.champion
    if made is None or champion is None:
        return {"decision": None}
    return {"decision": {"sentence": decision_sentence(made, champion), "table": decision_table(made)}}


def _cohorts_with_numbers(contents: ReportContents) -> list[str]:
    named = [str(name) for role in ("external", "train", "clinical") for name in cohorts_of_role(contents.flow, role)]
    others = [str(name) for table in (contents.metrics, contents.predictions) for name in table["cohort"]]
    with_numbers = set(others) | set(cohorts_of_role(contents.flow, "external"))
    return [name for name in dict.fromkeys([*named, *others]) if name in with_numbers]


def _cohort_validation(contents: ReportContents, cohort: str, position: int) -> CohortValidation:
    roles = contents.flow.loc[contents.flow["cohort"] == cohort, "role"]
    found = cohort_agreement(contents, cohort, position)
    return CohortValidation(
        cohort=cohort,
        role=str(roles.iloc[0]) if len(roles) else "role not given",
        raw=metrics_table(contents.metrics, cohort, RAW, contents.unit),
        corrected=metrics_table(_of_model(contents.metrics), cohort, CORRECTED, contents.unit),
        scatter=with_data(
            predicted_against_age(contents.predictions, cohort, position, contents.unit, contents.target)
        ),
        calibration=with_data(found.calibration),
        bins=found.bins,
        agreement=with_data(found.agreement),
        limits=found.limits,
        parts=subgroup_tables(contents.metrics, cohort, contents.unit),
        coverage=coverage_table(contents.coverage, cohort, contents.unit),
    )


def _of_model(metrics: pd.DataFrame) -> pd.DataFrame:
    return metrics[metrics["predictor"] == MODEL]


@dataclass(frozen=True)
class ShownExplanation:
    """What the page shows of one method's map."""

    name: str
    caption: str
    address: str
    tables: list[Table]
    data: Data | None


def _explanations(contents: ReportContents) -> dict[str, Any]:
    shown = []
    for one in contents.explanations:
        method = str(one.facts["method"])
        shown.append(
            ShownExplanation(
                name=f"{METHOD_NAMES[method]}, {one.model}" if one.model else METHOD_NAMES[method],
                caption=explanation_caption(one.facts),
                address=png_address(one.picture),
                tables=region_tables(one.regions, method),
                data=saved_table(one.regions, "All regions", "-".join(filter(None, ["regions", method, one.model]))),
            )
        )
    return {"explanations": shown}


def _disease(contents: ReportContents) -> dict[str, Any]:
    column = contents.group_column
    return {
        "groups": with_data(brain_pad_by_group(contents.predictions, column, contents.unit)) if column else None,
        "group_summary": group_table(contents.predictions, column, contents.unit) if column else None,
        "associations": association_section(contents.analysis, contents.publication),
    }


def _comparison(contents: ReportContents) -> dict[str, Any]:
    if contents.comparison is None:
        return {"comparison": None}
    return {"comparison": _shown(comparison_section(contents.comparison, contents.unit))}


def _checks(contents: ReportContents) -> dict[str, Any]:
    section = validation_section(contents)
    saved = {name: saved_table(table, summary, name) for summary, name, table in section.saved}
    return {**_shown(section), "forests": [with_data(drawing) for drawing in section.forests], "saved": saved}


def _shown(section: ComparisonSection | ValidationSection) -> dict[str, Any]:
    shown: dict[str, Any] = {item.name: getattr(section, item.name) for item in fields(section)}
    drawn = {name: with_data(value) for name, value in shown.items() if isinstance(value, Drawing)}
    saved = [saved_table(table, summary, name) for summary, name, table in section.saved]
    return {**shown, **drawn, "saved": saved}


def _provenance(contents: ReportContents) -> dict[str, Any]:
    return {
        "provenance_facts": facts_table(contents.provenance, "What made these numbers"),
        "montages": [(name, png_address(png)) for name, png in contents.montages],
    }
