"""The four questions that a reader brings, each answered in a line at the top of the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from .contents import (
    Comparison,
    Estimate,
    ReportContents,
    cohorts_of_role,
    compare_with_constant,
    headline,
    is_ok,
    problems_of,
    unpredicted,
)
from .notation import count, is_missing, missing_cells, p_value, plural, term_label
from .units import Unit, error_in_words

Tone = Literal["good", "mixed", "bad"]
FALSE_DISCOVERY_RATE = 0.05
MOST_TERMS_NAMED = 4


@dataclass(frozen=True)
class Answer:
    """One question, its short answer and the figures behind it."""

    question: str
    answer: str
    detail: str
    tone: Tone


def answer_questions(contents: ReportContents) -> tuple[Answer, ...]:
    """Answer the reader's questions from the tables, in words that promise no more than the numbers do."""
    return (_whole(contents), _holds(contents), _associated(contents), _trusted(contents))


def is_whole(contents: ReportContents) -> bool:
    """Tell whether every scan is accounted for: prepared and scored, or excluded with a listed reason; none missing."""
    flow = contents.flow
    if flow.empty:
        return False
    counts = flow[["indexed", "unused", "prepared", "excluded", "missing"]].astype(int)
    fates = counts[["unused", "prepared", "excluded", "missing"]].sum(axis=1)
    adds_up = (counts["indexed"] == fates).all()
    listed = flow["cohort"].map(contents.exclusions["cohort"].value_counts()).fillna(0).astype(int)
    accounted = adds_up and (counts["missing"] == 0).all() and (listed == counts["excluded"]).all()
    return bool(accounted) and not unpredicted(flow, contents.predictions)


def _whole(contents: ReportContents) -> Answer:
    question = "Did the study run whole?"
    flow = contents.flow
    if flow.empty:
        return Answer(question, "Not whole", "No cohort was indexed.", "bad")
    totals = {key: int(flow[key].sum()) for key in ("indexed", "unused", "prepared", "excluded", "missing")}
    detail = (
        f"{totals['prepared']:,} of {plural(totals['indexed'] - totals['unused'], 'scan')} prepared, "
        f"{totals['excluded']:,} excluded with a reason, {totals['missing']:,} missing."
    )
    not_ok = int((~is_ok(contents.predictions)).sum())
    if not_ok:
        detail += f" {plural(not_ok, 'prediction')} not usable."
    n_lost = sum(lost for _, _, lost in unpredicted(flow, contents.predictions))
    if n_lost:
        detail += f" {plural(n_lost, 'prepared scan')} without a prediction."
    if is_whole(contents):
        return Answer(question, "Whole", detail, "good")
    return Answer(question, "Not whole", detail, "bad")


def _holds(contents: ReportContents) -> Answer:
    question = "Does the model hold on another site?"
    external = cohorts_of_role(contents.flow, "external")
    if not external:
        return Answer(question, "Not tested", "The study has no external cohort.", "bad")
    comparisons = {cohort: compare_with_constant(contents.metrics, cohort) for cohort in external}
    details = " ".join(_sentence(contents, cohort, comparison) for cohort, comparison in comparisons.items())
    better = [comparison is not None and comparison.is_better for comparison in comparisons.values()]
    if all(better):
        return Answer(question, "Better than the mean age", details, "good")
    if any(better):
        return Answer(question, "Better than the mean age in some cohorts", details, "mixed")
    return Answer(question, "Not shown", details, "bad")


def _sentence(contents: ReportContents, cohort: str, comparison: Comparison | None) -> str:
    model = headline(contents.metrics, cohort, "mae") if comparison is None else comparison.model_mae
    if model is None or is_missing(model.estimate):
        return f"{cohort}: raw MAE not estimable."
    text = f"{cohort}: raw MAE {_error(model, contents.unit)}"
    if comparison is not None:
        text += f"; predicting the {comparison.baseline}: {_error(comparison.baseline_mae, contents.unit)}"
    return f"{text} ({plural(model.n_subjects, 'subject')})."


def _error(mae: Estimate, unit: Unit) -> str:
    return error_in_words(mae.estimate, mae.ci_low, mae.ci_high, unit)


def terms_of_interest(associations: pd.DataFrame) -> pd.DataFrame:
    """Select the terms that form the declared family."""
    flags = associations["of_interest"]
    return associations[~missing_cells(flags) & flags.map(bool).astype(bool)]


def _associated(contents: ReportContents) -> Answer:
    question = "Is brain-PAD associated with disease?"
    rows = terms_of_interest(contents.associations)
    if rows.empty:
        return Answer(question, "Not tested", "The study declares no association.", "mixed")
    tested = rows[~missing_cells(rows["q_value"])]
    found = tested[tested["q_value"].astype(float) < FALSE_DISCOVERY_RATE]
    detail = f"{count(len(found))} of {plural(len(rows), 'term')} of interest with q < {FALSE_DISCOVERY_RATE:g}."
    if len(found):
        detail += f" {'; '.join(_strongest(found))}{' and others' if len(found) > MOST_TERMS_NAMED else ''}."
    troubled = any(problems_of(value) for value in contents.associations["problems"])
    if len(tested) < len(rows):
        detail += f" {plural(len(rows) - len(tested), 'term')} not estimable."
    detail += " Some fits report problems." if troubled else ""
    valid = _holds(contents).tone == "good"
    detail += (
        "" if valid else " The model is not shown to read age from the brain, so what its brain-PAD measures is open."
    )
    if len(found):
        return Answer(question, "An association was found", detail, "good" if valid and not troubled else "mixed")
    return Answer(question, "None shown", detail, "mixed")


def _strongest(found: pd.DataFrame) -> list[str]:
    ordered = found.sort_values("q_value", kind="stable").head(MOST_TERMS_NAMED)
    return [
        f"{term_label(str(row['term']))} in “{row['model']}” (q {_equals(row['q_value'])})"
        for row in ordered.to_dict("records")
    ]


def _equals(value: object) -> str:
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"


def _trusted(contents: ReportContents) -> Answer:
    question = "Can the numbers be trusted?"
    n = len(contents.cautions)
    if n:
        return Answer(question, f"With {plural(n, 'caution')}", "They are listed below; read them first.", "bad")
    detail = "No rule of this report raised one. Rules find known traps, not every trap."
    return Answer(question, "No cautions", detail, "good")
