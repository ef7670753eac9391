"""The study: everything that alters results, and nothing about where they are computed."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from tasks.records import (
    FORBID_UNKNOWN_KEYS,
    AssociationSpec,
    EnsembleSpec,
    ExplanationMethod,
    NetworkSpec,
    Recipe,
    Role,
    TargetSpec,
    TrainingSpec,
    digest,
)
from tasks.science.cohort.outliers import Limit
from tasks.science.imaging.degradations import Degradation, DegradationKind
from tasks.science.statistics.gate_spec import PromotionSpec

AGE_BAND = "age_band"
"""What `validation.groups` calls bands of age, which no table has as a column."""
GROUPS = ("site", "scanner", "sex", AGE_BAND)
"""Parts of a cohort that every validation looks at, where a cohort knows them."""


@dataclass(frozen=True)
class CohortSpec:
    """One cohort of the study.

    Attributes:
        name: Its name in keys, tables and the report.
        role: `train` (healthy), `external` (healthy, never trained on) or `clinical` (patients and their controls).
        root: BIDS root: a URL, or a path relative to the data folder (`--data`, `PADFLOW_DATA`).
        select: Column of the clinical table → accepted values; other subjects are unused.
        apart: Its scans are predicted and shown one by one, and take no part in any statistic.
        phantom: Fields of a phantom cohort that is written below the data folder where it is absent.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    name: str
    role: Role
    root: str
    select: dict[str, tuple[str | float, ...]] = field(default_factory=dict)
    apart: bool = False
    phantom: dict[str, Any] | None = None


@dataclass(frozen=True)
class SplitSpec:
    """Parts of the training cohort, by subject; `calibration` is seen by nothing but age-bias and interval fits."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    train: float = 0.7
    validation: float = 0.15
    calibration: float = 0.15
    test: float = 0.0
    seed: int = 0

    def fractions(self) -> dict[str, float]:
        """The parts that are used, by name."""
        parts = {name: getattr(self, name) for name in ("train", "validation", "calibration", "test")}
        return {name: fraction for name, fraction in parts.items() if fraction > 0}


@dataclass(frozen=True)
class RobustnessSpec:
    """How scans are made worse, to see how the error grows; off unless `subjects` says of how many.

    Attributes:
        subjects: Of each external cohort, one scan each, spread evenly over age; 0 is off. Each is prepared once per
            degradation.
        slices_mm: Thicknesses of simulated axial slices.
        noise: Standard deviations of Rician noise, as shares of the mean signal.
        bias_field: Standard deviations of the logarithm of smooth fields; 0.1 is about the 40% of BrainWeb's phantoms.
        header_turn_degrees: Turns of the head that the header claims and the voxels do not show.
        seed: Of noise, fields and turns.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    subjects: int = 0
    slices_mm: tuple[float, ...] = (3.0, 5.0, 7.0)
    noise: tuple[float, ...] = (0.05, 0.1, 0.2)
    bias_field: tuple[float, ...] = (0.1, 0.2, 0.4)
    header_turn_degrees: tuple[float, ...] = (90.0,)
    seed: int = 0

    @property
    def degradations(self) -> tuple[Degradation, ...]:
        """Every kind at every strength."""
        strengths: dict[DegradationKind, tuple[float, ...]] = {
            "thicker_slices": self.slices_mm,
            "noise": self.noise,
            "bias_field": self.bias_field,
            "header_turn": self.header_turn_degrees,
        }
        return tuple(Degradation(kind, strength, self.seed) for kind, each in strengths.items() for strength in each)


@dataclass(frozen=True)
class ValidationSpec:
    """How external validation resamples, what it stratifies by, and who counts as a control or as a retest.

    Attributes:
        resamples: Bootstrap draws of subjects.
        seed: Of the draws.
        groups: Columns of the clinical table by which metrics are given, and `age_band`. Of the default ones, a cohort
            has those that it knows; one that the study names must be a column of some cohort.
        controls: Column → values that make somebody in a clinical cohort a healthy control, in the report and for the
            gates of promotion. External cohorts are healthy.
        retest_days: Two sessions of a subject at most this far apart are test and retest; sessions further apart are
            longitudinal.
        robustness: The same scans made worse.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    resamples: int = 10_000
    seed: int = 0
    groups: tuple[str, ...] = GROUPS
    controls: dict[str, tuple[str | float, ...]] = field(
        default_factory=lambda: {"diagnosis": ("HC", "CU", "CN", "NC", "control", "healthy", "healthy control")}
    )
    retest_days: float = 90.0
    robustness: RobustnessSpec = field(default_factory=RobustnessSpec)


@dataclass(frozen=True)
class RetrainingSpec:
    """When scheduled preprocessing asks for another model, by an event.

    Attributes:
        min_new_scans: Scans of the training cohorts that no version of the model was trained on.
        max_shift: Standard deviations by which the mean of a quality figure of these differs from the others'.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    min_new_scans: int = 20
    max_shift: float = 0.5


