"""What no version knows: counted, and compared with what any was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from infra import layout
from infra.decisions import Chain
from infra.storage import Store
from infra.study import CohortSpec, RetrainingSpec
from tasks.science.statistics.baselines import VOLUME_COLUMNS
from tasks.steps.new_scans import find_new_scans

from .test_decide import cohort

SPEC = RetrainingSpec(min_new_scans=20, max_shift=0.5)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "cache")


def with_snr(store: Store, spec: CohortSpec, snr: np.ndarray) -> None:
    place = layout.quality_table("r" * 64, spec.name, spec.root)
    table = store.read_table(place)
    drift = dict.fromkeys(VOLUME_COLUMNS, np.linspace(0, 1e4, len(snr)))
    store.write_table(place, table.assign(snr=snr, **drift))


@pytest.mark.parametrize(("offset", "shifted"), [(0.0, False), (4.0, True)])
def test_new_scans_are_counted_and_a_shifted_figure_is_named(store: Store, offset: float, shifted: bool) -> None:
    spec = CohortSpec("healthy", "train", "a")
    state = cohort(store, spec, np.linspace(20, 80, 60))
    rng = np.random.default_rng(1)
    with_snr(store, spec, np.r_[rng.normal(10, 1, 36), rng.normal(10 + offset, 1, 24)])
    known = pd.DataFrame({"sha256": state.prepared["sha256"][:36]})
    store.write_table(f"{layout.fit_folder('f' * 16)}/rows.parquet", known)
    chain = Chain("m", "d", ({"kind": "refused", "candidate": {"version": "1", "fit_key": "f" * 16}},))
    found = find_new_scans(store, chain, [state])
    assert (found.count, found.known, found.enough(SPEC)) == (24, 36, True)
    assert not found.enough(replace(SPEC, min_new_scans=25))
    assert found.shifted(SPEC) == shifted
    # Volumes follow age and are no sign of another scanner.
    assert [row["figure"] for row in found.shifts] == (["snr"] if shifted else [])


def test_before_any_version_everything_is_new_and_nothing_shifted(store: Store) -> None:
    state = cohort(store, CohortSpec("healthy", "train", "a"), np.linspace(20, 80, 30))
    external = cohort(store, CohortSpec("external", "external", "b"), np.linspace(20, 80, 9))
    found = find_new_scans(store, Chain("m", "d"), [state, external])
    assert (found.count, found.known, found.shifts) == (30, 0, ())


def decided(kind: str, version: str, fit: str) -> dict[str, Any]:
    return {"kind": kind, "candidate": {"version": version, "fit_key": fit * 16}}


class Registry:
    """Versions and the fits that their tags name."""

    def __init__(self, **fits: str) -> None:
        tags = {name.removeprefix("v"): {"padflow.fit_key": fit * 16} if fit else {} for name, fit in fits.items()}
        self.versions = [SimpleNamespace(version=version, tags=told) for version, told in tags.items()]

    def search_model_versions(self, query: str) -> list[SimpleNamespace]:
        assert query == "name = 'm'"
        return self.versions


ADOPTED: dict[str, Any] = {"kind": "adopted", "candidate": None, "champion_after": "2"}
FIRST, SECOND = decided("first", "1", "a"), decided("promoted", "2", "b")
OTHERS = decided("refused", "3", "c")


@pytest.mark.parametrize(
    ("decisions", "registry"),
    [
        ((FIRST, SECOND, OTHERS), None),
        ((FIRST, SECOND, decided("refused", "1", "a")), None),
        ((FIRST, SECOND, decided("rolled back", "2", "b")), None),
        ((ADOPTED,), Registry(v1="a", v2="b", v3="c", v4="")),
        ((FIRST,), Registry(v2="b", v1="a")),
        # Its fit lies in another store.
        ((FIRST, SECOND), Registry(v5="d")),
    ],
    ids=["another study's version", "an old one again", "rolled back", "adopted", "undecided", "elsewhere"],
)
def test_scans_of_any_version_are_known(
    store: Store, decisions: tuple[dict[str, Any], ...], registry: Registry | None
) -> None:
    spec = CohortSpec("healthy", "train", "a")
    state = cohort(store, spec, np.linspace(20, 80, 60))
    rng = np.random.default_rng(1)
    # Two scanners take turns; the newest version, another study's, knows one of them alone.
    with_snr(store, spec, np.tile([10, 20], 30) + rng.normal(0, 1, 60))
    keys = state.prepared["sha256"]
    for fit, rows in {"a": keys[:30], "b": keys[10:45], "c": keys[:45:2]}.items():
        store.write_table(f"{layout.fit_folder(fit * 16)}/rows.parquet", pd.DataFrame({"sha256": rows}))
    found = find_new_scans(store, Chain("m", "d", decisions), [state], registry)  # type: ignore[arg-type]
    assert (found.count, found.known, found.enough(SPEC)) == (15, 45, False)
    assert found.shifts == ()
