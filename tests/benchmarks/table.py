"""The README's table of benchmarks, written by the benchmarks themselves."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parents[2] / "README.md"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
WIDTH = 120


def as_markdown(results: Sequence[dict[str, Any]]) -> str:
    """One table of every benchmark's rows, the notes below it.

    Args:
        results: What `rows.kept` gives, in the order wanted.
    """
    lines = ["| what | bar | found | bar met |", "|---|---|---|---|"]
    notes = []
    for result in results:
        for row in result["rows"]:
            met = {True: "yes", False: "**no**", None: ""}[row["met"]]
            lines.append("| " + " | ".join(_cell(text) for text in (row["what"], row["bar"], row["found"], met)) + " |")
            if row["note"]:
                notes.append(_folded(f"- {row['what']}: {row['note']}", "  "))
    places = dict.fromkeys(f"{result['date']}, {result['machine']}" for result in results)
    measured = [_folded(f"Measured by `make bench` on {'; '.join(places)}.", "")] if results else []
    return "\n".join([*lines, *([""] if notes else []), *notes, *([""] if measured else []), *measured])


def replace_block(begin: str, end: str, text: str, readme: Path = README) -> None:
    """Replace what stands between two markers of the README.

    Raises:
        ValueError: A marker is not there exactly once.
    """
    page = readme.read_text()
    for marker in (begin, end):
        if page.count(marker) != 1:
            raise ValueError(f"{readme}: expected {marker!r} once, found it {page.count(marker)} times; put it back")
    before, rest = page.split(begin)
    _, after = rest.split(end)
    readme.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _folded(text: str, indent: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
