"""A card's sections as Markdown and as one HTML page; nothing that a fact holds is taken for markup in either."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass

STYLE = (
    "body{font:15px/1.5 system-ui,'Liberation Sans',Arial,sans-serif;color:#222;max-width:62rem;margin:2rem auto;"
    "padding:0 1.2rem}h1{font-size:1.7rem}h2{font-size:1.2rem;margin:1.8rem 0 .4rem;border-bottom:1px solid #ccc}"
    "table{border-collapse:collapse;margin:.6rem 0 1rem;font-size:.9rem}th,td{border:1px solid #d5d5d5;"
    "padding:.28rem .6rem;text-align:left;vertical-align:top}th{background:#f4f4f1}"
    "caption{text-align:left;font-weight:600;padding:.3rem 0}div{overflow-x:auto}"
)


@dataclass(frozen=True)
class CardTable:
    """A table of text."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class CardSection:
    """A heading with sentences and tables."""

    heading: str
    sentences: tuple[str, ...] = ()
    tables: tuple[CardTable, ...] = ()


def as_markdown(title: str, sections: Iterable[CardSection]) -> str:
    """Write a card as Markdown; nothing that a fact holds is taken for markup."""
    blocks = [f"# {_escaped(title)}"]
    for section in sections:
        blocks.append(f"## {_escaped(section.heading)}")
        blocks += [_escaped(sentence) for sentence in section.sentences]
        for table in section.tables:
            lines = [_line(table.header), _line(["---"] * len(table.header), raw=True), *map(_line, table.rows)]
            blocks.append("\n".join([f"**{_escaped(table.caption)}**", "", *lines]))
    return "\n\n".join(blocks) + "\n"


def as_html(title: str, sections: Iterable[CardSection]) -> str:
    """Write a card as one page that needs nothing beside it; everything that a fact holds is escaped."""
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.heading)}</h2>")
        parts += [f"<p>{html.escape(sentence)}</p>" for sentence in section.sentences]
        for table in section.tables:
            head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table.header)
            rows = "".join(
                "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n" for row in table.rows
            )
            parts.append(
                f"<div><table><caption>{html.escape(table.caption)}</caption>\n"
                f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>"
            )
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _line(cells: Iterable[str], raw: bool = False) -> str:
    return "| " + " | ".join(cell if raw else _escaped(cell) for cell in cells) + " |"


def _escaped(text: str) -> str:
    """Markdown's signs as signs; HTML's are escaped too, since Markdown lets tags through."""
    plain = html.escape(" ".join(text.split()), quote=False)
    # A bracket alone is no link, and intervals are full of them; nor does a name's underscore slant it.
    return re.sub(r"([\\`*|#~]|\](?=[(\[:])|(?<!\w)_|_(?!\w))", r"\\\1", plain)
