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
NetworkName = Literal[
    "sfcn", "inception_resnet_v2", "resnet18", "resnet50", "densenet121", "densenet169", "multitask_unet"
]
SplitName = Literal["train", "validation", "calibration", "test"]
ExplanationMethod = Literal["smoothgrad", "grad_cam", "grad_ram"]
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
        skull_strip: Whether what lies outside the brain is set to 0; else z-scores are of every voxel that is not 0.
            Quality is judged by the brain in either case; a ratio is always stripped.
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
    skull_strip: bool = True
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
    """The network's shape and how it sees a prepared volume: what a checkpoint needs to be rebuilt.

    Attributes:
        name: Which network.
        head: `soft_label` gives a distribution over age bins, `regression` one age.
        channels: Feature maps per block (sfcn, multitask_unet). Of the other networks the first entry alone counts: it
            is the width, and every published filter count is scaled by it over 32. So the default is as published, and
            [8] a quarter of it.
        age_range_years: First and last edge of the soft-label bins, where an age outside is refused; a regression head
            starts from its middle.
        bin_width_years: Width of a bin.
        label_sigma_years: Width of the soft label (Peng et al. 2021: 1 year).
        dropout: Probability before the last layer.
        norm: Normalisation layers; `batch` sees its rank's part of each batch.
        inputs: Channels of the prepared volume that the network takes, in order; empty takes all of the recipe's.
        crop_voxels: Part of the prepared grid that the network sees: drawn anew in training, the centre in evaluation.
        scaling: `zscore` takes the prepared values as they are, `unit` brings each scan to 0…1 first.
        input_channels: Of what the network takes; a study takes it from its recipe.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    name: NetworkName = "sfcn"
    head: Literal["soft_label", "regression"] = "soft_label"
    channels: tuple[int, ...] = (32, 64, 128, 256, 256, 64)
    age_range_years: tuple[float, float] = (10.0, 100.0)
    bin_width_years: float = 1.0
    label_sigma_years: float = 1.0
    dropout: float = 0.5
    norm: Literal["batch", "group", "instance"] = "batch"
    inputs: tuple[Channel, ...] = ()
    crop_voxels: tuple[int, int, int] | None = None
    scaling: Literal["zscore", "unit"] = "zscore"
    input_channels: int = 1


@dataclass(frozen=True)
class AugmentationSpec:
    """Random changes of a training scan that leave its age as it was; no spatial scaling, which would not.

    Attributes:
        flip_probability: Chance of a left-right mirror per training scan and epoch.
        shift_voxels: Largest random whole-voxel shift along each axis.
        slice_simulation: Chance per training scan and epoch that it is turned into what a 2D acquisition of random
            thickness and orientation would have seen; 0.5 where a study of the recipe `clinical_2d` leaves it out.
        intensity_scale: Largest relative change of the values, either way.
        intensity_shift: Largest offset of the values, either way.
        intensity_probability: Chance of each of those two.
        contrast_probability: Chance of another contrast (a gamma of 0.5 to 2).
        smoothing_probability: Chance of a Gaussian smoothing.
        histogram_shift_probability: Chance of a smooth monotone change of the histogram.
        noise_probability: Chance of Gaussian noise.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    flip_probability: float = 0.5
    shift_voxels: int = 2
    slice_simulation: float = 0.0
    intensity_scale: float = 0.0
    intensity_shift: float = 0.0
    intensity_probability: float = 0.0
    contrast_probability: float = 0.0
    smoothing_probability: float = 0.0
    histogram_shift_probability: float = 0.0
    noise_probability: float = 0.0


