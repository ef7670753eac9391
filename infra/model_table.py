"""The tables that a registered model takes and gives. This file travels with the model."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

FIGURES = (
    "predicted_age_years",
    "ensemble_spread_years",
    "corrected_age_years",
    "brain_pad_years",
    "corrected_brain_pad_years",
    "interval_low_years",
    "interval_high_years",
    "corrected_interval_low_years",
    "corrected_interval_high_years",
)
# Of the quality figures of preprocessing, those by which a reader judges a scan at a glance.
QUALITY = ("snr", "cnr", "registration_correlation_ratio", "fov_cut_fraction", "header_turn_degrees")
QUALITY_COLUMNS = tuple(f"quality_{name}" for name in QUALITY)
TEXTS = ("status", "reason", "absent", "quality_flags", "fit_key")
COLUMNS = (*FIGURES, "status", "reason", "absent", "quality_flags", *QUALITY_COLUMNS, "fit_key")
LONGEST_LIFE_YEARS = 125.0
NO_AGE = "no age was given, so there is no brain-PAD and no corrected age"
NOT_JUDGED = "not judged: a prepared volume comes without the figures of its image"


class Unusable(Exception):
    """A row that gets a status and a reason in place of numbers."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


def with_nulls(predictions: pd.DataFrame) -> pd.DataFrame:
    """A table as JSON can hold it, which has no NaN: undefined cells are None."""
    return predictions.astype(object).where(predictions.notna(), None)


def absent_figures(contract: dict[str, Any], n_members: int, has_age: bool) -> str:
    """Why figures of a row that is `ok` are not there; "" where all of them are."""
    notes = {which: contract["intervals"].get(which, {}) for which in ("raw", "corrected")}
    missing = {
        which: told.get("note") or "the fit has none"
        for which, told in notes.items()
        if told.get("half_width_years") is None
    }
    said = [] if n_members > 1 else ["spread: the model is one network"]
    said += [f"interval: {missing['raw']}"] if "raw" in missing else []
    if not has_age:
        said.append("brain-PAD and corrected age: no age was given")
    elif contract["age_bias"] is None:
        said.append(f"corrected age: {contract['why_no_age_bias'] or 'the fit has no line of age bias'}")
    elif "corrected" in missing:
        said.append(f"interval of the corrected age: {missing['corrected']}")
    return "; ".join(said)


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a consumer's table.

    Raises:
        ValueError: It holds none of the model's columns, so that nobody can tell how many scans were meant.
    """
    if not len(table.columns):
        raise ValueError("found none of the columns that the model takes; expected `image` or `prepared` at least")
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def age_of(value: Any) -> float | None:
    """A chronological age in years; None where none is given.

    Raises:
        Unusable: It is no age.
    """
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, str) and not value.strip()):
        return None
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        age_years = float(value)
    except (TypeError, ValueError):
        raise Unusable("rejected", f"age_years is {_quoted(value)}, expected a number of years") from None
    if math.isnan(age_years):
        return None
    if not 0 <= age_years <= LONGEST_LIFE_YEARS:
        raise Unusable("rejected", f"age_years is {age_years:g}, expected 0 to {LONGEST_LIFE_YEARS:g} years")
    return age_years


def images_of(row: dict[str, Any], contrasts: Sequence[str]) -> dict[str, str]:
    """The address of each image that the model needs, by contrast.

    Raises:
        Unusable: The row lacks one.
    """
    named = {contrast: row.get(contrast) for contrast in contrasts}
    if len(contrasts) == 1 and not is_address(named[contrasts[0]]):
        named[contrasts[0]] = row.get("image")
    missing = [contrast for contrast, uri in named.items() if not is_address(uri)]
    if missing:
        columns = "`image` or `prepared`" if len(contrasts) == 1 else f"{', '.join(missing)} or `prepared`"
        raise Unusable(
            "rejected",
            f"the row lacks {columns}: the model takes {', '.join(contrasts)}, as paths or s3:// addresses of NIfTI",
        )
    return {contrast: str(uri) for contrast, uri in named.items()}


def is_address(value: Any) -> bool:
    """Whether a cell names anything."""
    return isinstance(value, str) and bool(value.strip())


def prepared_volume(content: bytes, shape: tuple[int, ...], largest: float) -> np.ndarray:
    """A volume that padflow prepared, checked before any memory is taken for it.

    Args:
        content: Of a `.npy` file.
        shape: Channels and grid that the model takes.
        largest: Bound of the values that the recipe gives.

    Returns:
        float32, of that shape.

    Raises:
        Unusable: It is none, is of another grid, or holds what no prepared volume does.
    """
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        found, _, dtype = read(file)
    except (ValueError, KeyError) as error:
        raise Unusable("rejected", "the prepared volume is no .npy file of numbers") from error
    if found != shape:
        raise Unusable("rejected", f"prepared volume has shape {found}, the model expects {shape}")
    if dtype.kind != "f":
        raise Unusable("rejected", f"prepared volume holds {dtype}, the model expects floating-point numbers")
    try:
        volume = np.load(io.BytesIO(content), allow_pickle=False).astype(np.float32)
    except ValueError as error:
        raise Unusable("rejected", "the prepared volume is cut short") from error
    if not np.isfinite(volume).all():
        raise Unusable("rejected", f"{int((~np.isfinite(volume)).sum())} voxels of the prepared volume are not finite")
    if not volume.any():
        raise Unusable("rejected", "the prepared volume is 0 everywhere")
    if np.abs(volume).max() > largest:
        raise Unusable("rejected", f"prepared volume holds values beyond ±{largest:g}, which the recipe never gives")
    return volume


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
