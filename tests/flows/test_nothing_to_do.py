"""Whether there is anything to do is asked without loading what would do it: that takes longer than the question."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENGINES = ("prefect", "distributed", "mlflow", "torch", "pytorch_lightning", "statsmodels", "matplotlib")


@pytest.mark.parametrize("module", ["flows.prepare", "flows.status"])
def test_no_engine_is_loaded_before_it_is_needed(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {ENGINES!r} if name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert loaded.split() == []