@dataclass(frozen=True)
class TaskWeights:
    """How much each task of a multi-task network counts."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    age: float = 1.0
    segmentation: float = 1.0
    reconstruction: float = 1.0


@dataclass(frozen=True)
class TrainingSpec:
    """How the network is fitted. Every field alters the weights, but for `checkpoint_minutes`.

    Attributes:
        objective: `age` learns the age; `rank_n_contrast` first orders an encoder's features by age, then fits a
            regressor on the frozen encoder.
        loss: Of a regression head; a soft-label head has its divergence.
        epochs: Most passes over the training scans; the learning-rate cycle spans them all.
        batch_size: Global batch, divided over the processes.
        accumulate_batches: Batches per optimiser step, where memory holds no more at a time.
        optimizer: AdamW, Adam or SGD with momentum.
        learning_rate: Peak of the schedule.
        weight_decay: On convolution kernels.
        schedule: `one_cycle` with a warm-up, `polynomial` (1 − epoch/epochs)^power, `cosine` or `constant`.
        schedule_power: Of the polynomial schedule.
        clip_norm: Largest norm of the gradient; 0 leaves it.
        ema_decay: Decay per step of the averaged weights that are evaluated and kept; 0 takes the weights themselves.
        precision: `32`, or `bf16` for mixed precision.
        patience: Epochs without a better validation MAE before the fit stops.
        processes: Ranks that share each batch on a CPU; batch norm sees its rank's part.
        checkpoint_minutes: How often a fit keeps its step; a resume goes on from there.
        expected_age_weight: Weight of the smooth L1 term on the expected age, in label sigmas, beside the divergence
            from the soft label (0: Peng et al. 2021).
        temperature: Of Rank-N-Contrast.
        regressor_epochs: Passes of the regressor over the frozen features, after Rank-N-Contrast.
        task_weights: Of a multi-task network.
        learned_task_weights: Whether uncertainty weights the tasks instead (Kendall et al. 2018).
        augmentation: Random changes of the training scans.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    objective: Literal["age", "rank_n_contrast"] = "age"
    loss: Literal["mse", "l1", "smooth_l1"] = "mse"
    epochs: int = 60
    batch_size: int = 8
    accumulate_batches: int = 1
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    schedule: Literal["one_cycle", "polynomial", "cosine", "constant"] = "one_cycle"
    schedule_power: float = 0.9
    clip_norm: float = 0.0
    ema_decay: float = 0.0
    precision: Literal["32", "bf16"] = "32"
    patience: int = 20
    processes: int = 2
    checkpoint_minutes: float = 10.0
    expected_age_weight: float = 0.5
    temperature: float = 2.0
    regressor_epochs: int = 50
    task_weights: TaskWeights = field(default_factory=TaskWeights)
    learned_task_weights: bool = False
    augmentation: AugmentationSpec = field(default_factory=AugmentationSpec)


def training_values(training: TrainingSpec) -> dict[str, Any]:
    """What of a training's settings alters its weights: how often it keeps its step does not."""
    return {name: value for name, value in asdict(training).items() if name != "checkpoint_minutes"}


@dataclass(frozen=True)
class TargetSpec:
    """What the network learns to predict.

    Attributes:
        column: `age_years`, or a column of the clinical table, as a myelination age that somebody has read from the
            scan.
        unit: Of such a column, and of every age that the report shows.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    column: str = "age_years"
    unit: Literal["years", "months"] = "years"

    @property
    def words(self) -> str:
        """What is learnt, in words and without its unit.

        >>> TargetSpec().words, TargetSpec("myelination_age_months", "months").words
        ('age', 'myelination age')
        """
        return self.column.removesuffix("_years").removesuffix("_months").replace("_", " ")


@dataclass(frozen=True)
class EnsembleSpec:
    """Which networks are fitted for one model; each seed is fitted on the persistent parts, or once per fold.

    Attributes:
        folds: Folds of a cross-validation, grouped by subject and stratified by age band and site; 0 fits each seed on
            the persistent parts. Every seed deals its own folds, so that several seeds are a repeated cross-validation.
        placement: On several GPUs, fit members `side_by_side`, one on each, or one after the other by `ddp` over all.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    folds: int = 0
    placement: Literal["side_by_side", "ddp"] = "side_by_side"


