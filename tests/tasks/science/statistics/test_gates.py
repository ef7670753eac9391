"""Gates between a challenger and the champion, on made-up people whose errors are known."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest

from tasks.science.statistics import gates
from tasks.science.statistics.conformal import ConformalInterval
from tasks.science.statistics.gate_spec import GATES, PromotionSpec, for_months, spec_problems
from tasks.science.statistics.gates import Evidence, Verdict, judge, refusals

SPEC = PromotionSpec()


def people(n: int = 60, seed: int = 1, own_sd: float = 4.0, other_sd: float = 5.0, sessions: int = 1) -> pd.DataFrame:
    """Controls of two sites, seen by both models and by a poorer baseline."""
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(n), sessions)
    age = rng.uniform(20, 80, n)[subject]
    return pd.DataFrame(
        {
            "cohort": "external",
            "participant_id": [f"sub-{k:03d}" for k in subject],
            "session_id": [f"ses-{k % sessions}" for k in range(n * sessions)],
            "scan_id": [f"scan-{k}" for k in range(n * sessions)],
            "years_since_baseline": np.arange(n * sessions) % sessions,
            "age_years": age,
            "predicted_age_years": age + rng.normal(0, own_sd, len(age)),
            "champion_age_years": age + rng.normal(0, other_sd, len(age)),
            "baseline_age_years": age + rng.normal(0, 15, len(age)),
            "mean_age_years": 50.0,
            "corrected_age_years": age,
            "is_control": True,
            "site": np.where(subject % 2, "A", "B"),
            "sex": np.where(subject % 3, "F", "M"),
        }
    )


def verdicts(scans: pd.DataFrame, spec: PromotionSpec = SPEC, champion: bool = True) -> dict[str, Verdict]:
    evidence = Evidence(scans, champion, ConformalInterval(8.0, 0.05, 0, 40))
    return {verdict.gate: verdict for verdict in judge(evidence, spec, resamples=500)}


def test_a_better_model_passes_every_gate_and_says_figure_bound_and_n() -> None:
    found = verdicts(people(sessions=2))
    assert {gate: verdict.outcome for gate, verdict in found.items()} == dict.fromkeys(GATES, "passed")
    assert refusals(tuple(found.values())) == []
    mae = found["mae"]
    assert mae.estimate < 0 < mae.bound_high == SPEC.mae_margin_years
    assert f"{mae.estimate:.2f} [{mae.ci_low:.2f}, {mae.ci_high:.2f}] in 60 subjects" in mae.sentence
    assert "below 0.50" in mae.sentence


def test_superiority_asks_for_more_than_non_inferiority() -> None:
    scans = people(n=400, own_sd=4.0)
    # Two models err alike on the same scan.
    wobble = np.random.default_rng(2).normal(0, 1.0, len(scans))
    scans = scans.assign(champion_age_years=scans["predicted_age_years"] + wobble)
    assert verdicts(scans)["mae"].outcome == "passed"
    assert verdicts(scans, replace(SPEC, mae="superior"))["mae"].outcome == "failed"
    # Few people cannot show that a model is not worse, though its error is the same.
    few = people(n=12)
    few["champion_age_years"] = few["age_years"] + (few["predicted_age_years"] - few["age_years"]).abs().mean()
    assert verdicts(few)["mae"].estimate == pytest.approx(0)
    assert verdicts(few)["mae"].outcome == "failed"


def test_a_model_of_shuffled_ages_is_refused_with_reasons() -> None:
    scans = people()
    shuffled = scans.assign(predicted_age_years=50 + 0.01 * scans["age_years"])
    found = verdicts(shuffled)
    assert {gate for gate, verdict in found.items() if verdict.outcome == "failed"} >= {"mae", "levels", "coverage"}
    assert any(reason.startswith("MAE") for reason in refusals(tuple(found.values())))


def test_an_offset_fails_centring_even_where_the_error_is_less() -> None:
    scans = people(n=200, own_sd=1.0, other_sd=12.0)
    found = verdicts(scans.assign(predicted_age_years=scans["predicted_age_years"] + 5.5))
    assert found["mae"].outcome == "passed"
    assert found["centring"].outcome == "failed"
    assert "5.5" in found["centring"].sentence


def test_one_bad_site_refuses_and_a_small_one_is_said_to_be_unjudged() -> None:
    scans = people(n=100)
    bad = scans["site"] == "A"
    scans.loc[bad, "predicted_age_years"] += np.where(np.arange(bad.sum()) % 2, 11.0, -11.0)
    scans.loc[:2, "site"] = "tiny"
    levels = verdicts(scans)["levels"]
    assert levels.outcome == "failed"
    assert "site external/A differs by" in levels.sentence
    assert "not judged: site external/tiny (n 3)" in levels.sentence
    tiny = next(part for part in levels.parts if part["level"] == "external/tiny")
    assert (tiny["outcome"], tiny["n_subjects"]) == ("not judged", 3)


def test_a_model_that_answers_for_hardly_anybody_is_refused_whatever_is_mandatory() -> None:
    scans = people(n=100)
    silent = scans.assign(predicted_age_years=scans["predicted_age_years"].where(np.arange(len(scans)) < 4))
    found = verdicts(silent, replace(SPEC, mandatory=()))
    assert found["mae"].outcome == "failed"
    assert "gives no age for 96% of the scans" in found["mae"].sentence
    assert refusals(tuple(found.values()))


def test_a_site_that_gets_no_age_is_worse() -> None:
    scans = people(n=200)
    scans.loc[:14, "site"] = "new"
    scans.loc[:14, "predicted_age_years"] = np.nan
    levels = verdicts(scans, replace(SPEC, max_unanswered=0.5))["levels"]
    assert levels.outcome == "failed"
    assert "site external/new has an age in 0 of the champion's 15 subjects" in levels.sentence


def test_bands_of_infants_are_months() -> None:
    scans = people(n=60)
    scans["age_years"] = np.repeat([3.0, 9.0, 15.0, 21.0], 15) / 12
    off = np.where(scans["age_years"] == 0.25, 0.5, 0.02)
    scans = scans.assign(predicted_age_years=scans["age_years"] + off, champion_age_years=scans["age_years"] + 0.02)
    spec = replace(for_months(SPEC, set()), gates=("levels",))
    (levels,) = judge(Evidence(scans, True, None, "months"), spec, 200)
    assert levels.outcome == "failed"
    assert "age band 0-5 months differs by 5.76" in levels.sentence


def test_a_gain_over_the_mean_age_alone_is_no_gain_over_volumes() -> None:
    scans = people(n=60).assign(baseline_age_years=np.nan, mean_age_years=50.0)
    found = verdicts(scans, replace(SPEC, mandatory=("baseline",)))["baseline"]
    assert found.outcome == "not judged"
    assert "0 subjects with an age by tissue volumes are fewer than" in found.sentence
    assert refusals((found,))
    worse = verdicts(scans.assign(mean_age_years=scans["age_years"]))["baseline"]
    assert worse.outcome == "failed"


def test_equal_site_names_of_two_cohorts_are_two_sites_and_a_missing_sex_is_none() -> None:
    scans = pd.concat([people(), people(seed=2).assign(cohort="other", sex=None)], ignore_index=True)
    levels = {(part["group"], part["level"]) for part in verdicts(scans)["levels"].parts}
    assert {("site", "external/A"), ("site", "other/A"), ("sex", "F")} <= levels
    assert not {level for group, level in levels if group == "sex"} - {"F", "M"}


def test_unsteady_sessions_fail_the_retest_gate() -> None:
    scans = people(n=40, own_sd=0.0, other_sd=0.0, sessions=2)
    jitter = np.where(np.arange(len(scans)) % 2, 2.0, -2.0)
    found = verdicts(scans.assign(predicted_age_years=scans["age_years"] + jitter))["retest"]
    assert found.estimate == pytest.approx(np.sqrt(8))
    assert found.outcome == "failed"
    assert verdicts(people())["retest"].outcome == "not judged"


def test_coverage_is_of_the_challengers_own_interval() -> None:
    scans = people()
    assert verdicts(scans)["coverage"].outcome == "passed"
    wide = Evidence(
        scans.assign(predicted_age_years=scans["age_years"] + 8.5), True, ConformalInterval(8.0, 0.05, 0, 9)
    )
    narrow = judge(wide, replace(SPEC, gates=("coverage",), mandatory=()), 200)[0]
    assert (narrow.outcome, narrow.estimate) == ("failed", 0.0)
    endless = Evidence(scans, True, ConformalInterval(np.inf, 0.05, 11, 10, note="10 are too few"))
    (none,) = judge(endless, replace(SPEC, gates=("coverage",), mandatory=()), 200)
    assert none.outcome == "not judged"
    assert "10 are too few" in none.sentence


def test_no_gain_over_volumes_refuses() -> None:
    scans = people()
    found = verdicts(scans.assign(baseline_age_years=scans["age_years"] + 1.0))["baseline"]
    assert found.outcome == "failed"
    nothing = scans.assign(baseline_age_years=np.nan, mean_age_years=np.nan)
    assert verdicts(nothing)["baseline"].outcome == "not judged"


def test_a_model_that_learned_nothing_is_refused_beside_poor_volumes_and_a_poor_champion() -> None:
    scans = people(own_sd=0.0)
    rng = np.random.default_rng(2)
    useless = {name: 50.0 + rng.normal(0, 3, len(scans)) for name in ("predicted_age_years", "champion_age_years")}
    scans = scans.assign(
        **useless, baseline_age_years=scans["age_years"] + rng.normal(0, 60, len(scans)), mean_age_years=49.0
    )
    found = verdicts(scans)
    assert found["mae"].outcome == "passed"
    assert found["baseline"].outcome == "failed"
    assert "by the mean age of training" in found["baseline"].sentence


def test_a_model_that_skips_what_is_hard_is_refused() -> None:
    scans = people(n=100)
    scans.loc[:9, "predicted_age_years"] = np.nan
    found = verdicts(scans)["mae"]
    assert found.outcome == "failed"
    assert "no age for 10% of the scans" in found.sentence


def test_what_cannot_be_judged_refuses_only_where_it_is_mandatory() -> None:
    few = tuple(verdicts(people(n=6)).values())
    assert {verdict.outcome for verdict in few} == {"not judged"}
    reasons = refusals(few)
    assert len(reasons) == 2
    assert all("6 subjects are fewer than 10" in reason and "mandatory" in reason for reason in reasons)
    lenient = replace(SPEC, mandatory=())
    assert refusals(tuple(verdicts(people(n=6), lenient).values())) == []
    alone = verdicts(people().assign(champion_age_years=np.nan), champion=False)
    assert "no champion" in alone["mae"].sentence
    assert alone["centring"].outcome == "passed"


def test_patients_count_in_the_retest_gate_alone() -> None:
    healthy = people(sessions=2)
    patients = people(seed=5, sessions=2).assign(cohort="clinic", is_control=False)
    patients["predicted_age_years"] += 9.0
    alone, together = verdicts(healthy), verdicts(pd.concat([healthy, patients], ignore_index=True))
    for gate in ("mae", "centring", "levels", "coverage", "baseline"):
        assert together[gate] == alone[gate]
    assert together["retest"].n_subjects == 2 * alone["retest"].n_subjects


def test_corrected_ages_are_never_read_and_no_key_can_name_them() -> None:
    scans = people(sessions=2)
    rubbish = scans.assign(corrected_age_years=-1.0, corrected_brain_pad_years=np.nan)
    assert verdicts(scans) == verdicts(rubbish) == verdicts(scans.drop(columns="corrected_age_years"))
    assert not [item.name for item in fields(PromotionSpec) if "correct" in item.name]
    assert "corrected" not in inspect.getsource(gates).split('"""', 2)[2]


def test_months_take_margins_of_months_and_speak_them() -> None:
    spec = for_months(SPEC, set())
    assert spec.mae_margin_years == pytest.approx(0.5 / 12)
    assert spec.level_margins_years["site"] == pytest.approx(2 / 12)
    scans = people(n=30)
    for name in ("age_years", "predicted_age_years", "champion_age_years", "baseline_age_years", "mean_age_years"):
        scans[name] /= 12
    found = judge(Evidence(scans, True, None, "months"), spec, 200)[0]
    assert "months" in found.sentence
    assert found.sentence.startswith("MAE 2.82 against the champion's 3.23 months")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mandatory": ("mae", "levels"), "gates": ("mae",)}, "'levels', which is none of"),
        ({"mae_margin_years": -1.0}, "mae_margin_years is -1"),
        ({"level_margins_years": {"scanner": 1.0}}, "'scanner'; it may have site, sex and age_band"),
        ({"fewest_subjects": 2}, "3 or more"),
        ({"coverage": (0.9, 0.8)}, "must ascend"),
    ],
)
def test_gates_that_cannot_be_meant_are_refused(change: dict[str, object], said: str) -> None:
    assert any(said in problem for problem in spec_problems(replace(SPEC, **change)))  # type: ignore[arg-type]
