"""One small study from raw scans to its report, through the command line, with every kind of bad scan in it."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from tests.bad_scans import spoil
from tests.command_line import CommandLine
from tests.tiny_study import STUDY


@pytest.fixture(scope="module")
def finished(
    phantoms: Path, prefect_server: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[CommandLine, Path, dict[str, str]]:
    """A study that has run once, on data with bad scans, by Prefect's embedded server; then another is used."""
    folder = tmp_path_factory.mktemp("study")
    shutil.copytree(phantoms, folder / "data")
    reasons = spoil(folder / "data" / "train")
    study = folder / "tiny.toml"
    study.write_text(STUDY)
    padflow = CommandLine(folder / "home", str(folder / "data"))
    padflow("run", str(study))
    padflow.environment["PREFECT_API_URL"] = prefect_server
    return padflow, study, reasons


def test_every_indexed_scan_is_counted_once_and_bad_ones_have_reasons(
    finished: tuple[CommandLine, Path, dict[str, str]],
) -> None:
    padflow, study, reasons = finished
    cohorts = {c["name"]: c for c in json.loads(padflow("status", str(study), "--json"))["cohorts"]}
    for cohort in cohorts.values():
        parts = [cohort[part] for part in ("unused", "prepared", "excluded", "missing")]
        assert sum(parts) == cohort["indexed"]
        assert cohort["missing"] == 0
    assert cohorts["healthy"]["indexed"] == 17
    said = {item["scan_id"].split("/")[1].split("_")[0]: item["reason"] for item in cohorts["healthy"]["exclusions"]}
    assert said.keys() == reasons.keys()
    for participant, part in reasons.items():
        assert len(said[participant]) > 15
        assert part in said[participant]


def test_the_report_names_every_excluded_scan(finished: tuple[CommandLine, Path, dict[str, str]]) -> None:
    padflow, study, reasons = finished
    page = Path(padflow("report", str(study)).strip()).read_text()
    for participant in reasons:
        assert participant in page
    assert "diagnosis" in page
    assert "Methods, to paste" in page
    assert 'id="figure-forest-models"' in page
    assert "irregularities of healthy" in page


def test_a_finished_study_does_nothing_within_seconds(finished: tuple[CommandLine, Path, dict[str, str]]) -> None:
    padflow, study, _ = finished
    before = snapshot(padflow.home / "store")
    start = time.monotonic()
    padflow("run", str(study))
    assert "nothing to do" in padflow.stderr
    assert time.monotonic() - start < 30
    assert snapshot(padflow.home / "store") == before


def test_a_changed_association_recomputes_only_itself(finished: tuple[CommandLine, Path, dict[str, str]]) -> None:
    padflow, study, _ = finished
    before = snapshot(padflow.home / "store")
    changed = study.with_name("changed.toml")
    changed.write_text(STUDY.replace("diagnosis + age_years + sex", "diagnosis + age_years"))
    padflow("run", str(changed))
    after = snapshot(padflow.home / "store")
    assert {name: after[name] for name in before} == before
    new = {name.split("/")[0] for name in after.keys() - before.keys()}
    assert new == {"associations", "publications", "reports"}
    assert sum(name.startswith("associations/") for name in after.keys() - before.keys()) == 1


@pytest.mark.studies
def test_declared_maps_are_made_once_and_recompute_nothing_else(
    finished: tuple[CommandLine, Path, dict[str, str]],
) -> None:
    padflow, study, _ = finished
    before = snapshot(padflow.home / "store")
    changed = study.with_name("explained.toml")
    changed.write_text(STUDY + '\n[explanation]\nmethods = ["smoothgrad", "grad_ram"]\nsubjects = 3\n')
    padflow("run", str(changed))
    after = snapshot(padflow.home / "store")
    assert {name: after[name] for name in before} == before
    new = after.keys() - before.keys()
    assert {name.split("/")[0] for name in new} == {"explanations", "reports"}
    assert sum(name.endswith("signed.nii.gz") for name in new) == 2
    result = json.loads(padflow("explain", str(changed), "--json"))
    assert result["made"] == []
    assert result["maps"]["smoothgrad"]["n_subjects"] == 3
    assert len(result["maps"]["smoothgrad"]["leading_regions"]) == 5
    assert snapshot(padflow.home / "store") == after
    page = Path(padflow("report", str(changed)).strip()).read_text()
    assert "What the model looks at" in page
    # Five poolings leave one cell at 4 mm, which is said.
    assert "tells lobes apart at best" in page


