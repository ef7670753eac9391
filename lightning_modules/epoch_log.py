"""What each epoch did: a line for whoever watches, and a row of the learning curve."""

from __future__ import annotations

import json
import time
from typing import Any

import pytorch_lightning as pl


class EpochLog(pl.Callback):
    """Keep one row per epoch, across interruptions, and print it as JSON on rank zero.

    Attributes:
        rows: Epoch (from 0), train_loss, val_loss, val_mae_years, learning_rate.
        duration_s: Seconds in all epochs, validation included.
        training_s: Seconds in training steps alone.
        trained_scans: Scans that went through a training step, over all ranks.
    """

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self.rows: list[dict[str, float]] = []
        self.duration_s = self.training_s = 0.0
        self.trained_scans = 0
        self._epoch_began_s: float | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        # Not on_train_epoch_start: Lightning leaves that out of the first epoch after a resume.
        if self._epoch_began_s is None:
            self._epoch_began_s = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.trained_scans += len(batch[0]) * self.ranks
        if trainer.is_last_batch and self._epoch_began_s is not None:
            self.training_s += time.monotonic() - self._epoch_began_s

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._epoch_began_s is not None:
            self.duration_s += time.monotonic() - self._epoch_began_s
        self._epoch_began_s = None
        measured = {name: float(trainer.callback_metrics[name]) for name in ("train_loss", "val_loss", "val_mae_years")}
        self.rows.append(
            {"epoch": trainer.current_epoch, **measured, "learning_rate": trainer.optimizers[0].param_groups[0]["lr"]}
        )
        if trainer.is_global_zero:
            print(json.dumps({**self.rows[-1], "epochs": trainer.max_epochs}), flush=True)

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": [dict(row) for row in self.rows],
            "duration_s": self.duration_s,
            "training_s": self.training_s,
            "trained_scans": self.trained_scans,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])
        self.duration_s, self.training_s = state_dict["duration_s"], state_dict["training_s"]
        self.trained_scans = state_dict["trained_scans"]
