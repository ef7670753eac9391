"""The model registry: a fitted ensemble becomes a version, with everything that it needs to predict."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import AnyType, ColSpec, Schema

from infra.layout import library_versions
from infra.model_table import COLUMNS, TEXTS
from infra.promotion import name_challenger
from tasks.records import AgeBias, Contrast, NetworkSpec, Recipe, TargetSpec
from tasks.science.imaging.grid import grid_shape

PROJECT = Path(__file__).parents[1]
# What the model needs at run time; the study's other engines stay out of a consumer's environment.
REQUIREMENTS = (
    "mlflow", "torch", "monai", "safetensors", "numpy", "scipy", "pandas", "nibabel", "SimpleITK", "nilearn",
    "jaxtyping", "fsspec", "s3fs",
)  # fmt: skip
# MLflow would refuse a whole table for one cell of another kind, before the model can say which row it is.
ANY = AnyType()
SIGNATURE = ModelSignature(
    inputs=Schema(
        [ColSpec(ANY, name, required=False) for name in ("image", *get_args(Contrast), "prepared", "age_years", "sex")]
    ),
    outputs=Schema([ColSpec("string" if name in TEXTS else "double", name) for name in COLUMNS]),
)
# What travels with the weights beside science and networks.
TRAVELLING = ("model_table.py", "image_roots.py", "s3_client.py")


@dataclass(frozen=True)
class Contract:
    """What a registered model takes and how it was made; it travels with the weights.

    Attributes:
        image_roots: Below what it reads images where nobody says otherwise.
        why_no_age_bias: Why there is no correction, where there is none.
        quality_bounds: What of an image's quality is unusual among those that it was trained on.
    """

    recipe: Recipe
    recipe_digest: str
    network: NetworkSpec
    target: TargetSpec
    age_range_years: tuple[float, float]
    age_bias: AgeBias | None
    intervals: dict[str, dict[str, Any]]
    fit_key: str
    study_digest: str
    image_roots: tuple[str, ...] = ()
    why_no_age_bias: str = ""
    quality_bounds: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class RegisteredVersion:
    """One version in the registry."""

    name: str
    version: str
    run_id: str

    @property
    def uri(self) -> str:
        """The address that consumers load."""
        return f"models:/{self.name}/{self.version}"


def register(
    client: MlflowClient,
    run_id: str,
    name: str,
    contract: Contract,
    weights: list[bytes],
    templates: dict[str, bytes],
) -> RegisteredVersion:
    """Log the model once and register it as `challenger`; whether it becomes `champion` is decided after validation.

    Args:
        client: Of the tracking server and the registry.
        run_id: The run that fitted it.
        name: Name in the registry.
        contract: What it takes.
        weights: The bytes of one safetensors file per ensemble member.
        templates: Files of the recipe's templates, by the name under which they travel.
    """
    with tempfile.TemporaryDirectory() as folder:
        model_folder = Path(folder) / "model"
        model_folder.mkdir()
        package = copy_package(Path(folder))
        names = [f"member-{number}.safetensors" for number in range(len(weights))]
        for content, target in zip(weights, names, strict=True):
            (model_folder / target).write_bytes(content)
        for target, content in templates.items():
            (model_folder / target).write_bytes(content)
        text = json.dumps({**asdict(contract), "weights": names, "package": package.name}, allow_nan=False, indent=1)
        (model_folder / "contract.json").write_text(text)
        with mlflow.start_run(run_id=run_id), warnings.catch_warnings():
            # The signature is given, so that no example is needed to infer it.
            warnings.filterwarnings("ignore", ".*An input example was not provided")
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).with_name("registered_model.py")),
                artifacts={"model": str(model_folder)},
                code_paths=[str(package)],
                signature=SIGNATURE,
                pip_requirements=[f"{n}=={v}" for n, v in library_versions(*REQUIREMENTS).items()],
                metadata=_input_contract(contract),
                model_config={"image_roots": list(contract.image_roots)},
            )
    version = mlflow.register_model(logged.model_uri, name, tags={"padflow.fit_key": contract.fit_key})
    return the_one_version(client, name, contract.fit_key, RegisteredVersion(name, str(version.version), run_id))


def the_one_version(client: MlflowClient, name: str, fit_key: str, own: RegisteredVersion) -> RegisteredVersion:
    """The oldest version of a fit, after taking a younger one of one's own back: another machine was as fast.

    Each of the two looks after it has registered, so that both see both and agree.
    """
    first = registered_before(client, name, fit_key) or own
    if first != own:
        client.delete_model_version(name, own.version)
    return first


def _input_contract(contract: Contract) -> dict[str, Any]:
    """What a consumer must know to feed the model, where it can be read without loading it."""
    return {
        "fit_key": contract.fit_key,
        "recipe": contract.recipe.name,
        "recipe_digest": contract.recipe_digest,
        "images": list(contract.recipe.contrasts),
        "prepared_channels": list(contract.recipe.channel_names),
        "network_inputs": list(contract.network.inputs),
        "prepared_shape": list(grid_shape(contract.recipe)),
        "resolution_mm": contract.recipe.resolution_mm,
        "age_range_years": list(contract.age_range_years),
        "target": contract.target.column,
        "target_unit": contract.target.unit,
        "unit_of_ages": "years, in and out, whatever the unit of the target in the study's report",
        "sex": "taken, not used",
        "image_roots": list(contract.image_roots),
    }


def registered_before(client: MlflowClient, name: str, fit_key: str) -> RegisteredVersion | None:
    """The version that a killed run, or another machine, has registered already, so that a fit is logged once."""
    versions = sorted(client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))
    for version in versions:
        if version.tags.get("padflow.fit_key") == fit_key and version.run_id:
            name_challenger(client, name, str(version.version))
            return RegisteredVersion(name, str(version.version), str(version.run_id))
    return None


def copy_package(folder: Path) -> Path:
    """Copy what a model needs of padflow into a package of a name of its own, made from its content.

    Two versions of a model then load side by side in one process, and neither hides a consumer's modules.
    """
    draft = folder / "draft"
    skip = shutil.ignore_patterns("__pycache__", "report", "cohort", "phantom*")
    shutil.copytree(PROJECT / "tasks" / "science", draft / "science", ignore=skip)
    shutil.copytree(PROJECT / "lightning_modules" / "networks", draft / "networks", ignore=skip)
    shutil.copyfile(PROJECT / "tasks" / "records.py", draft / "records.py")
    for name in TRAVELLING:
        shutil.copyfile(PROJECT / "infra" / name, draft / name)
    (draft / "__init__.py").touch()
    content = hashlib.sha256()
    for path in sorted(draft.rglob("*.py")):
        content.update(str(path.relative_to(draft)).encode() + b"\0" + path.read_bytes())
    return draft.rename(folder / f"padflow_model_{content.hexdigest()[:12]}")


def load(uri: str, image_roots: Sequence[str]) -> Any:
    """Load a registered model for prediction in this process.

    Args:
        uri: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        image_roots: Paths and s3:// addresses below which, or at which, it may read, in place of the study's store.

    Raises:
        ValueError: There is no such model, version or alias.
    """
    with _in_words(uri):
        return mlflow.pyfunc.load_model(uri, model_config={"image_roots": list(image_roots)})


def exact_version(client: MlflowClient, uri: str) -> str:
    """The version that an alias stands for now, so that whoever loads it can say which one it was.

    Raises:
        ValueError: There is no such model or alias.
    """
    name, at, alias = uri.removeprefix("models:/").partition("@")
    if not uri.startswith("models:/") or not at:
        return uri
    with _in_words(uri):
        return f"models:/{name}/{client.get_model_version_by_alias(name, alias).version}"


def artifact_text(run_id: str, path: str) -> str:
    """A text that is logged in a run."""
    return str(mlflow.artifacts.load_text(f"runs:/{run_id}/{path}"))


@contextmanager
def _in_words(uri: str) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        raise ValueError(
            f"{uri}: {error.message}\nExpected models:/NAME@ALIAS or models:/NAME/VERSION of the registry at "
            "MLFLOW_REGISTRY_URI (or --home, where padflow's embedded one is)."
        ) from error


def predict(model: Any, inputs: pd.DataFrame, advance: Callable[[], None] = lambda: None) -> pd.DataFrame:
    """Predict by a loaded model; one output row per input row, in order.

    Args:
        model: As `load` gives it.
        inputs: The columns of the model's signature.
        advance: Called after each row, for a progress bar.
    """
    outputs = []
    for number in range(len(inputs)):
        output = model.predict(inputs.iloc[[number]].reset_index(drop=True))
        if len(output) != 1:
            raise RuntimeError(f"the model gave {len(output)} rows for one image; it must give one")
        outputs.append(output)
        advance()
    return pd.concat(outputs, ignore_index=True) if outputs else pd.DataFrame(columns=SIGNATURE.outputs.input_names())
