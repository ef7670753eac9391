"""The registered model's own code: MLflow runs this file where the model is loaded, far from padflow.

It is logged as a file, never pickled. It finds the preprocessing and the networks in a package that travels with the
model under a name made from its content, so that a consumer's own `tasks` or `infra` are left alone.
"""

from __future__ import annotations

import importlib
import io
import json
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import torch
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

IMAGE_LIMIT_BYTES = 512 * 2**20
COLUMNS = (
    "predicted_age_years",
    "ensemble_spread_years",
    "corrected_age_years",
    "brain_pad_years",
    "corrected_brain_pad_years",
    "interval_low_years",
    "interval_high_years",
    "corrected_interval_low_years",
    "corrected_interval_high_years",
    "status",
    "reason",
)
FIGURES = COLUMNS[:-2]
# Beyond the training ages by more than this part of their range, a prediction says nothing of a brain.
PLAUSIBLE_MARGIN = 0.5


class BrainAgeModel(PythonModel):
    """Brain age of raw images, or of volumes that padflow prepared. Every input row gives one output row.

    Input columns: `image` (path or URL of a NIfTI file), or `T1w`, `T2w` and `FLAIR` where the recipe needs several
    images of a session, or `prepared` (path of a prepared `.npy`); `age_years` may be given, and must be where the
    recipe has templates by age. `status` is `ok`, `rejected` (the image cannot be used), `unreadable` (storage
    failed), `outside-age-range` or `implausible-age` (what the network gave is no age); a row that is not `ok` holds no
    number, and `reason` says why.
    """

    def load_context(self, context: Any) -> None:
        """Read the contract and the weights (safetensors, so nothing is executed)."""
        folder = Path(context.artifacts["model"])
        self.contract = json.loads((folder / "contract.json").read_text())
        package = self.contract["package"]
        self._records = importlib.import_module(f"{package}.records")
        self._recipe_module = importlib.import_module(f"{package}.science.imaging.recipe")
        self._grid = importlib.import_module(f"{package}.science.imaging.grid")
        self._template = importlib.import_module(f"{package}.science.imaging.template")
        self._age_bias = importlib.import_module(f"{package}.science.statistics.age_bias")
        self._inputs = importlib.import_module(f"{package}.networks.inputs")
        self._networks = importlib.import_module(f"{package}.networks.build")
        self._folder = folder
        self._recipe = self._records.recipe_from(self.contract["recipe"])
        self._network = self._records.NetworkSpec(**_tuples(self.contract["network"]))
        self._members = [self._networks.load_network(self._network, folder / name) for name in self.contract["weights"]]

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predict row by row, so that one bad image cannot spoil its neighbours."""
        del context, params
        rows = [self._row({str(k): v for k, v in row.items()}) for row in model_input.to_dict("records")]
        return pd.DataFrame(rows, columns=list(COLUMNS), index=model_input.index)

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        blank: dict[str, Any] = {**dict.fromkeys(FIGURES, float("nan")), "status": "ok", "reason": ""}
        age_years = row.get("age_years")
        age_years = None if age_years is None or pd.isna(age_years) else float(age_years)
        try:
            volume = self._volume(row, age_years)
        except self._records.ScanRejected as rejection:
            return {**blank, "status": "rejected", "reason": str(rejection)}
        except (OSError, ValueError) as error:
            return {**blank, "status": "unreadable", "reason": f"{type(error).__name__}: {error}"}
        low, high = self.contract["age_range_years"]
        if age_years is not None and not low <= age_years <= high:
            reason = f"age {age_years:g} is outside the ages that the model was trained on, {low:g} to {high:g} years"
            return {**blank, "status": "outside-age-range", "reason": reason}
        batch = self._inputs.network_input(torch.from_numpy(volume)[None], self._network, self._recipe.channel_names)
        ages = np.array([float(self._networks.expected_ages_of(m, self._network, batch)) for m in self._members])
        if not np.isfinite(ages).all():
            return {**blank, "status": "rejected", "reason": "the network gave no finite age for this volume"}
        margin = PLAUSIBLE_MARGIN * (high - low)
        if not low - margin <= ages.mean() <= high + margin:
            reason = (
                f"the network gave {ages.mean():.4g} years, far outside the ages that it was trained on, {low:g} to "
                f"{high:g}: no age of this scan, but a sign that the scan or the network is unlike what was trained"
            )
            return {**blank, "status": "implausible-age", "reason": reason}
        return {**blank, **self._figures(ages, age_years)}

    def _figures(self, ages: np.ndarray, age_years: float | None) -> dict[str, float]:
        predicted = float(ages.mean())
        figures = {"predicted_age_years": predicted, **self._interval("raw", "interval", predicted)}
        if len(ages) > 1:
            figures["ensemble_spread_years"] = float(ages.std(ddof=1))
        if age_years is None:
            return figures
        figures["brain_pad_years"] = predicted - age_years
        if self.contract["age_bias"] is not None:
            bias = self._records.AgeBias(**self.contract["age_bias"])
            corrected = float(self._age_bias.correct_de_lange(np.array([predicted]), np.array([age_years]), bias)[0])
            figures["corrected_age_years"] = corrected
            figures["corrected_brain_pad_years"] = corrected - age_years
            figures |= self._interval("corrected", "corrected_interval", corrected)
        return figures

    def _interval(self, which: str, name: str, centre_years: float) -> dict[str, float]:
        """Where the age lies with the contract's confidence; nothing where too few subjects calibrated it."""
        half_width_years = self.contract["intervals"].get(which, {}).get("half_width_years")
        if half_width_years is None:
            return {}
        return {
            f"{name}_low_years": centre_years - half_width_years,
            f"{name}_high_years": centre_years + half_width_years,
        }

    def _template_for(self, age_years: float | None) -> Any:
        """The template of the recipe for an age; MNI where it has none of its own."""
        if not self._recipe.templates:
            return self._template.mni()
        name = None if age_years is None else self._recipe.template_for(12.0 * age_years)
        if name is None:
            raise self._records.ScanRejected("template", f"no template of the model serves the age {age_years}")
        spec = next(spec for spec in self._recipe.templates if spec.name == name)
        files = {which: self._folder / f"template-{name}-{which}.nii" for which in spec.files}
        return self._template.given_template(name, {which: path.read_bytes() for which, path in files.items()})

    def _volume(self, row: dict[str, Any], age_years: float | None) -> np.ndarray:
        prepared = row.get("prepared")
        if isinstance(prepared, str) and prepared:
            volume = np.load(io.BytesIO(Path(prepared).read_bytes()), allow_pickle=False)
            expected = (len(self._recipe.channel_names), *self._grid.grid_shape(self._recipe))
            if volume.shape != expected:
                raise ValueError(f"prepared volume has shape {volume.shape}, the model expects {expected}")
            return np.asarray(volume, dtype=np.float32)
        images = self._images(row)
        prepared_scan = self._recipe_module.prepare_scan(images, self._recipe, self._template_for(age_years))
        return np.asarray(prepared_scan.volume, dtype=np.float32)

    def _images(self, row: dict[str, Any]) -> dict[str, bytes]:
        contrasts = self._recipe.contrasts
        named: dict[str, Any] = {contrast: row.get(contrast) for contrast in contrasts}
        if len(contrasts) == 1:
            named[contrasts[0]] = named[contrasts[0]] or row.get("image")
        missing = [contrast for contrast, uri in named.items() if not isinstance(uri, str) or not uri]
        if missing:
            columns = "`image` or `prepared`" if len(contrasts) == 1 else f"{', '.join(missing)} or `prepared`"
            raise ValueError(
                f"the row lacks {columns}: the model takes {', '.join(contrasts)}, as paths or URLs of NIfTI"
            )
        return {contrast: _read_limited(str(uri)) for contrast, uri in named.items()}


def _read_limited(uri: str) -> bytes:
    with fsspec.open(uri, "rb") as file:
        content = bytes(file.read(IMAGE_LIMIT_BYTES + 1))
    if len(content) > IMAGE_LIMIT_BYTES:
        raise ValueError(f"{uri} is larger than {IMAGE_LIMIT_BYTES // 2**20} MiB")
    return content


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


set_model(BrainAgeModel())
