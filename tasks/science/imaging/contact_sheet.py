"""One picture of many scans: the worst of a cohort beside some that are as they should be."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from .montage import PALETTE, TEXT, TILE, montage_tiles, picture_font, printable

SCANS_PER_ROW = 3
LINES = 3
LINE_HEIGHT = 14
CHARACTERS = 54
GAP = 8
HEADING = 22
CELL_WIDTH, CELL_HEIGHT = 3 * TILE, TILE + LINES * LINE_HEIGHT + 4


@dataclass(frozen=True)
class SheetEntry:
    """One scan of a sheet.

    Attributes:
        scan_id: Its id.
        note: What made it worst, with figures; or why it is shown.
        montage: From `montage_png`.
    """

    scan_id: str
    note: str
    montage: bytes


def contact_sheet_png(worst: Sequence[SheetEntry], usual: Sequence[SheetEntry]) -> bytes:
    """Lay the middle slices of scans out with what stands out about each.

    Args:
        worst: The worst scans, the very worst first.
        usual: Some scans drawn at random from the rest: what the worst are to be compared with.

    Returns:
        The bytes of a PNG. The same scans give the same bytes.
    """
    parts = [(name, part) for name, part in (("Worst first", worst), ("For comparison", usual)) if part]
    heights = [HEADING + -(-len(part) // SCANS_PER_ROW) * (CELL_HEIGHT + GAP) for _, part in parts]
    width = SCANS_PER_ROW * (CELL_WIDTH + GAP) + GAP
    image = Image.new("P", (width, max(sum(heights), 1)), 0)
    image.putpalette(PALETTE)
    draw = ImageDraw.Draw(image)
    top = 0
    for (name, part), height in zip(parts, heights, strict=True):
        draw.text((GAP, top + 4), f"{name} (axial, coronal, sagittal; left is left)", fill=TEXT, font=picture_font())
        for number, entry in enumerate(part):
            row, column = divmod(number, SCANS_PER_ROW)
            corner = (GAP + column * (CELL_WIDTH + GAP), top + HEADING + row * (CELL_HEIGHT + GAP))
            _cell(image, draw, corner, entry)
        top += height
    written = io.BytesIO()
    image.save(written, "PNG", optimize=False, compress_level=9)
    return written.getvalue()


def _cell(image: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], entry: SheetEntry) -> None:
    x, y = corner
    for number, tile in enumerate(montage_tiles(entry.montage)):
        image.paste(tile, (x + number * TILE, y))
    lines = [entry.scan_id[:CHARACTERS], *textwrap.wrap(entry.note, CHARACTERS)][:LINES]
    for number, line in enumerate(lines):
        draw.text((x, y + TILE + 2 + number * LINE_HEIGHT), printable(line), fill=TEXT, font=picture_font())
