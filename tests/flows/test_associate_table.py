"""`padflow associate --table` and `--estimates` as a user runs them, in this process and in one of its own."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import s3fs
from scipy.optimize import minimize
from typer.testing import CliRunner

from flows.cli import app
from infra.analysis_file import ANALYSES, load_models, parse_models
from infra.tables import read_table

RUN = CliRunner()
MODELS = """
[[associations]]
name = "edss"
formula = "brain_pad_years ~ edss + age_years + sex"
"""


def clinic(n: int = 60, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    edss, age = rng.choice(np.arange(1, 7, 0.5), n), rng.uniform(20, 60, n)
    return pd.DataFrame(
        {
            "participant_id": [f"{i:03d}" for i in range(n)],
            "age_years": age.round(1),
            "sex": rng.choice(["F", "M"], n),
            "edss": edss,
            "brain_pad_years": (0.8 * edss + rng.normal(0, 3, n)).round(2),
        }
    )


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "models.toml"
    path.write_text(MODELS)
    return path


def associate(*arguments: object, code: int = 0) -> str:
    drawn = ["--no-figures"] if {"--table", "--estimates"} & set(arguments) and "--figures" not in arguments else []
    result = RUN.invoke(app, ["associate", *map(str, arguments), *drawn])
    assert result.exit_code == code, result.output
    return result.output


def test_every_format_gives_the_same_effects(tmp_path: Path, spec: Path) -> None:
    table = clinic()
    table.loc[0, "edss"] = np.nan
    text = table.to_csv(index=False, na_rep="n/a")
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "b.tsv").write_text(table.to_csv(index=False, sep="\t", na_rep=""))
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "d.csv").write_bytes(text.replace(",", ";").replace(".", ",").encode("utf-8-sig"))
    table.to_parquet(tmp_path / "e.parquet")
    found = []
    for name in ("a.csv", "b.tsv", "c.csv.gz", "d.csv", "e.parquet"):
        rows = read_table(str(tmp_path / name)).rows
        assert rows.participant_id.iloc[7] == "007"
        out = json.loads(associate("--table", tmp_path / name, "--models", spec, "--out", tmp_path / name[0], "--json"))
        assert out["models"][0]["n_dropped"] == {"missing edss": 1}
        found.append([row["estimate"] for row in out["effects"]])
    assert np.array(found) == pytest.approx(np.tile(found[0], (5, 1)))


def test_what_is_written_and_printed(tmp_path: Path, spec: Path) -> None:
    clinic().to_csv(tmp_path / "clinic.csv", index=False)
    said = associate("--table", tmp_path / "clinic.csv", "--models", spec, "--out", tmp_path / "out", "--figures")
    assert "edss: edss" in said
    assert "OLS, HC3; 60 rows of 60 subjects; dropped: none" in said
    effects = pd.read_csv(tmp_path / "out" / "effects.csv")
    assert list(effects.term) == ["Intercept", "edss", "age_years", "sex[M]"]
    record = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert len(record["models"][0]["rows"]["index"]) == 60
    assert (tmp_path / "out" / "methods.txt").read_text()
    assert list((tmp_path / "out" / "figures").glob("*.svg"))


def test_estimates_of_sites_are_combined_without_their_rows(tmp_path: Path, spec: Path) -> None:
    files = []
    for seed, site in enumerate(("oslo", "graz", "lima")):
        clinic(seed=seed).to_csv(tmp_path / f"{site}.csv", index=False)
        associate("--table", tmp_path / f"{site}.csv", "--models", spec, "--out", tmp_path / site)
        files.append(tmp_path / site / "effects.csv")
    for arguments in (["--estimates", *files], [a for file in files for a in ("--estimates", file)]):
        out = json.loads(associate(*arguments, "--out", tmp_path / "both", "--json"))
        assert "3 levels of site" in out["models"][0]["method"]
        assert next(row for row in out["effects"] if row["term"] == "edss")["df"] == 2


def test_what_estimates_leave_out_is_printed(tmp_path: Path) -> None:
    for site, line in (("a", "edss;0,8;0,2;"), ("b", "edss;0,6;;"), ("c", "edss;0,5;0,3;")):
        (tmp_path / f"{site}.csv").write_text(f"term;estimate;se;n\n{line}\n")
    files = [tmp_path / f"{site}.csv" for site in "abc"]
    said = associate("--estimates", *files, "--out", tmp_path / "out")
    assert "n = not given" in said
    assert "0 rows" not in said
    assert "standard error is missing: b (edss)" in said
    assert "0 rows" not in (tmp_path / "out" / "methods.txt").read_text()
    assert not [path for path in (tmp_path / "out").rglob("*.md") if "0 rows" in path.read_text()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one of STUDY"),
        (["phantom", "--table", "t.csv", "--models", "ms", "--out", "o"], "found STUDY and --table"),
        (["--table", "t.csv", "--out", "o"], "--table needs --models"),
        (["--table", "t.csv", "--models", "ms"], "--out DIR is needed"),
        (["--estimates", "a.csv", "--table", "t.csv", "--models", "ms", "--out", "o"], "--table and"),
        (["phantom", "ms-flair"], "expected one STUDY"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], message: str) -> None:
    said = associate(*arguments, code=2)
    assert " ".join(message.split()) in " ".join(said.replace("│", " ").split())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.csv", None, "no table at"),
        ("t.xlsx", "x", "expected a table that ends in"),
        ("t.csv", "", "is empty"),
        ("t.csv", "a,b\n", "0 rows"),
        ("t.csv", "a,b\n1,2\n1,2,3\n", "its rows do not fit its header"),
        ("t.parquet", "x", "no Parquet file"),
        ("t.csv.gz", "plain text", "not compressed by gzip"),
    ],
)
def test_a_table_that_cannot_be_read_is_an_error_in_words(
    tmp_path: Path, spec: Path, name: str, content: str | None, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    said = associate("--table", tmp_path / name, "--models", spec, "--out", tmp_path / "o", code=1)
    assert message in " ".join((said + capfd.readouterr().err).split())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"associations": [{"name": "a", "formula": "y ~ x", "covarance": "HC3"}]}, "did you mean 'covariance'"),
        ({"asociations": []}, "did you mean 'associations'"),
        ({"associations": []}, "no models"),
        ({"associations": 3}, "to be tables of keys"),
        ({"models": True}, "to be tables of keys"),
        ({"models": {"name": "a"}}, "to be tables of keys"),
        ({"models": [{"name": "ms", "formula": "y ~ x", "where": {"dx": "MS"}}]}, "associations.ms.where.dx: expected"),
        ({"models": [{"name": "a", "formula": "y ~ eval(x)"}]}, "no such function"),
        ({"models": [{"name": "a", "formula": "y ~ x", "covariance": "HC9"}]}, "HC9"),
        ({"models": [{"name": "a", "formula": "y ~ x"}, {"name": "a", "formula": "y ~ z"}]}, "named 'a'"),
        ({"models": [{"name": "a", "formula": "{o} ~ x", "screen": {"p": ["z"]}}]}, "its screen names 'p'"),
        ({"models": [{"name": "a", "formula": "y ~ x", "random_slope": "t", "sessions": "all"}]}, "random_slope 't'"),
    ],
)
def test_a_specification_that_is_wrong_is_refused(content: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        parse_models(content)


def test_a_mark_before_the_text_and_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    marked, table = tmp_path / "spec.toml", tmp_path / "t.csv"
    marked.write_text(MODELS, encoding="utf-8-sig")
    assert [spec.name for spec in load_models(str(marked))] == ["edss"]
    clinic().to_csv(table, index=False)
    said = associate("--table", table, "--models", marked, "--out", table, "--no-figures", code=1)
    assert "is a file; expected a folder" in " ".join(said.split())


@pytest.mark.parametrize("path", sorted(ANALYSES.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_analyses_are_valid(path: Path) -> None:
    assert load_models(path.stem)


def test_a_study_file_serves_as_a_specification() -> None:
    assert {spec.name for spec in load_models("phantom")} == {"diagnosis", "severity", "progression"}


def test_a_table_that_lacks_a_models_column_still_answers_the_others(tmp_path: Path) -> None:
    clinic().assign(diagnosis=["MS", "HC"] * 30).to_csv(tmp_path / "t.csv", index=False)
    out = json.loads(associate("--table", tmp_path / "t.csv", "--models", "ms", "--out", tmp_path / "o", "--json"))
    by_name = {model["name"]: model for model in out["models"]}
    assert by_name["diagnosis"]["method"] == "OLS, HC3"
    assert "no column 'phenotype'" in by_name["phenotype"]["problems"][0]


def test_neither_a_server_nor_tracking_is_loaded(tmp_path: Path, spec: Path) -> None:
    clinic().to_csv(tmp_path / "t.csv", index=False)
    code = (
        "import sys; from flows.table_analysis import associate_table;"
        f"associate_table({str(tmp_path / 't.csv')!r}, {str(spec)!r}, {str(tmp_path / 'o')!r}, figures=False);"
        "print([m for m in ('prefect', 'mlflow', 'torch', 'dask', 'pytorch_lightning') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "[]"
    )


@pytest.mark.parametrize("name", ["dietox", "sleepstudy"])
def test_published_fits_come_out_to_their_printed_digits(name: str, tmp_path: Path, shared_data: Path) -> None:
    keys = {
        "dietox": 'formula = "Weight ~ Time"\ngroups = "Pig"',
        "sleepstudy": 'formula = "Reaction ~ Days"\ngroups = "Subject"\nrandom_slope = "Days"\nestimator = "ML"',
    }
    (tmp_path / "m.toml").write_text(f'[[models]]\nname = "m"\nsessions = "all"\n{keys[name]}\n')
    table = shared_data / "tables" / f"{name}.csv"
    out = associate("--table", table, "--models", tmp_path / "m.toml", "--out", tmp_path / "o", "--json")
    rows, model = json.loads(out)["effects"], json.loads(out)["models"][0]
    digits = 4 if name == "dietox" else 6
    estimates = [round(row["estimate"], digits) for row in rows]
    if name == "dietox":
        assert estimates == [15.7235, 6.9425]
        assert [round(row["se"], 4) for row in rows] == [0.7881, 0.0334]
        assert [round(value, 2) for value in model["random_effects"].values()] == [40.39, 11.37]
    else:
        assert estimates == [251.405105, 10.467286]
        assert [round(row["se"], 3) for row in rows] == [6.632, 1.502]
        record = json.loads((tmp_path / "o" / "analysis.json").read_text())["models"][0]
        figures = record["diagnostics"]["columns"]
        assert round(figures["value"][figures["figure"].index("deviance")], 4) == 1751.9393


def test_a_random_slope_against_the_textbook_likelihood(tmp_path: Path) -> None:
    """The same as the published fits, where their data is not at hand: the dense likelihood on a seeded table."""
    rng = np.random.default_rng(0)
    who, years = np.repeat(np.arange(14), 4), np.tile(np.arange(4.0), 14)
    y = 3 + (1 + rng.normal(0, 0.8, 14)[who]) * years + rng.normal(0, 2, 14)[who] + rng.normal(size=56)
    table = pd.DataFrame({"participant_id": who, "years_since_baseline": years, "score": y})
    table.to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "m.toml").write_text(
        '[[models]]\nname = "m"\nformula = "score ~ years_since_baseline"\nsessions = "all"\n'
        'random_slope = "years_since_baseline"\nestimator = "ML"\n'
    )
    out = associate("--table", tmp_path / "t.csv", "--models", tmp_path / "m.toml", "--out", tmp_path / "o", "--json")
    x = np.column_stack([np.ones(56), years])
    same = who[:, None] == who[None, :]

    def parts(values: np.ndarray) -> tuple[float, np.ndarray]:
        root = np.array([[np.exp(values[0]), 0], [values[1], np.exp(values[2])]])
        v = (x @ root @ root.T @ x.T) * same + np.exp(values[3]) * np.eye(56)
        inverse = np.linalg.inv(v)
        beta = np.linalg.solve(x.T @ inverse @ x, x.T @ inverse @ y)
        rest = y - x @ beta
        return float(np.linalg.slogdet(v)[1] + rest @ inverse @ rest), beta

    best = minimize(lambda values: parts(values)[0], np.zeros(4), method="BFGS", options={"gtol": 1e-6})
    estimates = [row["estimate"] for row in json.loads(out)["effects"]]
    assert estimates == pytest.approx(list(parts(best.x)[1]), rel=1e-5)


def test_a_table_on_s3_is_read_and_its_effects_are_written_there(
    spec: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("ACCESS_KEY_ID", "testing"), ("SECRET_ACCESS_KEY", "hidden"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    bucket = s3fs.S3FileSystem(client_kwargs={"endpoint_url": s3_server}, skip_instance_cache=True)
    bucket.mkdir("clinic")
    bucket.pipe_file("clinic/table.csv", clinic().to_csv(index=False).encode())
    associate("--table", "s3://clinic/table.csv", "--models", spec, "--out", "s3://clinic/out/one")
    bucket.invalidate_cache()
    assert "clinic/out/one/effects.csv" in bucket.find("clinic/out")
    with pytest.raises(ValueError, match="must not hold credentials"):
        read_table("s3://user:secret@clinic/table.csv")


def test_no_input_is_overwritten_by_results(tmp_path: Path, spec: Path) -> None:
    for seed, site in enumerate(("oslo", "graz")):
        clinic(seed=seed).to_csv(tmp_path / f"{site}.csv", index=False)
        associate("--table", tmp_path / f"{site}.csv", "--models", spec, "--out", tmp_path / site)
    oslo, graz, mine = (tmp_path / name for name in ("oslo/effects.csv", "graz/effects.csv", "oslo/methods.txt"))
    mine.write_text(MODELS)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for arguments in (
        ["--estimates", oslo, graz],
        ["--table", oslo, "--models", spec],
        ["--table", tmp_path / "graz.csv", "--models", mine],
    ):
        said = associate(*arguments, "--out", tmp_path / "oslo", code=1)
        assert "would be overwritten" in " ".join(said.split())
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_no_result_of_an_earlier_run_is_left_beside_new_ones(tmp_path: Path, spec: Path) -> None:
    clinic().to_csv(tmp_path / "t.csv", index=False)
    other = tmp_path / "other.toml"
    other.write_text(MODELS.replace('name = "edss"', 'name = "severity"'))
    left = {}
    for models in (spec, other):
        associate("--table", tmp_path / "t.csv", "--models", models, "--out", tmp_path / "o")
        associate("--table", tmp_path / "t.csv", "--models", models, "--out", tmp_path / models.stem)
        left[models.stem] = [
            {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
            for folder in (tmp_path / "o", tmp_path / models.stem)
        ]
    assert left["other"][0] == left["other"][1] != left["models"][0]


@pytest.mark.parametrize("arguments", [["--models", "ms", "--table"], ["--estimates"]])
def test_an_output_folder_without_a_name_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    clinic().to_csv(tmp_path / "t.csv", index=False)
    said = associate(*arguments, tmp_path / "t.csv", "--out", "", code=1)
    assert "the folder to write to is empty" in " ".join(said.split())


def test_effects_run_no_formula_in_a_spreadsheet_and_are_read_back_as_they_were(tmp_path: Path) -> None:
    models = tmp_path / "models.toml"
    models.write_text(MODELS.replace('name = "edss"', 'name = "@edss"').replace("edss +", "`=1+1` +"))
    for seed, site in enumerate(("oslo", "graz")):
        clinic(seed=seed).rename(columns={"edss": "=1+1"}).to_csv(tmp_path / f"{site}.csv", index=False)
        associate("--table", tmp_path / f"{site}.csv", "--models", models, "--out", tmp_path / site)
    files = [tmp_path / site / "effects.csv" for site in ("oslo", "graz")]
    out = associate("--estimates", *files, "--out", tmp_path / "both", "--json")
    for file in (*files, tmp_path / "both" / "effects.csv"):
        effects = pd.read_csv(file)
        text = effects.select_dtypes("str")
        assert not text.map(lambda cell: str(cell).startswith(("=", "+", "-", "@"))).any(axis=None)
        assert pd.api.types.is_float_dtype(effects.estimate)
    assert "=1+1" in {row["term"] for row in json.loads(out)["effects"]}
    assert {model["name"] for model in json.loads(out)["models"]} == {"@edss"}


def test_numbers_of_effects_keep_every_digit(tmp_path: Path, spec: Path) -> None:
    clinic().to_csv(tmp_path / "t.csv", index=False)
    out = json.loads(associate("--table", tmp_path / "t.csv", "--models", spec, "--out", tmp_path / "o", "--json"))
    written = pd.read_csv(tmp_path / "o" / "effects.csv", dtype="str")
    assert written.estimate.map(float).tolist() == [row["estimate"] for row in out["effects"]]
