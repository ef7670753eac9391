r"""A small, safe formula notation, parsed here because statsmodels' formulas evaluate Python.

    formula   = response "~" term { "+" term } [ "+" "0" | "-" "1" ]
    response  = column | function "(" column ")"
    term      = "1" | factor { ":" factor } { "*" ... }
    factor    = column | function "(" column ")" | "C(" column [ "," "ref" "=" "level in quotes" ] ")"
    function  = log | sqrt | center | scale
    column    = letters, digits and underscores, or any name in backticks: `HADS-anx`

`a:b` is an interaction, `a*b` is `a + b + a:b`. An interaction needs its parts as terms too (marginality), so that
treatment coding spans the whole model. Nothing is ever evaluated: whatever is outside the grammar is refused with its
position.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

BASELINE = "_baseline"
"""A name that ends so is what its stem was at a subject's first session."""
PER_YEAR = "_per_year"
"""A name that ends so is the yearly change of its stem over a subject's sessions."""
FUNCTIONS = ("log", "sqrt", "center", "scale")
MAX_LENGTH = 2000
MAX_FACTORS = 6
MAX_LISTED = 30
ALLOWED = (
    "allowed are column names (in backticks where they hold other characters than letters, digits and _), "
    'C(name), C(name, ref="level"), log(x), sqrt(x), center(x), scale(x), a:b, a*b, + and, for no intercept, + 0 or - 1'
)
TOKEN = re.compile(
    r"""\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)|`(?P<quoted>[^`]+)`|(?P<number>[0-9]+)
    |"(?P<double>[^"\\]*)"|'(?P<single>[^'\\]*)'|(?P<mark>[~+\-*:(),=]))""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Factor:
    """One column as the model sees it.

    Attributes:
        column: Name in the table.
        function: `log`, `sqrt`, `center`, `scale`, `C` (categorical), or empty (as the column's type says).
        reference: Reference level of a categorical factor; None takes the first in sorted order.
    """

    column: str
    function: str = ""
    reference: str | None = None

    @property
    def label(self) -> str:
        """The name in results: `C(diagnosis, ref="HC")` is `diagnosis`, since its columns show the level."""
        return self.column if self.function in ("", "C") else f"{self.function}({self.column})"


@dataclass(frozen=True)
class Term:
    """A product of factors; one factor is a main effect."""

    factors: tuple[Factor, ...]

    @property
    def label(self) -> str:
        """The name in results, such as `diagnosis:years_since_baseline`."""
        return ":".join(factor.label for factor in self.factors)

    @property
    def key(self) -> frozenset[str]:
        """What makes two terms equal: `a:b` is `b:a`."""
        return frozenset(factor.label for factor in self.factors)


@dataclass(frozen=True)
class Formula:
    """A parsed formula."""

    text: str
    response: Factor
    terms: tuple[Term, ...]
    intercept: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the formula reads, the response first."""
        factors = [self.response, *(factor for term in self.terms for factor in term.factors)]
        return tuple(dict.fromkeys(factor.column for factor in factors))


def parse(text: str) -> Formula:
    """Read a formula such as `brain_pad_years ~ C(diagnosis, ref="HC") * edss + age_years + sex`.

    Args:
        text: The formula; see the module's grammar.

    Returns:
        Response, expanded terms (main effects before interactions, as R orders them) and whether there is an intercept.

    Raises:
        ValueError: The text is outside the grammar: says where, what was found and what is allowed.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"The formula has {len(text)} characters; at most {MAX_LENGTH} are read.")
    formula = _Parser(text).formula()
    if any(factor.column == formula.response.column for term in formula.terms for factor in term.factors):
        raise ValueError(
            f"Formula {text!r}: {formula.response.column} stands on both sides of ~; drop it on the right."
        )
    _refuse_missing_margins(formula)
    return formula


def as_categories(text: str, references: Mapping[str, str | None]) -> str:
    """Write columns on the right of a formula as categories, with a reference level where one is given.

    >>> as_categories("y ~ x*z + log(x) + C(g)", {"x": None, "g": "low"})
    'y ~ C(x)*z + log(x) + C(g, ref="low")'
    """
    tokens = _tokens(text)
    right = next((place for place, token in enumerate(tokens) if token.value == "~"), len(tokens))
    written, done = [], 0
    for place in range(right + 1, len(tokens) - 1):
        token, within, after = tokens[place], tokens[place - 1].value == "(", tokens[place + 1].value
        if token.kind not in ("name", "`name") or token.value not in references or after == "(":
            continue
        function = tokens[place - 2].value if within else ""
        if function not in ("", "C") or (function and after != ")"):
            continue
        quoted = token.kind == "`name"
        start, end = token.position - quoted, token.position + len(token.value) + quoted
        level = references[token.value]
        named = text[start:end] if level is None else f'{text[start:end]}, ref="{level}"'
        written += [text[done:start], named if function else f"C({named})"]
        done = end
    return "".join([*written, text[done:]])


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name was perhaps meant, as the end of an error message."""
    names = sorted({str(item) for item in known})
    folded = {item.casefold(): item for item in names}
    match = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    if match:
        return f"did you mean {folded[match[0]]!r}?"
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"there are {', '.join(names[:MAX_LISTED]) or 'none'}{more}."


def check_columns(formula: Formula, available: Iterable[str]) -> None:
    """Refuse a formula that reads a column which the table lacks.

    Raises:
        ValueError: Names the column, and the nearest one that exists.
    """
    known = list(available)
    for column in formula.columns:
        if column not in known:
            raise ValueError(f"Formula {formula.text!r}: there is no column {column!r}; {nearest(column, known)}")


@dataclass(frozen=True)
class _Token:
    kind: str
    value: str
    position: int

    @property
    def shown(self) -> str:
        return "the end" if self.kind == "end" else repr(self.value)


def _tokens(text: str) -> list[_Token]:
    tokens, position, end = [], 0, len(text.rstrip())
    while position < end:
        match = TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            start = position + len(text[position:]) - len(text[position:].lstrip())
            raise _refusal(text, start, repr(text[start]), ALLOWED)
        group = match.lastgroup
        kind = {"quoted": "name", "double": "string", "single": "string"}.get(group, group)
        tokens.append(_Token(f"`{kind}" if group == "quoted" else kind, match.group(group), match.start(group)))
        position = match.end()
    return [*tokens, _Token("end", "", end)]


def _refusal(text: str, position: int, found: str, wanted: str) -> ValueError:
    return ValueError(
        f"Formula refused at position {position + 1}: found {found}; {wanted}.\n{text}\n{' ' * position}^"
    )


class _Parser:
    """Recursive descent, one method per rule of the grammar."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.at = 0

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def take(self) -> _Token:
        token = self.next
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    def takes(self, mark: str) -> bool:
        if self.next.kind == "mark" and self.next.value == mark:
            self.take()
            return True
        return False

    def refuse(self, token: _Token, wanted: str) -> ValueError:
        return _refusal(self.text, token.position, token.shown, wanted)

    def expect(self, mark: str) -> None:
        if not self.takes(mark):
            raise self.refuse(self.next, f"expected {mark!r} here; {ALLOWED}")

    def formula(self) -> Formula:
        start = self.next
        response = self.factor()
        if response.function == "C":
            raise self.refuse(start, "the response must be a number, not a category")
        self.expect("~")
        terms: dict[frozenset[str], Term] = {}
        intercept, sign = True, "+"
        while True:
            if self.next.kind == "number":
                intercept = self.intercept(sign)
            elif sign == "-":
                raise self.refuse(self.next, "only - 1 may follow a minus; " + self.hint())
            else:
                for term in self.product():
                    self.add(terms, term)
            if self.next.kind == "end":
                ordered = sorted(terms.values(), key=lambda term: len(term.factors))
                return Formula(self.text.strip(), response, tuple(ordered), intercept)
            sign = self.sign()

    def add(self, terms: dict[frozenset[str], Term], term: Term) -> None:
        known = terms.setdefault(term.key, term)
        if set(known.factors) != set(term.factors):
            raise self.refuse(
                self.next, f"expected one way to write {term.label!r}: it stands with two reference levels"
            )

    def sign(self) -> str:
        for mark in ("+", "-"):
            if self.takes(mark):
                return mark
        raise self.refuse(self.next, ALLOWED)

    def hint(self) -> str:
        return "a column whose name holds a minus is written in backticks, as in `HADS-anx`"

    def intercept(self, sign: str) -> bool:
        token = self.take()
        meanings = {("+", "1"): True, ("+", "0"): False, ("-", "1"): False, ("-", "0"): True}
        if (sign, token.value) not in meanings:
            raise self.refuse(token, f"the only numbers are 0 and 1, for the intercept; {ALLOWED}")
        return meanings[sign, token.value]

    def product(self) -> list[Term]:
        start = self.next
        parts = [self.interaction()]
        while self.takes("*"):
            parts.append(self.interaction())
        if sum(len(part) for part in parts) > MAX_FACTORS:
            raise self.refuse(start, f"at most {MAX_FACTORS} factors may interact")
        chosen = [group for size in range(1, len(parts) + 1) for group in combinations(parts, size)]
        return [Term(tuple(dict.fromkeys(factor for part in group for factor in part))) for group in chosen]

    def interaction(self) -> list[Factor]:
        factors = [self.factor()]
        while self.takes(":"):
            factors.append(self.factor())
        return factors

    def factor(self) -> Factor:
        token = self.take()
        if token.kind not in ("name", "`name"):
            raise self.refuse(token, f"expected a column name; {ALLOWED}")
        if token.kind == "`name" or not self.takes("("):
            return Factor(token.value)
        if token.value not in (*FUNCTIONS, "C"):
            raise self.refuse(token, f"no such function; {ALLOWED}")
        column = self.take()
        if column.kind not in ("name", "`name"):
            raise self.refuse(column, f"expected a column name within {token.value}(); {ALLOWED}")
        reference = self.reference() if token.value == "C" and self.takes(",") else None
        self.expect(")")
        return Factor(column.value, token.value, reference)

    def reference(self) -> str:
        keyword = self.take()
        if keyword.value != "ref":
            raise self.refuse(keyword, 'the only option of C() is ref, as in C(name, ref="level")')
        self.expect("=")
        level = self.take()
        if level.kind != "string":
            raise self.refuse(level, 'a reference level stands in quotes, as in C(name, ref="level")')
        return level.value


def _refuse_missing_margins(formula: Formula) -> None:
    present = {term.key for term in formula.terms}
    for term in formula.terms:
        labels = [factor.label for factor in term.factors]
        for size in range(1, len(labels)):
            for part in combinations(labels, size):
                if frozenset(part) not in present:
                    raise ValueError(
                        f"Formula {formula.text!r}: {term.label} needs {':'.join(part)} as a term of its own, or its "
                        f"coefficients would not mean what they seem to. Write {'*'.join(labels)}."
                    )
