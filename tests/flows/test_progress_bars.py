"""A job's log says how far a run is, how fast and how long still, without a line for every scan."""

from __future__ import annotations

from flows.progress_bars import LogLines


def test_a_log_has_a_line_a_minute_with_rate_and_time_left() -> None:
    now, said = [0.0], []
    lines = LogLines("preprocess", 100, said.append, lambda: now[0])
    for _ in range(20):
        now[0] += 10
        lines.advance()
    assert said == [
        "preprocess: 6 of 100, 6.0 per minute, about 16 min left",
        "preprocess: 12 of 100, 6.0 per minute, about 15 min left",
        "preprocess: 18 of 100, 6.0 per minute, about 14 min left",
    ]
