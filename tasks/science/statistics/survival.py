"""Time to an event, such as conversion or a confirmed rise of a scale, with brain-PAD at baseline."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.duration.hazard_regression import PHReg

from .bootstrap import subject_keys
from .categorical_outcome import EVENTS_PER_PARAMETER
from .design import INTERCEPT, NotEstimable
from .longitudinal import ordered_sessions
from .model_estimates import Estimates

YEARS = "years_since_baseline"
NOT_PROPORTIONAL = 0.05
# A hazard ratio of e¹⁵ per standard deviation is a likelihood without a maximum.
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
        Estimates of log hazard with normal reference; per term the Grambsch-Therneau test among the diagnostics.

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
    spread = rest.std()
    scaled = ((rest - rest.mean()) / spread).to_numpy()
    # statsmodels divides by zero in a risk set's tail while it searches; what it found is checked below.
    with np.errstate(all="ignore"):
        fit = PHReg(time.to_numpy(), scaled, status=event.to_numpy(), ties="efron").fit(disp=0)
        covariance = np.asarray(fit.cov_params())
        beta = np.asarray(fit.params)
    if not np.isfinite(covariance).all() or np.abs(beta).max() > LARGEST_SCALED_ESTIMATE:
        worst = rest.columns[int(np.abs(np.nan_to_num(beta, nan=np.inf)).argmax())]
        raise NotEstimable(f"Not fitted: {worst} tells who has the event perfectly, so its hazard ratio is not finite.")
    tests = _proportional_hazards(np.asarray(fit.schoenfeld_residuals), time.to_numpy(), covariance)
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
        method=f"Cox proportional hazards (Efron), {n_events} events",
        estimate=pd.Series(beta * scale, index=rest.columns),
        covariance=pd.DataFrame(covariance * np.outer(scale, scale), index=rest.columns, columns=rest.columns),
        df=pd.Series(np.inf, index=rest.columns),
        problems=tuple(problems),
        by_row=pd.DataFrame(
            {"fitted": scaled @ beta, "residual": np.asarray(fit.martingale_residuals)}, index=matrix.index
        ),
        diagnostics=tuple(
            ("proportional hazards (χ²)", str(name), chi2, p_value)
            for name, (chi2, p_value) in zip(rest.columns, tests, strict=True)
        ),
    )


def _proportional_hazards(residuals: np.ndarray, time: np.ndarray, covariance: np.ndarray) -> list[tuple[float, float]]:
    """Whether scaled Schoenfeld residuals trend with the rank of time, one test per coefficient."""
    events = ~np.isnan(residuals).any(axis=1)
    d = int(events.sum())
    rank = stats.rankdata(time[events])
    centred = rank - rank.mean()
    scaled = d * residuals[events] @ covariance
    spread = float(centred @ centred)
    if spread == 0:
        return [(float("nan"), float("nan"))] * len(covariance)
    chi2 = (centred @ scaled) ** 2 / (d * np.diag(covariance) * spread)
    return [(float(value), float(stats.chi2.sf(value, 1))) for value in chi2]
