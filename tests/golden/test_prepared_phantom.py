"""Outputs may not change under an old key: another outcome needs another RECIPE_VERSION."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.golden.make_prepared_phantom import GOLDEN, figures


def test_the_recipe_still_gives_what_its_version_gave(tmp_path: Path) -> None:
    golden, found = json.loads(GOLDEN.read_text()), figures(tmp_path)
    assert found["recipe_version"] == golden["recipe_version"], "make the golden figures anew with the new version"
    advice = "the recipe's output changed: raise RECIPE_VERSION and run python -m tests.golden.make_prepared_phantom"
    # Processors differ in the last bits, which a resampled volume shows in its fourth digit.
    np.testing.assert_allclose(found["block_means"], golden["block_means"], atol=0.01, err_msg=advice)
    np.testing.assert_allclose(found["native_to_mni"], golden["native_to_mni"], atol=0.05, err_msg=advice)
    assert found["quality"] == pytest.approx(golden["quality"], rel=0.01, abs=0.01), advice
