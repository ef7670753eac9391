"""Whether a new model may take the place of the one in use: figures of the same people in, verdicts in words out.

Nothing is fitted here. Both models and the baseline were fitted on training subjects, and only raw predictions are
read: a bias-corrected age holds the age itself, so that any model would pass (Butler et al. 2021,
doi:10.1002/hbm.25533).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .bootstrap import age_band, age_band_months, subject_keys
from .comparison import bootstrap_means, paired_mae_difference
from .conformal import ConformalInterval, coverage_table
from .gate_spec import MONTHS_PER_YEAR, PromotionSpec

Outcome = Literal["passed", "failed", "not judged"]
BASELINES = {"baseline_age_years": "tissue volumes", "mean_age_years": "the mean age of training"}
NO_CHAMPION = "there is no champion to compare with"
NAN = float("nan")


@dataclass(frozen=True)
class Verdict:
    """What one gate says.

    Attributes:
        gate: Its name.
        outcome: `passed`, `failed` or `not judged`.
        mandatory: Whether nothing is promoted without it.
        sentence: Figures, bound and number of subjects in one plain sentence, or why it was not judged.
        estimate: What is bounded, in years (coverage: a share); NaN where it was not measured.
        ci_low: Start of its 95% interval.
        ci_high: End of it.
        bound_low: The estimate or its interval lies above this; minus infinity where nothing bounds it below.
        bound_high: And below this.
        n_subjects: Subjects that it rests on.
        parts: For the levels, one entry each: `group, level, n_subjects, difference_years, ci_low, ci_high,
            margin_years, outcome`, and `n_asked` where the champion has an age for many and the challenger for few.
    """

    gate: str
    outcome: Outcome
    mandatory: bool
    sentence: str
    estimate: float = NAN
    ci_low: float = NAN
    ci_high: float = NAN
    bound_low: float = -math.inf
    bound_high: float = math.inf
    n_subjects: int = 0
    parts: tuple[dict[str, Any], ...] = field(default_factory=tuple)


@dataclass(frozen=True)
class Evidence:
    """Two models on the same people.

    Attributes:
        scans: One row per scan: `cohort, participant_id, scan_id, years_since_baseline, session_id, age_years` (the
            target), `predicted_age_years` (the challenger), `champion_age_years`, `baseline_age_years` (by tissue
            volumes), `mean_age_years` (of the training people; NaN where a predictor gives none), `is_control`, and
            `site` and `sex` where they are known.
        has_champion: Whether there is a champion.
        interval: The challenger's raw conformal interval; None where it has none.
        unit: In which sentences give years.
    """

    scans: pd.DataFrame
    has_champion: bool
    interval: ConformalInterval | None = None
    unit: Literal["years", "months"] = "years"


def judge(evidence: Evidence, spec: PromotionSpec, resamples: int = 10_000, seed: int = 0) -> tuple[Verdict, ...]:
    """Ask every gate of the study.

    Args:
        evidence: Predictions of the same people.
        spec: Gates, margins and bounds.
        resamples: Draws of subjects.
        seed: Of the draws.

    Returns:
        One verdict per gate, in the order of the study.
    """
    gates: dict[str, Callable[[Evidence, PromotionSpec, int, int], Verdict]] = {
        "mae": _mae, "centring": _centring, "levels": _levels, "coverage": _coverage, "retest": _retest,
        "baseline": _baseline,
    }  # fmt: skip
    return tuple(gates[name](evidence, spec, resamples, seed) for name in spec.gates)


def refusals(verdicts: tuple[Verdict, ...]) -> list[str]:
    """Why a challenger is refused, a sentence each; empty where nothing stands in its way."""
    failed = [verdict.sentence for verdict in verdicts if verdict.outcome == "failed"]
    unjudged = [v.sentence for v in verdicts if v.outcome == "not judged" and v.mandatory]
    return failed + [f"{sentence}; the study makes this gate mandatory" for sentence in unjudged]


def _mae(evidence: Evidence, spec: PromotionSpec, resamples: int, seed: int) -> Verdict:
    if not evidence.has_champion:
        return _unjudged("mae", spec, "MAE against the champion", NO_CHAMPION)
    controls = _controls(evidence)
    paired = _paired(controls)
    few = _too_few(paired, spec)
    answered = controls[controls["champion_age_years"].notna()]
    unanswered = float(answered["predicted_age_years"].isna().mean()) if len(answered) else 0.0
    skips = (
        f"it gives no age for {unanswered:.0%} of the scans that the champion answers for, at most "
        f"{spec.max_unanswered:.0%} may be left out"
    )
    if few and unanswered > spec.max_unanswered and not _too_few(answered, spec):
        nothing = dict.fromkeys(("estimate", "ci_low", "ci_high"), NAN) | {"n_subjects": 0}
        return _judged("mae", spec, False, f"{skips}, and {few}", nothing)
    if few:
        return _unjudged("mae", spec, "MAE against the champion", few)
    found = paired_mae_difference(paired, paired["champion_age_years"], resamples, seed)
    bound = 0.0 if spec.mae == "superior" else spec.mae_margin_years
    own, other = (_mae_of(paired, name) for name in ("predicted_age_years", "champion_age_years"))
    say = _speaker(evidence)
    sentence = (
        f"MAE {say(own)} against the champion's {say(other)} {evidence.unit}: difference {_span(found, say)} in "
        f"{found['n_subjects']} subjects, of which the end must lie below {say(bound)}"
    )
    passed = found["ci_high"] < bound
    if unanswered > spec.max_unanswered:
        passed = False
        sentence += f"; and {skips}"
    return _judged("mae", spec, passed, sentence, found, high=bound)


def _centring(evidence: Evidence, spec: PromotionSpec, resamples: int, seed: int) -> Verdict:
    rows = _answered(_controls(evidence))
    few = _too_few(rows, spec)
    if few:
        return _unjudged("centring", spec, "mean brain-PAD of controls", few)
    gap = (rows["predicted_age_years"] - rows["age_years"]).to_numpy(dtype=float)
    subject, names = pd.factorize(subject_keys(rows))
    low, high = np.percentile(bootstrap_means(gap, subject, resamples, seed), [2.5, 97.5])
    found = {"estimate": float(gap.mean()), "ci_low": float(low), "ci_high": float(high), "n_subjects": len(names)}
    say, bound = _speaker(evidence), spec.centring_years
    sentence = (
        f"mean brain-PAD of controls {_span(found, say)} {evidence.unit} in {len(names)} subjects, which must lie "
        f"within ± {say(bound)}"
    )
    return _judged("centring", spec, bool(-bound <= low and high <= bound), sentence, found, -bound, bound)


def _levels(evidence: Evidence, spec: PromotionSpec, resamples: int, seed: int) -> Verdict:
    what = "MAE by " + ", ".join(name.replace("_", " ") for name in spec.level_margins_years)
    if not evidence.has_champion:
        return _unjudged("levels", spec, what, NO_CHAMPION)
    rows = _controls(evidence)
    known = rows[rows["champion_age_years"].notna()].reset_index(drop=True)
    band = age_band_months if evidence.unit == "months" else age_band
    known = known.assign(age_band=band(known["age_years"]))
    parts = [
        part
        for group, margin in spec.level_margins_years.items()
        for part in _level_parts(known, group, margin, spec.fewest_subjects, resamples, seed)
    ]
    judged = [part for part in parts if part["outcome"] != "not judged"]
    unjudged = [part for part in parts if part["outcome"] == "not judged"]
    without = [group for group in spec.level_margins_years if not any(part["group"] == group for part in parts)]
    if not judged:
        why = f"no level has {spec.fewest_subjects} subjects" if parts else "no subject was predicted by both"
        return _unjudged("levels", spec, what, why, tuple(parts))
    measured = [part for part in judged if math.isfinite(part["difference_years"])] or judged
    worst = max(measured, key=lambda part: part["difference_years"] - part["margin_years"])
    say = _speaker(evidence)
    failed = [part for part in judged if part["outcome"] == "failed"]
    named = "; ".join(_level_sentence(part, say) for part in (failed or [worst]))
    sentence = f"{len(failed)} of {len(judged)} levels worse by more than their margin ({evidence.unit}): {named}"
    if unjudged:
        listed = ", ".join(f"{_level_name(part)} (n {part['n_subjects']})" for part in unjudged)
        sentence += f"; fewer than {spec.fewest_subjects} subjects, so not judged: {listed}"
    if without:
        sentence += f"; not known of these subjects: {', '.join(without)}"
    found = {"estimate": worst["difference_years"], **{name: worst[name] for name in ("ci_low", "ci_high")}}
    found["n_subjects"] = int(subject_keys(_paired(known)).nunique())
    return _judged("levels", spec, not failed, sentence, found, high=worst["margin_years"], parts=tuple(parts))


def _level_parts(
    known: pd.DataFrame, group: str, margin: float, fewest: int, resamples: int, seed: int
) -> list[dict[str, Any]]:
    """Each level of the scans that the champion answers for; one that the challenger leaves without ages has failed."""
    parts = []
    for level, of_level in known.groupby(_levels_of(known, group), sort=True):
        rows = _paired(of_level)
        n = int(subject_keys(rows).nunique()) if len(rows) else 0
        part = {"group": group, "level": str(level), "n_subjects": n, "margin_years": margin, "difference_years": NAN}
        part |= {"ci_low": NAN, "ci_high": NAN, "outcome": "not judged"}
        if n >= fewest:
            found = paired_mae_difference(rows, rows["champion_age_years"], resamples, seed)
            part |= {"difference_years": found["estimate"], "ci_low": found["ci_low"], "ci_high": found["ci_high"]}
            part["outcome"] = "failed" if found["estimate"] > margin else "passed"
        elif (asked := int(subject_keys(of_level).nunique())) >= fewest:
            part |= {"outcome": "failed", "n_asked": asked}
        parts.append(part)
    return parts


def _levels_of(rows: pd.DataFrame, group: str) -> pd.Series:
    """Each scan's level; scans of whom it is not known are no level of their own."""
    values = rows[group] if group in rows else pd.Series(None, index=rows.index, dtype=object)
    known = values.notna() & (values.astype(str).str.strip() != "")
    named = values.astype(str).where(known)
    if group != "site":
        return named
    # Site 1 of one cohort is not site 1 of another; a cohort without sites is one.
    cohort = rows["cohort"].astype(str)
    return (cohort + "/" + named).where(known, cohort)


