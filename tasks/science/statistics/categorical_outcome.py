"""Models of outcomes that are categories: logistic for two, proportional odds for ordered ones."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from statsmodels.miscmodels.ordinal_model import OrderedModel
from statsmodels.tools.sm_exceptions import ConvergenceWarning

from .design import INTERCEPT, NotEstimable
from .least_squares import few_clusters, one_cluster
from .model_estimates import Estimates, Figure
from .separation import separating_columns

Array = NDArray[np.float64]

NEWTON_STEPS = 50
# Peduzzi et al. 1996, doi:10.1016/S0895-4356(96)00236-3.
EVENTS_PER_PARAMETER = 10
NOT_PROPORTIONAL = 0.05


def logistic(response: pd.Series, matrix: pd.DataFrame, event: str, clusters: pd.Series | None) -> Estimates:
    """Fit the logarithm of the odds of an event by maximum likelihood.

    Args:
        response: 1 where it happened, else 0, shape (n,).
        matrix: Design, full rank, shape (n, p).
        event: What 1 means, in words.
        clusters: Clusters for a sandwich covariance (repeated sessions); None takes the information's inverse.

    Returns:
        Estimates with normal reference, or with clusters that of t with their number less one; `fitted` are
        probabilities.

    Raises:
        NotEstimable: The predictors separate the two outcomes, so that no finite estimate exists.
    """
    x, y = matrix.to_numpy(dtype=np.float64), response.to_numpy(dtype=np.float64)
    rest = matrix.drop(columns=INTERCEPT, errors="ignore")
    _refuse_separation(rest, y.astype(np.intp), event)
    beta, information = newton_logit(x, y)
    inverse = np.linalg.inv(information)
    probability = 1 / (1 + np.exp(-(x @ beta)))
    residual = y - probability
    covariance, how, df = inverse, "", np.inf
    problems: list[str] = []
    if clusters is not None:
        codes = pd.factorize(clusters)[0]
        scores = np.zeros((codes.max() + 1, x.shape[1]))
        np.add.at(scores, codes, x * residual[:, None])
        k = len(scores)
        if k < 2:
            raise NotEstimable(one_cluster(clusters))
        covariance, df = k / (k - 1) * inverse @ scores.T @ scores @ inverse, k - 1
        how = f", cluster-robust by {clusters.name}"
        problems += few_clusters(k)
    events, slopes = int(min(y.sum(), len(y) - y.sum())), x.shape[1] - 1
    if slopes and events < EVENTS_PER_PARAMETER * slopes:
        problems.append(
            f"{events} rows of the rarer outcome for {slopes} coefficients: below {EVENTS_PER_PARAMETER} each, log "
            "odds are biased away from zero."
        )
    return Estimates(
        kind="logistic",
        method=f"logistic regression, log odds of {event}{how}",
        estimate=pd.Series(beta, index=matrix.columns),
        covariance=pd.DataFrame(covariance, index=matrix.columns, columns=matrix.columns),
        df=pd.Series(float(df), index=matrix.columns),
        problems=tuple(problems),
        by_row=pd.DataFrame({"fitted": probability, "residual": residual}, index=matrix.index),
        diagnostics=(("auc", "", _auc(probability, y), float("nan")),),
    )


def newton_logit(x: Array, y: Array, weights: Array | None = None) -> tuple[Array, Array]:
    """Maximise the logistic likelihood.

    Args:
        x: Design, shape (n, p).
        y: 0 or 1, shape (n,).
        weights: How often each row counts, shape (n,); None: once.

    Returns:
        Coefficients, shape (p,), and the information, shape (p, p).

    Raises:
        NotEstimable: The search does not end.
    """
    w = np.ones(len(y)) if weights is None else weights
    beta = np.zeros(x.shape[1])
    for _ in range(NEWTON_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(x @ beta, -35, 35)))
        information = (x.T * (w * probability * (1 - probability))) @ x
        try:
            step = np.linalg.solve(information, x.T @ (w * (y - probability)))
        except np.linalg.LinAlgError:
            break
        beta = beta + step
        if np.abs(step).max() < 1e-10 * max(1.0, float(np.abs(beta).max())):
            return beta, information
    raise NotEstimable("Not fitted: the logistic likelihood has no maximum that could be found.")


def ordinal(response: pd.Series, matrix: pd.DataFrame, levels: tuple[str, ...]) -> Estimates:
    """Fit proportional odds: one slope per predictor for every cut of an ordered scale.

    Args:
        response: Codes 0 … K − 1 in the order of the levels, shape (n,).
        matrix: Design with an intercept, which the thresholds replace, shape (n, p).
        levels: Names of the codes.

    Returns:
        Estimates of log odds of a higher level per unit, with normal reference; Brant's test among the diagnostics.

    Raises:
        NotEstimable: The predictors separate the levels, or the search did not converge.

    Reference: McCullagh 1980, doi:10.1111/j.2517-6161.1980.tb01109.x; Brant 1990, doi:10.2307/2532457.
    """
    rest = matrix.drop(columns=INTERCEPT, errors="ignore")
    if rest.empty:
        raise NotEstimable("Not fitted: an ordinal model needs a predictor.")
    codes = response.to_numpy(dtype=np.intp)
    _refuse_separation(rest, codes, "the levels")
    centre, spread = rest.mean(), rest.std()
    scaled = (rest - centre) / spread
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = OrderedModel(codes, scaled.to_numpy(), distr="logit")
        fit = model.fit(method="bfgs", disp=0, maxiter=1000, gtol=1e-6)
        covariance = np.asarray(fit.cov_params())
    p = rest.shape[1]
    if not fit.mle_retvals["converged"] or not np.all(np.diag(covariance)[:p] > 0):
        raise NotEstimable(
            f"Not fitted: the ordinal model of {len(levels)} levels did not converge; merge rare levels."
        )
    scale = 1 / spread.to_numpy()
    probabilities = np.asarray(fit.predict())
    expected = probabilities @ np.arange(probabilities.shape[1])
    brant, problems = _brant(rest, codes)
    return Estimates(
        kind="ordinal",
        method=f"proportional odds ({len(levels)} levels, {levels[0]} … {levels[-1]}), log odds of a higher level",
        estimate=pd.Series(np.asarray(fit.params)[:p] * scale, index=rest.columns),
        covariance=pd.DataFrame(covariance[:p, :p] * np.outer(scale, scale), index=rest.columns, columns=rest.columns),
        df=pd.Series(np.inf, index=rest.columns),
        problems=problems,
        by_row=pd.DataFrame({"fitted": expected, "residual": codes - expected}, index=matrix.index),
        diagnostics=brant,
    )


def _refuse_separation(rest: pd.DataFrame, codes: NDArray[np.intp], what: str) -> None:
    if rest.empty:
        return
    found = separating_columns(rest.to_numpy(dtype=np.float64), codes)
    if found:
        names = ", ".join(rest.columns[found])
        raise NotEstimable(
            f"Not fitted: {names} separate{'s' if len(found) == 1 else ''} {what} perfectly, so no finite estimate "
            "exists. Take the variable out, merge its levels, or bring more rows."
        )


def _brant(rest: pd.DataFrame, codes: NDArray[np.intp]) -> tuple[tuple[Figure, ...], tuple[str, ...]]:
    """Ask whether the binary models at each cut share their slopes."""
    n_cuts, p = int(codes.max()), rest.shape[1]
    above = np.array([(codes > cut).astype(float) for cut in range(n_cuts)])
    smallest = min(above.sum(axis=1).min(), (1 - above).sum(axis=1).min())
    if n_cuts < 2:
        return (), ()
    x = np.column_stack([np.ones(len(codes)), rest.to_numpy(dtype=np.float64)])
    if smallest < p + 3 or any(separating_columns(x[:, 1:], cut.astype(np.intp)) for cut in above):
        return (), ("Whether odds are proportional cannot be checked: some cut of the scale has too few rows.",)
    fits = [newton_logit(x, cut) for cut in above]
    probability = [1 / (1 + np.exp(-(x @ beta))) for beta, _ in fits]
    inverse = [np.linalg.inv(information) for _, information in fits]
    joint = np.zeros((n_cuts * p, n_cuts * p))
    for i in range(n_cuts):
        for j in range(i, n_cuts):
            between = (x.T * (probability[j] * (1 - probability[i]))) @ x
            block = (inverse[i] @ between @ inverse[j])[1:, 1:]
            joint[i * p : (i + 1) * p, j * p : (j + 1) * p] = block
            joint[j * p : (j + 1) * p, i * p : (i + 1) * p] = block.T
    slopes = np.concatenate([beta[1:] for beta, _ in fits])
    differences = np.hstack([np.tile(np.eye(p), (n_cuts - 1, 1)), -np.eye((n_cuts - 1) * p)])
    spread = differences @ joint @ differences.T
    chi2 = float((differences @ slopes) @ np.linalg.pinv(spread) @ (differences @ slopes))
    p_value = float(stats.chi2.sf(chi2, (n_cuts - 1) * p))
    said = (
        f"Odds are not proportional over the cuts of the scale (Brant p = {p_value:.2g}): the one slope is an average."
    )
    return (("proportional odds (Brant χ²)", "", chi2, p_value),), (said,) if p_value < NOT_PROPORTIONAL else ()


def _auc(score: Array, y: Array) -> float:
    ranks = stats.rankdata(score)
    positives = y.sum()
    return float((ranks[y == 1].sum() - positives * (positives + 1) / 2) / (positives * (len(y) - positives)))
