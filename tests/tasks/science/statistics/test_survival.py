from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.stats import rankdata

from tasks.records import AssociationSpec
from tasks.science.statistics.analysis import analyse
from tasks.science.statistics.declaration import check_spec
from tasks.science.statistics.survival import beyond_the_fit, times_to_event

SPEC = AssociationSpec("m", "years ~ brain_pad_years + age_years", event="converted", effects=("brain_pad_years",))


def followed(n: int = 150, hazard: float = 0.5, seed: int = 0, changing: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    pad, age = rng.normal(size=n), rng.uniform(50, 80, n)
    time = np.round(rng.exponential(1 / (0.3 * np.exp(hazard * pad))) ** np.exp(-changing * pad), 1) + 0.1
    end = rng.uniform(1, 6, n).round(1)
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{i}" for i in range(n)],
            "years": np.minimum(time, end),
            "converted": (time <= end).astype(int),
            "brain_pad_years": pad,
            "age_years": age,
        }
    )


def test_agrees_with_the_efron_likelihood_written_out() -> None:
    table = followed()
    fit = analyse([SPEC], table).fits[0]
    x = np.column_stack([table.brain_pad_years, (table.age_years - 65) / 10])
    time, event = table.years.to_numpy(), table.converted.to_numpy() == 1

    def deviance(beta: np.ndarray) -> float:
        risk, total = np.exp(x @ beta), 0.0
        for moment in np.unique(time[event]):
            dying, waiting = event & (time == moment), time >= moment
            d = int(dying.sum())
            total += float((x[dying] @ beta).sum())
            total -= sum(np.log(risk[waiting].sum() - k / d * risk[dying].sum()) for k in range(d))
        return -total

    best = minimize(deviance, [0.1, 0.1], method="BFGS")
    step, here = np.array([1e-3, 0.0]), best.x
    other = np.array([0.0, 1e-3])

    def second(a: np.ndarray, b: np.ndarray) -> float:
        corners = deviance(here + a + b) - deviance(here + a - b) - deviance(here - a + b) + deviance(here - a - b)
        return corners / 4e-6

    information = np.array([[second(a, b) for a in (step, other)] for b in (step, other)])
    rows = fit.coefficients
    assert fit.kind == "cox"
    assert rows.estimate.to_numpy() == pytest.approx([best.x[0], best.x[1] / 10], abs=2e-4)
    assert rows.se.iloc[0] == pytest.approx(np.sqrt(np.linalg.inv(information)[0, 0]), rel=1e-4)
    assert rows.ratio.iloc[0] == pytest.approx(np.exp(best.x[0]), rel=1e-3)
    assert set(fit.diagnostics.figure) >= {"proportional hazards (χ²)"}
    assert fit.problems == ()


def test_a_hazard_ratio_that_changes_is_said() -> None:
    fit = analyse([SPEC], followed(400, hazard=0.0, changing=0.7, seed=3)).fits[0]
    assert any("changes over time" in sentence for sentence in fit.problems)


def test_events_are_ones_and_zeros_and_rows_without_follow_up_are_counted() -> None:
    table = followed()
    assert "expected 1 where" in analyse([SPEC], table.replace({"converted": {1: 2}})).fits[0].problems[0]
    table.loc[0, "years"] = 0.0
    assert analyse([SPEC], table).fits[0].n_dropped == {"no time after baseline": 1}


def test_a_predictor_that_tells_everything_has_no_estimate() -> None:
    table = followed(40)
    told = table.assign(brain_pad_years=-table.years, converted=1)
    assert "not finite" in analyse([replace(SPEC, formula="years ~ brain_pad_years")], told).fits[0].problems[0]


