from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from statsmodels.regression.mixed_linear_model import MixedLM

from tasks.science.statistics.degrees_of_freedom import between_within_df
from tasks.science.statistics.design import NotEstimable
from tasks.science.statistics.mixed_model import fit_mixed
from tasks.science.statistics.profiled_deviance import Method


def sessions(
    n_groups: int = 25, tau: float = 2.0, slope_sd: float = 0.0, seed: int = 0
) -> tuple[pd.Series, pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), rng.integers(1, 6, n_groups))
    years = rng.uniform(0, 5, len(group))
    between = rng.normal(size=n_groups)[group]
    intercept = tau * rng.normal(size=n_groups)[group]
    slope = slope_sd * rng.normal(size=n_groups)[group]
    y = 3 + 1.5 * years - between + intercept + slope * years + rng.normal(size=len(group))
    order = rng.permutation(len(group))
    matrix = pd.DataFrame({"Intercept": 1.0, "years": years, "x": between})
    return pd.Series(y)[order], matrix.iloc[order], pd.Series(group)[order]


def dense_deviance(
    variances: np.ndarray, y: np.ndarray, x: np.ndarray, z: np.ndarray, same: np.ndarray, method: Method
) -> tuple[float, np.ndarray, np.ndarray]:
    """The textbook likelihood with the full n × n covariance, sharing nothing with the product."""
    residual = np.exp(variances[-1])
    if z.shape[1] == 1:
        psi = np.array([[np.exp(variances[0])]])
    else:
        root = np.array([[np.exp(variances[0]), 0], [variances[1], np.exp(variances[2])]])
        psi = root @ root.T
    v = (z @ psi @ z.T) * same + residual * np.eye(len(y))
    inverse = np.linalg.inv(v)
    information = x.T @ inverse @ x
    beta = np.linalg.solve(information, x.T @ inverse @ y)
    e = y - x @ beta
    deviance = np.linalg.slogdet(v)[1] + e @ inverse @ e + len(y) * np.log(2 * np.pi)
    if method == "REML":
        deviance += np.linalg.slogdet(information)[1] - x.shape[1] * np.log(2 * np.pi)
    return float(deviance), beta, np.linalg.inv(information)


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize("slope", [None, "years"])
def test_agrees_with_the_textbook_likelihood(method: Method, slope: str | None) -> None:
    y, x, group = sessions(slope_sd=1.0)
    z = np.ones((len(y), 1)) if slope is None else x[["Intercept", "years"]].to_numpy()
    same = group.to_numpy()[:, None] == group.to_numpy()[None, :]
    start = np.zeros(2 if slope is None else 4)
    parts = (y.to_numpy(), x.to_numpy(), z, same, method)
    best = minimize(lambda v: dense_deviance(v, *parts)[0], start, method="BFGS", options={"gtol": 1e-5})
    deviance, beta, covariance = dense_deviance(best.x, *parts)
    fit = fit_mixed(y, x, group, random_slope=slope, method=method)
    assert fit.deviance == pytest.approx(deviance, abs=1e-5)
    assert fit.fixed.to_numpy() == pytest.approx(beta, rel=1e-4)
    assert fit.covariance.to_numpy() == pytest.approx(covariance, rel=2e-3, abs=1e-6)
    assert fit.residual_variance == pytest.approx(np.exp(best.x[-1]), rel=2e-3)
    assert fit.problems == ()


def test_agrees_with_statsmodels() -> None:
    y, x, group = sessions()
    other = MixedLM(y, x, groups=group).fit(reml=True)
    fit = fit_mixed(y, x, group)
    assert fit.fixed.to_numpy() == pytest.approx(other.fe_params.to_numpy(), rel=1e-5)
    # statsmodels inverts the joint Hessian of fixed and random parameters; lme4 and padflow condition on the latter.
    assert np.sqrt(np.diag(fit.covariance)) == pytest.approx(other.bse_fe.to_numpy(), rel=2e-2)
    assert fit.deviance == pytest.approx(-2 * other.llf, abs=1e-6)


def test_dietox_as_geepack_users_print_it(shared_data: Path) -> None:
    table = pd.read_csv(shared_data / "tables" / "dietox.csv")
    fit = fit_mixed(table.Weight, pd.DataFrame({"Intercept": 1.0, "Time": table.Time}), table.Pig)
    assert [round(value, 4) for value in fit.fixed] == [15.7235, 6.9425]
    assert [round(value, 4) for value in np.sqrt(np.diag(fit.covariance))] == [0.7881, 0.0334]
    assert round(float(fit.random_covariance.iloc[0, 0]), 2) == 40.39
    assert round(fit.residual_variance, 2) == 11.37


