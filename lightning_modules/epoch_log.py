"""What each epoch did: a line for whoever watches, and a row of the learning curve."""

from __future__ import annotations

import json
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.profilers import Profiler

from .fit_module import FitModule
from .hardware import machine_energy_j


class DataWait(Profiler):
    """Measures how long training steps wait for their batch, which Lightning tells to profilers alone.

    Attributes:
        total_s: Seconds so far.
        latest_s: Of the latest batch.
    """

    def __init__(self) -> None:
        super().__init__(dirpath=None, filename=None)
        self.total_s = self.latest_s = 0.0
        self._began_s = 0.0

    def start(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self._began_s = time.monotonic()

    def stop(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self.latest_s = time.monotonic() - self._began_s
            self.total_s += self.latest_s

    def summary(self) -> str:
        return ""


class EpochLog(pl.Callback):
    """Keep one row per epoch, across interruptions, and print it as JSON on rank zero.

    Attributes:
        rows: Epoch (from 0), train_loss, the validation's figures, learning_rate, data_wait_share, scans_per_s.
        duration_s: Seconds in all epochs, validation included.
        training_s: Seconds in training steps alone, with the wait for their batches.
        waited_s: Of those, this rank's wait for batches.
        trained_scans: Scans that went through a training step, over all ranks.
        energy_j: That this machine's devices took during the fit; None where it could not be read all along.
    """

    def __init__(self, ranks: int, wait: DataWait) -> None:
        self.ranks, self.wait = ranks, wait
        self.rows: list[dict[str, float]] = []
        self.duration_s = self.training_s = self.waited_s = 0.0
        self.trained_scans = 0
        self._energy_before_j: float | None = 0.0
        self._energy_began_j = machine_energy_j()
        self._epoch = _Clock()

    @property
    def energy_j(self) -> float | None:
        now = machine_energy_j()
        if now is None or self._energy_began_j is None or self._energy_before_j is None:
            return None
        return self._energy_before_j + now - self._energy_began_j

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        # Not on_train_epoch_start: Lightning leaves that out of the first epoch after a resume.
        if self._epoch.began_s is None:
            self._epoch.began_s = time.monotonic() - self.wait.latest_s
        self._epoch.waited_s += self.wait.latest_s

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._epoch.scans += len(batch[0]) * self.ranks
        if trainer.is_last_batch:
            self._epoch.trained_s = self._epoch.elapsed_s

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, FitModule)  # noqa: S101 (for the type checker)
        epoch = self._epoch
        self._add(epoch)
        self._epoch = _Clock()
        validated = {name: float(trainer.callback_metrics[name]) for name in module.validation_columns}
        trained_s = epoch.trained_s or 1.0
        self.rows.append(
            {
                "epoch": trainer.current_epoch,
                "train_loss": module.train_loss(),
                **validated,
                "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
                "data_wait_share": epoch.waited_s / trained_s,
                "scans_per_s": epoch.scans / trained_s,
            }
        )
        if trainer.is_global_zero:
            print(json.dumps({**self.rows[-1], "epochs": trainer.max_epochs}), flush=True)

    def _add(self, epoch: _Clock) -> None:
        self.duration_s += epoch.elapsed_s
        self.training_s += epoch.trained_s
        self.waited_s += epoch.waited_s
        self.trained_scans += epoch.scans

    def state_dict(self) -> dict[str, Any]:
        """Figures with those of an epoch that is under way: what is kept in its middle counts after a resume."""
        epoch = self._epoch
        return {
            "rows": [dict(row) for row in self.rows],
            "duration_s": self.duration_s + epoch.elapsed_s,
            "training_s": self.training_s + (epoch.trained_s or epoch.elapsed_s),
            "waited_s": self.waited_s + epoch.waited_s,
            "trained_scans": self.trained_scans + epoch.scans,
            "energy_j": self.energy_j,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])
        self.duration_s, self.training_s = state_dict["duration_s"], state_dict["training_s"]
        self.waited_s, self.trained_scans = state_dict["waited_s"], state_dict["trained_scans"]
        self._energy_before_j = state_dict["energy_j"]


class _Clock:
    """One epoch's times, in this run."""

    def __init__(self) -> None:
        self.began_s: float | None = None
        self.trained_s = self.waited_s = 0.0
        self.scans = 0

    @property
    def elapsed_s(self) -> float:
        return 0.0 if self.began_s is None else time.monotonic() - self.began_s
