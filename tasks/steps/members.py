"""The networks of one model: which there are, which part each subject plays for each, and where their files lie."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pandas as pd

from infra import layout
from infra.storage import Store
from infra.study import Study
from tasks.science.cohort.folds import assign_folds, nested_subset

# What a scan is to a fit that left it out, as beyond `train_subjects`.
NOT_USED = "not used"
MEMBER_FILES = ("weights.safetensors", "report.json", "curves.csv", "predictions.csv")


@dataclass(frozen=True)
class Member:
    """One network of an ensemble: a seed, and in a cross-validation the fold that it is tested on (-1: none)."""

    seed: int
    fold: int = -1

    @property
    def name(self) -> str:
        """Its name in keys, tables and MLflow."""
        return f"seed-{self.seed}" if self.fold < 0 else f"seed-{self.seed}-fold-{self.fold}"

    @property
    def fit_seed(self) -> int:
        """Start of its random streams, another one for each fold."""
        return self.seed if self.fold < 0 else self.seed * 1000 + self.fold


def members_of(study: Study) -> tuple[Member, ...]:
    """Every network that the study's model is made of."""
    if not study.ensemble.folds:
        return tuple(Member(seed) for seed in study.seeds)
    return tuple(Member(seed, fold) for seed in study.seeds for fold in range(study.ensemble.folds))


def member_rows(study: Study, rows: pd.DataFrame, member: Member) -> pd.DataFrame:
    """The part that each scan plays for one member.

    In a cross-validation the persistent parts `train` and `validation` are dealt into folds: the member's own fold is
    its `test`, the next one stops it early, the others train it. `calibration` and `test` stay out of every member.
    Training subjects beyond `train_subjects` are left out of the table.
    """
    if member.fold >= 0:
        dealt = rows["split"].isin(["train", "validation"])
        subjects = rows[dealt].sort_values("years_since_baseline").drop_duplicates("participant_id")
        fold_of = assign_folds(subjects, study.ensemble.folds, member.seed)
        fold = rows.loc[dealt, "participant_id"].map(fold_of)
        following = (member.fold + 1) % study.ensemble.folds
        part = fold.map(lambda number: {member.fold: "test", following: "validation"}.get(number, "train"))
        rows = rows.assign(split=rows["split"].where(~dealt, part))
    if study.train_subjects:
        training = rows["split"] == "train"
        kept = nested_subset(sorted(set(rows.loc[training, "participant_id"])), study.train_subjects, study.splits.seed)
        rows = rows[~training | rows["participant_id"].isin(kept)]
    return rows.reset_index(drop=True)


def member_key(fit_key: str, member: Member, name: str) -> str:
    """Where one file of one member lies."""
    return f"{layout.fit_folder(fit_key)}/{member.name}/{name}"


def member_done(store: Store, fit_key: str, member: Member) -> bool:
    """Whether a member was trained; its predictions are written last."""
    return store.exists(member_key(fit_key, member, MEMBER_FILES[-1]))


def member_predictions(store: Store, fit_key: str, members: tuple[Member, ...]) -> pd.DataFrame:
    """Every member's prediction of every scan of the training cohort.

    Returns:
        Columns seed, fold, scan_id, split (the part that the scan played for that member), target_years and
        predicted_age_years.
    """
    tables = []
    for member in members:
        content = io.BytesIO(store.read(member_key(fit_key, member, "predictions.csv")))
        table = pd.read_csv(content, dtype={"scan_id": str, "split": str})
        tables.append(table.assign(seed=member.seed, fold=member.fold))
    return pd.concat(tables, ignore_index=True)


def parts_of(predictions: pd.DataFrame) -> pd.Series:
    """By scan_id the part that a scan played; several, where members of a cross-validation differ."""
    parts = predictions[["scan_id", "split"]].drop_duplicates()
    return parts.groupby("scan_id")["split"].agg(lambda found: ", ".join(sorted(found)))


def unseen_predictions(predictions: pd.DataFrame, split: str) -> pd.DataFrame:
    """The members' mean prediction of scans that played one part for them.

    `calibration` gives the whole ensemble's mean; `test` in a cross-validation gives for each scan the mean of those
    members alone that have not seen its subject.
    """
    chosen = predictions[predictions["split"] == split]
    return chosen.groupby("scan_id", as_index=False)[["target_years", "predicted_age_years"]].mean()
