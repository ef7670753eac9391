"""The study's thresholds exclude scans that stay in the store; figures are read from one object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from infra import layout
from infra.storage import Store
from infra.study import CohortSpec, QualitySpec, Study
from tasks.records import Recipe
from tasks.science.cohort.outliers import FIGURES, Limit
from tasks.steps.index import index_cohort
from tasks.steps.progress import cohort_state, finished_scans
from tasks.steps.quality import quality_exclusions, quality_table, sites_of
from tasks.steps.quality_report import judged_scans
from tests.golden.make_prepared_phantom import GOLDEN

SPEC = CohortSpec("adults", "train", "adults")
RECIPE = "0123456789abcdef" * 4


class CountingStore(Store):
    """A store that counts what is read."""

    reads = 0

    def read(self, key: str) -> bytes:
        self.reads += 1
        return super().read(key)


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(str(tmp_path / "store"), tmp_path / "cache")


def prepared(store: Store, n: int, first: int = 0) -> pd.DataFrame:
    """Sidecars of `n` scans, the first of which is noisy."""
    rng = np.random.default_rng(0)
    for number in range(first, first + n):
        sidecar: dict[str, Any] = {"quality": {"snr": 3.0 if number == 0 else float(rng.normal(8, 0.3)), "cnr": 2.0}}
        store.write_json(
            layout.prepared_sidecar(RECIPE, f"{number:064d}"),
            sidecar | {"quality_absent": {"ghost_to_signal": "no air"}},
        )
    numbers = range(first, first + n)
    return pd.DataFrame({"scan_id": [f"sub-{k}" for k in numbers], "sha256": [f"{k:064d}" for k in numbers]})


def test_figures_are_read_once_and_then_from_one_object(store: CountingStore) -> None:
    scans = prepared(store, 12)
    table = quality_table(store, "adults", "adults", RECIPE, scans["sha256"])
    assert store.reads == 12
    assert np.isnan(table["ghost_to_signal"]).all()
    assert set(table["absent"]) == {"ghost_to_signal: no air"}
    store.reads = 0
    again = quality_table(store, "adults", "adults", RECIPE, scans["sha256"].iloc[::-1])
    assert store.reads == 1
    pd.testing.assert_frame_equal(again.sort_index(), table, check_names=False)


def test_a_grown_cohort_reads_only_what_is_new(store: CountingStore) -> None:
    quality_table(store, "adults", "adults", RECIPE, prepared(store, 12)["sha256"])
    both = pd.concat([prepared(store, 12), prepared(store, 3, first=12)], ignore_index=True)
    store.reads = 0
    assert len(quality_table(store, "adults", "adults", RECIPE, both["sha256"])) == 15
    assert store.reads == 1 + 3


def test_a_study_that_excludes_nothing_reads_nothing(store: CountingStore) -> None:
    scans = prepared(store, 12)
    for quality in (QualitySpec(), QualitySpec(limits={"snr": Limit(min=5)}, on_limit="flag")):
        assert quality_exclusions(store, SPEC, "adults", RECIPE, scans, quality) == []
    assert store.reads == 0


@pytest.mark.parametrize("quality", [QualitySpec(limits={"snr": Limit(min=5)}), QualitySpec(on_outlier="exclude")])
def test_a_poor_scan_is_excluded_with_its_figure_and_stays_in_the_store(
    store: CountingStore, quality: QualitySpec
) -> None:
    scans = prepared(store, 12)
    (excluded,) = quality_exclusions(store, SPEC, "adults", RECIPE, scans, quality)
    assert (excluded.scan_id, excluded.stage) == ("sub-0", "quality")
    assert excluded.reason.startswith("snr (signal to noise in white matter) is 3, ")
    assert store.exists(layout.prepared_sidecar(RECIPE, excluded.sha256))


def test_every_figure_that_the_recipe_gives_can_be_limited() -> None:
    assert set(json.loads(GOLDEN.read_text())["quality"]) <= set(FIGURES)


def tiny_cohort(root: Path, n: int) -> None:
    """A BIDS tree of cubes, each with bytes of its own."""
    rows = ["participant_id\tage\tsex\tsite"]
    for number in range(n):
        folder = root / f"sub-{number:02d}" / "anat"
        folder.mkdir(parents=True)
        nib.save(
            nib.Nifti1Image(np.full((8, 8, 8), number, np.int16), np.eye(4)), folder / f"sub-{number:02d}_T1w.nii.gz"
        )
        rows.append(f"sub-{number:02d}\t{20 + number}\tF\ta")
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")
    (root / "dataset_description.json").write_text('{"Name": "cubes", "BIDSVersion": "1.9.0"}')


def test_counts_add_up_and_thresholds_alone_move_scans(store: CountingStore, tmp_path: Path) -> None:
    tiny_cohort(tmp_path / "adults", 12)
    indexed = index_cohort(store, "adults", str(tmp_path / "adults"))
    keys = indexed.select(Recipe(), {}).scans["sha256"]
    for number, key in enumerate(keys):
        figures = {"snr": 3.0 if number == 0 else 8.0 + number / 10}
        store.write(layout.prepared_volume(RECIPE, key), b"")
        store.write_json(layout.prepared_sidecar(RECIPE, key), {"quality": figures})
    lenient, strict = (
        cohort_state(store, SPEC, indexed, Study("s", (SPEC,), quality=quality), finished_scans(store, RECIPE))
        for quality in (QualitySpec(), QualitySpec(limits={"snr": Limit(min=5)}))
    )
    assert lenient.counts == {"indexed": 12, "unused": 0, "prepared": 12, "excluded": 0, "missing": 0}
    assert strict.counts == {"indexed": 12, "unused": 0, "prepared": 11, "excluded": 1, "missing": 0}
    assert strict.rows_digest != lenient.rows_digest
    assert (
        strict.excluded[0].reason == "snr (signal to noise in white matter) is 3, below the study's limit: at least 5"
    )
    assert list(judged_scans(strict)["scan_id"]) == list(lenient.prepared["scan_id"])


def test_scans_without_a_site_are_compared_with_the_cohort() -> None:
    sites = sites_of(pd.DataFrame({"site": ["a", "", "b"]}), QualitySpec())
    assert sites is not None
    assert sites.isna().tolist() == [False, True, False]
    assert sites_of(pd.DataFrame({"scan_id": ["x"]}), QualitySpec()) is None
