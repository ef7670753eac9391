"""Frozen records that pass between steps.

Records carry URIs, hashes and numbers; arrays never cross a task boundary. This file imports nothing but the
standard library, so that it can travel with a registered model.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

Role = Literal["train", "external", "clinical"]
Contrast = Literal["T1w", "T2w", "FLAIR"]
Channel = Literal["T1w", "T2w", "FLAIR", "ratio"]
MaskName = Literal["auto", "provided", "template", "hd-bet", "synthstrip"]
RecipeName = Literal["t1w", "flair", "t1w_t2w_ratio", "clinical_2d", "multichannel"]
SplitName = Literal["train", "validation", "calibration", "test"]
FORBID_UNKNOWN_KEYS: dict[str, Any] = {"extra": "forbid"}


def digest(value: Any) -> str:
    """Name a value by its content, so that equal inputs find the outputs that they already made.

    Args:
        value: Anything that JSON can hold; dictionaries may be in any order.

    Returns:
        64 hexadecimal digits (SHA-256 of canonical JSON).
    """
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


class ScanRejected(Exception):
    """A scan that cannot be used: a value to be counted with its reason, never a crash of the cohort."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(stage, reason)
        self.stage = stage
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.stage}: {self.reason}"


def content_key(sha256s: tuple[str, ...], template: str = "") -> str:
    """Name what a prepared scan is made from, beside its recipe.

    Args:
        sha256s: Of the images' bytes, the scan's own first.
        template: Name of the template that its age chose, where the recipe gives several.

    Returns:
        The image's own hash where that is all, else a digest of everything.
    """
    return sha256s[0] if len(sha256s) == 1 and not template else digest([*sha256s, template])


@dataclass(frozen=True)
class ImageRef:
    """One image file: where its bytes are and what they hash to."""

    modality: str
    uri: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class ScanRef:
    """One indexed scan, with the other images of its session that its recipe needs, and the template for its age."""

    scan_id: str
    cohort: str
    participant_id: str
    session_id: str
    run: str
    modality: str
    uri: str
    size_bytes: int
    sha256: str
    companions: tuple[ImageRef, ...] = ()
    template: str = ""

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """Every image that the scan is prepared from, its own first."""
        return (ImageRef(self.modality, self.uri, self.size_bytes, self.sha256), *self.companions)

    @property
    def key(self) -> str:
        """Names the prepared scan in the store."""
        return content_key(tuple(image.sha256 for image in self.images), self.template)


@dataclass(frozen=True)
class PreparedScan:
    """A scan on the study's grid in the store; `sha256` is the key of the `ScanRef`."""

    scan_id: str
    sha256: str
    key: str
    quality: dict[str, float]


@dataclass(frozen=True)
class Excluded:
    """A scan that is not used, at which stage and why, in words that a user can act on; `sha256` as in PreparedScan."""

    scan_id: str
    sha256: str
    stage: str
    reason: str


@dataclass(frozen=True)
class TemplateSpec:
    """A template that takes MNI's place for scans of some ages: skull-stripped NIfTI files on one grid.

    Attributes:
        name: Names its space in sidecars and exported files.
        t1: Path or URL of its T1w intensities.
        grey: Path or URL of its grey matter probability.
        white: Path or URL of its white matter probability.
        brain: Path or URL of its brain mask; "" takes what is not 0 in `t1`.
        ages_months: Youngest and oldest age that it serves; the first template that fits is taken.
        sha256: Digest of the files' bytes; padflow fills it in and refuses files that have changed.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    name: str
    t1: str
    grey: str
    white: str
    brain: str = ""
    ages_months: tuple[float, float] = (0.0, 1500.0)
    sha256: str = ""

    @property
    def files(self) -> dict[str, str]:
        """Which file is where."""
        named = {"t1": self.t1, "grey": self.grey, "white": self.white, "brain": self.brain}
        return {which: uri for which, uri in named.items() if uri}


@dataclass(frozen=True)
class RatioCalibration:
    """Brings T1w and T2w of any scanner to one scale before they are divided (Ganzetti et al. 2014).

    Attributes:
        t1w_modes: Intensities of eyes and temporal muscles in the reference T1w.
        t2w_modes: Likewise in the reference T2w.
        eyes_mm: Spheres that lie in the eyes, (x, y, z, radius) in the template's RAS+ mm; the default is for MNI.
        muscles_mm: Spheres that lie in the temporal muscles.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    t1w_modes: tuple[float, float]
    t2w_modes: tuple[float, float]
    eyes_mm: tuple[tuple[float, float, float, float], ...] = ((-33.0, 55.0, -38.0, 8.0), (33.0, 55.0, -38.0, 8.0))
    muscles_mm: tuple[tuple[float, float, float, float], ...] = ((-68.0, 5.0, -15.0, 4.0), (68.0, 5.0, -15.0, 4.0))


