"""The registered model's own code: MLflow runs this file where the model is loaded, far from padflow.

It is logged as a file, never pickled. It finds the preprocessing, the networks and the rules of what may be read in a
package that travels with the model under a name made from its content, so that a consumer's own `tasks` or `infra` are
left alone.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

# MLflow's server writes NaN, which JSON has not and strict readers refuse, unless a cell holds None.
HTTP_SERVER = "mlflow.pyfunc.scoring_server.app"
# Beyond the training ages by more than this part of their range, a prediction says nothing of a brain.
PLAUSIBLE_MARGIN = 0.5
# Name of each module → where it lies in the travelling package.
MODULES = {
    "records": "records",
    "table": "model_table",
    "image_roots": "image_roots",
    "preparing": "science.imaging.recipe",
    "grid": "science.imaging.grid",
    "bounds": "science.imaging.quality_bounds",
    "template": "science.imaging.template",
    "age_bias": "science.statistics.age_bias",
    "inputs": "networks.inputs",
    "networks": "networks.build",
}


class BrainAgeModel(PythonModel):
    """Brain age of raw images, or of volumes that padflow prepared. Every input row gives one output row.

    Input columns: `image` (path or s3:// address of a NIfTI file), or `T1w`, `T2w` and `FLAIR` where the recipe needs
    several images of a session, or `prepared` (of a prepared `.npy`); `age_years` may be given, and must be where the
    recipe has templates by age; `sex` is taken in any coding, and no model of padflow uses it.

    Images are read below roots alone: the study's store, what `PADFLOW_IMAGE_ROOTS` holds where the model is served
    (addresses separated by commas), or what `model_config={"image_roots": […]}` of `mlflow.pyfunc.load_model` puts in
    place of the store. Nothing that a caller sends changes them.

    `status` is `ok`, `refused` (the image is not below a root), `rejected` (the image or the row cannot be used),
    `unreadable` (storage failed), `outside-age-range` or `implausible-age` (what the network gave is no age); a row
    that is not `ok` holds no number, and `reason` says why. `absent` says why figures of an `ok` row are not there, as
    an interval of a model that too few subjects calibrated. `quality_flags` names what is unusual for this model in
    the figures of an image that was predicted all the same.
    """

    _records: Any
    _table: Any
    _image_roots: Any
    _preparing: Any
    _grid: Any
    _bounds: Any
    _template: Any
    _age_bias: Any
    _inputs: Any
    _networks: Any
    _members: list[Any]

    def load_context(self, context: Any) -> None:
        """Read the contract and the weights (safetensors, so nothing is executed)."""
        folder = Path(context.artifacts["model"])
        contract = json.loads((folder / "contract.json").read_text())
        package = contract["package"]
        modules = {name: importlib.import_module(f"{package}.{place}") for name, place in MODULES.items()}
        given = (context.model_config or {}).get("image_roots", contract["image_roots"])
        self.assemble(folder, contract, modules, [given] if isinstance(given, str) else list(given))
        self._members = [self._networks.load_network(self._network, folder / name) for name in contract["weights"]]

    def assemble(self, folder: Path, contract: dict[str, Any], modules: dict[str, Any], image_roots: list[str]) -> None:
        """Put together everything but the weights."""
        self.contract, self._folder = contract, folder
        for name, module in modules.items():
            setattr(self, f"_{name}", module)
        self._roots = self._image_roots.ImageRoots.given(image_roots, os.environ.get(self._image_roots.VARIABLE, ""))
        self._recipe = self._records.recipe_from(contract["recipe"])
        self._network = self._records.NetworkSpec(**_tuples(contract["network"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predict row by row, so that one bad image cannot spoil its neighbours."""
        del context, params
        rows = [self._row(row) for row in self._table.rows_of(model_input)]
        table = pd.DataFrame(rows, columns=list(self._table.COLUMNS), index=model_input.index)
        return self._table.with_nulls(table) if HTTP_SERVER in sys.modules else table

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        blank: dict[str, Any] = dict.fromkeys((*self._table.FIGURES, *self._table.QUALITY_COLUMNS), float("nan"))
        blank |= {"status": "ok", "reason": "", "absent": "", "quality_flags": "", "fit_key": self.contract["fit_key"]}
        try:
            return blank | self._scored(row)
        except self._table.Unusable as why:
            return {**blank, "status": why.status, "reason": why.reason}
        except self._records.ScanRejected as rejection:
            return {**blank, "status": "rejected", "reason": str(rejection)}
        except Exception as error:
            # What trips over a fault of ours must not cost its neighbours their answer.
            reason = f"unexpected {type(error).__name__}: {error}; report it with this scan's header"
            return {**blank, "status": "rejected", "reason": reason}

    def _scored(self, row: dict[str, Any]) -> dict[str, Any]:
        age_years = self._table.age_of(row.get("age_years"))
        low, high = self.contract["age_range_years"]
        if age_years is not None and not low <= age_years <= high:
            reason = f"age {age_years:g} is outside the ages that the model was trained on, {low:g} to {high:g} years"
            raise self._table.Unusable("outside-age-range", reason)
        volume, quality = self._volume(row, age_years)
        batch = self._inputs.network_input(torch.from_numpy(volume)[None], self._network, self._recipe.channel_names)
        ages = np.array([float(self._networks.expected_ages_of(m, self._network, batch)) for m in self._members])
        if not np.isfinite(ages).all():
            raise self._table.Unusable("rejected", "the network gave no finite age for this volume")
        margin = PLAUSIBLE_MARGIN * (high - low)
        if not low - margin <= ages.mean() <= high + margin:
            raise self._table.Unusable(
                "implausible-age",
                f"the network gave {ages.mean():.4g} years, far outside the ages that it was trained on, {low:g} to "
                f"{high:g}: no age of this scan, but a sign that the scan or the network is unlike what was trained",
            )
        told = {
            "reason": self._table.NO_AGE if age_years is None else "",
            "absent": self._table.absent_figures(self.contract, len(ages), age_years is not None),
        }
        return {**quality, **self._figures(ages, age_years), **told}

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

    def _volume(self, row: dict[str, Any], age_years: float | None) -> tuple[np.ndarray, dict[str, Any]]:
        """A prepared volume, float32, and what is known of its quality."""
        prepared = row.get("prepared")
        if self._table.is_address(prepared):
            expected = (len(self._recipe.channel_names), *self._grid.grid_shape(self._recipe))
            volume = self._table.prepared_volume(self._read(str(prepared)), expected, self._preparing.MAX_Z)
            return volume, {"quality_flags": self._table.NOT_JUDGED}
        named = self._table.images_of(row, self._recipe.contrasts)
        images = {contrast: self._read(uri) for contrast, uri in named.items()}
        scan = self._preparing.prepare_scan(images, self._recipe, self._template_for(age_years))
        figures = {f"quality_{name}": scan.quality.get(name, float("nan")) for name in self._table.QUALITY}
        flags = self._bounds.beyond_bounds(scan.quality, self.contract["quality_bounds"])
        return np.asarray(scan.volume, dtype=np.float32), {**figures, "quality_flags": "; ".join(flags)}

    def _read(self, uri: str) -> bytes:
        shown = self._image_roots.shown(uri)
        try:
            return bytes(self._roots.read(uri))
        except self._image_roots.ImageRefused as refusal:
            raise self._table.Unusable("refused", f"{shown}: {refusal}") from None
        except Exception as error:
            # S3 clients raise many errors of their own, which are no OSError.
            what = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
            raise self._table.Unusable("unreadable", f"{shown}: {type(error).__name__}: {what}") from None


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


set_model(BrainAgeModel())