def _coverage(evidence: Evidence, spec: PromotionSpec, resamples: int, seed: int) -> Verdict:
    del resamples, seed
    what, interval = "coverage of the interval of age", evidence.interval
    if interval is None or not math.isfinite(interval.half_width_years):
        return _unjudged("coverage", spec, what, (interval.note if interval else "") or "the model has no interval")
    rows = _answered(_controls(evidence))
    few = _too_few(rows, spec)
    if few:
        return _unjudged("coverage", spec, what, few)
    row = coverage_table(rows, interval, ()).iloc[0]
    low, high = spec.coverage
    found = {"estimate": float(row["coverage"]), "n_subjects": int(row["n_subjects"])}
    found |= {"ci_low": float(row["ci_low"]), "ci_high": float(row["ci_high"])}
    say = _speaker(evidence)
    sentence = (
        f"the {1 - interval.alpha:.0%} interval (± {say(interval.half_width_years)} {evidence.unit}) holds the age of "
        f"{row['n_covered']} of {row['n_subjects']} subjects, {found['estimate']:.0%} [{found['ci_low']:.0%}, "
        f"{found['ci_high']:.0%}], which must be {low:.0%} to {high:.0%}"
    )
    return _judged("coverage", spec, bool(low <= found["estimate"] <= high), sentence, found, low, high)