@pytest.mark.studies
def test_scans_made_worse_are_prepared_scored_and_shown_once_and_recompute_nothing_else(
    finished: tuple[CommandLine, Path, dict[str, str]],
) -> None:
    padflow, study, _ = finished
    before = snapshot(padflow.home / "store")
    changed = study.with_name("robust.toml")
    worse = "robustness = { subjects = 2, slices_mm = [6.0], noise = [], bias_field = [] }"
    changed.write_text(STUDY.replace("resamples = 200", f"resamples = 200\n{worse}"))
    padflow("run", str(changed))
    after = snapshot(padflow.home / "store")
    # Workers write the probe anew whenever a cluster starts.
    assert {name for name in before if after[name] != before[name]} <= {"preflight/probe.txt"}
    new = after.keys() - before.keys()
    assert {name.split("/")[0] for name in new} == {"prepared", "montages", "robustness", "reports"}
    (scans,) = (pd.read_csv(padflow.home / "store" / name) for name in new if name.endswith("/scans.csv"))
    assert scans.groupby("kind")["participant_id"].nunique().to_dict() == {"thicker_slices": 2, "header_turn": 2}
    assert scans.loc[scans["kind"] == "thicker_slices", "status"].tolist() == ["ok"] * 2
    turned = scans[scans["kind"] == "header_turn"]
    assert ((turned["status"] == "rejected") | turned["turned_back"]).all()
    assert "The same scans made worse" in (padflow.home / "reports" / "tiny.html").read_text()
    padflow("run", str(changed))
    assert "nothing to do" in padflow.stderr
    assert snapshot(padflow.home / "store") == after


def test_the_registry_holds_the_model_with_both_aliases_and_its_facts(
    finished: tuple[CommandLine, Path, dict[str, str]],
) -> None:
    padflow, _, _ = finished
    database = f"sqlite:///{padflow.home / 'mlflow.db'}"
    # Both named: the registry of another test in this process would be taken else.
    client = mlflow.MlflowClient(database, database)
    versions = client.search_model_versions("name = 'brain-age-tiny'")
    assert [version.version for version in versions] == [1] or [str(v.version) for v in versions] == ["1"]
    assert str(client.get_model_version_by_alias("brain-age-tiny", "champion").version) == "1"
    assert str(client.get_model_version_by_alias("brain-age-tiny", "challenger").version) == "1"
    run = client.get_run(versions[0].run_id)
    assert run.info.status == "FINISHED"
    for name in (
        "study_digest",
        "rows_digest",
        "code_digest",
        "manifest_digest.healthy",
        "environment.torch",
        "training.epochs",
    ):
        assert run.data.params[name]
    members = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    assert [member.data.params["seed"] for member in members] == ["1"]
    assert len(client.get_metric_history(members[0].info.run_id, "val_mae_years")) == 3
    assert members[0].data.metrics["report/throughput_scans_per_s"] > 0
    assert run.data.metrics["validation/external/model/mae"] > 0
    assert {"report", "validation.csv", "model-card"} <= {item.path for item in client.list_artifacts(run.info.run_id)}
    card = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/model-card/card.json"))
    # Written when it was registered, and again by the validation.
    assert {row["cohort"] for row in card["metrics"]} == {"external", "ms"}
    assert card["lineage"]["manifest of healthy"] == run.data.params["manifest_digest.healthy"]
    published = run.data.tags["padflow.associations"]
    files = {item.path.removeprefix(f"{published}/") for item in client.list_artifacts(run.info.run_id, published)}
    assert files == {"tables", "figures", "methods.txt", "methods.md", "report.html"}
    beside = {item.path.split("/")[-1] for item in client.list_artifacts(run.info.run_id, "validation")}
    assert {f"{name}.csv" for name in ("agreement", "calibration-bins", "centring", "coverage", "shift")} <= beside


def test_raw_scans_predicted_by_the_registered_model_match_the_study(
    finished: tuple[CommandLine, Path, dict[str, str]], tmp_path: Path
) -> None:
    padflow, _, _ = finished
    scan = sorted(Path(padflow.environment["PADFLOW_DATA"]).glob("external/sub-*/anat/*.nii.gz"))[0]
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no image")
    out = tmp_path / "ages.csv"
    arguments = ["predict", "models:/brain-age-tiny@champion", str(scan), str(broken), "--out", str(out)]
    padflow(*arguments, code=3)
    table = pd.read_csv(out)
    assert list(table["status"]) == ["ok", "rejected"]
    assert np.isnan(table["predicted_age_years"][1])
    kept = pd.concat([pd.read_parquet(path) for path in (padflow.home / "store" / "predictions").glob("*.parquet")])
    studied = kept.set_index("scan_id").loc[f"external/{scan.name.removesuffix('.nii.gz')}", "predicted_age_years"]
    assert table["predicted_age_years"][0] == pytest.approx(studied, abs=1e-3)
    # From a prediction to what made it: the fit's key in the table names the fit in the store, and its version.
    assert kept["model_version"].unique().tolist() == ["models:/brain-age-tiny/1"]
    (fit,) = kept["fit_key"].unique()
    assert (padflow.home / "store" / "fits" / fit[:16] / "fit.json").is_file()
    assert table["fit_key"].tolist() == [fit, fit]


def test_a_study_that_asks_for_a_later_stage_first_is_told_what_to_run(
    study_file: Path, phantoms: Path, prefect_server: str, tmp_path: Path
) -> None:
    padflow = CommandLine(tmp_path / "home", str(phantoms), PREFECT_API_URL=prefect_server)
    padflow("train", str(study_file), code=1)
    assert "padflow run" in padflow.stderr


def snapshot(store: Path) -> dict[str, tuple[int, int]]:
    """Every object of a local store with what changes when it is written again."""
    files = (path for path in store.rglob("*") if path.is_file())
    return {str(path.relative_to(store)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}
