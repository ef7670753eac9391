"""What pages are made of: figures and tables with what can be saved of them, the template, and the one script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from .csv_files import csv_text
from .figures import Drawing
from .notation import is_missing
from .print_figures import PrintFigure
from .tables import Table, plain_table

HERE = Path(__file__).parent
MOST_ROWS_SHOWN = 300
MEDIA_TYPES = {
    "csv": "text/csv;charset=utf-8",
    "html": "text/html;charset=utf-8",
    "md": "text/markdown;charset=utf-8",
    "pdf": "application/pdf",
    "png": "image/png",
    "svg": "image/svg+xml",
    "tex": "application/x-tex;charset=utf-8",
}
LABELS = {"csv": "CSV", "html": "HTML", "md": "Markdown", "pdf": "PDF", "png": "PNG", "svg": "SVG", "tex": "LaTeX"}


@dataclass(frozen=True)
class SavedFile:
    """A file that the page holds and a reader may save."""

    label: str
    name: str
    address: str


@dataclass(frozen=True)
class Data:
    """A table that is folded away under a figure or a heading, with its CSV."""

    summary: str
    table: Table
    address: str
    file_name: str
    n_rows: int


@dataclass(frozen=True)
class Figure:
    """A drawing with its data, and the files that a manuscript takes where there are some."""

    drawing: Drawing
    data: Data
    saved: tuple[SavedFile, ...] = ()


def render(template: str, **values: Any) -> str:
    """Set a page of this folder's templates; it loads nothing, and no script runs in it but the one that sorts tables.

    Args:
        template: The template's file name.
        values: What it shows; everything is escaped that is not markup made here.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (_own_file(name) for name in ("style.css", "sort.js"))
    # A browser runs the script of this digest and no other, whatever a name in a table says.
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    security = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    page = environment.get_template(template)
    return page.render(style=style, script=script, security=security, **values)


def _own_file(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8"))  # noqa: S704 (the package's own file)


def data_address(content: bytes, kind: str) -> str:
    """Make a `data:` address that saves a file, so that it travels with the page."""
    return f"data:{MEDIA_TYPES[kind]};base64,{base64.b64encode(content).decode()}"


def saved_file(content: bytes, name: str) -> SavedFile:
    """Offer a file; its kind is the ending of its name."""
    kind = name.rpartition(".")[2]
    return SavedFile(LABELS[kind], name, data_address(content, kind))


def with_data(drawing: Drawing | None) -> Figure | None:
    """Put a drawing beside its data; None where nothing was drawn."""
    if drawing is None:
        return None
    data = saved_table(drawing.data, "Data of this figure", drawing.name.removeprefix("figure-"))
    return None if data is None else Figure(drawing, data)


def with_files(figure: PrintFigure) -> Figure | None:
    """Put a figure for print beside its data and its files."""
    shown = with_data(figure.drawing)
    if shown is None:
        return None
    stem = figure.drawing.name.removeprefix("figure-")
    kinds = [kind for kind in ("svg", "pdf", "png") if kind in figure.files]
    return Figure(shown.drawing, shown.data, tuple(saved_file(figure.files[k], f"{stem}.{k}") for k in kinds))


def saved_table(frame: pd.DataFrame, summary: str, name: str, *, show_all: bool = False) -> Data | None:
    """Fold a table away with its CSV; None where it has no rows. A long one shows its first rows alone."""
    if frame.empty:
        return None
    frame = _readable(frame)
    shown = frame if show_all else frame.head(MOST_ROWS_SHOWN)
    address = data_address(csv_text(frame).encode(), "csv")
    return Data(summary, plain_table(shown, summary), address, f"{name}.csv", len(frame))


def png_address(png: bytes) -> str:
    """Make an address of a picture.

    Raises:
        ValueError: It is no PNG image.
    """
    if not png.startswith(b"\x89PNG"):
        raise ValueError("A picture is not a PNG image: its first bytes are not those of PNG. Give PNG bytes.")
    return data_address(png, "png")


def _readable(frame: pd.DataFrame) -> pd.DataFrame:
    joined = [column for column in frame.columns if column in ("problems", "notes")]
    return frame.assign(**{column: frame[column].map(_joined) for column in joined})


def _joined(value: Any) -> str:
    return "; ".join(map(str, value)) if isinstance(value, (list, tuple)) else ("" if is_missing(value) else str(value))


def pictures(files: Mapping[str, bytes]) -> dict[str, dict[str, bytes]]:
    """Sort the files of a folder of figures by figure: stem → ending → content."""
    found: dict[str, dict[str, bytes]] = {}
    for name, content in files.items():
        folder, _, file = name.rpartition("/")
        if folder == "figures":
            stem, _, kind = file.rpartition(".")
            found.setdefault(stem, {})[kind] = content
    return found
