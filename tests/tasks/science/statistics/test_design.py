from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.science.statistics.design import NotEstimable, as_levels, check_rank, factor_values, learn_coding
from tasks.science.statistics.formula import parse

TABLE = pd.DataFrame(
    {
        "y": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
        "dx": ["MS", "HC", "CIS", "MS", "HC", "CIS"],
        "x": [1.0, 2.0, 3.0, 4.0, 5.0, 7.0],
        "sex": ["F", "M", "F", "M", "M", "F"],
        "site": [10, 2, 10, 2, 10, 2],
    }
)


def design(text: str, table: pd.DataFrame = TABLE) -> pd.DataFrame:
    formula = parse(text)
    values = factor_values(formula, table)
    return learn_coding(formula, values)[0].matrix(values)


def test_treatment_coding_with_readable_names() -> None:
    matrix = design('y ~ C(dx, ref="HC") * x')
    assert list(matrix) == ["Intercept", "dx[CIS]", "dx[MS]", "x", "dx[CIS]:x", "dx[MS]:x"]
    assert list(matrix["dx[MS]:x"]) == [1.0, 0.0, 0.0, 4.0, 0.0, 0.0]
    assert list(design("y ~ dx")) == ["Intercept", "dx[HC]", "dx[MS]"]


def test_numeric_levels_sort_as_numbers() -> None:
    assert list(design("y ~ C(site)")) == ["Intercept", "site[10]"]


def test_without_intercept_the_first_category_keeps_all_levels() -> None:
    matrix = design("y ~ 0 + dx + sex")
    assert list(matrix) == ["dx[CIS]", "dx[HC]", "dx[MS]", "sex[M]"]
    assert np.linalg.matrix_rank(matrix) == 4


@pytest.mark.parametrize("text", ["y ~ dx*x", "y ~ 0 + dx*x", "y ~ dx*sex + x", "y ~ 0 + x + dx*sex"])
def test_the_model_space_equals_the_cell_means_of_its_terms(text: str) -> None:
    rng = np.random.default_rng(0)
    n = 200
    table = pd.DataFrame(
        {"y": 1.0, "x": rng.normal(size=n), "dx": rng.choice(list("abc"), n), "sex": rng.choice(["F", "M"], n)}
    )
    matrix = design(text, table)
    dx = pd.get_dummies(table["dx"], dtype=float).to_numpy()
    x = table[["x"]].to_numpy()
    sex = pd.get_dummies(table["sex"], dtype=float).to_numpy()
    full = np.hstack([dx, x, dx * x]) if "dx*x" in text else np.hstack([dx[:, [i]] * sex for i in range(3)] + [x])
    assert np.linalg.matrix_rank(matrix) == matrix.shape[1] == np.linalg.matrix_rank(full)
    assert np.linalg.matrix_rank(np.hstack([matrix, full])) == matrix.shape[1]


def test_functions() -> None:
    assert design("y ~ log(x)")["log(x)"].to_numpy() == pytest.approx(np.log(TABLE.x))
    assert design("y ~ center(x)")["center(x)"].to_numpy() == pytest.approx((TABLE.x - TABLE.x.mean()).to_numpy())
    scaled = design("y ~ scale(x)")["scale(x)"]
    assert (scaled.mean(), scaled.std()) == (pytest.approx(0.0), pytest.approx(1.0))


def test_a_coding_is_frozen_so_that_new_rows_are_coded_alike() -> None:
    formula = parse("y ~ scale(x) + dx")
    values = factor_values(formula, TABLE)
    coding = learn_coding(formula, values)[0]
    pd.testing.assert_frame_equal(coding.matrix(values.iloc[[2]]), coding.matrix(values).iloc[[2]])


def test_missing_and_undefined_values_stay_missing() -> None:
    table = TABLE.assign(dx=["n/a", None, "", "MS", "HC", "MS"], x=[-1.0, 0.0, np.inf, np.nan, 1.0, 2.0])
    values = factor_values(parse("y ~ dx + log(x)"), table)
    assert list(values["dx"].isna()) == [True, True, True, False, False, False]
    assert list(values["log(x)"].isna()) == [True, True, True, True, False, False]


def test_numbers_written_as_text_are_numbers_and_text_in_a_function_is_refused() -> None:
    table = TABLE.assign(x=["1", "2.5", "n/a", "4", "5", "6"])
    assert factor_values(parse("y ~ x"), table)["x"].dtype == np.float64
    with pytest.raises(ValueError, match="column dx holds 'MS'"):
        factor_values(parse("y ~ log(dx)"), table)
    with pytest.raises(ValueError, match="dx must be numbers"):
        factor_values(parse("dx ~ x"), table)


def test_levels_of_numbers_read_as_people_write_them() -> None:
    assert list(as_levels(pd.Series([1.0, 2.5, np.nan]))) == ["1", "2.5", None]
    assert list(as_levels(pd.Series([True, False]))) == ["True", "False"]


def test_what_does_not_vary_is_left_out_and_said() -> None:
    table = TABLE.assign(sex="F", x=3.0)
    formula = parse("y ~ sex*dx + x")
    coding, problems = learn_coding(formula, factor_values(formula, table))
    assert [term.label for term in coding.formula.terms] == ["dx"]
    assert problems == [
        "sex left out: sex is F in all 6 rows used.",
        "x left out: x is 3 in all 6 rows used.",
        "sex:dx left out: sex is F in all 6 rows used.",
    ]


def test_an_absent_reference_is_a_reason() -> None:
    with pytest.raises(NotEstimable, match="'hc' of dx has no rows; did you mean 'HC'"):
        design('y ~ C(dx, ref="hc")')


def test_collinear_columns_are_named() -> None:
    table = TABLE.assign(twice=2 * TABLE.x + 1)
    with pytest.raises(NotEstimable, match="x, twice are perfectly collinear"):
        check_rank(design("y ~ x + twice + sex", table))
    with pytest.raises(NotEstimable, match="6 rows cannot carry 6 parameters"):
        check_rank(design("y ~ dx*x", TABLE))
    nearly = TABLE.assign(twice=2 * TABLE.x + [0, 0.1, 0, 0, 0.1, 0])
    assert "variance inflation" in check_rank(design("y ~ x + twice", nearly))[0]
    assert check_rank(design("y ~ x + sex")) == []
