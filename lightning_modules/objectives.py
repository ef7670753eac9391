"""Which module fits a job, and the scans that it alone needs."""

from __future__ import annotations

from pathlib import Path

from tasks.records import TrainingJob

from .augmentation import Augmentation
from .brain_age_module import BrainAgeModule
from .data import PreparedScans
from .rank_n_contrast_module import MOST_READOUT_SCANS, RankNContrastModule


def module_class(job: TrainingJob) -> type[BrainAgeModule] | type[RankNContrastModule]:
    """What a job's fit minimises, by its objective and its network."""
    if job.training.objective == "rank_n_contrast":
        return RankNContrastModule
    if job.network.name == "multitask_unet":
        from .multitask_module import MultitaskModule

        return MultitaskModule
    return BrainAgeModule


def segments_white_matter(job: TrainingJob) -> bool:
    """Whether a job's training scans must bring their white matter along."""
    multitask = job.network.name == "multitask_unet" and job.training.objective == "age"
    return multitask and job.training.task_weights.segmentation > 0


def training_scans(job: TrainingJob, augmentation: Augmentation, views: int) -> PreparedScans:
    """The training scans as a job's module takes them.

    Raises:
        ValueError: White matter is to be segmented, and a scan comes without its template's tissue priors.
    """
    rows = [row for row in job.rows if row.split == "train"]
    if not segments_white_matter(job):
        return PreparedScans(rows, augmentation, views)
    from .white_matter import ScansWithWhiteMatter

    without = [row.scan_id for row in rows if not row.tissue_path]
    if without:
        raise ValueError(
            f"multitask_unet segments white matter, and {len(without)} training scans have no tissue_path, the first "
            f"is {without[0]}; give the template's tissue priors, or set task_weights.segmentation = 0."
        )
    folder = Path(job.white_matter_folder or Path(job.output_folder) / "white-matter")
    return ScansWithWhiteMatter(rows, augmentation, job.channels, folder)


def readout_scans(job: TrainingJob) -> PreparedScans:
    """The training scans by which Rank-N-Contrast's validation reads ages: always the same ones."""
    return PreparedScans([row for row in job.rows if row.split == "train"][:MOST_READOUT_SCANS])
