"""A model card: what a registered model is, for whom, how good and at what cost, from recorded facts alone.

The parts follow Mitchell et al. 2019 (doi:10.1145/3287560.3287596). A fact that nobody recorded is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from .card_text import CardSection, CardTable
from .notation import is_missing
from .units import PER_YEAR, Unit, metric_label_in, metrics_in_unit

# What a core of a server draws under load, with its share of the rest of the processor: an assumption.
WATTS_PER_CORE = 12.0
METRICS = ("mae", "rmse", "r2", "pearson_r", "calibration_slope", "mae_difference")


def card_sections(facts: Mapping[str, Any]) -> list[CardSection]:
    """Lay a card out.

    Args:
        facts: `model`, `cohorts` (a list), `parts`, `recipe`, `network`, `training`, `members` (a list), `calibration`,
            `metrics` (records of the validation's table; empty before it), `unit`, `versions` and `lineage`, as
            `tasks/steps/card.py` gathers them.

    Returns:
        Sections in their order; raw metrics stand before corrected ones.
    """
    return [
        _model(facts),
        _use(facts),
        _data(facts),
        _metrics(facts),
        _uncertainty(facts),
        _limits(facts),
        _making(facts),
        _cost(facts),
        CardSection("Software", (), (_table("Versions when it was fitted", facts["versions"]),)),
        CardSection("Lineage", (), (_table("What it was made of", facts["lineage"]),)),
    ]


def _model(facts: Mapping[str, Any]) -> CardSection:
    network, members = facts["network"], facts["members"]
    contrasts = " and ".join(facts["recipe"]["images"])
    said = (
        f"{'One network' if len(members) == 1 else f'The mean of {len(members)} networks'} ({network['name']}) for "
        f"{facts['target']} from {contrasts} MRI of the head. brain-PAD is the predicted minus the chronological age."
    )
    return CardSection("Model", (said,), (_table("What it is", facts["model"]),))


def _use(facts: Mapping[str, Any]) -> CardSection:
    low, high = (_age(value, facts["unit"]) for value in facts["age_range_years"])
    contrasts = ", ".join(facts["recipe"]["images"])
    return CardSection(
        "Intended use",
        (
            f"Research on groups: brain-PAD of people of {low} to {high} {facts['unit']} in cohorts scanned by "
            f"{contrasts}, compared with controls of the same scanners, with age as a covariate.",
            "Out of scope: decisions about a person's diagnosis, treatment, insurance or employment; ages outside the "
            "range, which the model refuses; images that were prepared by anything but the recipe that travels with "
            "it; a comparison of scanners that stand in for groups.",
            "padflow is research software, not a medical device.",
        ),
    )


def _data(facts: Mapping[str, Any]) -> CardSection:
    unit: Unit = facts["unit"]
    header = ("cohort", "role", "subjects", "scans", f"age, {unit}: mean (SD), range", "sex", "sites")
    rows = tuple(
        (
            str(cohort["name"]),
            str(cohort["role"]),
            str(cohort["subjects"]),
            str(cohort["prepared"]),
            _ages(cohort["ages"], unit),
            _counted(cohort["sex"]),
            _counted(cohort["sites"]),
        )
        for cohort in facts["cohorts"]
    )
    lost = tuple(
        (
            *(str(cohort[name]) for name in ("name", "indexed", "unused", "excluded")),
            _counted(cohort["exclusions"], "none"),
        )
        for cohort in facts["cohorts"]
    )
    parts = tuple((str(part), *(str(n) for n in counts)) for part, counts in facts["parts"].items())
    return CardSection(
        "Data",
        ("Subjects are split once, by person; external and clinical cohorts were never trained on.",),
        (
            CardTable("Prepared scans", header, rows),
            CardTable("What was not used", ("cohort", "indexed", "not asked for", "excluded", "at which stage"), lost),
            CardTable("Parts of the training cohort", ("part", "subjects", "scans"), parts),
        ),
    )


def _making(facts: Mapping[str, Any]) -> CardSection:
    tables = [_table(name.capitalize(), facts[name]) for name in ("recipe", "network", "training")]
    return CardSection("How it was made", (), tuple(tables))


def _metrics(facts: Mapping[str, Any]) -> CardSection:
    table = pd.DataFrame(facts["metrics"])
    if table.empty:
        return CardSection("Accuracy on cohorts that it has never seen", ("Not validated yet.",))
    unit: Unit = facts["unit"]
    table = metrics_in_unit(table, unit)
    whole = table[table["group"] == "overall"]
    parts = table[(table["group"] != "overall") & (table["metric"] == "mae") & (table["predictor"] == "model")]
    tables = [
        _metric_table("Raw predictions, beside baselines without a network", whole, "raw", unit),
        _metric_table(
            "Bias-corrected: age itself is put back in, so this flatters any model", whole, "bias-corrected", unit
        ),
        _parts_table(parts[parts["correction"] == "raw"], unit),
    ]
    said = (
        "Raw figures come first and are the ones to judge by. Intervals are 95%, over subjects.",
        "Subjects outside the model's ages, and scans that it could not use, have no prediction and are not in these "
        "figures: compare the numbers of subjects with those above.",
    )
    return CardSection(
        "Accuracy on cohorts that it has never seen", said, tuple(one for one in tables if one is not None)
    )


def _metric_table(caption: str, table: pd.DataFrame, correction: str, unit: Unit) -> CardTable | None:
    chosen = table[(table["correction"] == correction) & table["metric"].isin(METRICS)]
    if chosen.empty:
        return None
    names = [name for name in METRICS if name in set(chosen["metric"])]
    rows = []
    for (cohort, predictor), group in chosen.groupby(["cohort", "predictor"], sort=False):
        by_metric = group.set_index("metric")
        cells = [_estimate(by_metric.loc[name]) if name in by_metric.index else "–" for name in names]
        rows.append((str(cohort), str(predictor), _whole(group["n_subjects"].iloc[0]), *cells))
    return CardTable(
        caption, ("cohort", "predictor", "subjects", *(metric_label_in(name, unit) for name in names)), tuple(rows)
    )


def _parts_table(table: pd.DataFrame, unit: Unit) -> CardTable | None:
    if table.empty:
        return None
    rows = tuple(
        (str(row["cohort"]), f"{row['group']}: {row['level']}", _whole(row["n_subjects"]), _estimate(row))
        for row in table.to_dict("records")
    )
    return CardTable(
        "Raw error by part of each cohort", ("cohort", "part", "subjects", metric_label_in("mae", unit)), rows
    )


def _uncertainty(facts: Mapping[str, Any]) -> CardSection:
    found, unit = facts["calibration"], facts["unit"]
    rows = []
    for which, interval in sorted(found["intervals"].items(), key=lambda item: item[0] != "raw"):
        half = interval["half_width_years"]
        said = interval["note"] or "–"
        width = "none" if half is None else f"± {half * PER_YEAR[unit]:.2f} {unit}"
        rows.append((str(which), f"{interval['level']:.0%}", width, str(interval["n_subjects"]), said))
    bias = found["age_bias"]
    line = (
        f"predicted = {bias['alpha']:.3f} × age + {bias['beta_years'] * PER_YEAR[unit]:.2f} {unit}, "
        f"fitted on {bias['n_subjects']} calibration subjects that neither training nor early stopping has seen."
        if bias
        else f"No age-bias correction: {found['why_no_age_bias']}."
    )
    header = ("prediction", "level", "half-width", "subjects", "note")
    tables = (CardTable("Conformal intervals of one scan", header, tuple(rows)),) if rows else ()
    return CardSection("Uncertainty and age bias", (line,), tables)


def _limits(facts: Mapping[str, Any]) -> CardSection:
    low, high = (_age(value, facts["unit"]) for value in facts["age_range_years"])
    trained = [cohort for cohort in facts["cohorts"] if cohort["role"] == "train"]
    external = [cohort for cohort in facts["cohorts"] if cohort["role"] == "external"]
    sites = sorted({name for cohort in trained for name in cohort["sites"]})
    named = f"{len(sites)} ({', '.join(sites)})" if sites else "none that the tables name"
    return CardSection(
        "Limits",
        (
            f"Ages: {low} to {high} {facts['unit']} were seen; others are refused.",
            f"Scanners or sites seen in training: {named}. On another one the error may be larger and brain-PAD may "
            "be shifted for everybody: centre it on controls of that scanner.",
            "Healthy people of other centres to validate on: "
            + (", ".join(cohort["name"] for cohort in external) if external else "none, so that nothing here says")
            + ("." if external else " how it does elsewhere."),
            "Predictions lean towards the middle of the training ages. brain-PAD therefore goes with age; every "
            "analysis needs age as a covariate, corrected or not.",
            "A scan whose quality figures are unusual among the training scans is predicted and flagged.",
        ),
    )


def _cost(facts: Mapping[str, Any]) -> CardSection:
    members = facts["members"]
    took_s = sum(member["duration_s"] for member in members)
    measured = [member["energy_kwh"] for member in members if member.get("energy_kwh") is not None]
    gpus = any(member.get("gpus") for member in members)
    core_hours = sum(
        member["duration_s"] * member["world_size"] * member.get("threads_per_process", 1) / 3600 for member in members
    )
    if len(measured) == len(members):
        energy = f"{_kwh(sum(measured))}, measured by the GPUs' own counters; the rest of the machine is not in it"
    elif gpus:
        energy = "not measured"
    else:
        energy = (
            f"{_kwh(core_hours * WATTS_PER_CORE / 1000)}, an estimate: {core_hours:.2g} core-hours × "
            f"{WATTS_PER_CORE:g} W per core, which is assumed; nothing was measured"
        )
    rows = {
        "time of training": _duration(took_s) + (f", the sum of {len(members)} members" if len(members) > 1 else ""),
        "device": ", ".join(sorted({str(member["device"]) for member in members})),
        "energy of training": energy,
        "not counted": "preprocessing, validation, and fits that were not registered",
    }
    return CardSection("Time and energy of training", (), (_table("Cost", rows),))


def _table(caption: str, facts: Mapping[str, Any]) -> CardTable:
    rows = tuple((str(name).replace("_", " "), _text(value)) for name, value in facts.items())
    return CardTable(caption, ("fact", "value"), rows)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_text, value)) or "none"
    return "none" if is_missing(value) or value == "" else str(value)


def _counted(counts: Mapping[str, int], nothing: str = "not given") -> str:
    return ", ".join(f"{count} {name or 'not given'}" for name, count in counts.items()) or nothing


def _ages(ages: Mapping[str, float] | None, unit: Unit) -> str:
    if not ages:
        return "not given"
    mean, sd, low, high = (_age(ages[name], unit) for name in ("mean", "sd", "low", "high"))
    return f"{mean} ({sd}), {low}–{high}"


def _age(years: float, unit: Unit) -> str:
    return "–" if is_missing(years) else f"{years * PER_YEAR[unit]:.1f}"


def _estimate(row: Any) -> str:
    if is_missing(row["estimate"]):
        return "not estimable"
    has_interval = not (is_missing(row["ci_low"]) or is_missing(row["ci_high"]))
    interval = f" [{_two(row['ci_low'])}, {_two(row['ci_high'])}]" if has_interval else ""
    return f"{_two(row['estimate'])}{interval}"


def _two(value: float) -> str:
    """Two decimals, and no minus before nothing."""
    return f"{round(float(value), 2) + 0.0:.2f}"


def _whole(value: Any) -> str:
    return "–" if is_missing(value) else str(int(value))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _kwh(value: float) -> str:
    return f"{value:.2g} kWh" if value < 10 else f"{value:.0f} kWh"
