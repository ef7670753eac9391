"""One picture per prepared scan, so that a person can judge hundreds at a glance.

It is drawn on the worker that prepares the scan, so it has to cost next to nothing and to stay small: few grey levels,
small tiles, no plotting library.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from ..arrays import Affine, AnyVolume, Mask, Volume
from .orientation import spacing_mm, to_ras

TILE = 104
HEADER = 18
COLUMNS = 7
GREYS = 24
TEXT, OUTLINE = GREYS, GREYS + 1
PALETTE = [round(255 * level / (GREYS - 1)) for level in range(GREYS) for _ in range(3)] + [255, 165, 0, 0, 200, 200]
AXIAL, CORONAL, SAGITTAL = "axial", "coronal", "sagittal"
# Plane → axis across it, and what lies at the picture's left and right.
PLANES = {AXIAL: (2, "L", "R"), CORONAL: (1, "L", "R"), SAGITTAL: (0, "P", "A")}
FIRST_SLICE, LAST_SLICE = 0.12, 0.88
# Of a scan with several channels, each has one row that shows every plane.
CHANNEL_ROW = ((AXIAL, 3), (CORONAL, 2), (SAGITTAL, 2))
WINDOW_PERCENTILES = (1.0, 99.5)
WINDOW_VOXELS = 200_000

Tile = tuple[str, str, float]


def montage_png(
    volume: AnyVolume, affine: Affine, title: str = "", outline: Mask | None = None, channels: Sequence[str] = ()
) -> bytes:
    """Draw slices right side up, in neurological convention: left is left.

    One channel fills three rows, axial, coronal and sagittal; of several, each has a row with all three planes.

    Args:
        volume: Any scan or prepared volume, shape (i, j, k) or (channels, i, j, k); the affine says how it lies.
        affine: Voxel indices to RAS+ mm.
        title: Printed above, for instance the scan's id.
        outline: Where the template's brain is, shape (i, j, k); its border is drawn over the slices.
        channels: Names of the channels, printed beside their rows.

    Returns:
        The bytes of a PNG. The same volume gives the same bytes.
    """
    stack = np.asarray(volume)[None] if np.ndim(volume) == 3 else np.asarray(volume)
    upright = [to_ras(channel, affine) for channel in stack]
    steps = spacing_mm(upright[0][1])
    border = None if outline is None else to_ras(outline, affine)[0]
    rows = _rows(len(stack), channels)
    image = Image.new("P", (COLUMNS * TILE, HEADER + len(rows) * TILE), 0)
    image.putpalette(PALETTE)
    draw = ImageDraw.Draw(image)
    draw.text((4, 3), printable(f"{title}  (neurological: left is left)".strip()), fill=TEXT, font=picture_font())
    windows = [_window(channel) for channel, _ in upright]
    for row, (channel, tiles) in enumerate(rows):
        for column, (plane, label, share) in enumerate(tiles):
            corner = (column * TILE, HEADER + row * TILE)
            tile = _tile(upright[channel][0], border, steps, plane, share, windows[channel])
            image.paste(Image.fromarray(tile), corner)
            _label(draw, corner, plane, label, first=column == 0 or tiles[column - 1][0] != plane)
    layout = PngInfo()
    layout.add_text("layout", "planes" if len(stack) == 1 else "channels")
    written = io.BytesIO()
    image.save(written, "PNG", optimize=False, compress_level=9, pnginfo=layout)
    return written.getvalue()


def montage_tiles(png: bytes) -> list[Image.Image]:
    """Cut the middle axial, coronal and sagittal slice out of a montage, for sheets of many scans.

    Args:
        png: From `montage_png`.

    Returns:
        Three pictures of `TILE` × `TILE`, indexed by `PALETTE`.
    """
    image = Image.open(io.BytesIO(png))
    planes = image.info.get("layout") == "planes"
    at = [(COLUMNS // 2, row) for row in range(3)] if planes else [(1, 0), (3, 0), (5, 0)]
    return [
        image.crop((column * TILE, HEADER + row * TILE, (column + 1) * TILE, HEADER + (row + 1) * TILE))
        for column, row in at
    ]


def _rows(n_channels: int, names: Sequence[str]) -> list[tuple[int, list[Tile]]]:
    """Channel and tiles of each row: plane, label and where the slice lies in the brain's extent."""
    if n_channels == 1:
        shares = np.linspace(FIRST_SLICE, LAST_SLICE, COLUMNS)
        return [(0, [(plane, plane, float(share)) for share in shares]) for plane in PLANES]
    named = [*names, *(f"channel {number + 1}" for number in range(len(names), n_channels))]
    inner = [(plane, float(share)) for plane, count in CHANNEL_ROW for share in np.linspace(0, 1, count + 2)[1:-1]]
    return [(channel, [(plane, named[channel], share) for plane, share in inner]) for channel in range(n_channels)]


