"""Do the shipped studies of MS, Alzheimer's and Parkinson's disease find what was planted, and nothing else?

`make bench BENCH=planted_stories` runs the `phantom` profile of each from raw heads to its associations (two hours on
two cores), and writes what came out beside what was planted into the README between markers of its own. Every planted
association of a study is a row, and so is its negative control. A run goes on where an earlier one was stopped; remove
`bench/` to measure anew.
"""

from __future__ import annotations

import json
import os
import platform
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infra.phantom_cohorts import with_phantom_roots
from infra.study_file import load_study, study_reference
from tests.benchmarks.planted_effects import FOLDER, coefficient, interval, metric, padflow
from tests.benchmarks.rows import Row
from tests.benchmarks.table import WIDTH, replace_block

ALPHA = 0.05
BEGIN, END = "<!-- planted stories: begin -->", "<!-- planted stories: end -->"
CONTROL = ("education", "education_years", "education_years_per_year", 1)
# Association, term, its name in truth.json, and the sign of the planted effect. An effect on brain-PAD comes out by the
# planted number; one of brain-PAD, or of a score that was derived from the planted one, by its sign alone.
STORIES: dict[str, tuple[tuple[str, str, str, int], ...]] = {
    "ms-flair": (
        ("diagnosis", "diagnosis[MS]", "diagnosis_ms_years", 1),
        ("edss", "edss", "edss_years_per_point", 1),
        ("duration", "disease_duration", "duration_years_per_year", 1),
        CONTROL,
    ),
    "rank-n-contrast": (
        ("diagnosis", "diagnosis[AD]", "diagnosis_ad_years", 1),
        ("diagnosis", "diagnosis[PD]", "diagnosis_pd_years", 1),
        ("ad-cdr-sb", "cdr_sb", "cdr_sb_years_per_point", 1),
        ("ad-mmse", "mmse", "", -1),
        ("pd-updrs-iii", "updrs_iii", "updrs_iii_years_per_point", 1),
        ("pd-hoehn-yahr", "hoehn_yahr", "", 1),
        CONTROL,
    ),
    "clinical-2d": (
        ("diagnosis", "diagnosis[AD]", "diagnosis_ad_years", 1),
        ("diagnosis", "diagnosis[PD]", "diagnosis_pd_years", 1),
        ("growth", "diagnosis[AD]:years_since_baseline", "progression_years_per_year/AD", 1),
        ("growth", "diagnosis[PD]:years_since_baseline", "progression_years_per_year/PD", 1),
        ("ad-progression", "brain_pad_years_baseline:years_since_baseline", "", 1),
        ("pd-progression", "brain_pad_years_baseline:years_since_baseline", "", 1),
        ("ad-severity", "brain_pad_years", "", 1),
        ("pd-severity", "brain_pad_years", "", 1),
        CONTROL,
    ),
}
ARMS = {"ms-flair": ("flair-inception", "t1w-inception"), "rank-n-contrast": ("rnc", "plain")}
ARMS["clinical-2d"] = ("simulated",)
EXTERNAL = {"ms-flair": "controls", "rank-n-contrast": "external", "clinical-2d": "unimpaired"}


@dataclass(frozen=True)
class Line:
    """One association: what was `planted`, of which the model sees the share `slope`, and what came out."""

    study: str
    arm: str
    model: str
    term: str
    planted: float | None
    sign: int
    slope: float
    found: dict[str, Any]

    @property
    def null(self) -> bool:
        return self.planted == 0

    @property
    def significant(self) -> bool:
        return float(self.found["q_value"]) < ALPHA

    @property
    def right_sign(self) -> bool:
        return float(np.sign(self.found["estimate"])) == self.sign

    @property
    def detectable(self) -> bool:
        """Whether so many people show the planted effect with a power of 80%."""
        return self.planted is not None and self.planted * self.slope >= self.found["detectable"]

    @property
    def verdict(self) -> str:
        if self.null:
            return "**found, and is none**" if self.significant else "not found, and is none"
        if self.significant:
            return "found" if self.right_sign else "**found with the wrong sign**"
        return f"not found{'' if self.right_sign else ', sign differs'}"

    @property
    def failure(self) -> str:
        """What falls short of what the stories promise; empty where nothing does."""
        wrong = self.significant and (self.null or not self.right_sign)
        missed = not self.null and not self.significant and self.detectable
        return f"{self.study}, {self.arm}, {self.model}, {self.term}: {self.verdict}" if wrong or missed else ""


def tell(study: str) -> list[Line]:
    """Run one study, or go on with it, and set what it found beside the truth of its clinic."""
    home = FOLDER / "stories" / study
    data = home / "data"
    given = ("--profile", "phantom", "--home", str(home), "--data", str(data), "--json")
    result = json.loads(padflow("run", study, *given))
    truth = truth_of(study, data)
    lines = []
    for arm in ARMS[study]:
        own = {name: [row for row in result[name] if row["arm"] == arm] for name in ("metrics", "associations")}
        slope = metric(own, EXTERNAL[study], "calibration_slope")["estimate"]
        for model, term, name, sign in STORIES[study]:
            planted = value(truth, name) if name else None
            lines.append(Line(study, arm, model, term, planted, sign, slope, coefficient(own, model, term)))
    return lines


def truth_of(study: str, data: Path) -> dict[str, Any]:
    """What was planted in the clinic of a study's phantom."""
    cohorts = with_phantom_roots(load_study(study_reference(study, "phantom"))).cohorts
    root = next(cohort.root for cohort in cohorts if cohort.name == "clinic")
    content: dict[str, Any] = json.loads((data / root / "derivatives" / "phantom-truth" / "truth.json").read_text())
    return content


def value(truth: dict[str, Any], name: str) -> float:
    """One planted number; a slash leads into a table."""
    found: Any = truth
    for part in name.split("/"):
        found = found[part]
    return float(found)


def as_table(lines: list[Line]) -> str:
    """The README's table."""
    rows = [
        "| study, model | association | planted | expected | found [95% CI] | q | n | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        direction = "> 0" if line.sign > 0 else "< 0"
        planted = direction if line.planted is None else f"{line.planted:.4g}"
        expected = direction if line.planted is None else f"{line.planted * line.slope:.2f}"
        expected += "" if line.planted is None or line.null or line.detectable else " (below what n shows)"
        found, n = line.found, int(line.found["n_used"])
        cells = [f"{line.study}, {line.arm}", f"{line.model}: `{line.term}`", planted, expected, interval(found)]
        rows.append("| " + " | ".join([*cells, f"{found['q_value']:.2g}", str(n), line.verdict]) + " |")
    place = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    said = (
        "Expected is the planted effect × the calibration slope in external people. Below what n shows: an effect of "
        f"that size is found in fewer than 8 of 10 such cohorts. Measured on {place}."
    )
    return "\n".join([*rows, "", *textwrap.wrap(said, WIDTH)])


def rows() -> list[Row]:
    """Run all stories, write the table, and fail where one does not find what it must; it has no line elsewhere."""
    lines = [line for study in STORIES for line in tell(study)]
    table = as_table(lines)
    print(table)
    replace_block(BEGIN, END, table)
    short = [line.failure for line in lines if line.failure]
    if short:
        raise SystemExit("\n".join(short))
    return []