@dataclass(frozen=True)
class QualitySpec:
    """Which prepared scans are good enough. No part of the recipe: changing it recomputes no scan.

    Attributes:
        max_robust_z: Robust standard deviations from what is usual at a scan's site beyond which it is an outlier.
        limits: Quality figure → lowest (`min`) and highest (`max`) value that the study accepts.
        on_limit: `exclude` or `flag` a scan beyond a limit.
        on_outlier: `exclude` or `flag` an outlier. Outlying anatomy never excludes: it may be the disease.
        site: Column of the clinical table that names the scanner; scans are compared within it.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    max_robust_z: float = 4.0
    limits: dict[str, Limit] = field(default_factory=dict)
    on_limit: Literal["exclude", "flag"] = "exclude"
    on_outlier: Literal["exclude", "flag"] = "flag"
    site: str = "site"

    @property
    def can_exclude(self) -> bool:
        """Whether any figure can exclude a scan: if not, nobody has to read figures to know what is prepared."""
        return self.on_outlier == "exclude" or (self.on_limit == "exclude" and bool(self.limits))


@dataclass(frozen=True)
class ExplanationSpec:
    """Which maps show where the model reads age, and of whose scans. Changing it redoes the maps alone.

    Attributes:
        methods: `smoothgrad` (how strongly each voxel moves the predicted age), `grad_ram` (what raises and what lowers
            it, in the network's last feature maps), `grad_cam` (the part of that which raises it); empty makes none.
        subjects: Most of them; one scan each, spread evenly over age.
        cohort: Whose scans; "" takes the first external cohort, else the first clinical, else the first there is.
        atlas: Label image in the template's space (path or URL of a NIfTI); "" takes tissues and, in MNI space, known
            cortical and subcortical places.
        names: TSV with the columns `index` and `name` of the atlas.
        seed: Of SmoothGrad's noise, and of the halves whose means are compared.
        atlas_sha256: Digest of the bytes of `atlas` and `names`; padflow fills it in and refuses changed files.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    methods: tuple[ExplanationMethod, ...] = ()
    subjects: int = 20
    cohort: str = ""
    atlas: str = ""
    names: str = ""
    seed: int = 0
    atlas_sha256: str = ""


@dataclass(frozen=True)
class Study:
    """A whole study. Each step receives only the parts that it uses, so a changed part redoes only its own steps.

    Attributes:
        name: Names the study's folder in the store and its MLflow experiment.
        cohorts: Where the scans are and what each cohort is for.
        recipe: How scans are prepared.
        network: The network's shape.
        training: How it is fitted.
        splits: Parts of the training cohort.
        target: What the network learns to predict.
        ensemble: Folds and placement of the members.
        seeds: One ensemble member is trained per seed, and per fold; left out, five members are.
        train_subjects: Most subjects that are trained on, for a learning curve; 0 takes all. A smaller number takes a
            part of a larger one's, and validation and calibration stay as they are.
        arm: Name of this model among those that its study compares; "" where there is one alone.
        models: The models that the study compares, each a whole study of its own; the first is the primary one.
        validation: Bootstrap of the external metrics.
        promotion: Gates between a new model and the champion.
        retraining: When new scans ask for another model.
        quality: Which prepared scans are good enough.
        associations: Declared models of brain-PAD.
        explanation: Maps of where the model reads age.
        excluded_tolerance: Share of excluded scans above which the command line ends with exit code 3.
        registered_model: Name in the MLflow registry.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    name: str
    cohorts: tuple[CohortSpec, ...]
    recipe: Recipe = field(default_factory=Recipe)
    network: NetworkSpec = field(default_factory=NetworkSpec)
    training: TrainingSpec = field(default_factory=TrainingSpec)
    splits: SplitSpec = field(default_factory=SplitSpec)
    target: TargetSpec = field(default_factory=TargetSpec)
    ensemble: EnsembleSpec = field(default_factory=EnsembleSpec)
    seeds: tuple[int, ...] = ()
    train_subjects: int = 0
    arm: str = ""
    models: tuple[Study, ...] = ()
    validation: ValidationSpec = field(default_factory=ValidationSpec)
    promotion: PromotionSpec = field(default_factory=PromotionSpec)
    retraining: RetrainingSpec = field(default_factory=RetrainingSpec)
    quality: QualitySpec = field(default_factory=QualitySpec)
    associations: tuple[AssociationSpec, ...] = ()
    explanation: ExplanationSpec = field(default_factory=ExplanationSpec)
    excluded_tolerance: float = 0.1
    registered_model: str = "brain-age"

    def digest(self) -> str:
        """Name the study by its content."""
        return digest(asdict(self))

    @property
    def arms(self) -> tuple[Study, ...]:
        """One study per model that is compared; itself where it has one model alone."""
        return self.models or (self,)

    def cohorts_of(self, *roles: str) -> list[CohortSpec]:
        """The cohorts that have one of the given roles, in the order of the file."""
        return [cohort for cohort in self.cohorts if cohort.role in roles]


def resolve_root(root: str, data: str) -> str:
    """Where a cohort lies: a URL or absolute path as it stands, anything else below the data folder.

    >>> resolve_root("site-a", "s3://bucket/raw")
    's3://bucket/raw/site-a'
    >>> resolve_root("s3://site-a/bids", "/data")
    's3://site-a/bids'
    """
    if "://" in root or root.startswith("/"):
        return root
    base = data if "://" in data else os.path.abspath(data)  # noqa: PTH100 (resolving links would change the key)
    return base.rstrip("/") + "/" + root.strip("/") if root.strip("/.") else base.rstrip("/")
