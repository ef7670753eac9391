from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.science.statistics.formula import Factor, check_columns, nearest, parse


def labels(text: str) -> list[str]:
    return [term.label for term in parse(text).terms]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y ~ x", ["x"]),
        ("y~1", []),
        ("y ~ a*b", ["a", "b", "a:b"]),
        ("y ~ a*b*c", ["a", "b", "c", "a:b", "a:c", "b:c", "a:b:c"]),
        ("y ~ a:b + b + a + b:a", ["b", "a", "a:b"]),
        (
            "y ~ C(site) + log(x) + sqrt(x) + center(z) + scale(z)",
            ["site", "log(x)", "sqrt(x)", "center(z)", "scale(z)"],
        ),
        ("y ~ `HADS-anx` + C(`ICD-10`)", ["HADS-anx", "ICD-10"]),
        ("log(edss) ~ x + x", ["x"]),
        ("y ~ a*a", ["a"]),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert labels(text) == expected


def test_main_effects_come_before_interactions() -> None:
    assert labels("y ~ a*b + c") == ["a", "b", "c", "a:b"]


@pytest.mark.parametrize(
    ("text", "intercept"),
    [("y ~ x", True), ("y ~ x + 0", False), ("y ~ 0 + x", False), ("y ~ x - 1", False), ("y ~ 1 + x", True)],
)
def test_intercept(text: str, intercept: bool) -> None:
    assert parse(text).intercept is intercept


@pytest.mark.parametrize("quoted", ['"HC"', "'HC'"])
def test_reference_levels(quoted: str) -> None:
    assert parse(f"y ~ C(group, ref={quoted})").terms[0].factors == (Factor("group", "C", "HC"),)


def test_columns_are_listed_once_response_first() -> None:
    assert parse("log(y) ~ a*b + log(a)").columns == ("y", "a", "b")


@pytest.mark.parametrize(
    "hostile",
    [
        "y ~ __import__('os').system('x')",
        "y ~ C(x).__class__",
        "y ~ I(x**2)",
        "y ~ I(__import__('os'))",
        "y ~ x; import os",
        "y ~ x\\",
        "y ~ C(x, ref='a\\'')",
        "y ~ eval(x)",
        "y ~ np.log(x)",
        "y ~ x[0]",
        "y ~ {x}",
        "y ~ lambda: x",
        "y ~ log(scale(x))",
        "y ~ log(x, y)",
        "y ~ C(x, Treatment('a'))",
        "y ~ C(x, ref=a)",
        "y ~ x == 1",
        "y ~ x ^ 2",
        "y ~ x / z",
        "y ~ (a + b)",
        "y ~ (a | b)",
        "y ~ 2",
        "y ~ x + 10",
        "y ~ x y",
        "y ~ x - z",
        "y ~ x ~ z",
        "C(y) ~ x",
        "y + z ~ x",
        "y ~",
        "~ x",
        "",
        "y",
        "y ~ x +",
        "y ~ `x",
        "y ~ ``",
        "y ~ naïve",
        "y ~ \x00",
        "y ~ C(x) + C(x, ref='a')",
        "y ~ a*b*c*d*e*f*g",
        "y ~ y",
        "y ~ " + "x + " * 1000 + "x",
    ],
)
def test_everything_outside_the_grammar_is_refused(hostile: str) -> None:
    with pytest.raises(ValueError, match=r"[Ff]ormula"):
        parse(hostile)


def test_a_refusal_shows_where_what_and_what_is_allowed() -> None:
    with pytest.raises(ValueError) as refused:
        parse("y ~ x + I(z)")
    text = str(refused.value)
    assert "position 9: found 'I'" in text
    assert "allowed are column names" in text
    assert text.endswith("y ~ x + I(z)\n        ^")


def test_a_name_with_a_minus_gets_the_hint_to_use_backticks() -> None:
    with pytest.raises(ValueError, match="backticks, as in `HADS-anx`"):
        parse("y ~ HADS-anx")


def test_an_interaction_without_its_parts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a:b needs b as a term of its own.*Write a\*b"):
        parse("y ~ a + a:b")


def test_an_unknown_column_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="no column 'Edss'; did you mean 'edss'"):
        check_columns(parse("y ~ Edss"), ["y", "edss", "age_years"])
    assert nearest("zzz", ["b", "a"]) == "there are a, b."


TOKENS = [*"abCy01~+-*:(),='\"` \\._[]{}\n", "log(", "ref=", "C(a)", " ~ ", " + ", "log(b)", "C(a, ref='x')"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=12).map(lambda tokens: "y ~ a" + "".join(tokens)))
def test_any_text_is_parsed_or_refused_never_something_else(text: str) -> None:
    try:
        formula = parse(text)
    except ValueError:
        return
    assert formula.response == Factor("y")
    assert len({term.key for term in formula.terms}) == len(formula.terms)