CHANNELS_OF: dict[RecipeName, tuple[Channel, ...]] = {
    "t1w": ("T1w",),
    "flair": ("FLAIR",),
    "t1w_t2w_ratio": ("ratio",),
    "clinical_2d": ("T1w",),
    "multichannel": ("T1w", "T2w", "ratio"),
}


@dataclass(frozen=True)
class Recipe:
    """How a raw scan becomes a prepared one. Every field alters the output, so every field is part of its key.

    Attributes:
        name: `t1w`; `flair` (FLAIR→T1w→template in one resampling); `t1w_t2w_ratio`; `clinical_2d` (T1w of thick
            slices); `multichannel` (T1w, T2w and their ratio).
        channels: Of the prepared volume, in order; empty takes those of the recipe's name.
        reference: The contrast that is registered to the template; the session's others are registered to it. A
            `flair` recipe with the reference FLAIR needs no T1w: another input contract, so another key.
        resolution_mm: Isotropic voxel size of the prepared grid.
        field_of_view_mm: Extent of the prepared grid in template space, (x, y, z); 160×192×160 after Peng et al. 2021.
        templates: Templates by age; empty takes MNI for everybody.
        mask: Where the brain mask comes from. `provided`: the input is skull-stripped; `template`: the template's
            mask through the registration; `auto`: detect which of the two it is; `hd-bet`, `synthstrip`: that tool,
            which must be installed on every worker, and whose version is part of the key.
        bias_correction: Whether N4 runs.
        ratio_calibration: How T1w and T2w are scaled before they are divided; off where it is left out, and for
            skull-stripped scans, which lack the tissues that it needs.
        clip_percentiles: Intensity percentiles within the brain that bound the values before the z-score.
        seed: Seed of the registration's sampling.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    name: RecipeName = "t1w"
    channels: tuple[Channel, ...] = ()
    reference: Contrast = "T1w"
    resolution_mm: float = 1.0
    field_of_view_mm: tuple[float, float, float] = (160.0, 192.0, 160.0)
    templates: tuple[TemplateSpec, ...] = ()
    mask: MaskName = "auto"
    bias_correction: bool = True
    ratio_calibration: RatioCalibration | None = None
    clip_percentiles: tuple[float, float] = (0.5, 99.5)
    seed: int = 0

    @property
    def channel_names(self) -> tuple[Channel, ...]:
        """Channels of the prepared volume, in order."""
        return self.channels or CHANNELS_OF[self.name]

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """BIDS suffixes of the images that a session must have; the first names the scan."""
        shown = [c for channel in self.channel_names for c in (("T1w", "T2w") if channel == "ratio" else (channel,))]
        return tuple(dict.fromkeys((*shown, self.reference)))  # type: ignore[arg-type]

    def template_for(self, age_months: float) -> str | None:
        """Name of the template for an age; "" is MNI, None says that no template serves it."""
        if not self.templates:
            return ""
        fits = [t.name for t in self.templates if t.ages_months[0] <= age_months <= t.ages_months[1]]
        return fits[0] if fits else None


def recipe_from(values: dict[str, Any]) -> Recipe:
    """Rebuild a recipe from what `asdict` and JSON made of it, as a registered model carries it."""
    plain = {name: _as_tuples(value) for name, value in values.items()}
    templates = tuple(TemplateSpec(**{k: _as_tuples(v) for k, v in spec.items()}) for spec in values["templates"])
    calibration = values["ratio_calibration"]
    if calibration is not None:
        calibration = RatioCalibration(**{name: _as_tuples(value) for name, value in calibration.items()})
    return Recipe(**{**plain, "templates": templates, "ratio_calibration": calibration})


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class NetworkSpec:
    """The network's shape: what a checkpoint needs to be rebuilt.

    Attributes:
        name: Which network.
        channels: Feature maps per block.
        age_range_years: First and last edge of the soft-label bins; an age outside is refused.
        bin_width_years: Width of a bin.
        label_sigma_years: Width of the soft label (Peng et al. 2021: 1 year).
        dropout: Probability before the last convolution.
        input_channels: Of the prepared volumes; a study takes it from its recipe.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    name: Literal["sfcn"] = "sfcn"
    channels: tuple[int, ...] = (32, 64, 128, 256, 256, 64)
    age_range_years: tuple[float, float] = (10.0, 100.0)
    bin_width_years: float = 1.0
    label_sigma_years: float = 1.0
    dropout: float = 0.5
    input_channels: int = 1


