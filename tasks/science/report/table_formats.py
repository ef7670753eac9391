"""A table for a manuscript: as LaTeX, Markdown or HTML that stand alone; nothing in it is obeyed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from markupsafe import escape

from .tables import Cell, Table

MOST_ROWS_OF_A_FLOAT = 35
LATEX_NEEDS = r"""% Needs \usepackage[T1]{fontenc}, \usepackage{array,booktabs,longtable}; characters that these lack
% are written by their code point."""
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "|": r"\ensuremath{|}",
    '"': r"\textquotedbl{}",
    "−": r"\ensuremath{-}",
    "–": r"--",
    "—": r"---",
    "×": r"\ensuremath{\times}",
    "±": r"\ensuremath{\pm}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    "≈": r"\ensuremath{\approx}",
    "∞": r"\ensuremath{\infty}",
    "²": r"\ensuremath{^2}",
    "³": r"\ensuremath{^3}",
    "√": r"\ensuremath{\surd}",
    "°": r"\ensuremath{^\circ}",
    "·": r"\ensuremath{\cdot}",
    "α": r"\ensuremath{\alpha}",
    "β": r"\ensuremath{\beta}",
    "Δ": r"\ensuremath{\Delta}",
    "κ": r"\ensuremath{\kappa}",
    "λ": r"\ensuremath{\lambda}",
    "μ": r"\ensuremath{\mu}",
    "µ": r"\ensuremath{\mu}",
    "ρ": r"\ensuremath{\rho}",
    "σ": r"\ensuremath{\sigma}",
    "τ": r"\ensuremath{\tau}",
    "χ": r"\ensuremath{\chi}",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "\u00a0": "~",
}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~$&])")


def latex_text(text: str) -> str:
    r"""Escape text for LaTeX, so that pdfLaTeX compiles whatever a site or a group is called.

    >>> latex_text("5% of site_1 & β < −2"), latex_text("大")
    ('5\\% of site\\_1 \\& \\ensuremath{\\beta} \\ensuremath{<} \\ensuremath{-}2', '[U+5927]')
    """
    return "".join(map(_latex_character, _one_line(text)))


def _latex_character(character: str) -> str:
    if character in _LATEX:
        return _LATEX[character]
    # What the T1 encoding has: ASCII, and the letters of Latin-1 and Latin Extended-A.
    is_latin = ord(character) < 0x7F or (ord(character) < 0x17F and unicodedata.category(character).startswith("L"))
    return character if is_latin else f"[U+{ord(character):04X}]"


def markdown_text(text: str) -> str:
    r"""Escape text for Markdown, table cells included.

    >>> markdown_text("a|b *c* <d>")
    'a\\|b \\*c\\* \\<d\\>'
    """
    return _MARKDOWN.sub(r"\\\1", _one_line(text))


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def as_markdown(table: Table) -> str:
    """Write a table as a pipe table under its caption, its notes below."""
    marks = ["---:" if numeric else "---" for numeric in _numeric_columns(table)]
    lines = [
        f"**{markdown_text(table.caption)}**",
        "",
        _piped(map(markdown_text, table.columns)),
        _piped(marks),
        *(_piped(markdown_text(_joined(cell)) for cell in row) for row in table.rows),
    ]
    notes = [part for note in table.notes for part in ("", markdown_text(note))]
    return "\n".join([*lines, *notes, ""])


def _piped(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def as_latex(table: Table, label: str) -> str:
    r"""Write a table for `\input`: rules of booktabs, a float, or a table over several pages where it is long.

    Args:
        table: The table.
        label: For `\ref`, without `tab:`; letters, digits and hyphens.
    """
    numeric = _numeric_columns(table)
    width = "".join("r" if flag else _text_column(table, place) for place, flag in enumerate(numeric))
    head = " & ".join(map(latex_text, table.columns)) + r" \\"
    # The braces keep a first cell such as "[x]" or "*" from being read as an argument of the line above.
    body = ["{}" + " & ".join(latex_text(_joined(cell)) for cell in row) + r" \\" for row in table.rows]
    caption = rf"\caption{{{latex_text(table.caption)}}}\label{{tab:{label}}}"
    notes = [rf"\par\smallskip{{\footnotesize\raggedright {latex_text(note)}\par}}" for note in table.notes]
    opening = [r"\begingroup\small\setlength{\tabcolsep}{4pt}"]
    if len(table.rows) > MOST_ROWS_OF_A_FLOAT:
        grid = [rf"\begin{{longtable}}{{@{{}}{width}@{{}}}}", caption + r"\\", r"\toprule", head, r"\midrule"]
        grid += [r"\endhead", r"\bottomrule", r"\endfoot", *body, r"\end{longtable}", *notes, r"\endgroup"]
        return "\n".join([LATEX_NEEDS, *opening, *grid, ""])
    grid = [rf"\begin{{tabular}}{{@{{}}{width}@{{}}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    lines = [r"\begin{table}[htbp]", r"\centering", *opening, caption, *grid, r"\end{tabular}", *notes]
    return "\n".join([LATEX_NEEDS, *lines, r"\endgroup", r"\end{table}", ""])


def _text_column(table: Table, place: int) -> str:
    longest = max((len(_joined(row[place])) for row in table.rows), default=0)
    return "l" if longest <= 24 else r">{\raggedright\arraybackslash}p{4.2cm}"


def as_html(table: Table) -> str:
    """Write a table as an HTML element that a word processor takes over with its rules."""
    numeric = _numeric_columns(table)
    head = _html_cells("th", table.columns, numeric)
    body = "\n".join(f"<tr>{_html_cells('td', map(_joined, row), numeric)}</tr>" for row in table.rows)
    notes = "".join(f"<p>{escape(note)}</p>\n" for note in table.notes)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(table.caption)}</title>\n<style>{_STYLE}</style></head><body>\n"
        f"<div><table>\n<caption>{escape(table.caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n"
        f"</tbody></table></div>\n{notes}</body></html>\n"
    )


_STYLE = (
    "body{font:11pt/1.4 'Times New Roman',serif;margin:1rem}div{overflow-x:auto}table{border-collapse:collapse;"
    "border-top:1.5px solid;border-bottom:1.5px solid}caption{text-align:left;font-weight:bold;padding-bottom:.4em}"
    "th{border-bottom:1px solid;text-align:left;vertical-align:bottom}th,td{padding:.2em .7em .2em 0;"
    "vertical-align:top}.n{text-align:right;white-space:nowrap}p{font-size:90%;margin:.4em 0}"
)


def _html_cells(tag: str, texts: Iterable[str], numeric: list[bool]) -> str:
    opened = [f'<{tag} class="n">' if flag else f"<{tag}>" for flag in numeric]
    return "".join(f"{opening}{escape(text)}</{tag}>" for opening, text in zip(opened, texts, strict=True))


def _numeric_columns(table: Table) -> list[bool]:
    return [bool(table.rows) and all(row[place].numeric for row in table.rows) for place in range(len(table.columns))]


def _joined(cell: Cell) -> str:
    return f"{cell.text} {cell.below}" if cell.below else cell.text
