"""A map's picture: upright, on its side, with its sign."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tasks.records import Recipe
from tasks.science.imaging.grid import study_grid
from tasks.science.imaging.overlay import COLUMNS, HEADER, TILE, colours_of, overlay_png
from tasks.science.imaging.template import mni


def picture(centre_mm: tuple[float, float, float], value: float, step_mm: float = 4.0) -> np.ndarray:
    shape, affine = study_grid(Recipe(resolution_mm=step_mm), mni())
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = indices * step_mm + affine[:3, 3]
    values = (value * np.exp(-(np.linalg.norm(world - centre_mm, axis=-1) ** 2) / 200)).astype(np.float32)
    png = overlay_png(values, affine, mni(), title="planted", unit="years", signed=True)
    return np.asarray(Image.open(io.BytesIO(png)), dtype=float)[HEADER:, : COLUMNS * TILE]


def coloured_centre(tiles: np.ndarray, row: int, sign: int) -> tuple[float, float]:
    """Where in the tiles of one plane the colour of a sign is, as shares from the left and from the top."""
    band = tiles[row * TILE : (row + 1) * TILE]
    strength = np.maximum(sign * (band[..., 0] - band[..., 2]) - 60, 0)
    across = np.arange(band.shape[1]) % TILE / TILE
    up = np.arange(TILE) / TILE
    return float((strength * across).sum() / strength.sum()), float((strength * up[:, None]).sum() / strength.sum())


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("step_mm", [4.0, 8.0])
def test_a_planted_source_is_drawn_right_in_front_and_above(sign: int, step_mm: float) -> None:
    tiles = picture((35.0, 30.0, 40.0), float(sign), step_mm)
    # Axial: right at the right, front at the top. Coronal: right, above. Sagittal: front at the right, above.
    expected = {0: (35 / 74, (30 + 18) / 90), 1: (35 / 74, (40 - 4) / 78), 2: ((30 + 18) / 90, (40 - 4) / 78)}
    for row, (right, up) in expected.items():
        across, down = coloured_centre(tiles, row, sign)
        assert across > 0.5 + 0.15 * right, row
        assert down < 0.5 - 0.1 * up, row


def test_the_opposite_source_is_drawn_on_the_other_side() -> None:
    tiles = picture((-35.0, -70.0, -20.0), 1.0)
    for row, (across, down) in {row: coloured_centre(tiles, row, 1) for row in range(3)}.items():
        assert across < 0.45, row
        assert down > 0.55, row


def test_colours_tell_the_sign_and_brighten_with_strength() -> None:
    shares = np.linspace(-1, 1, 21)
    colours = colours_of(shares)
    assert (colours[shares < 0, 2] > colours[shares < 0, 0]).all()
    assert (colours[shares > 0, 0] > colours[shares > 0, 2]).all()
    brightness = colours @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(brightness[shares > 0]) > 0).all()
    assert (np.diff(brightness[shares < 0]) < 0).all()


def test_the_same_map_gives_the_same_bytes_and_a_blank_one_is_drawn_too() -> None:
    shape, affine = study_grid(Recipe(resolution_mm=8.0), mni())
    blank = np.zeros(shape, dtype=np.float32)
    first, second = (overlay_png(blank, affine, mni(), title="t", unit="u", signed=False) for _ in range(2))
    assert first == second