@dataclass(frozen=True)
class TrainingRow:
    """One prepared scan as the training job sees it: a local file, its label and its part.

    Attributes:
        scan_id: The scan.
        participant_id: Its subject.
        path: Its `.npy` file.
        target_years: Its label.
        split: Its part.
        tissue_path: Where white matter is segmented, a `.npy` file of its template's tissue priors: CSF, grey and white
            matter on the prepared grid.
    """

    scan_id: str
    participant_id: str
    path: str
    target_years: float
    split: SplitName
    tissue_path: str = ""


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
        channels: Names of the prepared volumes' channels, in order.
        white_matter_folder: Where the scans' white matter is kept for other jobs of the recipe; "" keeps it with the
            outputs.
    """

    network: NetworkSpec
    training: TrainingSpec
    seed: int
    rows: tuple[TrainingRow, ...]
    output_folder: str
    resolution_mm: float
    channels: tuple[Channel, ...] = ("T1w",)
    white_matter_folder: str = ""


@dataclass(frozen=True)
class AgeBias:
    """The line `predicted = alpha × age + beta` of held-out healthy predictions; corrections come from it."""

    alpha: float
    beta_years: float
    n_subjects: int


Outcome = Literal["auto", "numeric", "binary", "ordinal"]
Covariance = Literal["HC3", "HC2", "HC1", "HC0", "nonrobust", "cluster"]


@dataclass(frozen=True)
class AssociationSpec:
    """One declared model.

    Attributes:
        name: Its name in tables.
        formula: Wilkinson notation over the columns of predictions joined with the clinical table, of a safe subset. A
            column that ends in `_baseline` or `_per_year` is made from its stem where the table lacks it.
        cohorts: Names of the cohorts whose rows it uses; empty: every row of the table.
        sessions: `baseline` takes each subject's first session; `all` takes every one and fits a mixed model.
        groups: Grouping column of the random effects (mixed models), and of clusters.
        where: Column → accepted values; rows outside are dropped and counted.
        effects: Terms of interest, which form the FDR family; empty: every term but intercept, age and sex.
        family: Name of the FDR family that the model's effects belong to; models of one name are corrected together.
        outcome: What the response is; `auto` takes two levels for `binary` and everything else for `numeric`.
        levels: Levels of a response that is a category, the lowest first; of two, the last is the event. Empty: sorted.
        event: Column that is 1 where what is waited for happened; the response is then a time, the model Cox's.
        random_slope: Numeric column of the formula whose slope varies by group.
        correlated: Whether random intercept and slope are.
        estimator: REML, or ML to compare fixed effects by likelihood.
        covariance: Of the estimates of least squares; `cluster` takes `groups`.
        contrasts: Correction of pairwise differences of adjusted means: `tukey`, `holm`, or `none` for no contrasts.
        missing: `complete` uses complete rows and counts the others; `error` refuses a table that lacks a value.
        stratify: Column (a site) whose levels are fitted apart and combined by random-effects meta-analysis.
        heterogeneity: Estimator of the variance between strata: REML or Paule-Mandel.
        sensitivity: What is computed beside least squares: Huber's robust regression, partial rank correlation.
        bootstrap: Resamples of subjects for percentile intervals; 0 makes none.
        seed: Of the resamples.
        measurement_sd_years: Standard deviation of brain-PAD's own error, as from test and retest; where brain-PAD is a
            predictor, its slope is shown corrected for it, too. 0: unknown.
        reliability: The same as a share: variance of the true values over that of the measured ones.
        details: Whether rows, diagnostics, adjusted means and sensitivity analyses are kept beside the estimates; left
            out, they are, but for screens.
        screen: Name → values: the formula holds `{name}`, and one model is made for each combination.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    name: str
    formula: str
    cohorts: tuple[str, ...] = ()
    sessions: Literal["baseline", "all"] = "baseline"
    groups: str = "participant_id"
    where: dict[str, tuple[str, ...]] = field(default_factory=dict)
    effects: tuple[str, ...] = ()
    family: str = ""
    outcome: Outcome = "auto"
    levels: tuple[str, ...] = ()
    event: str = ""
    random_slope: str = ""
    correlated: bool = True
    estimator: Literal["REML", "ML"] = "REML"
    covariance: Covariance = "HC3"
    contrasts: Literal["tukey", "holm", "none"] = "tukey"
    missing: Literal["complete", "error"] = "complete"
    stratify: str = ""
    heterogeneity: Literal["REML", "PM"] = "REML"
    sensitivity: tuple[Literal["robust", "spearman"], ...] = ("robust", "spearman")
    bootstrap: int = 0
    seed: int = 0
    measurement_sd_years: float = 0.0
    reliability: float = 0.0
    details: bool | None = None
    screen: dict[str, tuple[str, ...]] = field(default_factory=dict)


def as_json(record: Any) -> str:
    """Write a record as canonical JSON text."""
    return json.dumps(asdict(record), sort_keys=True, allow_nan=False, indent=1)