@dataclass(frozen=True)
class TrainingSpec:
    """How the network is fitted. Every field alters the weights.

    Attributes:
        epochs: Most passes over the training scans; the learning-rate cycle spans them all.
        batch_size: Global batch, divided over the processes.
        learning_rate: Peak of the one-cycle schedule.
        weight_decay: Of AdamW, on convolution kernels.
        patience: Epochs without a better validation MAE before the fit stops.
        flip_probability: Chance of a left-right mirror per training scan and epoch.
        shift_voxels: Largest random whole-voxel shift along each axis.
        processes: Ranks that share each batch; batch norm sees its rank's part.
        expected_age_weight: Weight of the smooth L1 term on the expected age, in label sigmas, beside the divergence
            from the soft label (0: Peng et al. 2021).
        slice_simulation: Chance per training scan and epoch that it is turned into what a 2D acquisition of random
            thickness and orientation would have seen; 0.5 where a study of the recipe `clinical_2d` leaves it out.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    epochs: int = 60
    batch_size: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    patience: int = 20
    flip_probability: float = 0.5
    shift_voxels: int = 2
    processes: int = 2
    expected_age_weight: float = 0.5
    slice_simulation: float = 0.0


@dataclass(frozen=True)
class TrainingRow:
    """One prepared scan as the training job sees it: a local file, its label and its part."""

    scan_id: str
    participant_id: str
    path: str
    age_years: float
    split: SplitName


@dataclass(frozen=True)
class TrainingJob:
    """Everything that `python -m lightning_modules JOB.json` needs; written as JSON beside its outputs.

    Attributes:
        network: What to fit.
        training: How.
        seed: Of this ensemble member.
        rows: The scans.
        output_folder: Where outputs go.
        resolution_mm: Voxel size of the scans, for what is simulated in millimetres.
    """

    network: NetworkSpec
    training: TrainingSpec
    seed: int
    rows: tuple[TrainingRow, ...]
    output_folder: str
    resolution_mm: float


@dataclass(frozen=True)
class AgeBias:
    """The line `predicted = alpha × age + beta` of held-out healthy predictions; corrections come from it."""

    alpha: float
    beta_years: float
    n_subjects: int


@dataclass(frozen=True)
class AssociationSpec:
    """One declared linear model.

    Attributes:
        name: Its name in tables.
        formula: Wilkinson notation over the columns of predictions joined with the clinical table, of a safe subset.
        cohorts: Names of the cohorts whose rows it uses.
        sessions: `baseline` takes each subject's first session; `all` takes every one and fits a mixed model.
        groups: Grouping column of the random intercept (mixed models).
        where: Column → accepted values; rows outside are dropped and counted.
        effects: Terms of interest, which form the FDR family; empty: every term but intercept, age and sex.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    name: str
    formula: str
    cohorts: tuple[str, ...]
    sessions: Literal["baseline", "all"] = "baseline"
    groups: str = "participant_id"
    where: dict[str, tuple[str, ...]] = field(default_factory=dict)
    effects: tuple[str, ...] = ()


def as_json(record: Any) -> str:
    """Write a record as canonical JSON text."""
    return json.dumps(asdict(record), sort_keys=True, allow_nan=False, indent=1)