def test_sleepstudy_as_lme4_prints_it(shared_data: Path) -> None:
    table = pd.read_csv(shared_data / "tables" / "sleepstudy.csv")
    matrix = pd.DataFrame({"Intercept": 1.0, "Days": table.Days})
    fit = fit_mixed(table.Reaction, matrix, table.Subject, random_slope="Days", method="ML")
    assert [round(value, 6) for value in fit.fixed] == [251.405105, 10.467286]
    assert [round(value, 3) for value in np.sqrt(np.diag(fit.covariance))] == [6.632, 1.502]
    assert round(fit.deviance, 4) == 1751.9393
    # As lmerTest prints them.
    assert fit.df.to_numpy() == pytest.approx([18, 18], abs=1e-3)
    reml = fit_mixed(table.Reaction, matrix, table.Subject, random_slope="Days")
    assert reml.df.to_numpy() == pytest.approx([17, 17], abs=1e-3)
    assert [round(value, 4) for value in np.sqrt(np.diag(reml.covariance))] == [6.8246, 1.5458]


def test_degrees_of_freedom_as_nlme_prints_them_for_orthodont(shared_data: Path) -> None:
    table = pd.read_csv(shared_data / "tables" / "Orthodont.csv")
    female = (table.Sex == "Female").astype(float)
    matrix = pd.DataFrame({"Intercept": 1.0, "age": table.age, "female": female, "age:female": table.age * female})
    assert list(between_within_df(matrix, table.Subject)) == [79, 79, 25, 79]


@pytest.mark.parametrize("gain", [1e-3, 1.0, 1e4])
def test_units_of_the_response_and_predictors_do_not_matter(gain: float) -> None:
    y, x, group = sessions(slope_sd=1.0)
    one, other = fit_mixed(y, x, group, "years"), fit_mixed(gain * y, x * [1, 1 / gain, gain], group, "years")
    assert other.fixed.to_numpy() == pytest.approx(one.fixed.to_numpy() * gain * [1, gain, 1 / gain], rel=1e-4)
    assert other.residual_variance == pytest.approx(one.residual_variance * gain**2, rel=1e-3)
    assert one.problems == other.problems == ()


def test_a_variance_of_zero_is_least_squares_and_is_said() -> None:
    for seed in range(20):
        y, x, group = sessions(tau=0.0, seed=seed)
        fit = fit_mixed(y, x, group)
        if fit.problems:
            assert fit.problems == ("Singular fit: the random intercept's variance is zero.",)
            assert fit.fixed.to_numpy() == pytest.approx(np.linalg.lstsq(x, y, rcond=None)[0], rel=1e-4)
            return
    raise AssertionError("none of twenty samples without a group effect had a variance of zero")


def test_a_slope_without_variance_is_said() -> None:
    said = [fit_mixed(*sessions(seed=seed), random_slope="years").problems for seed in range(6)]
    assert ("Singular fit: the random slope adds no variance of its own.",) in said


def test_sessions_that_are_copies_are_said() -> None:
    _, x, group = sessions()
    copies = x.assign(years=0.0)[["Intercept", "x"]]
    value = group.map(dict(enumerate(np.random.default_rng(0).normal(size=25))))
    assert "hardly differ" in fit_mixed(value, copies, group).problems[0]


def test_too_few_repeats_or_groups_are_a_reason() -> None:
    x = pd.DataFrame({"Intercept": 1.0, "x": [1.0, 2.0, 2.0]})
    with pytest.raises(NotEstimable, match="2 subjects with 1 repeated sessions are too few"):
        fit_mixed(pd.Series([1.0, 2.0, 3.0]), x, pd.Series(["a", "b", "b"]))


def test_an_unknown_slope_is_a_mistake() -> None:
    y, x, group = sessions()
    with pytest.raises(ValueError, match="'days' is no column"):
        fit_mixed(y, x, group, random_slope="days")


def test_intervals_between_subjects_cover() -> None:
    hits = 0
    for seed in range(150):
        fit = fit_mixed(*sessions(n_groups=12, seed=seed))
        reach = 2.306 if fit.df["x"] == 8 else 2.228
        hits += abs(fit.fixed["x"] + 1) < reach * np.sqrt(fit.covariance.loc["x", "x"])
    assert 0.89 <= hits / 150 <= 0.99
