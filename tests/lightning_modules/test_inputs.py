"""What the network sees of a training scan depends on seed, epoch, scan and view alone, and keeps its age's traces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_modules.augmentation import Augmentation
from lightning_modules.data import PreparedScans, RankBatches
from lightning_modules.inputs import NetworkInputs
from tasks.records import AugmentationSpec, NetworkSpec, TrainingRow
from tests.lightning_modules.conftest import JobMaker

EVERYTHING = AugmentationSpec(
    flip_probability=0.5,
    shift_voxels=2,
    intensity_scale=0.2,
    intensity_shift=0.2,
    intensity_probability=0.5,
    contrast_probability=0.5,
    smoothing_probability=0.5,
    histogram_shift_probability=0.5,
    noise_probability=0.5,
)
STILL = AugmentationSpec(flip_probability=0.0, shift_voxels=0)
CHANNELS = ("T1w", "T2w", "ratio")
# A round brain in a box of zeros, three contrasts of it.
MIDDLE = np.indices((12, 14, 13)) - np.array([5.5, 6.5, 6.0])[:, None, None, None]
BRAIN = torch.from_numpy((MIDDLE**2).sum(axis=0) < 22)
PREPARED = torch.randn((3, 12, 14, 13), generator=torch.Generator().manual_seed(0)) * BRAIN


def inputs(spec: AugmentationSpec, network: NetworkSpec | None = None, views: int = 1, seed: int = 3) -> NetworkInputs:
    names = [f"scan-{number}" for number in range(40)]
    return NetworkInputs(network or NetworkSpec(), CHANNELS, Augmentation(spec, seed), names, views)


def seen(made: NetworkInputs, index: int = 0, epoch: int = 0, volume: Tensor = PREPARED) -> Tensor:
    return made.training(volume[None], torch.tensor([index]), epoch)[0]


def training_rows(job_of: JobMaker) -> list[TrainingRow]:
    return [row for row in job_of(train=16, validation=2, test=0).rows if row.split == "train"]


def by_scan(rows: list[TrainingRow], ranks: int, workers: int, epoch: int, slices: float = 0.0) -> dict[str, Tensor]:
    """Every training scan of an epoch as the network sees it, whatever the ranks and workers."""
    spec = replace(EVERYTHING, slice_simulation=slices)
    made = NetworkInputs(NetworkSpec(), ("T1w",), Augmentation(spec, 3, 12.0), [row.scan_id for row in rows])
    found: dict[str, Tensor] = {}
    for rank in range(ranks):
        batches = RankBatches(len(rows), 8, rank, ranks, 0)
        batches.set_epoch(epoch)
        for indices, volumes, _ in DataLoader(
            PreparedScans(rows, made.augmentation), batch_sampler=batches, num_workers=workers
        ):
            for index, volume in zip(indices.tolist(), made.training(volumes, indices, epoch), strict=True):
                found[rows[index].scan_id] = volume
    return found


@pytest.mark.parametrize("slices", [0.0, 0.5])
def test_a_scan_is_changed_alike_by_any_number_of_ranks_and_workers(job_of: JobMaker, slices: float) -> None:
    rows = training_rows(job_of)
    alone = by_scan(rows, 1, 0, epoch=2, slices=slices)
    assert len(alone) == 16
    for ranks, workers in ((2, 0), (4, 2)):
        shared = by_scan(rows, ranks, workers, epoch=2, slices=slices)
        assert all(torch.equal(shared[name], alone[name]) for name in alone)
    backwards = by_scan(rows[::-1], 1, 0, epoch=2, slices=slices)
    assert all(torch.equal(backwards[name], alone[name]) for name in alone)
    later = by_scan(rows, 1, 0, epoch=3, slices=slices)
    assert all(not torch.equal(later[name], alone[name]) for name in alone)


def test_another_seed_or_view_changes_a_scan_otherwise() -> None:
    assert not torch.equal(seen(inputs(EVERYTHING)), seen(inputs(EVERYTHING, seed=4)))
    one, two = seen(inputs(EVERYTHING, views=2))
    assert torch.equal(one, seen(inputs(EVERYTHING)))
    assert not torch.equal(one, two)
    # Views that the loader made, each with slices of its own, are changed each by its own stream.
    stacked = seen(inputs(EVERYTHING, views=2), volume=torch.stack([PREPARED, PREPARED]))
    assert torch.equal(stacked, torch.stack([one, two]))


@pytest.mark.parametrize(
    "changes",
    [
        {"contrast_probability": 1.0},
        {"histogram_shift_probability": 1.0},
        {"smoothing_probability": 1.0},
        {"noise_probability": 1.0},
        {"intensity_scale": 0.2, "intensity_probability": 1.0},
        {"intensity_shift": 0.2, "intensity_probability": 1.0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_each_change_of_intensity_stays_in_the_brain_and_differs_by_channel(changes: dict[str, float]) -> None:
    changed = seen(inputs(replace(STILL, **changes)))  # type: ignore[arg-type]
    assert type(changed) is Tensor
    assert changed.dtype == torch.float32
    assert not changed[:, ~BRAIN].any()
    assert all(bool((now[BRAIN] != before[BRAIN]).any()) for now, before in zip(changed, PREPARED, strict=True))
    # Contrasts are separate scans: the same values in each channel end up apart.
    alike = seen(inputs(replace(STILL, **changes)), volume=PREPARED[:1].expand(3, -1, -1, -1))  # type: ignore[arg-type]
    assert not torch.equal(alike[0], alike[1])


def test_scale_and_shift_are_those_asked_for() -> None:
    found = []
    for index in range(40):
        spec = replace(STILL, intensity_scale=0.3, intensity_shift=0.5, intensity_probability=1.0)
        slope, offset = np.polyfit(PREPARED[0][BRAIN], seen(inputs(spec), index)[0][BRAIN], 1)
        found.append((slope, offset))
    slopes, offsets = np.array(found).T
    assert 0.7 <= slopes.min() < 0.8
    assert 1.2 < slopes.max() <= 1.3
    assert -0.5 <= offsets.min() < -0.35
    assert 0.35 < offsets.max() <= 0.5


def test_contrast_and_histogram_keep_the_order_of_intensities() -> None:
    for changes in ({"contrast_probability": 1.0}, {"histogram_shift_probability": 1.0}):
        changed = seen(inputs(replace(STILL, **changes)))[0][BRAIN]  # type: ignore[arg-type]
        in_order = changed[PREPARED[0][BRAIN].argsort()]
        assert bool((in_order.diff() >= -1e-6).all())


def test_changes_come_as_often_as_asked_and_none_is_no_change() -> None:
    spec = replace(STILL, noise_probability=0.25)
    pairs = [(index, epoch) for index in range(40) for epoch in range(5)]
    count = sum(not torch.equal(seen(inputs(spec), index, epoch)[0], PREPARED[0]) for index, epoch in pairs)
    assert 30 <= count <= 70
    assert torch.equal(seen(inputs(STILL)), PREPARED)


def test_one_change_alters_the_draws_of_no_other() -> None:
    only = replace(STILL, intensity_shift=0.2, intensity_probability=1.0)
    also = replace(only, contrast_probability=1e-12, flip_probability=1e-12)
    assert torch.equal(seen(inputs(also)), seen(inputs(only)))


def test_a_unit_scale_does_not_undo_a_change_of_intensity() -> None:
    network = NetworkSpec(scaling="unit")
    plain = inputs(STILL, network).evaluation(PREPARED[None])[0]
    assert float(plain.min()) == 0
    assert float(plain.max()) == 1
    spec = replace(STILL, intensity_scale=0.2, intensity_shift=0.2, intensity_probability=1.0)
    assert float((seen(inputs(spec, network)) - plain)[:, BRAIN].abs().max()) > 0.02


def test_crops_lie_anywhere_in_training_and_in_the_middle_in_evaluation() -> None:
    network = NetworkSpec(inputs=("ratio", "T1w"), crop_voxels=(8, 9, 7), input_channels=2)
    made = inputs(STILL, network)
    chosen = PREPARED[[2, 0]]
    places = set()
    for index in range(40):
        part = seen(made, index)
        starts = [
            start
            for start in np.ndindex(5, 6, 7)
            if torch.equal(chosen[:, start[0] : start[0] + 8, start[1] : start[1] + 9, start[2] : start[2] + 7], part)
        ]
        assert len(starts) == 1
        places.add(starts[0])
    assert len(places) > 20
    assert {place[0] for place in places} == set(range(5))
    middle = made.evaluation(PREPARED[None])[0]
    assert torch.equal(middle, chosen[:, 2:10, 2:11, 3:10])
