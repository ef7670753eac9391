"""Matplotlib figures as SVG elements that can stand in an HTML page: text kept as text, the same bytes every time."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

WIDTH_INCHES = 7.2
INK = "#222222"
QUIET = "#6b6b6b"
# Okabe & Ito 2008: eight colours that readers with colour-vision deficiencies can tell apart; yellow is too light here.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4d4d4d")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

STYLE: Mapping[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#e4e4e0",
    "grid.linewidth": 0.6,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "text.color": INK,
    # Names of sites and groups are not mathematics, and a lone dollar sign must not fail the report.
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "padflow",
    "figure.dpi": 100,
    "savefig.dpi": 160,
}


@contextmanager
def house_style(**changes: Any) -> Iterator[None]:
    """Draw within the report's style, whatever the reader's matplotlibrc says; `changes` are settings of matplotlib."""
    with mpl.rc_context(), warnings.catch_warnings():
        # Names in scripts that the layout font lacks are measured as boxes and shown by the reader's own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        mpl.rcdefaults()
        for name, value in {**STYLE, **changes}.items():
            mpl.rcParams[name] = value
        yield


def inline_svg(figure: Figure, name: str, alt: str) -> Markup:
    """Write a figure as an `<svg>` element that scales with the page and can be read aloud.

    Matplotlib's file repeats ids from figure to figure and styles every element of a page it stands in; both are
    confined to the figure here, and addresses (the document type, metadata) are left out so that nothing is loaded.

    Args:
        figure: The figure, made and saved within `house_style`.
        name: Unique within the page; the prefix of the ids.
        alt: What the figure shows, for those who do not see it.

    Returns:
        The element; all text in it is escaped.
    """
    return confined_svg(svg_file(figure), name, alt)


def svg_file(figure: Figure) -> bytes:
    """Write a figure as an SVG file that is the same whenever it is written."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return buffer.getvalue()


def confined_svg(file: bytes, name: str, alt: str, kind: str = "plot") -> Markup:
    """Make an element of a page from matplotlib's SVG file; `kind` is its class. See `inline_svg`."""
    root = ElementTree.fromstring(file)  # noqa: S314 (it is matplotlib's own output)
    _drop(root, "metadata", "style")
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(key): _confined(_local(key), value, name) for key, value in element.attrib.items()}
    view_box = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib |= {"viewBox": view_box, "role": "img", "aria-label": alt, "class": kind, "id": name}
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 (text was escaped by the serialiser)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _drop(root: ElementTree.Element, *tags: str) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in tags:
                parent.remove(child)


def _confined(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href" and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    if key == "style":
        value = re.sub(r"(font(?:-family)?:[^;]*?)'DejaVu Sans'[^;]*", r"\1var(--sans)", value)
    return re.sub(r"url\(#", f"url(#{name}-", value)
