"""Fit one network on the ranks that torch.distributed.run started."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.strategies import DDPStrategy
from torch.utils.data import DataLoader

from tasks.records import TrainingJob, TrainingRow, TrainingSpec, digest, training_values
from tasks.science.imaging.slices import LEAST_REACH_MM

from .augmentation import Augmentation
from .data import BEGINNING, Item, Place, PreparedScans, RankBatches, common_grid, unpadded_batches
from .epoch_log import DataWait, EpochLog
from .fit_module import FitModule
from .frozen_regressor import fit_frozen_regressor
from .hardware import used_hardware
from .inputs import NetworkInputs
from .kept_steps import KeptSteps, WholeFiles, place_to_resume
from .networks.age_bins import soft_labels
from .networks.inputs import chosen_channels
from .objectives import module_class, readout_scans, training_scans
from .out_of_memory import explained
from .outputs import write_curves, write_predictions, write_report, write_weights, write_whole
from .rank_n_contrast_module import RankNContrastModule

GPU_LOADER_WORKERS = 8
# Per worker, so that one slow read stalls nothing.
PREFETCHED_BATCHES = 3
# Statistics of about a hundred scans at a batch of eight, and little work beside an epoch of a large cohort.
CALIBRATION_BATCHES = 16
# Of a kernel of one voxel both memory formats are the same bytes, and torch returns either's strides; DDP then copies
# those few bytes, and says so.
ONE_VOXEL_STRIDES = r"Grad strides do not match bucket view strides[\s\S]*sizes\(\) = \[\d+, \d+, 1, 1, 1\]"


@dataclass(frozen=True)
class Ranks:
    """This process's place among those that fit together, as torch.distributed.run tells it."""

    rank: int
    world_size: int
    local_world_size: int

    @staticmethod
    def of_environment() -> Ranks:
        """Read RANK, WORLD_SIZE and LOCAL_WORLD_SIZE; without them the process is alone."""
        rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        return Ranks(rank, world_size, int(os.environ.get("LOCAL_WORLD_SIZE", str(world_size))))


def fit(job: TrainingJob) -> None:
    """Fit the job's network and leave weights, report, curves and predictions in its output folder.

    Every rank calls this with the same job. A fit that was interrupted goes on from the last step that it kept.

    Args:
        job: Specification, rows (local files) and output folder.

    Raises:
        ValueError: The job cannot be fitted as it stands; the message says what to change.
        OutOfMemory: A step does not fit into memory; the message says what does.
        SystemExit: The job was asked to stop; what it had reached is kept.
    """
    ranks = Ranks.of_environment()
    check_job(job, ranks)
    folder = Path(job.output_folder)
    if ranks.rank == 0:
        claim_folder(folder, job)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    # Products of single floats in TF32: a third of the digits that a voxel's noise leaves.
    torch.set_float32_matmul_precision("high" if torch.cuda.is_available() else "highest")
    pl.seed_everything(job.seed, workers=True, verbose=False)
    resumed, place = place_to_resume(folder / "checkpoints")
    train, validation, calibration = loaders(job, ranks, place, module_class(job).views)
    module = _module(job, ranks, train, calibration)
    wait = DataWait()
    log, stopping = EpochLog(ranks.world_size, wait), Patience(module.monitor, job.training.patience)
    keeping = KeptSteps(folder / "checkpoints", job.training.checkpoint_minutes)
    callbacks = [log, stopping, _best(folder / "checkpoints", module.monitor), keeping]
    with known_warnings(), explained(module, _shape_of_input(job, module.views), ranks.world_size):
        trainer = pl.Trainer(callbacks=callbacks, profiler=wait, **_setup(ranks, job.training))
        trainer.fit(module, train, validation, ckpt_path=resumed, weights_only=True)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if ranks.rank == 0:
        write_outputs(folder, job, ranks, log, stopped_early=stopping.stopped_epoch > 0)


