"""A map on the template: three planes through the brain, colours that colour-blind readers tell apart, and a scale."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw
from scipy import ndimage

from ..arrays import Affine, Volume
from .montage import PLANES, picture_font, printable
from .orientation import apply_affine
from .template import Template

TILE, GAP = 156, 8
HEADER = 20
COLUMNS = 7
BAR_WIDTH = 96
FIRST_SLICE, LAST_SLICE = 0.14, 0.86
# Of the magnitudes in the brain, so that one voxel does not bleach the rest.
FULL_COLOUR_PERCENTILE = 99.5
MOST_OPAQUE = 0.9
TEMPLATE_BRIGHTNESS = 0.6
WHITE_PERCENTILE = 99.5
# Blue and orange differ for every kind of colour blindness (Okabe & Ito 2008); towards 0 the template shows through.
LOWERS = ((0.0, 0.35, 0.7), (0.25, 0.65, 0.95), (0.85, 0.96, 1.0))
RAISES = ((0.8, 0.3, 0.0), (0.95, 0.6, 0.0), (1.0, 0.95, 0.7))

Colours = Float[np.ndarray, "height width 3"]


def overlay_png(values: Volume, affine: Affine, template: Template, *, title: str, unit: str, signed: bool) -> bytes:
    """Draw a map over the template, right side up, in neurological convention: left is left.

    Both are looked up at the same points of template space, so that a map of coarse voxels lies where it lies.

    Args:
        values: On the study's grid, shape (i, j, k).
        affine: Of that grid, voxel indices to the template's RAS+ mm.
        template: What lies below.
        title: Printed above.
        unit: Printed at the colour bar.
        signed: Whether values below 0 mean something; else the bar begins at 0.

    Returns:
        The bytes of a PNG. The same map gives the same bytes.
    """
    limit = colour_limit(values, affine, template)
    white = float(np.percentile(template.t1[template.brain], WHITE_PERCENTILE))
    low_mm, high_mm = template.box_mm
    scale = (TILE - 2 * GAP) / float((high_mm - low_mm).max())
    width = COLUMNS * TILE + BAR_WIDTH
    image = Image.new("RGB", (width, HEADER + len(PLANES) * TILE))
    draw = ImageDraw.Draw(image)
    draw.text((4, 3), printable(f"{title}  (neurological: left is left)".strip()), fill="white", font=picture_font())
    for row, (axis, left, right) in enumerate(PLANES.values()):
        for column, share in enumerate(np.linspace(FIRST_SLICE, LAST_SLICE, COLUMNS)):
            depth_mm = float(low_mm[axis] + share * (high_mm[axis] - low_mm[axis]))
            points, shape = _plane_points(axis, depth_mm, template, scale)
            tile = _coloured(_below(template, points, shape, white), _looked_up(values, affine, points, shape), limit)
            x, y = column * TILE, HEADER + row * TILE
            picture = Image.fromarray(np.rint(tile * 255).astype(np.uint8))
            image.paste(picture, (x + (TILE - shape[1]) // 2, y + (TILE - shape[0]) // 2))
            draw.text((x + 2, y + TILE - 14), f"{'xyz'[axis]} = {depth_mm:+.0f} mm", fill="white", font=picture_font())
            draw.text((x + 2, y + TILE // 2 - 6), left, fill="white", font=picture_font())
            draw.text((x + TILE - 10, y + TILE // 2 - 6), right, fill="white", font=picture_font())
    _colour_bar(image, draw, limit, unit, signed)
    written = io.BytesIO()
    image.save(written, "PNG", compress_level=9)
    return written.getvalue()


def colour_limit(values: Volume, affine: Affine, template: Template) -> float:
    """The magnitude that gets the full colour; what lies above it gets no more.

    Args:
        values: A map on the study's grid.
        affine: Of that grid.
        template: Whose brain counts.

    Returns:
        A magnitude above 0.
    """
    indices = np.stack(np.meshgrid(*map(np.arange, values.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    at = np.linalg.inv(template.affine) @ affine
    brain = ndimage.map_coordinates(template.brain, apply_affine(at, indices).T, order=0)
    inside = np.abs(np.ravel(values))[brain > 0]
    limit = float(np.percentile(inside, FULL_COLOUR_PERCENTILE)) if inside.size else 0.0
    return limit or float(np.abs(values).max()) or 1.0


def _plane_points(axis: int, depth_mm: float, template: Template, scale: float) -> tuple[np.ndarray, tuple[int, int]]:
    """Points of one plane in RAS+ mm, row by row from the top; the first axis runs to the picture's right."""
    low, high = template.box_mm
    across, up = (other for other in range(3) if other != axis)
    width, height = (max(1, round(float(high[a] - low[a]) * scale)) for a in (across, up))
    columns = low[across] + (np.arange(width) + 0.5) / scale
    rows = high[up] - (np.arange(height) + 0.5) / scale
    points = np.empty((height, width, 3))
    points[..., axis], points[..., across], points[..., up] = depth_mm, columns[None, :], rows[:, None]
    return points.reshape(-1, 3), (height, width)


def _looked_up(values: Volume, affine: Affine, points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    indices = apply_affine(np.linalg.inv(affine), points)
    return ndimage.map_coordinates(values, indices.T, order=1, mode="constant").reshape(shape)


def _below(template: Template, points: np.ndarray, shape: tuple[int, int], white: float) -> np.ndarray:
    greys = _looked_up(template.t1, template.affine, points, shape) / white
    return np.clip(greys, 0, 1) * TEMPLATE_BRIGHTNESS


def _coloured(greys: np.ndarray, values: np.ndarray, limit: float) -> Colours:
    strength = np.clip(np.abs(values) / limit, 0, 1)
    opacity = (MOST_OPAQUE * strength)[..., None]
    return greys[..., None] * (1 - opacity) + colours_of(values / limit) * opacity


def colours_of(shares: np.ndarray) -> np.ndarray:
    """Colour of each value from −1 (blue) to 1 (orange), brighter the further from 0; shape (…, 3), 0 to 1."""
    strength = np.clip(np.abs(shares), 0, 1)
    stops = np.linspace(0, 1, len(RAISES))
    by_sign = [
        np.stack([np.interp(strength, stops, [stop[channel] for stop in ends]) for channel in range(3)], axis=-1)
        for ends in (LOWERS, RAISES)
    ]
    return np.where((shares < 0)[..., None], *by_sign)


def _colour_bar(image: Image.Image, draw: ImageDraw.ImageDraw, limit: float, unit: str, signed: bool) -> None:
    x, top, height, width = COLUMNS * TILE + 8, HEADER + 40, len(PLANES) * TILE - 80, 14
    shares = np.linspace(1, -1 if signed else 0, height)
    bar = _coloured(np.zeros((height, width)), np.repeat(shares[:, None], width, axis=1) * limit, limit)
    image.paste(Image.fromarray(np.rint(bar * 255).astype(np.uint8)), (x, top))
    marks = ((0.0, 1.0), (0.5, 0.0), (1.0, -1.0)) if signed else ((0.0, 1.0), (1.0, 0.0))
    for position, share in marks:
        text = f"{share * limit:+.2g}" if share and signed else f"{share * limit:.2g}"
        draw.text((x + width + 4, top + position * height - 7), text, fill="white", font=picture_font())
    for line, part in enumerate(unit.split("\n")):
        draw.text((x, top + height + 10 + 12 * line), printable(part), fill="white", font=picture_font())
    if signed:
        draw.text((x, top - 32), "raises", fill="white", font=picture_font())
        draw.text((x, top - 19), "the age", fill="white", font=picture_font())