def _retest(evidence: Evidence, spec: PromotionSpec, resamples: int, seed: int) -> Verdict:
    what = "within-subject standard deviation over sessions"
    if not evidence.has_champion:
        return _unjudged("retest", spec, what, NO_CHAMPION)
    # Everybody counts, patients too: both models see the same course of the same people.
    paired = _paired(evidence.scans)
    paired = paired[subject_keys(paired).map(subject_keys(paired).value_counts()) > 1]
    few = _too_few(paired, spec, "with repeated sessions ")
    if few:
        return _unjudged("retest", spec, what, few)
    subject, names = pd.factorize(subject_keys(paired))
    freedom = np.bincount(subject) - 1.0
    squares = [
        _squares_within((paired[name] - paired["age_years"]).to_numpy(dtype=float), subject)
        for name in ("predicted_age_years", "champion_age_years")
    ]
    counts = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    draws = np.subtract(*(np.sqrt(counts @ each / (counts @ freedom)) for each in squares))
    own, other = (float(np.sqrt(each.sum() / freedom.sum())) for each in squares)
    low, high = np.percentile(draws, [2.5, 97.5])
    found = {"estimate": own - other, "ci_low": float(low), "ci_high": float(high), "n_subjects": len(names)}
    say, margin = _speaker(evidence), spec.retest_margin_years
    sentence = (
        f"{what} {say(own)} against the champion's {say(other)} {evidence.unit}: difference {_span(found, say)} in "
        f"{len(names)} subjects, which must be at most {say(margin)}"
    )
    return _judged("retest", spec, bool(found["estimate"] <= margin), sentence, found, high=margin)