def _module(job: TrainingJob, ranks: Ranks, train: DataLoader[Item], calibration: DataLoader[Item]) -> FitModule:
    steps = job.training.epochs * -(-len(train) // job.training.accumulate_batches)
    n_val = len(_of_split(job, "validation"))
    module = module_class(job)(job.network, job.training, job.seed, steps, n_val, calibration)
    if isinstance(module, RankNContrastModule):
        module.readout, module.n_readout = _readout(job, ranks)
    scan_ids = [row.scan_id for row in _of_split(job, "train")]
    module.inputs = NetworkInputs(job.network, job.channels, augmentation_of(job), scan_ids, module.views)
    module.batch_sizes = cast(RankBatches, train.batch_sampler).sizes
    return module


def _readout(job: TrainingJob, ranks: Ranks) -> tuple[DataLoader[Item], int]:
    scans = readout_scans(job)
    per_rank = job.training.batch_size // ranks.world_size
    mine = unpadded_batches(len(scans), per_rank, ranks.rank, ranks.world_size)
    return DataLoader(scans, batch_sampler=mine, **_workers(ranks)), len(scans)


def _shape_of_input(job: TrainingJob, views: int) -> tuple[int, ...]:
    channels, *grid = common_grid(job.rows)
    seen = (len(job.network.inputs) or channels, *(job.network.crop_voxels or grid))
    return (views, *seen) if views > 1 else seen


def check_job(job: TrainingJob, ranks: Ranks) -> None:
    """Refuse, before any training, what would fail or mislead later.

    Raises:
        ValueError: Wrong number of processes, an empty split, a repeated scan, an age outside the bins, or volumes of
            different shapes, without a channel that the network takes, or too small for simulated slices.
    """
    if job.training.processes != ranks.world_size:
        raise ValueError(
            f"the job asks for {job.training.processes} processes, {ranks.world_size} run; start it by `python -m "
            f"torch.distributed.run --standalone --nproc-per-node {job.training.processes} -m lightning_modules JOB`."
        )
    train, validation = _of_split(job, "train"), _of_split(job, "validation")
    if not train or not validation:
        raise ValueError(
            f"the job has {len(train)} training and {len(validation)} validation scans; both need at least one."
        )
    repeated = [scan_id for scan_id, count in Counter(row.scan_id for row in job.rows).items() if count > 1]
    if repeated:
        raise ValueError(f"{len(repeated)} scans stand in the job twice, the first is {repeated[0]}; list each once.")
    if job.network.head == "soft_label":
        soft_labels(torch.tensor([row.target_years for row in train + validation], dtype=torch.float64), job.network)
    grid = common_grid(job.rows)
    # One value stands for all voxels: names are compared, and nothing is computed.
    chosen_channels(torch.zeros(1).expand(1, *grid), job.network, job.channels)
    _check_reach(job, grid[1:])


def _check_reach(job: TrainingJob, shape: tuple[int, ...]) -> None:
    reach_mm = (min(shape) - 1) * job.resolution_mm
    if job.training.augmentation.slice_simulation > 0 and reach_mm < LEAST_REACH_MM:
        raise ValueError(
            f"scans of {shape} voxels of {job.resolution_mm:g} mm reach {reach_mm:g} mm; slice_simulation needs "
            f"{LEAST_REACH_MM:g} mm for its thickest slices: enlarge field_of_view_mm, or set slice_simulation = 0."
        )


def claim_folder(folder: Path, job: TrainingJob) -> None:
    """Tie the folder to what determines the weights, so that no fit resumes from another's checkpoint.

    Raises:
        ValueError: The folder belongs to another job.
    """
    rows = [
        {key: value for key, value in asdict(row).items() if key not in ("path", "tissue_path")} for row in job.rows
    ]
    how = {
        "network": asdict(job.network),
        "training": training_values(job.training),
        "resolution_mm": job.resolution_mm,
    }
    name = digest({**how, "channels": job.channels, "seed": job.seed, "rows": rows})
    claim = folder / "checkpoints" / "job.sha256"
    if claim.exists() and claim.read_text() != name:
        raise ValueError(
            f"{folder} holds checkpoints of another job (a field or a row differs); give an empty output_folder."
        )
    write_whole(claim, name.encode())


def loaders(
    job: TrainingJob, ranks: Ranks, begins: Place = BEGINNING, views: int = 1
) -> tuple[DataLoader[Item], DataLoader[Item], DataLoader[Item]]:
    """This rank's training batches; its part of the validation scans; training scans to calibrate on."""
    spec, train, validation = job.training, _of_split(job, "train"), _of_split(job, "validation")
    workers = _workers(ranks)
    place = (len(train), spec.batch_size, ranks.rank, ranks.world_size, job.seed)
    per_rank = spec.batch_size // ranks.world_size
    held_out = unpadded_batches(len(validation), per_rank, ranks.rank, ranks.world_size)
    changed = training_scans(job, augmentation_of(job), views)
    return (
        DataLoader(changed, batch_sampler=RankBatches(*place, begins=begins), **workers),
        DataLoader(PreparedScans(validation), batch_sampler=held_out, **workers),
        DataLoader(PreparedScans(train), batch_sampler=RankBatches(*place, CALIBRATION_BATCHES), **workers),
    )


def augmentation_of(job: TrainingJob) -> Augmentation:
    """Random changes of a job's training scans."""
    return Augmentation(job.training.augmentation, job.seed, job.resolution_mm)


def _workers(ranks: Ranks) -> dict[str, Any]:
    """Loader workers beside a GPU; on a CPU they would take the time of the training itself."""
    if not torch.cuda.is_available():
        return {}
    mine = max((os.cpu_count() or 1) // ranks.local_world_size - 1, 1)
    return {
        "num_workers": min(mine, GPU_LOADER_WORKERS),
        "persistent_workers": True,
        "pin_memory": True,
        "prefetch_factor": PREFETCHED_BATCHES,
    }


def write_outputs(folder: Path, job: TrainingJob, ranks: Ranks, log: EpochLog, stopped_early: bool) -> None:
    """Write weights, curves and predictions, and the report last."""
    weights = write_weights(folder, folder / "checkpoints" / "best.ckpt")
    regressor: dict[str, Any] = {}
    if job.training.objective == "rank_n_contrast":
        regressor = {"regressor_epoch": fit_frozen_regressor(job, weights).best_epoch}
    write_curves(folder, log.rows)
    predicted = write_predictions(folder, job, weights)
    pairs = zip(predicted, job.rows, strict=True)
    errors = [abs(age_years - row.target_years) for age_years, row in pairs if row.split == "validation"]
    best = min(log.rows, key=lambda row: row["val_mae_years"])
    write_report(
        folder,
        {
            "best_epoch": int(best["epoch"]),
            "epochs_run": len(log.rows),
            "stopped_early": stopped_early,
            "val_mae_years": math.fsum(errors) / len(errors),
            "duration_s": log.duration_s,
            "throughput_scans_per_s": log.trained_scans / log.training_s if log.training_s else 0.0,
            "data_wait_share": log.waited_s / log.training_s if log.training_s else 0.0,
            "world_size": ranks.world_size,
            "precision": job.training.precision,
            **used_hardware(log.energy_j),
            "threads_per_process": torch.get_num_threads(),
            "deterministic": not torch.cuda.is_available(),
            "n_scans": dict(Counter(row.split for row in job.rows)),
            "seed": job.seed,
            **regressor,
            "torch_version": torch.__version__,
            "lightning_version": pl.__version__,
        },
    )


@contextmanager
def known_warnings() -> Iterator[None]:
    """Silence what Lightning says about choices that are meant here, and its advertising."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Small volumes load faster in this process than they travel between processes.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        # The folder holds this job's own claim and, on a resume, its checkpoints.
        warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
        # A cohort of tens of scans has fewer steps per epoch than Lightning's logging interval.
        warnings.filterwarnings("ignore", ".*The number of training batches .* is smaller than the logging interval.*")
        # The sampler begins at the place where the kept step stands.
        warnings.filterwarnings("ignore", ".*checkpoint that ended before the epoch ended.*")
        # Lightning 2.6 asks torch's tree specification by a name that torch 2.13 deprecates.
        warnings.filterwarnings("ignore", ".*isinstance\\(treespec, LeafSpec\\).*")
        warnings.filterwarnings("ignore", ONE_VOXEL_STRIDES)
        yield


def _of_split(job: TrainingJob, split: str) -> list[TrainingRow]:
    return [row for row in job.rows if row.split == split]


class Patience(EarlyStopping):
    """Early stopping that a fit which was killed after its decision does not forget."""

    def __init__(self, monitor: str, epochs: int) -> None:
        super().__init__(monitor, mode="min", patience=epochs, check_on_train_epoch_end=True, verbose=False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


def _best(folder: Path, monitor: str) -> ModelCheckpoint:
    """Keeps the weights of the best epoch alone."""
    return ModelCheckpoint(
        dirpath=folder,
        filename="best",
        monitor=monitor,
        mode="min",
        save_weights_only=True,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def _setup(ranks: Ranks, training: TrainingSpec) -> dict[str, Any]:
    """Trainer arguments: where it runs, and none of Lightning's own logging, bars, sampling or sanity checks."""
    gpu = torch.cuda.is_available()
    strategy: Any = "auto"
    if ranks.world_size > 1:
        # On a CPU each rank keeps its own batch-norm statistics; the module averages them where they matter.
        # Broadcasting at every step would also be a collective, on which parts of unequal length would hang.
        strategy = DDPStrategy(process_group_backend="nccl" if gpu else "gloo", forward_sync_buffers=False)
    return {
        "max_epochs": training.epochs,
        "accumulate_grad_batches": training.accumulate_batches,
        "gradient_clip_val": training.clip_norm or None,
        "precision": "bf16-mixed" if training.precision == "bf16" else "32-true",
        "accelerator": "gpu" if gpu else "cpu",
        "devices": ranks.local_world_size,
        "num_nodes": ranks.world_size // ranks.local_world_size,
        "strategy": strategy,
        "plugins": [WholeFiles()],
        # It raises on a CPU.
        "sync_batchnorm": gpu and ranks.world_size > 1,
        # Every batch but an epoch's last has one shape, so that the fastest kernel is worth a search.
        "benchmark": gpu,
        # CUDA has no deterministic 3D max pooling.
        "deterministic": not gpu,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
