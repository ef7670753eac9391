"""A study's network is refused before its scans are prepared; every published study's network fits its grid."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infra.study_file import find_study, load_study
from lightning_modules.network_check import check_network
from tasks.records import NetworkSpec
from tasks.science.imaging.grid import grid_shape

STUDIES = ("ms-flair", "clinical-2d", "infant-myelination", "rank-n-contrast")


@pytest.mark.parametrize("profile", ["", "#phantom", "#tiny"])
@pytest.mark.parametrize("name", STUDIES)
def test_every_network_of_the_published_studies_fits_its_grid(name: str, profile: str) -> None:
    for arm in load_study(f"{find_study(name)}{profile}").arms:
        check_network(arm.network, grid_shape(arm.recipe))


def test_what_cannot_be_fitted_is_refused() -> None:
    grid = (40, 48, 40)
    check_network(NetworkSpec(), grid)
    with pytest.raises(ValueError, match="not a whole number"):
        check_network(NetworkSpec(age_range_years=(0.0, 110.0), bin_width_years=3.0), grid)
    with pytest.raises(ValueError, match="'densenet121' needs every side"):
        check_network(NetworkSpec(name="densenet121", head="regression"), (20, 24, 20))
    cropped = replace(NetworkSpec(), crop_voxels=(16, 40, 40))
    with pytest.raises(ValueError, match=r"it would see \(16, 40, 40\)"):
        check_network(cropped, grid)