def _window(volume: AnyVolume) -> tuple[float, float]:
    present = volume[volume != 0]
    present = present[:: max(1, present.size // WINDOW_VOXELS)].astype(np.float32)
    if present.size == 0:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(present, WINDOW_PERCENTILES))
    return min(low, 0.0), max(high, low + 1e-6, 1e-6)


def _tile(
    volume: AnyVolume,
    border: Mask | None,
    steps: NDArray[np.float64],
    plane: str,
    share: float,
    window: tuple[float, float],
) -> NDArray[np.uint8]:
    axis = PLANES[plane][0]
    across, up = (other for other in range(3) if other != axis)
    index = _slice_at(volume if border is None else border, axis, share)
    slice_ = np.take(volume, index, axis).astype(np.float32)
    low, high = window
    # Background is exactly 0, which in z-scores is a middle grey: it is left black.
    levels = np.where(slice_ != 0, np.clip((slice_ - low) / (high - low), 0.0, 1.0) * 255.0, 0.0)
    size_mm = np.array(volume.shape) * steps
    scale = TILE / size_mm.max()
    size = (max(1, round(size_mm[across] * scale)), max(1, round(size_mm[up] * scale)))
    greys = np.asarray(_resized(levels, size, Image.Resampling.BOX), dtype=np.float32)
    picture = np.rint(greys / 255.0 * (GREYS - 1)).astype(np.uint8)
    if border is not None:
        inside = np.asarray(_resized(np.take(border, index, axis) * 255.0, size, Image.Resampling.BILINEAR)) > 127
        picture[_edge(inside)] = OUTLINE
    tile = np.zeros((TILE, TILE), dtype=np.uint8)
    top, left = (TILE - size[1]) // 2, (TILE - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = picture
    return tile


def _resized(slice_: NDArray[np.float32], size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    """A slice (across, up) as a picture of (width, height), up at the top."""
    return Image.fromarray(np.ascontiguousarray(slice_.T[::-1], dtype=np.float32)).resize(size, how)


def _edge(inside: Mask) -> Mask:
    padded = np.pad(inside, 1)
    surrounded = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(inside & ~surrounded)


def _slice_at(volume: AnyVolume | Volume, axis: int, share: float) -> int:
    """Slices are spread over what is not background, or over the template's brain where that is drawn."""
    others = tuple(other for other in range(3) if other != axis)
    lit = np.flatnonzero((volume != 0).any(axis=others))
    first, last = (int(lit[0]), int(lit[-1])) if lit.size else (0, volume.shape[axis] - 1)
    return round(first + (last - first) * share)


def _label(draw: ImageDraw.ImageDraw, corner: tuple[int, int], plane: str, label: str, first: bool) -> None:
    if not first:
        return
    _, left, right = PLANES[plane]
    x, y = corner
    draw.text((x + 2, y + TILE // 2 - 6), left, fill=TEXT, font=picture_font())
    draw.text((x + TILE - 10, y + TILE // 2 - 6), right, fill=TEXT, font=picture_font())
    draw.text((x + 2, y + TILE - 13), printable(label), fill=TEXT, font=picture_font())


def printable(text: str) -> str:
    """The built-in font has Latin letters only; others become question marks rather than boxes of another width."""
    return text.encode("latin-1", "replace").decode("latin-1")


@cache
def picture_font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """The font of every picture: Pillow's own, so that no machine's fonts alter the bytes."""
    return ImageFont.load_default(11)
