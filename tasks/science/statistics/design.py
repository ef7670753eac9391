"""From a parsed formula and a table to a design matrix: treatment coding, readable column names, nothing evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .formula import Factor, Formula, Term, nearest

INTERCEPT = "Intercept"
MISSING_TEXTS = ("", "n/a")
COLLINEAR_BELOW = 1e-9
# Numbers in these are names: site 3 is not three times site 1.
NOMINAL_COLUMNS = frozenset({"sex", "gender", "site", "cohort", "scanner", "center", "centre", "participant_id"})
NEARLY_COLLINEAR_VIF = 10.0


class NotEstimable(Exception):
    """A declared model that these rows cannot support. Its text is a plain sentence, which becomes a row's reason."""


@dataclass(frozen=True)
class Coding:
    """How factors become columns, learnt from the rows of a fit and then frozen, so that new rows are coded alike.

    Attributes:
        formula: The formula, less the terms that its rows could not support.
        levels: Categorical factor → its levels, the reference first.
        centres: `center` and `scale` factors → the mean of the rows.
        spreads: `scale` factors → their standard deviation (n − 1).
    """

    formula: Formula
    levels: Mapping[str, tuple[str, ...]]
    centres: Mapping[str, float]
    spreads: Mapping[str, float]

    def matrix(self, values: pd.DataFrame) -> pd.DataFrame:
        """Code rows.

        Args:
            values: One column per factor label, as `factor_values` gives them.

        Returns:
            Float64, one column per parameter, such as `Intercept`, `diagnosis[MS]`, `diagnosis[MS]:edss`.
        """
        columns = {INTERCEPT: np.ones(len(values))} if self.formula.intercept else {}
        for term in self.formula.terms:
            for parts in product(*(self._columns(factor, term, values).items() for factor in term.factors)):
                name = ":".join(part for part, _ in parts)
                if name in columns:
                    raise NotEstimable(f"Not fitted: two columns of the design are named {name!r}; rename the column.")
                columns[name] = np.prod([column for _, column in parts], axis=0)
        stacked = np.column_stack(list(columns.values())) if columns else np.empty((len(values), 0))
        return pd.DataFrame(stacked, index=values.index, columns=list(columns))

    def terms_of_columns(self) -> dict[str, Term | None]:
        """Map each column of the matrix to its term; the intercept has none."""
        owners: dict[str, Term | None] = {INTERCEPT: None} if self.formula.intercept else {}
        for term in self.formula.terms:
            names = [self._names(factor, term) for factor in term.factors]
            owners.update({":".join(parts): term for parts in product(*names)})
        return owners

    def _columns(self, factor: Factor, term: Term, values: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
        column = values[factor.label].to_numpy()
        if factor.label in self.levels:
            coded = self._coded_levels(factor, term)
            return {f"{factor.label}[{level}]": np.asarray(column == level, dtype=np.float64) for level in coded}
        centred = column.astype(np.float64) - self.centres.get(factor.label, 0.0)
        return {factor.label: centred / self.spreads.get(factor.label, 1.0)}

    def _names(self, factor: Factor, term: Term) -> list[str]:
        if factor.label not in self.levels:
            return [factor.label]
        return [f"{factor.label}[{level}]" for level in self._coded_levels(factor, term)]

    def _coded_levels(self, factor: Factor, term: Term) -> tuple[str, ...]:
        levels = self.levels[factor.label]
        return levels if term is self._stands_for_intercept() else levels[1:]

    def _stands_for_intercept(self) -> Term | None:
        mains = [term for term in self.formula.terms if len(term.factors) == 1]
        categorical = [term for term in mains if term.factors[0].label in self.levels]
        return None if self.formula.intercept or not categorical else categorical[0]


def factor_values(
    formula: Formula, table: pd.DataFrame, known: dict[tuple[Factor, bool], pd.Series] | None = None
) -> pd.DataFrame:
    """Read each factor of a formula from the table, functions of single rows applied.

    Args:
        formula: A parsed formula whose columns the table has.
        table: One row per scan.
        known: Factors (and whether each is a response) that were read from these rows, or more, already; filled.

    Returns:
        One column per factor label, response included: float64, or text for categories; missing where the column
        is (also `n/a` or empty text, or infinite) or where a logarithm or root is undefined.

    Raises:
        ValueError: A function of numbers, or the response, reads text.
    """
    known = {} if known is None else known
    factors = dict.fromkeys(factor for term in formula.terms for factor in term.factors)
    values = {}
    for key in [(formula.response, True), *((factor, False) for factor in factors)]:
        if key not in known:
            known[key] = _values(key[0], table[key[0].column], key[1])
        values[key[0].label] = known[key].reindex(table.index)
    return pd.DataFrame(values, index=table.index)


def as_levels(column: pd.Series) -> pd.Series:
    """Write values as text, as they are named in formulas and filters: 1.0 is `1`, missing stays missing."""
    missing = is_missing(column)
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        # Adding 0 turns −0.0, as rounding leaves it, into 0.
        text = column.map(lambda value: f"{value + 0.0:.15g}")
    else:
        text = column.astype(str)
    return text.astype(object).where(~missing, None)


def is_missing(column: pd.Series) -> pd.Series:
    """Say where a value is absent: NaN, or the BIDS `n/a` and empty text in a column of text."""
    missing = column.isna()
    if pd.api.types.is_numeric_dtype(column):
        return missing
    return missing | column.astype(str).str.strip().isin(MISSING_TEXTS)


def learn_coding(formula: Formula, values: pd.DataFrame) -> tuple[Coding, list[str]]:
    """Fix levels, centres and spreads on the rows of a fit.

    A factor without variation cannot be told from the intercept: its terms are left out, and a sentence says so.

    Args:
        formula: The formula.
        values: Complete rows, from `factor_values`.

    Returns:
        The coding, and plain sentences about what it left out.

    Raises:
        NotEstimable: A declared reference level has no rows.
    """
    levels = {factor.label: _ordered_levels(factor, values[factor.label]) for factor in categorical(formula, values)}
    problems, kept = [], []
    constant = {
        factor.label
        for term in formula.terms
        for factor in term.factors
        if _is_constant(values[factor.label]) and (formula.intercept or factor.label in levels)
    }
    for term in formula.terms:
        stuck = sorted(term.key & constant)
        if stuck:
            value = values[stuck[0]].iloc[0]
            shown = value if isinstance(value, str) else f"{value:g}"
            problems.append(f"{term.label} left out: {stuck[0]} is {shown} in all {len(values)} rows used.")
        else:
            kept.append(term)
    kept_formula = replace(formula, terms=tuple(kept))
    kept_labels = {label for term in kept for label in term.key}
    numeric = {f for term in kept for f in term.factors if f.function in ("center", "scale")}
    centres = {factor.label: float(values[factor.label].mean()) for factor in numeric}
    spreads = {factor.label: float(values[factor.label].std()) for factor in numeric if factor.function == "scale"}
    levels = {label: names for label, names in levels.items() if label in kept_labels}
    return Coding(kept_formula, levels, centres, spreads), problems


def categorical(formula: Formula, values: pd.DataFrame) -> list[Factor]:
    """List the factors whose values are levels rather than numbers, each once."""
    factors = dict.fromkeys(factor for term in formula.terms for factor in term.factors)
    return [factor for factor in factors if not pd.api.types.is_float_dtype(values[factor.label])]


def check_rank(matrix: pd.DataFrame) -> list[str]:
    """Refuse a design whose coefficients these rows cannot tell apart, and point at those that they hardly can.

    Args:
        matrix: Design matrix, shape (n, p).

    Returns:
        Sentences about nearly collinear columns (variance inflation above 10).

    Raises:
        NotEstimable: No more rows than parameters, or perfect collinearity, naming the columns.
    """
    n, p = matrix.shape
    if n <= p:
        raise NotEstimable(f"Not fitted: {n} rows cannot carry {p} parameters ({', '.join(matrix.columns)}).")
    triangle = np.asarray(np.linalg.qr(_unit_columns(matrix), mode="r"))
    _, singular, directions = np.linalg.svd(triangle, full_matrices=False)
    if p and singular[-1] < COLLINEAR_BELOW * singular[0]:
        involved = [name for name, weight in zip(matrix.columns, directions[-1], strict=True) if abs(weight) > 1e-6]
        raise NotEstimable(f"Not fitted: {', '.join(involved)} are perfectly collinear in the {n} rows used.")
    return _variance_inflation(matrix, triangle)


def _values(factor: Factor, column: pd.Series, is_response: bool) -> pd.Series:
    if factor.function == "C" or (not factor.function and not is_response and not _is_amount(factor, column)):
        return as_levels(column)
    numbers = _numbers(factor, column)
    if factor.function == "log":
        return np.log(numbers.where(numbers > 0))
    if factor.function == "sqrt":
        return np.sqrt(numbers.where(numbers >= 0))
    return numbers


def _is_amount(factor: Factor, column: pd.Series) -> bool:
    return factor.column.casefold() not in NOMINAL_COLUMNS and reads_as_numbers(column)


def reads_as_numbers(column: pd.Series) -> bool:
    """Whether all values that are there are numbers, or text that says numbers."""
    if pd.api.types.is_bool_dtype(column):
        return False
    if pd.api.types.is_numeric_dtype(column):
        return True
    present = column[~is_missing(column)]
    return len(present) > 0 and bool(pd.to_numeric(present.astype(str), errors="coerce").notna().all())


def _numbers(factor: Factor, column: pd.Series) -> pd.Series:
    present = column.astype(object).where(~is_missing(column), np.nan)
    numbers = pd.to_numeric(present, errors="coerce").astype(np.float64)
    lost = present[numbers.isna() & present.notna()]
    if len(lost):
        raise ValueError(
            f"Formula: {factor.label} must be numbers, but column {factor.column} holds {str(lost.iloc[0])!r}. "
            f"Write C({factor.column}) on the right of ~ for a category, or n/a for a missing value."
        )
    return numbers.replace([np.inf, -np.inf], np.nan)


def _is_constant(column: pd.Series) -> bool:
    if pd.api.types.is_float_dtype(column):
        return bool(np.ptp(column.to_numpy()) <= 1e-12 * np.abs(column.to_numpy()).max())
    return column.nunique() < 2


def _ordered_levels(factor: Factor, column: pd.Series) -> tuple[str, ...]:
    levels = sorted(column.unique(), key=natural)
    if factor.reference is None:
        return tuple(levels)
    if factor.reference not in levels:
        raise NotEstimable(
            f"Not fitted: the reference level {factor.reference!r} of {factor.column} has no rows; "
            f"{nearest(factor.reference, levels)}"
        )
    return (factor.reference, *(level for level in levels if level != factor.reference))


def natural(level: str) -> tuple[int, float, str]:
    """Sort levels as people count: numbers by size, before words."""
    try:
        return (0, float(level), level)
    except ValueError:
        return (1, 0.0, level)


def _unit_columns(matrix: pd.DataFrame) -> np.ndarray:
    values = matrix.to_numpy(dtype=np.float64, copy=True)
    if INTERCEPT in matrix:
        rest = [index for index, name in enumerate(matrix.columns) if name != INTERCEPT]
        values[:, rest] -= values[:, rest].mean(axis=0)
    norms = np.linalg.norm(values, axis=0)
    return values / np.where(norms > 0, norms, 1.0)


def _variance_inflation(matrix: pd.DataFrame, triangle: NDArray[np.float64]) -> list[str]:
    mains = [name for name in matrix.columns if name != INTERCEPT and ":" not in name]
    if len(mains) < 2 or INTERCEPT not in matrix:
        return []
    # The triangle's columns are the design's, turned: what holds between those holds between these.
    places = np.flatnonzero(matrix.columns.isin(mains))
    inverse = np.linalg.inv(np.linalg.qr(triangle[:, places], mode="r"))
    inflation = (inverse**2).sum(axis=1)
    return [
        f"{name} is nearly collinear with the other predictors (variance inflation {value:.0f})."
        for name, value in zip(mains, inflation, strict=True)
        if value > NEARLY_COLLINEAR_VIF
    ]
