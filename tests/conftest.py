"""What every test may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real scans and tables beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real data is absent: ../shared/data does not stand beside the checkout")
    return SHARED_DATA