def test_times_are_made_from_sessions() -> None:
    sessions = pd.DataFrame(
        {
            "participant_id": ["a", "a", "a", "b", "b", "c"],
            "session_id": ["1", "2", "3", "1", "2", "1"],
            "years_since_baseline": [0.0, 1.0, 2.0, 0.0, 1.5, 0.0],
            "converted": [0, 1, 1, 0, 0, np.nan],
        }
    )
    made = times_to_event(sessions, "converted")
    assert made.years_since_baseline.tolist() == [1.0, 1.0, 1.0, 1.5, 1.5, 0.0]
    assert made.converted.fillna(-1).tolist() == [1.0, 1.0, 1.0, 0.0, 0.0, -1.0]


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("converted", 2, "Not fitted: converted holds '2'; expected 1 where the event came, else 0."),
        ("years", "2021-03-04", "Not fitted: years holds '2021-03-04'; expected a number: the time from the first"),
    ],
)
def test_an_event_or_a_time_that_is_none_is_said_by_its_value(column: str, value: object, said: str) -> None:
    table = followed().astype({column: object})
    table.loc[:, column] = value
    fit = analyse([SPEC], table).fits[0]
    assert fit.coefficients.empty
    assert fit.problems[0].startswith(said)


def tied(n: int = 80, seed: int = 5) -> pd.DataFrame:
    """Times in whole years, so that many events tie."""
    table = followed(n, seed=seed)
    return table.assign(years=np.ceil(table.years))


def test_rows_and_events_beyond_the_fit_add_up_to_nothing_with_ties() -> None:
    table = tied()
    fit = analyse([SPEC], table).fits[0]
    x = np.column_stack([table.brain_pad_years, table.age_years])
    time, event = table.years.to_numpy(), table.converted.to_numpy() == 1
    beyond = beyond_the_fit(time, event, x - x.mean(axis=0), fit.coefficients.estimate.to_numpy())
    assert beyond.martingale.sum() == pytest.approx(0, abs=1e-9)
    assert beyond.schoenfeld.sum(axis=0) == pytest.approx(np.zeros(2), abs=1e-4)
    assert fit.rows.residual.to_numpy() == pytest.approx(beyond.martingale, abs=1e-6)
    information = np.linalg.inv(fit.covariance.to_numpy())
    assert beyond.information.sum(axis=0) == pytest.approx(information, rel=1e-3)


def test_whether_hazards_are_proportional_is_a_score_test_written_out() -> None:
    table = tied()
    fit = analyse([SPEC], table).fits[0]
    x = np.column_stack([table.brain_pad_years, table.age_years - 65])
    time, event = table.years.to_numpy(), table.converted.to_numpy() == 1
    ranks = rankdata(time)
    trend = dict(zip(time, ranks - ranks[event].mean(), strict=True))

    def likelihood(beta: np.ndarray, change: float) -> float:
        total = 0.0
        for moment in np.unique(time[event]):
            slope = beta + np.array([change * trend[moment], 0.0])
            dying, waiting = event & (time == moment), time >= moment
            risk, d = np.exp(x @ slope), int(dying.sum())
            total += float((x[dying] @ slope).sum())
            total -= sum(np.log(risk[waiting].sum() - k / d * risk[dying].sum()) for k in range(d))
        return total

    at, steps = fit.coefficients.estimate.to_numpy(), np.diag([1e-3, 1e-3, 1e-4])

    def value(*moves: np.ndarray) -> float:
        move = sum(moves, np.zeros(3))
        return likelihood(at + move[:2], float(move[2]))

    score = (value(steps[2]) - value(-steps[2])) / 2e-4
    information = np.array(
        [
            [-(value(a, b) - value(a, -b) - value(-a, b) + value(-a, -b)) / (4 * a.max() * b.max()) for a in steps]
            for b in steps
        ]
    )
    expected = score**2 * np.linalg.inv(information)[2, 2]
    found = fit.diagnostics[fit.diagnostics.figure == "proportional hazards (χ²)"].set_index("term")
    assert found.loc["brain_pad_years", "value"] == pytest.approx(expected, rel=1e-3)


def test_each_person_waits_once() -> None:
    with pytest.raises(ValueError, match="one row per person; leave sessions out"):
        check_spec(replace(SPEC, sessions="all"))


@pytest.mark.parametrize("spared", ["a", "b", "c"])
def test_a_group_without_events_has_no_hazard_ratio(spared: str) -> None:
    table = followed(90).assign(group=lambda rows: [("a", "b", "c")[k % 3] for k in range(len(rows))])
    table.loc[table.group == spared, "converted"] = 0
    fit = analyse([replace(SPEC, formula="years ~ group + age_years", effects=())], table).fits[0]
    assert fit.coefficients.empty
    assert "no event came in" in fit.problems[0] or "is not finite" in fit.problems[0]
