"""What of a network's specification shapes its layers; the record itself does not travel by this folder."""

from __future__ import annotations

from typing import Protocol

from .age_bins import AgeBinSpec

# What `channels[0]` is when the networks that it scales have their published filter counts.
PUBLISHED_WIDTH = 32


class NetworkShape(AgeBinSpec, Protocol):
    """What of a network's specification shapes its layers."""

    @property
    def name(self) -> str: ...

    @property
    def head(self) -> str: ...

    @property
    def channels(self) -> tuple[int, ...]: ...

    @property
    def dropout(self) -> float: ...

    @property
    def norm(self) -> str: ...

    @property
    def input_channels(self) -> int: ...


def filters(spec: NetworkShape, *published: int) -> tuple[int, ...]:
    """Scale published filter counts by the specification's width, so that small studies fit small machines.

    Args:
        spec: Its first entry of `channels`, over 32, is the scale.
        published: Filter counts at full width.

    Returns:
        Filter counts, each 1 or more.

    Raises:
        ValueError: No channels, or fewer than one.
    """
    if not spec.channels or min(spec.channels) < 1:
        raise ValueError(f"channels is {tuple(spec.channels)}; give one block or more, each of one channel or more.")
    return tuple(max(1, round(count * spec.channels[0] / PUBLISHED_WIDTH)) for count in published)


def least_map_side_voxels(spec: NetworkShape) -> int:
    """Smallest side of the last feature maps: a voxel alone has no variance for instance norm to divide by."""
    return 2 if spec.norm == "instance" else 1


def smallest_side_voxels(spec: NetworkShape, halvings: int) -> int:
    """Smallest side of a volume that is halved so many times, rounding up, each halving having something to halve."""
    needed = (least_map_side_voxels(spec) - 1) * 2**halvings
    return int(max(needed, 2 ** (halvings - 1)) + 1)
