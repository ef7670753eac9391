"""A declared model before there is data: whether its formula, columns and effects can be what they say.

Apart from the fitting, so that a study file is read without loading what fits models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product

from ...records import AssociationSpec
from .formula import BASELINE, PER_YEAR, Formula, Term, check_columns, nearest, parse

# Of fewer, the ends of a 95% interval are the smallest and the largest.
FEWEST_RESAMPLES = 40


def check_spec(spec: AssociationSpec, columns: Iterable[str] | None = None) -> Formula:
    """Refuse a malformed model before any scan is processed.

    Args:
        spec: The declared model.
        columns: Columns of the table, where they are known already.

    Returns:
        The parsed formula.

    Raises:
        ValueError: The formula, a column, a filter or an effect of interest is not what it could be; names the nearest.
    """
    formula = parse(spec.formula)
    _check_settings(spec, formula)
    for effect in spec.effects:
        if not any(names_term(effect, term) for term in formula.terms):
            known = [term.label for term in formula.terms]
            raise ValueError(f"Association {spec.name}: {effect!r} is no term of its formula; {nearest(effect, known)}")
    if columns is not None:
        stems = {f"{column}{ending}" for column in columns for ending in (BASELINE, PER_YEAR)}
        check_columns(formula, [*columns, *(column for column in formula.columns if column in stems)])
        for column in (spec.groups, *spec.where, *filter(None, [spec.event, spec.stratify])):
            if column not in columns:
                raise ValueError(f"Association {spec.name}: no column {column!r}; {nearest(column, columns)}")
    return formula


def _check_settings(spec: AssociationSpec, formula: Formula) -> None:
    problems = []
    if spec.random_slope and spec.random_slope not in [term.label for term in formula.terms]:
        problems.append(f"random_slope {spec.random_slope!r} is no term of its formula")
    if spec.random_slope and spec.sessions == "baseline" and spec.groups == "participant_id":
        problems.append('random_slope needs repeated rows: sessions = "all"')
    if not formula.terms and not formula.intercept:
        problems.append(f"{spec.formula!r} has neither a predictor nor an intercept; write y ~ 1 for a mean")
    if spec.event and spec.outcome != "auto":
        problems.append("event makes the response a time; leave outcome out")
    if spec.event and spec.sessions == "all":
        problems.append("a time to an event is one row per person; leave sessions out, which takes each first one")
    if spec.levels and spec.outcome == "numeric":
        problems.append("levels are for categories, and its outcome is numeric")
    if spec.bootstrap < 0 or spec.seed < 0:
        problems.append("bootstrap and seed must not be below 0")
    if 0 < spec.bootstrap < FEWEST_RESAMPLES:
        problems.append(f"95% intervals need {FEWEST_RESAMPLES} resamples at least, better 2000; bootstrap is fewer")
    if len(set(spec.levels)) < len(spec.levels):
        problems.append("levels names one level twice")
    if spec.measurement_sd_years < 0 or not 0 <= spec.reliability <= 1:
        problems.append("measurement_sd_years must not be below 0, and reliability lies between 0 and 1")
    if spec.measurement_sd_years and spec.reliability:
        problems.append("give measurement_sd_years or reliability, not both")
    if problems:
        raise ValueError(f"Association {spec.name}: {'; '.join(problems)}.")


def expanded(specs: Sequence[AssociationSpec]) -> tuple[AssociationSpec, ...]:
    """Make the models of each screen; others are left as they are.

    >>> screen = AssociationSpec("s", "{y} ~ {x} + age", screen={"y": ("edss", "mmse"), "x": ("pad",)})
    >>> [(one.name, one.formula) for one in expanded([screen])]
    [('s: edss, pad', 'edss ~ pad + age'), ('s: mmse, pad', 'mmse ~ pad + age')]

    Raises:
        ValueError: A screen's name stands nowhere in its formula, or two models have one name.
    """
    made = [one for spec in specs for one in (_screened(spec) if spec.screen else [spec])]
    names = [spec.name for spec in made]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ValueError(f"Two associations are named {twice[0]!r}; give each its own name.")
    return tuple(made)


def _screened(spec: AssociationSpec) -> list[AssociationSpec]:
    idle = [name for name in spec.screen if "{" + name + "}" not in spec.formula]
    empty = [name for name, values in spec.screen.items() if not values]
    if empty:
        raise ValueError(f"Association {spec.name}: its screen names nothing for {empty[0]!r}; give it columns.")
    if idle:
        raise ValueError(
            f"Association {spec.name}: its screen names {idle[0]!r}, and its formula has no {{{idle[0]}}}."
        )
    made = []
    for values in product(*spec.screen.values()):
        formula, effects = spec.formula, spec.effects
        for name, value in zip(spec.screen, values, strict=True):
            mark, column = "{" + name + "}", value if value.isidentifier() else f"`{value}`"
            formula = formula.replace(mark, column)
            effects = tuple(effect.replace(mark, column) for effect in effects)
        name = f"{spec.name}: {', '.join(values)}"
        made.append(replace(spec, name=name, formula=formula, effects=effects, screen={}, details=bool(spec.details)))
    return made


def names_term(effect: str, term: Term) -> bool:
    """Whether an effect of interest, as a user writes it, is a term or a coefficient of it."""
    parts = re.sub(r"C\(\s*`?([^,)`]+?)`?\s*(,[^)]*)?\)", r"\1", re.sub(r"\[[^\]]*\]", "", effect)).replace("`", "")
    return frozenset(part.strip() for part in parts.split(":")) == term.key
