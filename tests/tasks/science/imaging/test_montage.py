"""Pictures of scans: right way round, small, the same bytes every time, and the worst ones together."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tasks.science.imaging.contact_sheet import SheetEntry, contact_sheet_png
from tasks.science.imaging.montage import COLUMNS, HEADER, OUTLINE, TEXT, TILE, montage_png, montage_tiles

MOST_BYTES = 60_000
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def head(noise: float = 0.0) -> np.ndarray:
    """A ball with a bright right front top."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (80, 96, 80)], indexing="ij"))
    ball = ((grid / 0.9) ** 2).sum(axis=0) < 1
    volume = np.where(ball, 1.0 + ((grid > 0.2).all(axis=0)), 0.0)
    return (volume + ball * noise * np.random.default_rng(0).standard_normal(volume.shape)).astype(np.float32)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def tile(picture: np.ndarray, row: int, column: int) -> np.ndarray:
    return picture[HEADER + row * TILE :, column * TILE :][:TILE, :TILE]


def brightest(part: np.ndarray) -> tuple[float, float]:
    """Row and column of the middle of what is brightest, as a share of the tile."""
    at = np.argwhere((part >= part[part < TEXT].max()) & (part < TEXT))
    row, column = at.mean(axis=0) / TILE
    return float(row), float(column)


def test_right_is_right_front_is_up_and_top_is_up() -> None:
    picture = pixels(montage_png(head(), AFFINE, "sub-01"))
    for plane, column in ((0, 4), (1, 4), (2, 4)):
        row, across = brightest(tile(picture, plane, column))
        assert row < 0.5, plane
        assert across > 0.5, plane


def test_equal_scans_give_equal_bytes_and_orientation_of_storage_does_not_show() -> None:
    volume = head(0.1)
    flipped = AFFINE.copy()
    flipped[0, 0], flipped[0, 3] = -2.0, 2.0 * 79
    assert montage_png(volume, AFFINE, "a") == montage_png(volume, AFFINE, "a")
    assert montage_png(volume[::-1], flipped, "a") == montage_png(volume, AFFINE, "a")


def test_a_noisy_scan_stays_small() -> None:
    noise = np.random.default_rng(0).standard_normal((160, 192, 160)).astype(np.float16)
    assert len(montage_png(head(0.5), AFFINE)) < MOST_BYTES
    assert len(montage_png(noise, np.eye(4))) < 4 * MOST_BYTES


def test_the_outline_is_drawn_where_the_template_ends() -> None:
    volume = head()
    picture = pixels(montage_png(volume, AFFINE, "a", outline=volume > 0))
    middle = tile(picture, 0, COLUMNS // 2)
    border = np.argwhere(middle == OUTLINE)
    distance = np.linalg.norm((border - TILE / 2) * [1.0, 96 / 80], axis=1)
    assert len(border) > 100
    assert not (pixels(montage_png(volume, AFFINE, "a")) == OUTLINE).any()
    assert distance.min() > 0.3 * TILE


def test_each_channel_has_a_row() -> None:
    volume = np.stack([head(), -head(), head() * 2])
    png = montage_png(volume, AFFINE, "a", channels=("T1w", "T2w", "ratio"))
    assert pixels(png).shape == (HEADER + 3 * TILE, COLUMNS * TILE)
    assert len({tuple(np.asarray(part).ravel().tolist()) for part in montage_tiles(png)}) == 3


@pytest.mark.parametrize("title", ["", "Ωmega 脳", "x" * 500, "<b>&"])
def test_any_title_is_printed(title: str) -> None:
    assert pixels(montage_png(head(), AFFINE, title)).max() == TEXT


def test_an_empty_scan_has_a_picture() -> None:
    assert pixels(montage_png(np.zeros((20, 20, 20)), AFFINE)).shape[1] == COLUMNS * TILE


def test_a_sheet_shows_the_worst_first_and_others_below() -> None:
    dark, bright = montage_png(head() * 0 + 1e-3 * (head() > 0), AFFINE), montage_png(head(), AFFINE)
    worst = [SheetEntry("sub-bad", "snr 2.1 (robust z 9.0)", dark)] * 4
    sheet = contact_sheet_png(worst, [SheetEntry("sub-good", "", bright)])
    assert sheet == contact_sheet_png(worst, [SheetEntry("sub-good", "", bright)])
    assert sheet != contact_sheet_png(worst[:3], [SheetEntry("sub-good", "", bright)])
    assert pixels(sheet).shape[1] > 3 * 3 * TILE
    assert pixels(contact_sheet_png(worst, [])).shape[0] < pixels(sheet).shape[0]