def _squares_within(values: NDArray[np.float64], subject: NDArray[np.intp]) -> NDArray[np.float64]:
    """Each subject's sum of squares about its own mean."""
    scans = np.bincount(subject)
    means = np.bincount(subject, weights=values) / scans
    return np.asarray(np.bincount(subject, weights=(values - means[subject]) ** 2), dtype=np.float64)


def _baseline(evidence: Evidence, spec: PromotionSpec, resamples: int, seed: int) -> Verdict:
    """Beside tissue volumes stands the mean age: a line on volumes of few people can be worse than knowing nothing."""
    answered = _answered(_controls(evidence))
    bound = -spec.baseline_gain_years
    say = _speaker(evidence)
    gains: list[dict[str, Any]] = []
    said: list[str] = []
    lacking = []
    for column, name in BASELINES.items():
        rows = answered[answered[column].notna()]
        few = _too_few(rows, spec, f"with an age by {name} ")
        if few:
            lacking.append(few)
            continue
        found = paired_mae_difference(rows, rows[column], resamples, seed)
        own, other = (_mae_of(rows, which) for which in ("predicted_age_years", column))
        said.append(
            f"MAE {say(own)} against {say(other)} {evidence.unit} by {name}: difference {_span(found, say)} in "
            f"{found['n_subjects']} subjects, of which the end must lie below {say(bound)}"
        )
        gains.append(found)
    smallest = max(gains, key=lambda found: float(found["ci_high"]), default=None)
    if smallest is not None and (smallest["ci_high"] >= bound or not lacking):
        return _judged("baseline", spec, smallest["ci_high"] < bound, "; ".join(said + lacking), smallest, high=bound)
    # A gain over one of the two alone is none over the other.
    return _unjudged("baseline", spec, "gain over tissue volumes and the mean age", "; ".join(lacking + said))


def _controls(evidence: Evidence) -> pd.DataFrame:
    return evidence.scans[evidence.scans["is_control"].astype(bool)]


def _answered(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["predicted_age_years"].notna()].reset_index(drop=True)


def _paired(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["predicted_age_years"].notna() & rows["champion_age_years"].notna()].reset_index(drop=True)


def _too_few(rows: pd.DataFrame, spec: PromotionSpec, which: str = "") -> str:
    n = int(subject_keys(rows).nunique()) if len(rows) else 0
    return "" if n >= spec.fewest_subjects else f"{n} subjects {which}are fewer than {spec.fewest_subjects}"


def _mae_of(rows: pd.DataFrame, name: str) -> float:
    return float((rows[name] - rows["age_years"]).abs().mean())


def _unjudged(gate: str, spec: PromotionSpec, what: str, why: str, parts: tuple[dict[str, Any], ...] = ()) -> Verdict:
    return Verdict(gate, "not judged", gate in spec.mandatory, f"{what} cannot be judged: {why}", parts=parts)


def _judged(
    gate: str,
    spec: PromotionSpec,
    passed: bool,
    sentence: str,
    found: dict[str, Any],
    low: float = -math.inf,
    high: float = math.inf,
    parts: tuple[dict[str, Any], ...] = (),
) -> Verdict:
    return Verdict(
        gate=gate,
        outcome="passed" if passed else "failed",
        mandatory=gate in spec.mandatory,
        sentence=sentence,
        estimate=found["estimate"],
        ci_low=found["ci_low"],
        ci_high=found["ci_high"],
        bound_low=low,
        bound_high=high,
        n_subjects=found["n_subjects"],
        parts=parts,
    )


def _speaker(evidence: Evidence) -> Callable[[float], str]:
    per_year = MONTHS_PER_YEAR if evidence.unit == "months" else 1
    return lambda years: f"{years * per_year + 0.0:.2f}"


def _span(found: dict[str, Any], say: Callable[[float], str]) -> str:
    return f"{say(found['estimate'])} [{say(found['ci_low'])}, {say(found['ci_high'])}]"


def _level_name(part: dict[str, Any]) -> str:
    return f"{part['group'].replace('_', ' ')} {part['level']}"


def _level_sentence(part: dict[str, Any], say: Callable[[float], str]) -> str:
    if "n_asked" in part:
        return f"{_level_name(part)} has an age in {part['n_subjects']} of the champion's {part['n_asked']} subjects"
    found = {"estimate": part["difference_years"], "ci_low": part["ci_low"], "ci_high": part["ci_high"]}
    margin, n = say(part["margin_years"]), part["n_subjects"]
    return f"{_level_name(part)} differs by {_span(found, say)} (margin {margin}, n {n})"
