"""Time to an event, such as conversion or a confirmed rise of a scale, with brain-PAD at baseline."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.duration.hazard_regression import PHReg
from statsmodels.tools.sm_exceptions import ConvergenceWarning, HessianInversionWarning

from .bootstrap import subject_keys
from .categorical_outcome import EVENTS_PER_PARAMETER
from .design import INTERCEPT, NotEstimable
from .longitudinal import ordered_sessions
from .model_estimates import Estimates

YEARS = "years_since_baseline"
NOT_PROPORTIONAL = 0.05
# A hazard ratio of e¹⁵ per standard deviation, or a standard error as large, is a likelihood without a maximum.
LARGEST_SCALED_ESTIMATE = 15.0


def times_to_event(rows: pd.DataFrame, event: str) -> pd.DataFrame:
    """Say for each subject when the event came, or until when it was looked for, from its sessions.

    Args:
        rows: One row per session, with `years_since_baseline` and a column that is 1 at sessions at which the event
            had happened.
        event: That column.

    Returns:
        The rows with `years_since_baseline` replaced by the years from baseline to the first session with the event
        (then `event` is 1) or to the last session (then 0), the same for each session of a subject.
    """
    subjects = subject_keys(rows)
    ordered = ordered_sessions(rows)
    happened = pd.to_numeric(ordered[event], errors="coerce") == 1
    years = ordered[YEARS].astype(float)
    keys = subjects.loc[ordered.index]
    first = years.where(happened).groupby(keys).min()
    last = years.groupby(keys).max()
    time = subjects.map(first.fillna(last))
    known = subjects.map(pd.to_numeric(ordered[event], errors="coerce").notna().groupby(keys).any())
    came = subjects.map(first.notna()).astype(float).where(known.astype(bool))
    return rows.assign(**{YEARS: time, event: came})


def cox(time: pd.Series, event: pd.Series, matrix: pd.DataFrame) -> Estimates:
    """Fit proportional hazards, ties after Efron.

    Args:
        time: Above 0, shape (n,).
        event: 1 where the event came at that time, 0 where it had not come until then, shape (n,).
        matrix: Design with an intercept, which the baseline hazard replaces, shape (n, p).

    Returns:
        Estimates of log hazard with normal reference; per term the Grambsch-Therneau test (a score test, as
        R's `cox.zph` since survival 3.0, on the rank of time) among the diagnostics.

    Raises:
        NotEstimable: Too few events, or a hazard ratio without a finite estimate.

    Reference: Efron 1977, doi:10.2307/2286217; Grambsch & Therneau 1994, doi:10.1093/biomet/81.3.515.
    """
    if time.nunique() < 2:
        raise NotEstimable("Not fitted: all times to the event or to the end of watching are equal.")
    rest = matrix.drop(columns=INTERCEPT, errors="ignore")
    n_events, p = int(event.sum()), rest.shape[1]
    if rest.empty or n_events <= p:
        raise NotEstimable(f"Not fitted: {n_events} events cannot carry {p} hazard ratios.")
    _refuse_levels_without_events(rest, event)
    spread = rest.std()
    scaled = ((rest - rest.mean()) / spread).to_numpy()
    # statsmodels divides by zero in a risk set's tail while it searches; what it found is checked below.
    with np.errstate(all="ignore"), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fit = PHReg(time.to_numpy(), scaled, status=event.to_numpy(), ties="efron").fit(disp=0)
        covariance = np.asarray(fit.cov_params())
        beta = np.asarray(fit.params)
    error = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    sizes = np.nan_to_num(np.maximum(np.abs(beta), error), nan=np.inf)
    lost = any(issubclass(one.category, (ConvergenceWarning, HessianInversionWarning)) for one in said)
    if lost or sizes.max() > LARGEST_SCALED_ESTIMATE:
        worst = rest.columns[int(sizes.argmax())]
        raise NotEstimable(f"Not fitted: {worst} tells who has the event perfectly, so its hazard ratio is not finite.")
    seen = event.to_numpy(dtype=np.float64) == 1
    times = time.to_numpy(dtype=np.float64)
    beyond = beyond_the_fit(times, seen, scaled, beta)
    tests = _proportional_hazards(beyond, times, seen)
    problems = [
        f"The hazard ratio of {name} changes over time (Schoenfeld p = {p_value:.2g}): the one given is an average."
        for name, (_, p_value) in zip(rest.columns, tests, strict=True)
        if p_value < NOT_PROPORTIONAL / p
    ]
    if n_events < EVENTS_PER_PARAMETER * p:
        problems.append(f"{n_events} events for {p} coefficients: fewer than {EVENTS_PER_PARAMETER} each.")
    scale = 1 / spread.to_numpy()
    return Estimates(
        kind="cox",
        method=f"Cox proportional hazards (Efron), {n_events} events of {event.name}",
        estimate=pd.Series(beta * scale, index=rest.columns),
        covariance=pd.DataFrame(covariance * np.outer(scale, scale), index=rest.columns, columns=rest.columns),
        df=pd.Series(np.inf, index=rest.columns),
        problems=tuple(problems),
        by_row=pd.DataFrame({"fitted": scaled @ beta, "residual": beyond.martingale}, index=matrix.index),
        diagnostics=tuple(
            ("proportional hazards (χ²)", str(name), chi2, p_value)
            for name, (chi2, p_value) in zip(rest.columns, tests, strict=True)
        ),
    )


def _refuse_levels_without_events(rest: pd.DataFrame, event: pd.Series) -> None:
    """A group in which nothing happened has no finite hazard ratio; a search that ends says one all the same."""
    for name in rest.columns[rest.isin([0, 1]).all()]:
        for is_in, whom in ((1, name), (0, f"what {name} is compared with")):
            if int(event[rest[name] == is_in].sum()) == 0:
                raise NotEstimable(
                    f"Not fitted: no event came in {whom}, so its hazard ratio is not finite. Leave that group out, "
                    "merge it with another, or bring longer follow-up."
                )


class Beyond(NamedTuple):
    """What rows and events are beyond a fit, tied events taken one after the other, as Efron does.

    Attributes:
        martingale: Of each row, shape (n,); they add up to 0.
        schoenfeld: Of each event in the order of the rows, shape (d, p); each column adds up to 0.
        moments: Times at which events came, rising, shape (m,).
        information: What the events of each of them tell of the log hazards, shape (m, p, p).
    """

    martingale: np.ndarray
    schoenfeld: np.ndarray
    moments: np.ndarray
    information: np.ndarray


def beyond_the_fit(time: np.ndarray, event: np.ndarray, x: np.ndarray, beta: np.ndarray) -> Beyond:
    """Compare rows and events with those that were at risk; statsmodels' residuals do not know ties.

    Args:
        time: Shape (n,).
        event: Whether it came, shape (n,).
        x: Design, shape (n, p).
        beta: Log hazards at the maximum, shape (p,).

    Reference: Therneau & Grambsch 2000, Modeling Survival Data, sections 3.1, 4.2 and 4.6.
    """
    risk = np.exp(x @ beta - (x @ beta).max())
    martingale, expected = event.astype(np.float64), np.zeros_like(x)
    moments, information = np.unique(time[event]), []
    for moment in moments:
        at_risk, dying = time >= moment, event & (time == moment)
        passed = np.arange(dying.sum()) / dying.sum()
        left = risk[at_risk].sum() - passed * risk[dying].sum()
        sums = risk[at_risk] @ x[at_risk] - passed[:, None] * (risk[dying] @ x[dying])
        means = sums / left[:, None]
        squares, of_dying = ((x[who].T * risk[who]) @ x[who] for who in (at_risk, dying))
        information.append((1 / left).sum() * squares - (passed / left).sum() * of_dying - means.T @ means)
        expected[dying] = means.mean(axis=0)
        hazard = np.where(dying[at_risk], ((1 - passed) / left).sum(), (1 / left).sum())
        martingale[at_risk] -= risk[at_risk] * hazard
    return Beyond(martingale, (x - expected)[event], moments, np.array(information))


def _proportional_hazards(beyond: Beyond, time: np.ndarray, event: np.ndarray) -> list[tuple[float, float]]:
    """Whether each coefficient changes with the rank of time: the score test of its product with it."""
    ranks = stats.rankdata(time)[event]
    trend = ranks - ranks.mean()
    at_moments = trend[np.unique(time[event], return_index=True)[1]]
    score = trend @ beyond.schoenfeld
    plain, crossed, own = (np.einsum("m,mij->ij", at_moments**power, beyond.information) for power in (0, 1, 2))
    left = np.diag(own - crossed @ np.linalg.solve(plain, crossed))
    if np.ptp(at_moments) == 0:
        return [(float("nan"), float("nan"))] * len(score)
    return [(float(value), float(stats.chi2.sf(value, 1))) for value in score**2 / left]
