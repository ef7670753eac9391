"""Withdrawn consent in a study's store, with made-up prepared scans and a made-up fit, and lineage both ways."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows.forget import forget_subject
from flows.lineage import lineage_of_models, models_of_scans
from flows.workspace import Workspace, open_workspace
from infra import layout, tracking
from tasks.steps.index import index_cohort
from tasks.steps.prepare import write_exclusion
from tasks.steps.progress import predictions_key
from tasks.steps.publish import packed
from tasks.steps.quality import quality_table
from tasks.steps.train import plan_training
from tests.small_champion import NAME, register_small
from tests.tiny_study import STUDY

NAMES = ("PADFLOW_HOME", "PADFLOW_DATA", "PADFLOW_STORE", "PADFLOW_WORKERS")
REPORT = "<td>manifest of healthy</td>"


def scan(root: Path, subject: str, content: str, suffix: str = "T1w") -> None:
    path = root / subject / "anat" / f"{subject}_{suffix}.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())


def people(root: Path, subjects: list[str]) -> None:
    rows = "".join(f"{subject}\t{30 + 3 * number}\tF\n" for number, subject in enumerate(subjects))
    (root / "participants.tsv").write_text("participant_id\tage\tsex\n" + rows)


class Case:
    """A study with everything that a run leaves in its store, and nothing computed."""

    def __init__(self, folder: Path, study: str = STUDY) -> None:
        self.data, self.study = folder / "data", folder / "tiny.toml"
        self.study.write_text(study)
        for cohort, subjects in {
            "train": [f"sub-{number:02d}" for number in range(1, 13)],
            "external": ["sub-01", "sub-91", "sub-92"],
            "clinical": ["sub-71"],
        }.items():
            for subject in subjects:
                for suffix in ("T1w", "T2w"):
                    scan(self.data / cohort, subject, f"{cohort} {subject} {suffix}", suffix)
            people(self.data / cohort, subjects)
        # Somebody of another data set with the very bytes of sub-71.
        scan(self.data / "external", "sub-92", "clinical sub-71 T1w")
        os.environ.update(PADFLOW_HOME=str(folder / "home"), PADFLOW_DATA=str(self.data), PADFLOW_STORE="")
        os.environ["PADFLOW_WORKERS"] = "1"
        self.home = folder / "home"
        self.index()
        self.fill()

    @property
    def workspace(self) -> Workspace:
        return open_workspace(str(self.study))

    def index(self) -> None:
        workspace = self.workspace
        for spec in workspace.study.cohorts:
            index_cohort(workspace.store, spec.name, str(self.data / spec.root))

    def fill(self) -> None:
        workspace = self.workspace
        store, key = workspace.store, workspace.recipe_key
        told = {"name": "t1w", "channels": ["T1w"], "reference": "T1w", "templates": []}
        content = io.BytesIO()
        np.save(content, np.ones((1, 2, 2, 2), np.float16))
        for state in workspace.stored_states():
            for missing in state.missing:
                if missing.participant_id == "sub-12":
                    excluded = {"scan_id": missing.scan_id, "sha256": missing.key, "stage": "read", "reason": "cut"}
                    from tasks.records import Excluded

                    write_exclusion(store, key, Excluded(**excluded))
                    continue
                store.write(layout.prepared_volume(key, missing.key), content.getvalue())
                store.write(layout.montage(key, missing.key), b"\x89PNG")
                store.write_json(layout.prepared_sidecar(key, missing.key), {"quality": {"snr": 9.0}, "recipe": told})
        for state in workspace.stored_states():
            quality_table(store, state.spec.name, state.indexed.root, state.recipe_key, state.prepared["sha256"])
        self.fit()
        store.write("reports/r1.html", REPORT.encode())
        store.write("reports/other.html", b"another study")
        store.write_json("associations/a1.json", {"rows": {"cohort": ["healthy"], "participant_id": ["sub-03"]}})
        store.write_json("associations/a2.json", {"rows": {"cohort": ["ms"], "participant_id": ["sub-03"]}})
        for name, text in {"p1": "healthy,sub-03,1.5", "p2": "ms,4"}.items():
            store.write(f"publications/{name}.zip", packed({"figures/points.csv": text.encode()}))
        for key in ("validations/v1/agreement.parquet", "robustness/r1/scans.parquet"):
            store.write_table(key, pd.DataFrame({"scan_id": ["healthy/sub-03_T1w", "healthy/sub-04_T1w"]}))
        (self.home / "reports").mkdir(parents=True)
        (self.home / "reports" / "tiny.html").write_text(REPORT)

    def fit(self) -> None:
        workspace = self.workspace
        store, states = workspace.store, workspace.stored_states()
        plan = plan_training(workspace.study, store, states)
        self.fit_key = plan.key
        folder = layout.fit_folder(plan.key)
        predictions = plan.rows[["scan_id", "split"]].assign(predicted_age_years=50.0)
        store.write(f"{folder}/seed-1/predictions.csv", predictions.to_csv(index=False).encode())
        store.write_table(f"{folder}/rows.parquet", plan.rows.assign(parts=plan.rows["split"]))
        store.write_json(layout.fit_record(plan.key), {"fit_key": plan.key, "members": {"seed-1": {}}})
        for state in states[1:]:
            named = state.prepared[["scan_id", "sha256"]].rename(columns={"sha256": "scan_key"})
            table = named.assign(predicted_age_years=50.0, fit_key=plan.key, model_version=f"models:/{NAME}/1")
            store.write_table(layout.predictions(predictions_key(plan.key, state)), table)
        (self.home / "training" / plan.key[:16] / "seed-1").mkdir(parents=True)

    def forget(
        self, subject: str, cohort: str | None = "healthy", delete: bool = True, by_study: bool = True
    ) -> dict[str, Any]:
        return forget_subject(str(self.study) if by_study else None, subject, cohort, delete)

    def mentions(self, text: str) -> list[str]:
        """Objects of the store that hold a text, in their name or in their bytes or cells."""
        store = self.workspace.store
        found = []
        for key in sorted(store.keys()):
            body = store.read_table(key).to_csv() if key.endswith(".parquet") else store.read(key).decode("latin-1")
            if text in key or text in body:
                found.append(key)
        return found


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def key_of(case: Case, subject: str, cohort: int = 0) -> str:
    prepared = case.workspace.stored_states()[cohort].prepared
    return str(prepared.set_index("participant_id")["sha256"][subject])


def test_a_dry_run_tells_everything_and_writes_nothing(case: Case) -> None:
    before = {path: path.stat().st_mtime_ns for path in case.home.rglob("*")}
    told = case.forget("03", delete=False)
    assert {path: path.stat().st_mtime_ns for path in case.home.rglob("*")} == before
    assert (told["deleted"], told["withdrawn"]) == (False, False)
    assert told["subject"] == "sub-03"
    (model,) = told["models"]
    assert model["fit_key"] == case.fit_key
    assert model["roles"][0] in ("train", "validation", "calibration")
    assert told["found"] == {
        "prepared scans": 1,
        "exclusions": 0,
        "pictures": 1,
        "reports": 1,
        "associations": 2,
        "clinical rows": 1,
        "quality rows": 1,
        "predictions": 3,
        "files and folders of this machine": 2,
    }
    assert any("raw data, which padflow never deletes" in line for line in told["out_of_reach"])
    assert case.forget("sub-03", None, delete=False, by_study=False) == told


def test_nothing_that_was_made_of_the_persons_scans_is_left_and_everybody_elses_stays(case: Case) -> None:
    key = key_of(case, "sub-03")
    others = set(case.mentions("healthy/sub-04")) | set(case.mentions("external/sub-91"))
    told = case.forget("sub-03")
    left = case.mentions(key) + case.mentions("healthy/sub-03")
    # By these it is known which models were trained on them, and that they must not be used again.
    index = {name for name in left if name.startswith("cohorts/") and name.endswith("manifest.parquet")}
    assert {name for name in set(left) - index if not name.startswith("studies/tiny/splits-")} == {
        f"{layout.fit_folder(case.fit_key)}/rows.parquet",
        layout.withdrawal(str(case.data / "train"), "sub-03"),
    }
    assert not [name for name in case.mentions("sub-03") if name.endswith("clinical.parquet")]
    # What stays is told, and why.
    assert index
    assert any("manifest.parquet" in line and "excluded" in line for line in told["out_of_reach"])
    assert others - {"reports/r1.html"} <= set(case.mentions("healthy/sub-04")) | set(case.mentions("external/sub-91"))
    assert case.workspace.store.exists("reports/other.html")
    assert case.workspace.store.names("associations") == {"a2.json"}
    assert case.workspace.store.names("publications") == {"p2.zip"}
    assert not (case.home / "reports" / "tiny.html").exists()
    assert not (case.home / "training" / case.fit_key[:16]).exists()
    assert sorted((case.data / "train" / "sub-03").rglob("*.nii.gz"))


def test_a_later_run_counts_the_scan_as_excluded_and_never_prepares_it(case: Case) -> None:
    before = case.workspace.stored_states()[0].counts
    case.forget("sub-03")
    scan(case.data / "train", "sub-03", "a new scan of the same person")
    (case.data / "later").mkdir()
    for rehash in (False, True):
        workspace = case.workspace
        states = [
            index_cohort(workspace.store, spec.name, str(case.data / spec.root), rehash)
            for spec in workspace.study.cohorts
        ]
        assert len(states[0].withdrawn) == 2
        assert "sub-03" in set(states[0].tables.manifest["participant_id"])
        state = workspace.stored_states()[0]
        assert state.missing == ()
        (item,) = [item for item in state.excluded if item.stage == "consent"]
        assert (item.scan_id, item.reason) == ("healthy/sub-03_T1w", "consent withdrawn")
        assert state.counts == {**before, "prepared": before["prepared"] - 1, "excluded": before["excluded"] + 1}
        assert "sub-03" not in set(state.indexed.tables.clinical["participant_id"])
    rows = plan_training(workspace.study, workspace.store, workspace.stored_states()).rows
    assert "healthy/sub-03" not in set(rows["participant_id"])
    workspace.forget_exclusions(workspace.stored_states())
    assert case.workspace.stored_states()[0].missing[0].participant_id == "sub-12"


def test_the_same_bytes_under_another_name_are_known_again(case: Case) -> None:
    case.forget("sub-03")
    for suffix in ("T1w", "T2w"):
        scan(case.data / "external", "sub-99", f"train sub-03 {suffix}", suffix)
    people(case.data / "external", ["sub-01", "sub-91", "sub-92", "sub-99"])
    case.index()
    state = case.workspace.stored_states()[1]
    assert [item.scan_id for item in state.excluded if item.stage == "consent"] == ["external/sub-99_T1w"]
    assert state.missing == ()


def test_a_volume_that_somebody_else_uses_stays(case: Case) -> None:
    key = key_of(case, "sub-71", 2)
    assert key == key_of(case, "sub-92", 1)
    told = case.forget("sub-71", "ms")
    assert told["found"]["prepared scans"] == 0
    assert "external/sub-92_T1w has the same bytes" in told["kept"][0]
    assert told["models"] == []
    states = case.workspace.stored_states()
    assert "sub-92" in set(states[1].prepared["participant_id"])
    assert [item.scan_id for item in states[2].excluded if item.stage == "consent"] == ["ms/sub-71_T1w"]
    assert models_of_scans(None, None, key)["predictions"][0]["scan_id"] == "external/sub-92_T1w"
    told = case.forget("sub-92", "external")
    assert told["found"]["prepared scans"] == 1
    assert not case.workspace.store.exists(layout.prepared_volume(states[0].recipe_key, key))


def test_twice_is_as_once_and_what_comes_between_goes_too(case: Case) -> None:
    key = key_of(case, "sub-03")
    first = case.forget("sub-03")
    before = {path: path.read_bytes() for path in (case.home / "store").rglob("*") if path.is_file()}
    again = case.forget("sub-03")
    assert {path: path.read_bytes() for path in (case.home / "store").rglob("*") if path.is_file()} == before
    assert again["models"] == first["models"]
    assert set(again["found"].values()) == {0}
    # A worker that was under way publishes after all.
    place = layout.prepared_volume(case.workspace.recipe_key, key)
    case.workspace.store.write(place, b"late")
    assert case.forget("sub-03")["found"]["prepared scans"] == 1
    assert not case.workspace.store.exists(place)


def test_an_excluded_scan_goes_too_and_mistakes_are_answered(case: Case) -> None:
    assert case.forget("sub-12")["found"]["exclusions"] == 1
    with pytest.raises(ValueError, match=r"sub-01 stands in several data sets: .*--cohort"):
        case.forget("sub-01", None)
    assert case.forget("sub-91", None, delete=False)["cohorts"] == ["external"]
    with pytest.raises(ValueError, match=r"nobody of that name was ever indexed in healthy; did you mean sub-10\?"):
        case.forget("sub-100")
    with pytest.raises(ValueError, match=r"sub-01 stands in several data sets: .*--cohort"):
        case.forget("sub-01", None, by_study=False)
    with pytest.raises(ValueError, match="no such cohort; there are: external, healthy, ms"):
        case.forget("sub-01", "clinic")


def test_sessions_of_several_images_are_found_by_what_they_are_made_of(tmp_path: Path) -> None:
    case = Case(tmp_path, STUDY.replace("[recipe]", '[recipe]\nname = "t1w_t2w_ratio"'))
    key = key_of(case, "sub-03")
    t2w = case.workspace.stored_states()[0].indexed.tables.manifest.set_index("scan_id")["sha256"]["healthy/sub-03_T2w"]
    assert key not in case.workspace.stored_states()[0].indexed.tables.manifest["sha256"].tolist()
    (model,) = models_of_scans(None, None, t2w)["models"]
    assert [row["scan_id"] for row in model["scans"]] == ["healthy/sub-03_T1w"]
    told = case.forget("sub-03")
    assert (told["found"]["prepared scans"], told["found"]["quality rows"]) == (1, 1)
    state = case.workspace.stored_states()[0]
    assert [item.stage for item in state.excluded if "sub-03" in item.scan_id] == ["consent"]
    assert sum(state.counts[part] for part in ("unused", "prepared", "excluded", "missing")) == state.counts["indexed"]


def test_versions_in_the_registry_are_named_and_tagged_and_lineage_runs_both_ways(case: Case, tmp_path: Path) -> None:
    settings = case.workspace.settings
    client = tracking.connect(settings)
    register_small(client, settings, fit_key=case.fit_key)
    run_id = client.get_model_version(NAME, "1").run_id
    tracking.add_tags(client, run_id, {"padflow.fit_key": case.fit_key})
    store = case.workspace.store
    held = store.read(f"{layout.fit_folder(case.fit_key)}/seed-1/predictions.csv").decode()
    tracking.log_text(client, run_id, held, "predictions.csv")
    tracking.log_text(client, run_id, REPORT, "report/tiny.html")
    for name, cohort in {"p1": "healthy", "p2": "ms"}.items():
        tracking.log_text(client, run_id, cohort, f"associations/{name}/tables/effects.csv")
        tracking.log_text(client, run_id, "a picture", f"associations/{name}/figures/points.svg")
    tracking.log_parameters(client, run_id, {"manifest_digest.healthy": "abc", "study_digest": "def"})

    pd.DataFrame({"model_version": [f"models:/{NAME}/1"]}).to_csv(tmp_path / "ages.csv")
    pd.DataFrame({"fit_key": [case.fit_key, None]}).to_parquet(tmp_path / "served.parquet")
    tables = [str(tmp_path / name) for name in ("ages.csv", "served.parquet")]
    for what in (f"models:/{NAME}@champion", f"models:/{NAME}/1", case.fit_key, case.fit_key[:16], *tables):
        (told,) = lineage_of_models(what)
        assert told["versions"] == [
            {"model": f"models:/{NAME}/1", "aliases": ["challenger", "champion"], "run_id": run_id}
        ]
        assert told["digests"] == {"manifest_digest.healthy": "abc", "study_digest": "def"}
        assert len(told["scans"]) == sum(told["scans_by_role"].values()) == 11
    key = key_of(case, "sub-91", 1)
    assert models_of_scans("sub-91", "external", None)["models"] == []
    (row,) = models_of_scans(None, None, key)["predictions"]
    assert (row["scan_id"], row["fit_key"]) == ("external/sub-91_T1w", case.fit_key)
    (by_name,) = models_of_scans("03", "healthy", None)["models"]
    (by_scan,) = models_of_scans(None, None, key_of(case, "sub-03"))["models"]
    assert by_name == by_scan
    with pytest.raises(ValueError, match="no fit of that key"):
        lineage_of_models("0" * 16)

    (model,) = case.forget("sub-03")["models"]
    assert model["versions"][0]["aliases"] == ["challenger", "champion"]
    assert client.get_model_version(NAME, "1").tags["padflow.trained_on_withdrawn"] == "1 subject"
    assert client.list_artifacts(run_id, "report") == []
    assert client.list_artifacts(run_id, "associations/p1/figures") == []
    assert len(client.list_artifacts(run_id, "associations/p2/figures")) == 1
    logged = Path(client.download_artifacts(run_id, "predictions.csv", str(tmp_path))).read_text()
    assert len(logged.splitlines()) == len(held.splitlines()) - 1
    case.forget("sub-04")
    assert client.get_model_version(NAME, "1").tags["padflow.trained_on_withdrawn"] == "2 subjects"
    assert json.dumps(case.forget("sub-03", delete=False))
