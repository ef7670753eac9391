"""Fit a job by a network without batch norm, the one layer whose result depends on how a batch is shared."""

from __future__ import annotations

import sys

from torch import nn


class NoNorm(nn.Identity):
    """Takes batch norm's place; it has no statistics to measure."""

    running_mean = running_var = None

    def reset_running_stats(self) -> None:
        """Nothing to reset."""


if __name__ == "__main__":
    # Here and not above: pytest imports every file of the tests for its doctests.
    nn.BatchNorm3d = NoNorm  # type: ignore[assignment,misc]
    from lightning_modules.__main__ import main

    main(sys.argv[1:])
