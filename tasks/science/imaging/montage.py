"""One picture per prepared scan, so that a person can judge hundreds at a glance."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..arrays import Affine, AnyVolume
from .orientation import spacing_mm, to_ras

COLUMNS = 7
ROWS = (("axial", 2, "L", "R"), ("coronal", 1, "L", "R"), ("sagittal", 0, "P", "A"))
INCHES_PER_SLICE = 1.5


def montage_png(volume: AnyVolume, affine: Affine, title: str = "") -> bytes:
    """Draw axial, coronal and sagittal slices, right side up, in neurological convention: left is left.

    Args:
        volume: Any scan or prepared volume, shape (i, j, k); the affine says how it lies.
        affine: Voxel indices to RAS+ mm.
        title: Printed above, for instance the scan's id.

    Returns:
        The bytes of a PNG. The same volume gives the same bytes.
    """
    upright, upright_affine = to_ras(np.asarray(volume, dtype=np.float32), affine)
    steps = spacing_mm(upright_affine)
    # Background is exactly 0, which in z-scores is a middle grey: it is left out, not drawn.
    present = upright[upright != 0]
    low, high = np.percentile(present, (1, 99.5)) if present.size else (0.0, 1.0)
    low = min(float(low), 0.0)
    figure = Figure(figsize=(COLUMNS * INCHES_PER_SLICE, len(ROWS) * INCHES_PER_SLICE + 0.4), facecolor="black")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(ROWS), COLUMNS, left=0.03, right=0.97, bottom=0.01, top=0.92, wspace=0.02, hspace=0.02
    )
    for row, (name, axis, left, right) in enumerate(ROWS):
        across, up = (other for other in range(3) if other != axis)
        for column, index in enumerate(_slices(upright, axis)):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(
                np.ma.masked_equal(np.take(upright, index, axis).T, 0),
                cmap="gray",
                origin="lower",
                vmin=low,
                vmax=float(high),
                aspect=float(steps[up] / steps[across]),
            )
            axes.set_axis_off()
            if column == 0:
                axes.text(0.02, 0.5, left, color="orange", transform=axes.transAxes, fontsize=9)
                axes.text(0.98, 0.5, right, color="orange", transform=axes.transAxes, fontsize=9, ha="right")
                axes.text(0.02, 0.02, name, color="orange", transform=axes.transAxes, fontsize=7)
    figure.text(0.01, 0.95, f"{title}  (neurological: left is left)".strip(), color="white", fontsize=9)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=80, facecolor="black", metadata={"Software": None})
    return picture.getvalue()


def _slices(volume: AnyVolume, axis: int) -> list[int]:
    """Spread the slices over what is not background."""
    others = tuple(other for other in range(3) if other != axis)
    lit = np.flatnonzero((volume != 0).any(axis=others))
    first, last = (int(lit[0]), int(lit[-1])) if lit.size else (0, volume.shape[axis] - 1)
    return [round(first + (last - first) * share) for share in np.linspace(0.12, 0.88, COLUMNS)]
