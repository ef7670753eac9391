"""What a study asks of a new model before it takes the place of the one that is in use."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal

from ...records import FORBID_UNKNOWN_KEYS

GateName = Literal["mae", "centring", "levels", "coverage", "retest", "baseline"]
GATES: tuple[GateName, ...] = ("mae", "centring", "levels", "coverage", "retest", "baseline")
MONTHS_PER_YEAR = 12


@dataclass(frozen=True)
class PromotionSpec:
    """The gates between a challenger and the champion. They read raw predictions; no key names a corrected figure.

    A failed gate always refuses. One that cannot be judged (too few subjects, no repeated sessions) refuses only where
    it is mandatory, and is said in any case.

    Attributes:
        gates: Those that are asked.
        mandatory: Those without which nothing is promoted.
        mae: `non_inferior`: the paired 95% interval of the challenger's MAE minus the champion's ends below the margin;
            `superior`: it ends below 0.
        mae_margin_years: Most that the MAE may rise, where non-inferiority is asked.
        max_unanswered: Share of the scans the champion answers for that the challenger may leave without an age: a
            model that skips what is hard looks accurate.
        centring_years: The 95% interval of the mean brain-PAD of healthy controls lies within ± this.
        level_margins_years: `site`, `sex` or `age_band` → most that the MAE of any of its levels may rise.
        fewest_subjects: Below so many subjects nothing is judged, neither a level nor the whole.
        coverage: Lowest and highest share of controls whose age the challenger's conformal interval holds.
        retest_margin_years: Most that the within-subject standard deviation of brain-PAD over sessions may rise.
        baseline_gain_years: How much less than a line on tissue volumes, and than the mean age of training, the
            challenger errs, at least: the paired 95% interval of each difference ends below minus this.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    gates: tuple[GateName, ...] = GATES
    mandatory: tuple[GateName, ...] = ("mae", "centring")
    mae: Literal["non_inferior", "superior"] = "non_inferior"
    mae_margin_years: float = 0.5
    max_unanswered: float = 0.05
    centring_years: float = 5.0
    level_margins_years: dict[str, float] = field(default_factory=lambda: {"site": 2.0, "sex": 2.0, "age_band": 3.0})
    fewest_subjects: int = 10
    coverage: tuple[float, float] = (0.85, 1.0)
    retest_margin_years: float = 0.5
    baseline_gain_years: float = 0.0


def for_months(spec: PromotionSpec, given: set[str]) -> PromotionSpec:
    """Let the margins that a study of infants leaves out be so many months as they would be years for adults.

    Args:
        spec: The gates.
        given: Names of the keys that the study gives itself.

    >>> spec = for_months(PromotionSpec(mae_margin_years=0.2), {"mae_margin_years"})
    >>> spec.mae_margin_years, round(spec.centring_years * 12, 6)
    (0.2, 5.0)
    """
    changes: dict[str, Any] = {}
    for item in fields(spec):
        if not item.name.endswith("_years") or item.name in given:
            continue
        value = getattr(spec, item.name)
        changes[item.name] = (
            {level: margin / MONTHS_PER_YEAR for level, margin in value.items()}
            if isinstance(value, dict)
            else value / MONTHS_PER_YEAR
        )
    return replace(spec, **changes)


def spec_problems(spec: PromotionSpec) -> list[str]:
    """What of the gates cannot be meant, in words."""
    problems = []
    for name in ("gates", "mandatory"):
        given = getattr(spec, name)
        if len(set(given)) < len(given):
            problems.append(f"promotion.{name} {list(given)} names a gate twice")
    absent = [name for name in spec.mandatory if name not in spec.gates]
    if absent:
        problems.append(f"promotion.mandatory names {absent[0]!r}, which is none of promotion.gates {list(spec.gates)}")
    for name in ("mae_margin_years", "max_unanswered", "retest_margin_years", "baseline_gain_years"):
        if not getattr(spec, name) >= 0:
            problems.append(f"promotion.{name} is {getattr(spec, name):g}; it must be 0 or more")
    if not spec.centring_years > 0:
        problems.append(f"promotion.centring_years is {spec.centring_years:g}; it must be above 0")
    unknown = sorted(set(spec.level_margins_years) - {"site", "sex", "age_band"})
    if unknown:
        problems.append(f"promotion.level_margins_years names {unknown[0]!r}; it may have site, sex and age_band")
    problems += [
        f"promotion.level_margins_years.{name} is {margin:g}; it must be 0 or more"
        for name, margin in spec.level_margins_years.items()
        if not margin >= 0
    ]
    if spec.fewest_subjects < 3:
        problems.append(f"promotion.fewest_subjects is {spec.fewest_subjects}; it must be 3 or more")
    low, high = spec.coverage
    if not 0 <= low < high <= 1:
        problems.append(f"promotion.coverage is [{low:g}, {high:g}]; they must ascend, from 0 to 1")
    return problems
