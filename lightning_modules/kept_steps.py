"""What a fit keeps on disk so that the next run goes on from there, whenever this one is killed."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from .data import BEGINNING, Place

# So that a run stops with "try again" (EX_TEMPFAIL) rather than with an error.
PREEMPTED_EXIT_CODE = 75
PLACE = "padflow_place"
FILES_KEPT = 2


class KeptSteps(Checkpoint):
    """Keeps everything at each epoch's end, every so many minutes within one, and when it is asked to stop.

    A file is written whole under another name and then renamed, and the one before it stays: a kill at any moment,
    in the middle of a write too, leaves one to go on from. Steps are kept only where the gradient is empty, so that
    no accumulated batch is lost, and never after an epoch's last batch, whose validation would be skipped by the
    resume: the epoch's end follows.

    SIGTERM, as a preempted job gets it, ends the fit after the step that it met; one that comes with the last batch
    or in validation is heeded at the epoch's end.
    """

    def __init__(self, folder: Path, minutes: float) -> None:
        """Set up.

        Args:
            folder: Local, since Lightning resumes unsoundly from s3://.
            minutes: Between kept steps within an epoch; 0 keeps each.
        """
        self.folder, self.interval_s = folder, 60 * minutes
        self._kept_s = time.monotonic()
        self._asked_to_stop = False
        self._place = BEGINNING

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # Lightning's own handler starts a collective, which deadlocks where the signal interrupts another.
        signal.signal(signal.SIGTERM, self._ask_to_stop)
        self._kept_s = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        due = time.monotonic() - self._kept_s >= self.interval_s
        due, stop = _any_rank(module, due, self._asked_to_stop)
        if due or stop:
            self._keep(trainer, Place(trainer.current_epoch, batch_idx + 1))
        if stop:
            self._leave(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._keep(trainer, Place(trainer.current_epoch + 1, 0))
        if _any_rank(module, self._asked_to_stop)[0]:
            self._leave(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[PLACE] = list(self._place)

    def _keep(self, trainer: pl.Trainer, place: Place) -> None:
        self._place = place
        trainer.save_checkpoint(self.folder / f"kept-{trainer.global_step:09d}.ckpt")
        if trainer.is_global_zero:
            for old in kept_files(self.folder)[FILES_KEPT:]:
                old.unlink()
        self._kept_s = time.monotonic()

    def _ask_to_stop(self, signal_number: int, frame: FrameType | None) -> None:
        self._asked_to_stop = True

    def _leave(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            epoch, batches = self._place
            print(
                f"lightning_modules: asked to stop (SIGTERM); {batches} batches of epoch {epoch} are kept in "
                f"{self.folder}, and the next run of this job goes on from there.",
                file=sys.stderr,
                flush=True,
            )
        raise SystemExit(PREEMPTED_EXIT_CODE)


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints under another name in the same folder, and renames what is on the disk.

    Lightning writes to the system's temporary folder first. From another file system that file is copied, and a kill in
    the middle leaves half a checkpoint; it also stays there for ever.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        for left_behind in path.parent.glob(".*.partial"):
            left_behind.unlink()
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def kept_files(folder: Path) -> list[Path]:
    """Kept steps, the newest first."""
    return sorted(folder.glob("kept-*.ckpt"), reverse=True)


def place_to_resume(folder: Path) -> tuple[Path | None, Place]:
    """Find the newest kept step that can be read, and where in the fit it stands.

    Returns:
        The file, or None, and the place; the fit's beginning where nothing is kept.
    """
    for path in kept_files(folder):
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            return path, Place(*checkpoint[PLACE])
        # A torn file may fail in any of the readers below.
        except Exception as error:
            warnings.warn(f"{path} cannot be read ({error}); an older step is tried.", stacklevel=2)
    return None, BEGINNING


def _any_rank(module: pl.LightningModule, *flags: bool) -> list[bool]:
    """Agree over the ranks: clocks differ and signals come one by one, but all ranks must keep the same step."""
    if not torch.distributed.is_initialized():
        return list(flags)
    together = torch.tensor(flags, dtype=torch.int32, device=module.device)
    torch.distributed.all_reduce(together, op=torch.distributed.ReduceOp.MAX)
    return [bool(flag) for flag in together.tolist()]
