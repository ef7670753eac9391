"""Figures for a manuscript: one column wide, as SVG, PDF and PNG with their data, the same bytes every time."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .csv_files import csv_text
from .figures import Drawing
from .svg import confined_svg, house_style, svg_file

COLUMN_MM = 85.0
MM_PER_INCH = 25.4
TALLEST_MM = 225.0
PNG_DOTS_PER_INCH = 300
CSV_DIGITS = 10
# Journals ask for 7 points at the least; DejaVu is wide, so that another font in its place fits as well.
POINTS = 7.5
# Where a reader lacks the font of the layout: Verdana has its widths, the others are narrower.
LAID_OUT_WITH, ELSEWHERE = b"font-family: 'DejaVu Sans'", b", Verdana, Arial, sans-serif"
PRINT_STYLE: Mapping[str, Any] = {
    "font.size": POINTS,
    "axes.titlesize": POINTS,
    "axes.titleweight": "normal",
    "axes.labelsize": POINTS,
    "xtick.labelsize": POINTS,
    "ytick.labelsize": POINTS,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,
    "figure.constrained_layout.w_pad": 0.045,
    "figure.constrained_layout.h_pad": 0.045,
}


@dataclass(frozen=True)
class PrintFigure:
    """A figure as a page shows it, and as the files that a manuscript takes.

    Attributes:
        drawing: For the page.
        model: The model that it shows; "" where it shows several.
        files: Ending → content: `svg`, `pdf`, `png`, the data as `csv`, and title, caption and description as `json`.
    """

    drawing: Drawing
    model: str
    files: Mapping[str, bytes]


@contextmanager
def print_style() -> Iterator[None]:
    """Draw for print at column width."""
    with house_style(**PRINT_STYLE):
        yield


def column_figure(height_mm: float) -> Figure:
    """Make a figure that is one column wide and no taller than a page."""
    size = COLUMN_MM / MM_PER_INCH, min(height_mm, TALLEST_MM) / MM_PER_INCH
    return Figure(figsize=size, layout="constrained")


def printed(
    figure: Figure, name: str, title: str, caption: str, alt: str, data: pd.DataFrame, model: str = ""
) -> PrintFigure:
    """Write a figure in every format, within `print_style`.

    Args:
        figure: The figure.
        name: Of its files, unique within a page: letters, digits and hyphens.
        title: A short title.
        caption: What is drawn, and how to read it.
        alt: What it shows, for those who do not see it.
        data: The rows that are drawn.
        model: The model that it shows; "" where it shows several.

    Returns:
        The figure; equal drawings give equal bytes.
    """
    # Laid out once: doing it anew for every format takes most of the time.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    words = {"title": title, "caption": caption, "description": alt, "model": model}
    files = {
        "svg": svg_file(figure).replace(LAID_OUT_WITH, LAID_OUT_WITH + ELSEWHERE),
        "pdf": _saved(figure, "pdf", {"CreationDate": None, "Creator": None, "Producer": None}),
        "png": _saved(figure, "png", {"Software": None}),
        "csv": csv_text(data, CSV_DIGITS).encode(),
        "json": json.dumps(words, ensure_ascii=False, indent=1).encode(),
    }
    return read_figure(name, files)


def read_figure(name: str, files: Mapping[str, bytes]) -> PrintFigure:
    """Read a figure that `printed` wrote.

    Args:
        name: Of its files.
        files: Ending → content; `svg`, `csv` and `json` are read.
    """
    words = json.loads(files["json"])
    element = confined_svg(files["svg"], f"figure-{name}", words["description"], "plot column")
    data = pd.read_csv(io.BytesIO(files["csv"]), keep_default_na=False, na_values=[""])
    drawing = Drawing(f"figure-{name}", words["title"], words["caption"], element, data)
    return PrintFigure(drawing, words["model"], files)


def _saved(figure: Figure, kind: str, metadata: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=metadata, dpi=PNG_DOTS_PER_INCH)
    return buffer.getvalue()


def limits(values: Any, margin: float = 0.05) -> tuple[float, float]:
    """Find the ends of an axis that shows every finite value with room around it."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if finite.size == 0:
        return -1.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    room = margin * ((high - low) or abs(high) or 1.0)
    return low - room, high + room
