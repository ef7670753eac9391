"""A model card shows recorded facts, raw metrics before corrected ones, and takes no fact for markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from tasks.science.report.card import card_sections
from tasks.science.report.card_text import as_html, as_markdown

HOSTILE = "<script>alert(1)</script> | *a* [b](http://x) `c`"


def facts(**changes: Any) -> dict[str, Any]:
    """A card's facts as a study leaves them, with names that want to be markup."""
    metrics = [
        {
            "cohort": "external",
            "predictor": predictor,
            "correction": correction,
            "group": group,
            "level": level,
            "metric": "mae",
            "n_subjects": 40,
            "estimate": estimate,
            "ci_low": estimate - 1,
            "ci_high": None if estimate == 2.5 else estimate + 1,
        }
        for predictor, correction, group, level, estimate in (
            ("model", "bias-corrected", "overall", "all", 2.5),
            ("model", "raw", "overall", "all", 4.25),
            ("mean age", "raw", "overall", "all", 16.0),
            ("model", "raw", "site", HOSTILE, 5.0),
        )
    ]
    cohort = {
        "name": HOSTILE,
        "role": "train",
        "subjects": 30,
        "indexed": 33,
        "unused": 1,
        "prepared": 30,
        "excluded": 2,
        "ages": {"mean": 50.0, "sd": None, "low": 20.0, "high": 80.0},
        "sex": {"F": 15, "M": 14, "": 1},
        "sites": {"A": 30},
        "exclusions": {"read": 2},
    }
    member = {"name": "seed-1", "duration_s": 3600.0, "world_size": 2, "threads_per_process": 1, "device": "cpu"}
    return {
        "model": {"name": "brain-age", "version": "3"},
        "target": "chronological age",
        "unit": "years",
        "age_range_years": [20, 80],
        "cohorts": [cohort],
        "parts": {"train": [20, 20], "calibration": [5, 5]},
        "recipe": {"name": "t1w", "images": ["T1w"]},
        "network": {"name": "sfcn"},
        "training": {"epochs": 60},
        "members": [{**member, "gpus": 0}, {**member, "gpus": 0}],
        "calibration": {
            "age_bias": {"alpha": 0.9, "beta_years": 5.0, "n_subjects": 12},
            "why_no_age_bias": "",
            "intervals": {"raw": {"half_width_years": None, "level": 0.95, "n_subjects": 5, "note": "too few"}},
        },
        "metrics": metrics,
        "versions": {"torch": "2.13.0"},
        "lineage": {"study digest": "abc"},
        **changes,
    }


class Tags(HTMLParser):
    """Refuses what does not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_nests_and_escapes() -> None:
    page = as_html(HOSTILE, card_sections(facts()))
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert "script" not in tags.seen
    assert "&lt;script&gt;" in page


def test_markdown_tables_keep_their_columns_and_escape() -> None:
    text = as_markdown(HOSTILE, card_sections(facts()))
    assert "<script>" not in text
    assert "[b](http" not in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        widths = {len(re.split(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block


def test_raw_metrics_stand_before_corrected_ones_beside_baselines() -> None:
    text = as_markdown("card", card_sections(facts()))
    assert text.index("4.25 [3.25, 5.25]") < text.index("16.00 [15.00, 17.00]") < text.index("| 2.50 |")
    assert "Not validated yet" in as_markdown("card", card_sections(facts(metrics=[])))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "0.048 kWh, an estimate: 4 core-hours × 12 W per core, which is assumed; nothing was measured"),
        ({"gpus": 1}, "not measured"),
        ({"gpus": 1, "energy_kwh": 0.5}, "1 kWh, measured by the GPUs' own counters"),
    ],
)
def test_energy_is_measured_or_called_an_estimate_or_not_measured(changes: dict[str, Any], said: str) -> None:
    members = [{**member, **changes} for member in facts()["members"]]
    assert said in as_html("card", card_sections(facts(members=members))).replace("&#x27;", "'")


def test_months_are_shown_where_the_target_is_in_months() -> None:
    text = as_markdown("card", card_sections(facts(unit="months", age_range_years=[0, 2])))
    assert "0.0 to 24.0 months" in text
    assert "51.00 [39.00, 63.00]" in text
