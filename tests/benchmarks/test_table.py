"""The table of benchmarks is what was measured, and a missed bar is said with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.__main__ import BENCHMARKS
from tests.benchmarks.rows import Row, keep, kept
from tests.benchmarks.table import BEGIN, END, README, as_markdown, replace_block


def test_kept_rows_become_the_table(tmp_path: Path) -> None:
    keep("fast", [Row("a", "≤ 1 s", "0.5 s", True), Row("b | c", "≤ 1 s", "2 s", False, "the disk is slow")], tmp_path)
    result = kept("fast", tmp_path)
    assert result is not None
    lines = as_markdown([result]).splitlines()
    assert lines[2:4] == ["| a | ≤ 1 s | 0.5 s | yes |", "| b \\| c | ≤ 1 s | 2 s | **no** |"]
    assert "- b | c: the disk is slow" in lines
    assert result["machine"] in " ".join(lines)


def test_only_the_block_between_the_markers_changes(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    replace_block(BEGIN, END, "new", readme)
    assert readme.read_text() == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    readme.write_text("no markers")
    with pytest.raises(ValueError, match="found it 0 times"):
        replace_block(BEGIN, END, "new", readme)


def test_the_readme_shows_what_was_kept() -> None:
    results = [result for name in BENCHMARKS if (result := kept(name))]
    assert f"{BEGIN}\n{as_markdown(results)}\n{END}" in README.read_text()
